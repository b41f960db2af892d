"""Small agents, examples and an allow-list that the tests of this stage share."""

from collections.abc import Mapping

from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.agents.reading import example_id

ALLOWED = AllowList(
    tools=frozenset({"json:loads", "math:sqrt"}),
    entrypoints=frozenset({"sample.programs:*"}),
    metrics=frozenset({"sample_metrics:*", "sample.rewards:short"}),
    http_hosts=frozenset({"localhost:8080", "agents.example.com", "*.example.org"}),
)

SIGNATURE = {"instructions": "Answer.", "inputs": ["question"], "outputs": ["answer"]}

MINIMAL: Mapping[AgentKind, dict[str, object]] = {
    AgentKind.PREDICT: {"signature": SIGNATURE},
    AgentKind.CHAIN_OF_THOUGHT: {"signature": SIGNATURE},
    AgentKind.REACT: {"signature": SIGNATURE, "tools": ["json:loads"]},
    AgentKind.PROGRAM_OF_THOUGHT: {"signature": SIGNATURE},
    AgentKind.CODE_ACT: {"signature": SIGNATURE, "tools": ["json:loads"]},
    AgentKind.BEST_OF_N: {"signature": SIGNATURE, "options": {"reward": "sample.rewards:short", "n": 3}},
    AgentKind.REFINE: {"signature": SIGNATURE, "options": {"reward": "sample.rewards:short"}},
    AgentKind.MULTI_CHAIN: {"signature": SIGNATURE, "options": {"m": 3}},
    AgentKind.PIPELINE: {"steps": [{"name": "first", "agent": {"kind": "predict", "signature": SIGNATURE}}]},
    AgentKind.ENTRYPOINT: {"entrypoint": "sample.programs:triage"},
    AgentKind.HTTP: {"http": "http://localhost:8080/run"},
}


def minimal(kind: AgentKind, **more: object) -> dict[str, object]:
    """Return the shortest JSON of an agent of a kind, with more keys."""
    return {"name": "sample", "kind": kind.value, **MINIMAL[kind], **more}


def agent(signature: object = "question -> answer", kind: str = "predict") -> AgentConfig:
    """Return an agent with a signature."""
    return agent_from_json({"name": "sample", "kind": kind, "signature": signature}, allowed=ALLOWED)


def example(question: str, answer: object = "yes", cluster: str | None = None, **metadata: object) -> Example:
    """Return an example with one question and one answer."""
    inputs = {"question": question}
    expected = {} if answer is None else {"answer": answer}
    return Example(
        id=example_id(inputs, expected), inputs=inputs, expected=expected, cluster=cluster, metadata=metadata
    )


def answered(value: object, field: str = "answer") -> Prediction:
    """Return a prediction with one output."""
    return Prediction(outputs={field: value})
