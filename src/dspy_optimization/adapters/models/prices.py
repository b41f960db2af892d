"""What a token costs: from LiteLLM's own table, read as a file, because importing LiteLLM takes seconds."""

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Price
from dspy_optimization.events import Json

LOCAL = Price(prompt_usd=0.0, completion_usd=0.0)
"""Of a model that runs on this machine: it takes time, not dollars."""

_TABLE = "model_prices_and_context_window_backup.json"
_CHAT = ("chat", "completion", "responses")


def litellm_table() -> Mapping[str, Json]:
    """Return LiteLLM's table as installed: model → facts. About 3 MB of JSON, 50 ms.

    Raises:
        InvalidRequestError: LiteLLM is not installed whole.
    """
    spec = importlib.util.find_spec("litellm")  # finds it without importing it
    if spec is None or spec.origin is None:
        raise InvalidRequestError("prices: wanted the package litellm, found none; possible: install the project again")
    path = Path(spec.origin).parent / _TABLE
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"prices: wanted LiteLLM's table {_TABLE}, found {error}; "
            "possible: install litellm again, or state the price of every model in the settings"
        ) from error
    return table if isinstance(table, dict) else {}


def known_price(model: str, table: Mapping[str, Json]) -> Price | None:
    """Return the price of a LiteLLM model string; None: the table does not know it.

    It is the list price of the plain call: no discount for cached prompts or batches, no surcharge for very long
    ones. Looks for the whole string, then without its provider when the entry belongs to that provider.
    """
    provider, slash, name = model.partition("/")
    for key in (model, name) if slash else (model,):
        entry = table.get(key)
        if not isinstance(entry, dict) or entry.get("mode") not in _CHAT:
            continue
        if key != model and entry.get("litellm_provider") != provider:
            continue
        price = _price(entry)
        if price is not None:
            return price
    return None


def _price(entry: Mapping[str, Json]) -> Price | None:
    prompt, completion = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if not _is_amount(prompt) or not _is_amount(completion):
        return None
    # Rounded: 1.5e-07 a token is 0.15 a million, not 0.15000000000000002.
    return Price(prompt_usd=round(_number(prompt) * 1e6, 9), completion_usd=round(_number(completion) * 1e6, 9))


def _is_amount(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
