"""Students: programs whose failures are data."""

import inspect

import dspy
import pytest
from search_world import FakeRun, Shouter, agent_of, examples, problem_of

from dspy_optimization.adapters.dspy.bootstrap import BootstrapFewShot
from dspy_optimization.adapters.dspy.latch import LatchedRun, SearchBroken
from dspy_optimization.adapters.dspy.runnable import DspyAgent
from dspy_optimization.adapters.dspy.scoring import BootstrapMetric, ProgramMetric, Scored, dspy_example
from dspy_optimization.adapters.dspy.search import DspySearch, dspy_search
from dspy_optimization.adapters.dspy.student import run_behind, student_of
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.errors import InfrastructureFailed, ModelError, StoreError

EXAMPLE = dspy_example(examples(["apple"])[0], Split.TRAIN)


class Odd(dspy.Module):
    """Does what it is told."""

    def __init__(self, does: object) -> None:
        super().__init__()
        self.say = dspy.Predict("word -> answer")
        self.does = does

    def forward(self, word: str) -> object:
        if isinstance(self.does, BaseException):
            raise self.does
        return self.does


def student(does: object, run: FakeRun | None = None) -> dspy.Module:
    """Return a student of that program."""
    latched = LatchedRun(run if run is not None else FakeRun(agent_of()))
    return student_of(Odd(does), latched, prices={}, adapter=dspy.ChatAdapter())


@pytest.mark.parametrize(
    ("does", "failure"),
    [
        (ValueError("no"), "ValueError: no"),
        ("text", "TypeError: the program is to return a dspy.Prediction, found str"),
        (dspy.LMInvalidRequestError("too long"), "LMInvalidRequestError: too long"),
    ],
)
def test_a_program_that_fails_is_a_prediction_with_a_reason(does: object, failure: str) -> None:
    """DSPy would make a bare 0.0 of it."""
    run = run_behind(student(does)(word="apple"))

    assert failure == run.prediction.failure
    assert {} == run.prediction.outputs


def test_an_example_or_a_mapping_is_an_answer() -> None:
    """What a program may return, runs outside of searches included."""
    for does in (dspy.Prediction(answer="A"), dspy.Example(answer="A"), {"answer": "A"}):
        answer = student(does)(word="apple")

        assert "A" == answer.answer
        assert {"answer": "A"} == run_behind(answer).prediction.outputs


@pytest.mark.parametrize(
    ("does", "ends_as"),
    [
        (StoreError("no database"), InfrastructureFailed),
        (dspy.LMTransportError("no network"), InfrastructureFailed),
        (dspy.LMUnexpectedError("a bug below DSPy"), SearchBroken),
    ],
)
def test_what_is_nobodys_score_ends_the_search(does: Exception, ends_as: type[BaseException]) -> None:
    """As `DspyAgent.run` has it."""
    with pytest.raises(ends_as, match=str(does)):
        student(does)(word="apple")


def test_a_student_looks_like_its_program() -> None:
    """MIPROv2 and SIMBA show its source to the model that proposes."""
    one = student("x")

    assert "Odd" == type(one).__name__
    assert "class Odd(dspy.Module)" in inspect.getsource(type(one))
    assert isinstance(one.deepcopy(), Odd)
    assert ["say"] == [name for name, _ in one.named_predictors()]


def test_copies_are_students_too() -> None:
    """Optimizers copy all the time."""
    assert run_behind(student(ValueError("no")).deepcopy()(word="apple")).prediction.failure == "ValueError: no"


