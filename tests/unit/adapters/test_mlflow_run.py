"""What MLflow is told, before it is told."""

import math

import pytest
from report_sample import events, material, optimization

from dspy_optimization.adapters.mlflow_run import facts_of, metric_key
from dspy_optimization.adapters.report.facts import Material, report
from dspy_optimization.events import EventType
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.tenancy import LOCAL_TENANT


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("val/gepa", "val/gepa"),
        ("test/my:metric/p", "test/my_metric/p"),
        ("größe", "gr__e"),
        ("x" * 500, "x" * 240),
        ("/..", "_"),
    ],
)
def test_keys_hold_what_mlflow_takes(name: str, key: str) -> None:
    """Letters, digits, `_-./` and spaces; no path that climbs."""
    assert key == metric_key(name)


def test_the_same_optimization_gives_the_same_facts(whole: Material) -> None:
    """So that telling it twice can be seen to be the same."""
    shown = report(whole, whole.optimization.updated_at)

    assert facts_of(shown, whole, LOCAL_TENANT) == facts_of(shown, whole, LOCAL_TENANT)


def test_numbers_that_are_none_and_progress_without_spend_are_left_out() -> None:
    """MLflow would keep NaN for ever."""
    told = events(
        (EventType.PROGRESS, {"lm_calls": 5, "cost_usd": math.inf, "tokens": None}),
        (EventType.PROGRESS, {"phase": "search"}),
    )
    whole = material(events=told)

    points = facts_of(report(whole, whole.optimization.updated_at), whole, LOCAL_TENANT).points

    assert all(math.isfinite(point.value) for point in points)
    assert {100, 1741} == {point.step for point in points if point.key == "so_far/cost_usd"}


def test_one_that_failed_says_when_it_failed() -> None:
    """There is no completion to take the time from."""
    whole = material(result=None, optimization=optimization(OptimizationStatus.FAILED, error="no"))

    facts = facts_of(report(whole, whole.optimization.updated_at), whole, LOCAL_TENANT)

    assert "FAILED" == facts.status
    assert whole.optimization.updated_at.timestamp() * 1000 == facts.ended_at
    assert ("none", "failed") == (
        facts.tags["dspy_optimization.algorithm"],
        facts.tags["dspy_optimization.ended_because"],
    )
