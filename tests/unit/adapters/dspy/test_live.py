"""Programs and examples handed over as Python objects."""

import dspy
import pytest

from dspy_optimization.adapters.dspy.live import live_agent, records
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.errors import InvalidRequestError


class TwoSteps(dspy.Module):
    """Two predictors and no signature for the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> draft")
        self.second = dspy.Predict("draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.second(draft=self.first(question=question).draft)


@pytest.mark.parametrize(
    ("program", "inputs", "outputs"),
    [
        (dspy.Predict("question, context -> answer"), ("question", "context"), ("answer",)),
        (dspy.ChainOfThought("question -> answer, confidence: float"), ("question",), ("answer", "confidence")),
        (dspy.ReAct("question -> answer", tools=[]), ("question",), ("answer",)),
        (TwoSteps(), (), ()),
    ],
)
def test_flat_records_read_by_the_signature(
    program: dspy.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    """What goes in and out, without the reasoning nobody asked for; nothing where there is no one signature."""
    live = live_agent(program)

    assert (inputs, outputs) == (live.fields.inputs, live.fields.outputs)


def test_a_module_is_named_after_its_class() -> None:
    """The configuration names what only this process has."""
    config = live_agent(TwoSteps()).config

    assert (AgentKind.ENTRYPOINT, "TwoSteps", "live:TwoSteps") == (config.kind, config.name, config.entrypoint)
    assert "live:my_agent" == live_agent(TwoSteps(), "my-agent").config.entrypoint


@pytest.mark.parametrize(
    ("agent", "found"),
    [("question -> answer", "found: str"), (dspy.Module(), "without any"), (None, "found: NoneType")],
)
def test_what_cannot_be_optimized_is_refused(agent: object, found: str) -> None:
    """The message says what is possible."""
    with pytest.raises(InvalidRequestError, match=found):
        live_agent(agent)


def test_examples_become_records() -> None:
    """A dspy.Example says which fields are inputs; everything else passes."""
    example = dspy.Example(question="1 + 1", answer=2).with_inputs("question")

    assert [{"inputs": {"question": "1 + 1"}, "expected": {"answer": 2}}, {"a": 1}] == list(
        records([example, {"a": 1}])
    )


def test_an_example_without_inputs_is_refused() -> None:
    """Which fields may be shown to the agent is not guessed."""
    with pytest.raises(InvalidRequestError, match=r"example 2: .*with_inputs"):
        list(records([{"a": 1}, dspy.Example(question="1 + 1", answer=2)]))


def test_two_programs_of_one_class_are_two_agents() -> None:
    """What a program says belongs to its version; the same again is the same."""
    versions = [
        live_agent(dspy.Predict(dspy.Signature("question -> answer", says))).config.version
        for says in ("Be brief.", "Be thorough.", "Be brief.")
    ]

    assert versions[0] == versions[2] != versions[1]