@pytest.mark.parametrize("kind", [AgentKind.PREDICT, AgentKind.CHAIN_OF_THOUGHT, AgentKind.PIPELINE])
@pytest.mark.parametrize("garbled", [False, True])
def test_a_student_does_what_the_agent_does(kind: AgentKind, garbled: bool) -> None:
    """Same prediction, same steps, same usage, from the same calls: the ledger pays once."""
    agent: DspyAgent = agent_of(kind)
    run = FakeRun(agent, model=Shouter(garbled=lambda word: garbled and word == "apple"))
    inputs = {"word": "apple"}
    expected = agent.run(agent.baseline, inputs, run)
    paid = len(run.paid)
    with dspy_search(problem_of(BootstrapFewShot(), agent), run, "x") as search:
        got = run_behind(search.student(**inputs))

    assert expected == got.prediction
    assert paid == len(run.paid)
    assert garbled is (got.unreadable is not None)


def test_a_run_is_scored_once() -> None:
    """However often DSPy asks."""
    run = FakeRun(agent_of())
    metric = ProgramMetric(LatchedRun(run), Objectives(items=(Objective(metric="shout"),)))
    prediction = student({"answer": "APPLE"}, run)(word="apple")
    first, second = metric(EXAMPLE, prediction), metric(EXAMPLE, prediction)

    assert 1.0 == first == second
    assert 1 == len(run.scored)
    assert first.result is second.result


def test_what_no_student_made_is_a_failure() -> None:
    """SIMBA asks for the worth of nothing."""
    run = FakeRun(agent_of())
    scored = ProgramMetric(LatchedRun(run), Objectives(items=(Objective(metric="shout"),)))(EXAMPLE, None)

    assert isinstance(scored, Scored)
    assert "the program gave no prediction" == scored.result.failure


def test_full_marks_need_every_metric_that_has_a_best_value() -> None:
    """Cost has none; a guardrail is no goal."""
    goals = Objectives(
        items=(
            Objective(metric="shout"),
            Objective(metric="cost", direction=Direction.MINIMIZE),
            Objective(metric="safe", guardrail=True),
        ),
        ceilings={"shout": 2.0},
    )
    run = FakeRun(agent_of())
    score = run.metric(examples(["apple"])[0], run_behind(student({"answer": "APPLE"})(word="apple")).prediction)

    assert not goals.full_marks({"shout": score})
    assert Objectives(items=goals.items).full_marks({"shout": score})
    assert not Objectives(items=goals.items[1:]).full_marks({"shout": score})


def test_a_bootstrap_metric_says_yes_or_no_when_it_is_given_a_trace() -> None:
    """`bool(dspy.Prediction(score=0.0))` is True; this is False."""
    run = FakeRun(agent_of())
    objectives = Objectives(items=(Objective(metric="shout"),))
    wrong, right = (student({"answer": text}, run)(word="apple") for text in ("apple", "APPLE"))
    for threshold in (None, 0.5):
        metric = BootstrapMetric(LatchedRun(run), objectives, threshold)

        assert metric(EXAMPLE, wrong, []) is False
        assert metric(EXAMPLE, right, []) is True
        assert 0.0 == metric(EXAMPLE, wrong)


def test_examples_show_nothing_but_their_fields() -> None:
    """`repr` goes into MIPROv2's prompts; metadata is for metrics alone."""
    assert "Example({'word': 'apple', 'answer': 'APPLE'}) (input_keys={'word'})" == repr(EXAMPLE)


def test_a_dead_model_in_a_search_keeps_what_was_recorded() -> None:
    """The error says what, the trials before it stay."""

    class Dying(FakeRun):
        def call(self, role: object, request: object) -> object:
            if self.recorded:
                raise ModelError("away")
            return super().call(role, request)

    agent = agent_of()
    run = Dying(agent)

    def search(one: DspySearch) -> None:
        dspy.Evaluate(devset=one.valset, metric=one.metric)(one.student)
        dspy.Evaluate(devset=one.trainset, metric=one.metric)(one.student)

    with (
        pytest.raises(InfrastructureFailed, match="away"),
        dspy_search(problem_of(BootstrapFewShot(), agent), run, "x") as opened,
    ):
        search(opened)

    assert 1 == len(run.recorded)
