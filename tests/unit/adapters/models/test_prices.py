"""What a token costs, by LiteLLM's table."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dspy_optimization.adapters.models.prices import known_price, litellm_table
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Price
from dspy_optimization.events import Json


@pytest.fixture(scope="module")
def table() -> Mapping[str, Json]:
    return litellm_table()


def test_a_known_model_costs_its_list_price(table: Mapping[str, Json]) -> None:
    """gpt-4o-mini: 0.15 and 0.60 dollars a million (OpenAI's price list, 2024-07 to today), by either string."""
    expected = Price(prompt_usd=0.15, completion_usd=0.6)

    assert [known_price("gpt-4o-mini", table), known_price("openai/gpt-4o-mini", table)] == [expected, expected]


@pytest.mark.parametrize("model", ["openai/no-such-model", "nobody/gpt-4o-mini", "", "/", "text-embedding-3-small"])
def test_an_unknown_model_has_no_price(table: Mapping[str, Json], model: str) -> None:
    """Not zero: unknown. Nor is another provider's price its price, nor that of an embedding."""
    assert known_price(model, table) is None


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"mode": "chat"},
        {"mode": "chat", "input_cost_per_token": -1, "output_cost_per_token": 0},
        {"mode": "chat", "input_cost_per_token": True, "output_cost_per_token": 0},
        {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": float("inf")},
    ],
)
def test_half_a_price_is_none(entry: Json) -> None:
    """A table is somebody else's data."""
    assert known_price("m", {"m": entry}) is None


def test_the_table_is_read_without_importing_litellm() -> None:
    """Importing takes seconds; `doctor` and `estimate` need only the table."""
    import subprocess

    code = (
        "import sys; from dspy_optimization.adapters.models.prices import litellm_table; litellm_table();"
        "sys.exit('litellm' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_broken_installation_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package at all, or one without its table."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    with pytest.raises(InvalidRequestError, match="wanted the package litellm, found none"):
        litellm_table()
    (tmp_path / "litellm").mkdir()
    (tmp_path / "litellm" / "__init__.py").touch()
    sys.path_importer_cache.pop(str(tmp_path), None)
    with pytest.raises(InvalidRequestError, match="state the price of every model in the settings"):
        litellm_table()
