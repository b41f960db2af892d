"""A search that has ended stays ended."""

import contextlib
import threading

import dspy
import pytest
from search_world import FakeRun, agent_of, examples

from dspy_optimization.adapters.dspy.latch import LatchedRun, SearchBroken, SearchOver, counting
from dspy_optimization.agents.example import Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.problem import Progress
from dspy_optimization.errors import (
    CancelRequested,
    InfrastructureFailed,
    InvalidRequestError,
    ModelRequestError,
    StoreError,
)
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role

REQUEST = ModelRequest(body={"messages": []})


class Raising(FakeRun):
    """Raises on the first call and would answer all later ones."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(agent_of())
        self.error = error
        self.asked_again = 0

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        self.asked_again += 1
        if self.asked_again == 1:
            raise self.error
        return ModelResponse(body={}, prompt_tokens=1, completion_tokens=1, latency_seconds=0.0)


@pytest.mark.parametrize("error", [CancelRequested("enough"), KeyboardInterrupt("ctrl-c")])
def test_what_ends_it_is_met_by_every_later_call(error: BaseException) -> None:
    """DSPy's pools go on after a stop; they meet it again."""
    run = Raising(error)
    latched = LatchedRun(run)
    with pytest.raises(type(error)):
        latched.call(Role.TASK, REQUEST)

    for work in (
        lambda: latched.call(Role.TASK, REQUEST),
        lambda: latched.score(examples(["apple"])[0], Prediction(outputs={})),
        lambda: latched.record(run.agent.baseline, Split.VAL, (), 1),
        lambda: latched.submit(run.agent.baseline),
        lambda: latched.report(Progress(phase="x", iteration=1)),
    ):
        with pytest.raises(type(error)) as met:
            work()

        assert met.value is error
    assert 1 == run.asked_again


def test_infrastructure_becomes_a_stop() -> None:
    """DSPy would score it 0."""
    with pytest.raises(InfrastructureFailed, match="no database") as met:
        LatchedRun(Raising(StoreError("no database"))).call(Role.TASK, REQUEST)

    assert isinstance(met.value.error, StoreError)


def test_other_errors_are_carried_and_come_out_as_themselves() -> None:
    """`except Exception` does not see the carrier."""
    latched = LatchedRun(Raising(InvalidRequestError("wrong option")))
    swallow = contextlib.suppress(Exception)  # as DSPy does

    with pytest.raises(InvalidRequestError, match="wrong option"), latched.closing(), swallow:
        latched.call(Role.TASK, REQUEST)


def test_a_refused_request_ends_nothing() -> None:
    """It fails one example."""
    latched = LatchedRun(Raising(ModelRequestError("too long")))
    with pytest.raises(ModelRequestError):
        latched.call(Role.TASK, REQUEST)

    assert latched.call(Role.TASK, REQUEST).prompt_tokens == 1


def test_a_search_can_be_ended_from_inside() -> None:
    """With a stop or with an error."""
    for error, seen in ((CancelRequested("x"), CancelRequested), (ValueError("y"), SearchBroken)):
        latched = LatchedRun(FakeRun(agent_of()))
        with pytest.raises(seen):
            latched.end(error)
        with pytest.raises(seen):
            latched.submit(agent_of().baseline)


def test_threads_left_behind_meet_the_end() -> None:
    """And the search waits for the call that is under way."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(FakeRun):
        def score(self, example: object, prediction: object) -> dict[str, Score]:
            inside.set()
            go_on.wait(5)
            return {}

    latched = LatchedRun(Slow(agent_of()))
    done: list[str] = []

    def left_behind() -> None:
        latched.score(examples(["apple"])[0], Prediction(outputs={}))
        done.append("scored")
        with pytest.raises(SearchOver):
            latched.score(examples(["apple"])[0], Prediction(outputs={}))
        done.append("met the end")

    worker = threading.Thread(target=left_behind)
    with latched.closing():
        worker.start()
        inside.wait(5)
        threading.Timer(0.02, go_on.set).start()
    done.append("closed")
    worker.join()

    assert "scored" in done
    assert {"scored", "met the end", "closed"} == set(done)


def test_calls_are_counted_where_they_are_to_be_counted() -> None:
    """Whoever counts stands between DSPy and the run, in every thread DSPy starts."""
    run = Raising(CancelRequested("never"))
    run.asked_again = 1
    latched = LatchedRun(run)
    counted: list[Role] = []

    class Counter:
        def call(self, role: Role, request: ModelRequest) -> ModelResponse:
            counted.append(role)
            return latched.direct.call(role, request)

    with counting(Counter()):
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(
            [(lambda role: latched.call(Role(role), REQUEST), {"role": "task"}) for _ in range(3)]
        )
    latched.call(Role.TASK, REQUEST)

    assert [Role.TASK] * 3 == counted
    assert 5 == run.asked_again
