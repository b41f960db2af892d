"""Running and scoring."""

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest

from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.errors import (
    BudgetSpent,
    CancelRequested,
    InfrastructureFailed,
    InvalidRequestError,
    ModelError,
    ModelRequestError,
    ProgramError,
    StopSearch,
    StoreError,
)
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_agent import ScriptedAgent, question
from dspy_optimization.testing.scripted_model import ScriptedModel

QUALITY = Objectives(items=(Objective(metric="quality"),))


class Quality:
    """1 for an answer that is the expected one; told what to do instead by `odd`."""

    name = "quality"
    floor = -1.0
    ceiling = 1.0

    def __init__(self, odd: Callable[[Example], float] | None = None) -> None:
        self._odd = odd

    def score(self, example: Example, prediction: Prediction) -> Score:
        if self._odd is not None:
            return Score(value=self._odd(example))
        if prediction.failure is not None:
            return Score(value=self.floor, feedback=f"expected {example.expected}", failure=prediction.failure)
        return Score(value=float(prediction.outputs["answer"] == example.expected["answer"]), feedback="compared")


class Direct:
    """Calls that go to the model at once, as long as nobody stops them."""

    def __init__(self, model: ScriptedModel, stop: StopSignal | None = None) -> None:
        self._model = model
        self._stop = stop or StopSignal()

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        self._stop.check()
        return self._model.complete(request)


def echo(request: ModelRequest) -> str:
    """Answer with the question."""
    return asked(request)


def asked(request: ModelRequest) -> str:
    messages = request.body["messages"]
    assert isinstance(messages, list)
    return str(messages[-1]["content"]).removeprefix('{"question":"').removesuffix('"}')


def evaluate(
    model: ScriptedModel,
    texts: list[str],
    *,
    agent: ScriptedAgent | None = None,
    metric: Quality | None = None,
    concurrency: int = 4,
    stop: StopSignal | None = None,
) -> tuple[ExampleResult, ...]:
    agent, stop = agent or ScriptedAgent(), stop or StopSignal()
    with Evaluator(agent, [metric or Quality()], QUALITY, concurrency=concurrency) as evaluator:
        examples = [question(text, expected=text) for text in texts]
        return evaluator.evaluate(agent.baseline, examples, Direct(model, stop), stop)


def test_results_come_in_the_order_of_the_examples() -> None:
    """However long each took; scores, outputs and usage with them."""

    def answer(request: ModelRequest) -> str:
        time.sleep(0.05 if asked(request) == "0" else 0.0)
        return "5" if asked(request) == "3" else asked(request)

    results = evaluate(ScriptedModel(answer, latency_seconds=0.001), [str(number) for number in range(12)])

    assert [result.example_id for result in results] == [str(number) for number in range(12)]
    assert [result.scores["quality"].value for result in results] == [1.0] * 3 + [0.0] + [1.0] * 8
    assert results[3].outputs == {"answer": "5"}
    assert results[3].scores["quality"].feedback == "compared"
    assert (results[3].usage.lm_calls, results[3].usage.latency_seconds, results[3].failure) == (1, 0.001, None)


def test_no_examples_no_results() -> None:
    """Nothing to run is no mistake; an ended search is still told."""
    assert evaluate(ScriptedModel(), []) == ()
    stop = StopSignal()
    stop.stop(CancelRequested("enough"))
    with pytest.raises(CancelRequested):
        evaluate(ScriptedModel(), [], stop=stop)


def test_an_answer_that_cannot_be_used_is_worth_the_floor() -> None:
    """A program failure is a score with its reason, in the metric's own words."""
    (result,) = evaluate(ScriptedModel(lambda _: "!answer: not a number"), ["1"])

    assert result.scores == {
        "quality": Score(value=-1.0, feedback="expected {'answer': '1'}", failure="answer: not a number")
    }
    assert (result.failure, dict(result.outputs), result.usage.lm_calls) == ("answer: not a number", {}, 1)


