"""Tracking beside the optimization: it never costs a result."""

import pytest
from optimization_house import House

from dspy_optimization.errors import TrackingError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import EventType
from dspy_optimization.optimization.request import AlgorithmChoice, OptimizationStatus


def _told(house: House, optimization_id: OptimizationId, kind: EventType) -> list[object]:
    return [one.event.data for one in house.stores.events.events(optimization_id) if one.event.type is kind]


def test_a_tracker_that_is_away_costs_no_result(good_house: House) -> None:
    """The optimization completes, a fact says what is missing, and telling it later makes up for it once."""
    optimization_id = good_house.accepted()
    good_house.tracked.away = True

    ended = good_house.run(optimization_id)

    result = good_house.stores.results.result(optimization_id)
    assert OptimizationStatus.COMPLETED is ended.status
    assert result is not None
    assert result.artifact.mlflow_run_id is None
    assert [{"error": "the tracker is away"}] == _told(good_house, optimization_id, EventType.TRACKING_FAILED)
    with pytest.raises(TrackingError):
        good_house.optimizer.track(optimization_id)

    good_house.tracked.away = False
    assert ["run-1", "run-1"] == [good_house.optimizer.track(optimization_id) for _ in range(2)]
    assert [{"run_id": "run-1"}] == _told(good_house, optimization_id, EventType.TRACKING_RECORDED)


def test_a_tracked_one_needs_no_second_fact(good_house: House) -> None:
    """The id is in the result already."""
    optimization_id = good_house.accepted()
    good_house.run(optimization_id)

    assert "run-1" == good_house.optimizer.track(optimization_id)
    assert [] == _told(good_house, optimization_id, EventType.TRACKING_RECORDED)


def test_a_failed_one_is_told_too_and_one_that_has_not_begun_is_not(good_house: House) -> None:
    """Failed with every algorithm broken; queued there is nothing to tell."""
    broken = good_house.accepted(algorithms=(AlgorithmChoice(name="telling", options={"breaks": True}),))
    waiting = good_house.accepted()

    ended = good_house.optimizer.run(broken, StopSignal())

    assert OptimizationStatus.FAILED is ended.status
    assert [OptimizationStatus.FAILED] == [one.status for one in good_house.tracked.without_result]
    assert "run-1" == good_house.optimizer.track(broken)
    assert good_house.optimizer.track(waiting) is None
