"""What cannot be sent, and what is said of it."""

from datetime import datetime
from pathlib import Path

import pytest

from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.sdk import Constraints, Examples, OptimizationRequest
from dspy_optimization.sdk.agent_source import named_agent


def test_an_agent_config_of_the_library_is_one() -> None:
    """Without the client knowing the class."""
    config = AgentConfig(
        name="orders",
        kind=AgentKind.PREDICT,
        signature=Signature(instructions="Find it.", inputs=(Field(name="a"),), outputs=(Field(name="b"),)),
    )

    agent = named_agent(config)

    assert ("orders", config.to_json()) == (agent.name, agent.config)


def test_an_agent_file_may_name_another(tmp_path: Path) -> None:
    """Beside it."""
    (tmp_path / "job.yml").write_text("agent: agent.json\n")
    (tmp_path / "agent.json").write_text('{"name": "orders", "kind": "predict"}')

    assert "orders" == named_agent(tmp_path / "job.yml").name


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("agent.txt", "x", "found: .txt"),
        ("agent.yaml", "a: {", "wanted: yaml"),
        ("agent.yaml", "- a", "found: list"),
        ("agent.yaml", "agent: [1]", "agent: wanted: a mapping"),
        ("agent.yaml", "a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("agent.json", "{", "wanted: json"),
        ("agent.json", "\udcff", "wanted: UTF-8"),
        ("agent.json", None, "No such file"),
        ("agent.json", " " * ((1 << 20) + 1), "found: more"),
    ],
)
def test_wrong_agent_files(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    """Each is refused, naming the file."""
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(InvalidRequestError, match=said) as error:
        named_agent(path)

    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("e.csv", "a,b", r"possible: \.jsonl, \.json"),
        ("e.jsonl", "{}\n{", "in line 2"),
        ("e.json", '{"a": 1}', "wanted: a list of examples"),
    ],
)
def test_wrong_files_of_examples(tmp_path: Path, name: str, text: str, said: str) -> None:
    """Each is refused, naming the file."""
    (tmp_path / name).write_text(text)

    with pytest.raises(InvalidRequestError, match=said):
        Examples(items=tmp_path / name).to_json()


def test_wrong_values() -> None:
    """An agent without a name, an objective without a metric, an example that is none, a time without a zone."""
    with pytest.raises(InvalidRequestError, match="found: the keys kind"):
        named_agent({"kind": "predict"})
    with pytest.raises(InvalidRequestError, match="objectives: wanted: a metric"):
        OptimizationRequest(agent="a", examples="d", objectives={"weight": 1}).to_json()
    with pytest.raises(InvalidRequestError, match="examples: wanted: mappings; found: str 'a'"):
        OptimizationRequest(agent="a", examples={"a": 1}).to_json()  # a mapping where a list belongs
    with pytest.raises(InvalidRequestError, match="wanted: a time with a zone"):
        Constraints(deadline=datetime(2026, 3, 1)).to_json()  # noqa: DTZ001


def test_a_reasoning_task_is_a_source() -> None:
    """The service makes the examples."""
    request = OptimizationRequest(agent="a", examples="reasoning_gym:leg_counting?size=200", algorithms=["auto"])

    assert {"source": "reasoning_gym:leg_counting?size=200"} == request.to_json()["dataset"]
    assert ["auto"] == request.to_json()["algorithms"]