def test_a_metric_that_ignores_a_failure_gives_its_floor() -> None:
    """No metric can make a number out of an answer that is not there; what an operational one says stands."""

    class Took:
        name, floor, ceiling = "took", 0.0, None

        def score(self, example: Example, prediction: Prediction) -> Score:
            return Score(value=7.0, feedback="7 seconds", failure=prediction.failure)

    failed = Prediction(outputs={}, failure="no answer")
    with Evaluator(ScriptedAgent(), [Quality(lambda _: 0.9), Took()], QUALITY, concurrency=1) as evaluator:
        scores = evaluator.score(question("1"), failed, Direct(ScriptedModel()))

    assert scores == {
        "quality": Score(value=-1.0, feedback="no answer", failure="no answer"),
        "took": Score(value=7.0, feedback="7 seconds", failure="no answer"),
    }


@pytest.mark.parametrize("error", [ProgramError("no field answer"), ModelRequestError("context too long")])
def test_a_program_that_raises_failed_on_that_example_alone(error: Exception) -> None:
    """The others are scored as ever, and nothing stops."""

    def before(inputs: Mapping[str, Json]) -> None:
        if inputs["question"] == "1":
            raise error

    stop = StopSignal()
    results = evaluate(ScriptedModel(echo), ["0", "1", "2"], agent=ScriptedAgent(before=before), stop=stop)

    assert [result.scores["quality"].value for result in results] == [1.0, -1.0, 1.0]
    assert results[1].failure == results[1].scores["quality"].failure == str(error)
    assert stop.reason is None


@pytest.mark.parametrize("error", [ModelError("gone"), StoreError("away")])
@pytest.mark.parametrize("place", ["agent", "metric"])
def test_an_infrastructure_failure_is_never_a_score(error: ModelError | StoreError, place: str) -> None:
    """It ends the evaluation as a stop that nobody can swallow, and is set on the signal."""

    def fail(_: object) -> float:
        raise error

    agent = ScriptedAgent(before=fail) if place == "agent" else ScriptedAgent()
    metric = Quality(fail) if place == "metric" else Quality()
    stop = StopSignal()
    with pytest.raises(InfrastructureFailed) as failed:
        evaluate(ScriptedModel(echo), ["1"], agent=agent, metric=metric, stop=stop)

    assert failed.value.error is error
    assert stop.reason is failed.value


def test_a_judge_that_is_refused_cannot_tell() -> None:
    """The same error that is the program's failure in the agent is none in a metric."""

    def refuse(_: Example) -> float:
        raise ModelRequestError("rubric too long")

    with pytest.raises(InfrastructureFailed, match="rubric too long"):
        evaluate(ScriptedModel(echo), ["1"], metric=Quality(refuse))


def test_a_wrong_metric_stops_the_run_and_names_the_example() -> None:
    """So does a score that is no number."""

    def wrong(_: Example) -> float:
        raise InvalidRequestError("expected.answer is missing")

    with pytest.raises(InvalidRequestError, match=r"^metric quality, example 1: expected\.answer is missing$"):
        evaluate(ScriptedModel(echo), ["1"], metric=Quality(wrong))
    for value in (float("nan"), float("inf")):
        with pytest.raises(InvalidRequestError, match=rf"^metric quality, example 1: wanted: a finite .*: {value};"):
            evaluate(ScriptedModel(echo), ["1"], metric=Quality(lambda _, value=value: value))


def test_the_first_stop_cancels_what_was_not_begun() -> None:
    """It comes out with its own type, running examples end at their next call, and then nothing runs any more."""
    stop = StopSignal()
    reason = BudgetSpent("max_lm_calls", 3.0)

    def answer(request: ModelRequest) -> str:
        if asked(request) == "2":
            raise reason
        return asked(request)

    model, agent = ScriptedModel(answer, latency_seconds=0.02), ScriptedAgent()
    examples = [question(str(number)) for number in range(200)]
    with Evaluator(agent, [Quality()], QUALITY, concurrency=2) as evaluator:
        with pytest.raises(BudgetSpent) as stopped:
            evaluator.evaluate(agent.baseline, examples, Direct(model), stop)
        asked_then, in_flight = len(model.requests), model.in_flight
        time.sleep(0.05)

        assert stopped.value is reason
        assert (len(model.requests), in_flight) == (asked_then, 0)
        assert asked_then <= 12


