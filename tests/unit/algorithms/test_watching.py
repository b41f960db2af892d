"""Runs that are watched: what the agent did wrong is a prediction, what the world did wrong ends the search."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from evolution_world import Place, PlainAgent, Right

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, Prediction, Step
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.problem import SearchRun
from dspy_optimization.algorithms.watching import Watched, at_once, watch
from dspy_optimization.errors import (
    CancelRequested,
    InfrastructureFailed,
    ModelBusyError,
    ModelRequestError,
    ProgramError,
    StoreError,
    TurnOver,
)
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.events import Json


@dataclass
class Acting(PlainAgent):
    """Does what it is told for each question."""

    act: Callable[[str], Prediction]

    def __post_init__(self) -> None:
        super().__init__()

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        return self.act(str(inputs["question"]))


@dataclass
class Scoring:
    scored: list[tuple[str, Prediction]] = field(default_factory=list)

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        self.scored.append((example.id, prediction))
        return {"right": Right().score(example, prediction)}


def watched(act: Callable[[str], Prediction], *, concurrency: int = 4, count: int = 8) -> tuple[Watched, ...]:
    place = Place(agent=Acting(act), n_train=count)
    run: SearchRun = Scoring()  # type: ignore[assignment]
    return watch(place.problem(None, concurrency=concurrency), run, place.agent.baseline, place.train)


def right(question: str) -> Prediction:
    step = Step(component=PlainAgent().config.name, inputs={"question": question}, outputs={})  # type: ignore[arg-type]
    return Prediction(outputs={"answer": f"A{question[1:]}"}, steps=(step,))


@pytest.mark.parametrize("concurrency", [1, 3, 20])
def test_runs_come_in_the_order_of_their_examples(concurrency: int) -> None:
    """Whoever answers first."""

    def slow_first(question: str) -> Prediction:
        time.sleep(0.02 if question == "Q0" else 0.0)
        return right(question)

    found = watched(slow_first, concurrency=concurrency)

    assert [f"{number:04}" for number in range(8)] == [one.example.id for one in found]
    assert all(one.example.id == one.result.example_id for one in found)
    assert {1.0} == {one.result.scores["right"].value for one in found}
    assert [1] * 8 == [len(one.prediction.steps) for one in found]
    assert "right: expected A0, got A0" == found[0].feedback


@pytest.mark.parametrize("error", [ProgramError("no tool"), ModelRequestError("too long")])
def test_what_the_agent_did_wrong_is_a_prediction_with_a_score(error: Exception) -> None:
    def fails(question: str) -> Prediction:
        if question == "Q2":
            raise error
        return right(question)

    found = watched(fails)

    assert [1.0, 1.0, 0.0, 1.0] == [one.result.scores["right"].value for one in found[:4]]
    assert str(error) == found[2].prediction.failure == found[2].result.failure
    assert f"right: {error}" == found[2].feedback
    assert {} == found[2].prediction.outputs


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("error", [ModelBusyError("come later"), StoreError("away")])
def test_what_the_world_did_wrong_ends_the_search(error: Exception, concurrency: int) -> None:
    """It is never a score."""

    def fails(question: str) -> Prediction:
        if question == "Q1":
            raise error
        return right(question)

    with pytest.raises(InfrastructureFailed) as ended:
        watched(fails, concurrency=concurrency)
    assert error is ended.value.__cause__


def test_the_end_passes_through_and_nothing_is_begun_after_it() -> None:
    """Of one of three runs at once: the other two are waited for, the rest never begins."""
    began: list[str] = []
    ended: list[str] = []
    three = threading.Barrier(3)

    def act(question: str) -> Prediction:
        began.append(question)
        three.wait(timeout=10)
        if question == "Q1":
            raise TurnOver("enough")
        time.sleep(0.05)
        ended.append(question)
        return right(question)

    with pytest.raises(TurnOver, match="enough"):
        watched(act, concurrency=3, count=20)

    assert ["Q0", "Q1", "Q2"] == sorted(began)
    assert ["Q0", "Q2"] == sorted(ended)


def test_of_several_ends_the_first_in_order_counts() -> None:
    """Which one that is does not depend on who was faster."""
    both = threading.Barrier(2)

    def first() -> None:
        both.wait(timeout=10)
        time.sleep(0.03)
        raise CancelRequested("first")

    def second() -> None:
        both.wait(timeout=10)
        raise TurnOver("second")

    with pytest.raises(CancelRequested, match="first"):
        at_once([first, second], 2, "test")


def test_without_examples_nothing_is_run() -> None:
    assert () == watched(right, count=0)
    assert () == at_once([], 4, "test")