def test_a_stop_from_outside_ends_it_within_one_call() -> None:
    """The signal's reason comes out."""
    stop = StopSignal()
    model = ScriptedModel(latency_seconds=0.05)
    timer = threading.Timer(0.08, stop.stop, [CancelRequested("a person asked for the end")])
    timer.start()
    begun = time.monotonic()
    with pytest.raises(CancelRequested, match="a person asked"):
        evaluate(model, [str(number) for number in range(1000)], stop=stop)

    assert time.monotonic() - begun < 1.0
    assert len(model.requests) < 60
    timer.join()


def test_a_wrong_metric_ends_running_examples_at_their_next_call() -> None:
    """No signal is set by a wrong metric; still nothing more is paid."""

    class ThreeCalls(ScriptedAgent):
        def run(self, candidate, inputs, calls):
            for _ in range(3):
                prediction = super().run(candidate, inputs, calls)
            return prediction

    class OneCall(ScriptedAgent):
        def run(self, candidate, inputs, calls):
            if inputs["question"] == "2":
                return Prediction(outputs={"answer": ""})
            return ThreeCalls.run(three, candidate, inputs, calls)

    def wrong(_: Example) -> float:
        time.sleep(0.02)
        raise InvalidRequestError("wrong")

    three = ThreeCalls()
    model = ScriptedModel(latency_seconds=0.4)
    with pytest.raises(InvalidRequestError, match="example 2: wrong"):
        evaluate(model, ["0", "1", "2"], agent=OneCall(), metric=Quality(wrong))

    assert len(model.requests) == 2


def test_whatever_else_is_raised_comes_out_as_it_is() -> None:
    """A bug is not dressed up as a score."""

    def broken(_: Example) -> float:
        raise ZeroDivisionError("in the metric")

    with pytest.raises(ZeroDivisionError, match="in the metric"):
        evaluate(ScriptedModel(echo), ["1"], metric=Quality(broken))


def test_one_pool_serves_all_evaluations_at_once() -> None:
    """Two evaluations in two threads share the threads of the evaluator; each gets its own results."""
    agent, model = ScriptedAgent(), ScriptedModel(echo, latency_seconds=0.02)
    threads: set[str] = set()

    def note(_: Example) -> float:
        threads.add(threading.current_thread().name)
        return 1.0

    with (
        Evaluator(agent, [Quality(note)], QUALITY, concurrency=2) as evaluator,
        ThreadPoolExecutor(2) as callers,
    ):

        def run(name: str) -> list[str]:
            examples = [question(f"{name}{number}") for number in range(10)]
            results = evaluator.evaluate(agent.baseline, examples, Direct(model), StopSignal())
            return [str(result.outputs["answer"]) for result in results]

        assert list(callers.map(run, ["a", "b"])) == [[f"{name}{number}" for number in range(10)] for name in "ab"]
        assert run("c") == [f"c{number}" for number in range(10)]
        assert evaluator.workers == 4
    assert len(threads) <= 4
    assert model.most_in_flight <= 4


@pytest.mark.parametrize(("concurrency", "workers"), [(1, 3), (4, 6), (8, 12), (64, 96)])
def test_more_work_is_begun_than_calls_may_be_in_flight(concurrency: int, workers: int) -> None:
    """Some examples prepare or wait for the ledger while others are answered."""
    with Evaluator(ScriptedAgent(), [Quality()], QUALITY, concurrency=concurrency) as evaluator:
        assert evaluator.workers == workers


def test_the_callers_context_reaches_every_example() -> None:
    """What is bound for logs or tracing around an evaluation is bound inside it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("bound")
    seen: list[str] = []
    evaluate(ScriptedModel(), ["1", "2"], agent=ScriptedAgent(before=lambda _: seen.append(variable.get("unbound"))))

    assert seen == ["bound", "bound"]


def test_metrics_that_ask_a_model_get_the_calls() -> None:
    """A judge's calls go where the agent's go."""

    class Asking:
        name, floor, ceiling = "asking", 0.0, 1.0

        def score_with(self, example: Example, prediction: Prediction, calls: Direct) -> Score:
            calls.call(Role.JUDGE, ModelRequest(body={"messages": [{"role": "user", "content": "grade"}]}))
            return Score(value=0.5)

    agent, model = ScriptedAgent(), ScriptedModel(echo)
    with Evaluator(agent, [Quality(), Asking()], QUALITY, concurrency=1) as evaluator:
        scores = evaluator.score(question("1", expected="1"), Prediction(outputs={"answer": "1"}), Direct(model))

    assert {name: score.value for name, score in scores.items()} == {"quality": 1.0, "asking": 0.5}
    assert [asked(request) for request in model.requests] == ["grade"]


def test_every_objective_needs_its_metric() -> None:
    """The message lists the metrics there are."""
    objectives = Objectives(items=(Objective(metric="quality"), Objective(metric="speed")))
    with pytest.raises(InvalidRequestError, match=r"found: no metric named speed; possible: quality$"):
        Evaluator(ScriptedAgent(), [Quality()], objectives, concurrency=1)
    with pytest.raises(InvalidRequestError, match=r"found: no metric named quality; possible: no metric is given$"):
        Evaluator(ScriptedAgent(), [], QUALITY, concurrency=1)
    with pytest.raises(InvalidRequestError, match=r"found: quality, quality; possible: rename one$"):
        Evaluator(ScriptedAgent(), [Quality(), Quality()], QUALITY, concurrency=1)
    with pytest.raises(InvalidRequestError, match="wanted: concurrency from 1 up; found: 0"):
        Evaluator(ScriptedAgent(), [Quality()], QUALITY, concurrency=0)


def test_an_evaluation_through_the_ledger_can_be_repeated_for_nothing() -> None:
    """Same candidate, same examples, even twice in one list: one call each."""
    store, model, agent = MemoryLedger(), ScriptedModel(echo), ScriptedAgent()
    examples = [question(text, expected=text) for text in ("a", "b", "a")]
    for _ in range(2):
        with (
            LedgerSession.open(
                store,
                OptimizationId(UUID(int=1)),
                models={Role.TASK: model},
                limits=Limits(),
                now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
                warn=lambda _: None,
            ) as session,
            Evaluator(agent, [Quality()], QUALITY, concurrency=4) as evaluator,
        ):
            stop = StopSignal()
            results = evaluator.evaluate(agent.baseline, examples, session.scope("x", stop), stop)

            assert [result.scores["quality"].value for result in results] == [1.0, 1.0, 1.0]
            assert session.paid_calls == 2


def test_a_ledger_that_ends_the_work_ends_the_evaluation() -> None:
    """The budget runs out in the middle: its own stop comes out and is on the signal."""
    model, agent, stop = ScriptedModel(echo), ScriptedAgent(), StopSignal()
    with (
        LedgerSession.open(
            MemoryLedger(),
            OptimizationId(UUID(int=1)),
            models={Role.TASK: model},
            limits=Limits(max_lm_calls=5),
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            warn=lambda _: None,
        ) as session,
        Evaluator(agent, [Quality()], QUALITY, concurrency=4) as evaluator,
    ):
        with pytest.raises(StopSearch) as stopped:
            evaluator.evaluate(
                agent.baseline, [question(str(number)) for number in range(50)], session.scope("x", stop), stop
            )

        assert isinstance(stopped.value, BudgetSpent)
        assert isinstance(stop.reason, BudgetSpent)
        assert session.paid_calls == len(model.requests) == 5
