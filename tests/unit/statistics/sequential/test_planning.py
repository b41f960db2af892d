"""Planning against the notes' tables and statsmodels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import Plan, days_until, units_at_decision


@pytest.mark.parametrize(
    ("baseline", "share", "effect", "n"),
    [(0.8, 0.1, 0.05, 4561), (0.8, 0.5, 0.05, 1805), (0.6, 0.1, 0.1, 1858), (0.9, 0.1, 0.05, 1805)],
)
def test_fixed_horizons_of_the_research_notes(baseline: float, share: float, effect: float, n: int) -> None:
    """statistics.md 3b, "fixed n for 80 % power", rounded up here."""
    assert Plan(baseline_mean=baseline, treated_share=share).fixed_horizon_units(effect) == pytest.approx(n, abs=1)


@pytest.mark.parametrize(
    ("per_day", "share", "points"),
    [(100, 0.1, 18), (1000, 0.1, 5.8), (10_000, 0.1, 1.8), (100, 0.5, 10.9), (1000, 0.5, 3.4), (10_000, 0.5, 1.1)],
)
def test_planner_table_of_the_research_notes(per_day: int, share: float, points: float) -> None:
    """statistics.md 3b: what 7 days at .8 detect; the notes took 1.66 for 1.7 in the second row."""
    found = Plan(baseline_mean=0.8, treated_share=share).detectable_effect(7 * per_day)

    assert found is not None
    assert 100 * found == pytest.approx(points, rel=0.03)


@pytest.mark.parametrize(("share", "variance", "alpha"), [(0.1, 0.04, 0.05), (0.5, 0.1, 0.05), (0.3, 0.2, 0.0125)])
def test_common_variance_equals_statsmodels(share: float, variance: float, alpha: float) -> None:
    """Two independent means with one variance: `NormalIndPower`, and 1.7 times as many."""
    effect = 0.03
    smaller = NormalIndPower().solve_power(
        effect_size=effect / math.sqrt(variance), alpha=alpha, power=0.8, ratio=(1 - share) / share
    )
    plan = Plan(baseline_mean=0.7, treated_share=share, variance=variance, alpha=alpha)

    assert plan.fixed_horizon_units(effect) == pytest.approx(smaller / share, rel=1e-3, abs=1)
    assert plan.units(effect) == pytest.approx(1.7 * smaller / share, rel=1e-3, abs=1)


def test_near_one_more_is_needed() -> None:
    """At .9 and 10/90 at least 2.3 times the fixed horizon, and no less than where both arms vary alike."""
    plan = Plan(baseline_mean=0.95, treated_share=0.1)
    small = plan.units(0.001) / plan.fixed_horizon_units(0.001)
    large = plan.units(0.04) / plan.fixed_horizon_units(0.04)

    assert small == pytest.approx(2.3, rel=0.001)
    assert large > 2.3
    assert Plan(baseline_mean=0.95, treated_share=0.9).units(0.001) == pytest.approx(
        1.7 * Plan(baseline_mean=0.95, treated_share=0.9).fixed_horizon_units(0.001), rel=0.03
    )


@given(st.floats(0.02, 0.97), st.floats(0.01, 0.99), st.floats(0.01, 1.0))
def test_units_and_effect_are_inverse(baseline: float, share: float, part: float) -> None:
    """The units of an effect detect that effect, and more units a smaller one."""
    plan, effect = Plan(baseline_mean=baseline, treated_share=share), part * (1.0 - baseline)
    units = plan.units(effect)
    found, better = plan.detectable_effect(units), plan.detectable_effect(4 * units)

    assert found is not None
    assert better is not None
    assert found <= effect * (1 + 1e-9)
    assert plan.units(found) <= units + 1
    assert better < found


def test_too_few_units_detect_nothing() -> None:
    """Ten units cannot tell .8 from 1."""
    assert Plan(baseline_mean=0.8, treated_share=0.1).detectable_effect(10) is None


def test_when_it_will_be_decided() -> None:
    """n ln 40 / log E; none without evidence; never before now."""
    assert units_at_decision(1000, 2.0, threshold=40.0) == math.ceil(1000 * math.log(40) / 2)
    assert units_at_decision(1000, 5.0, threshold=40.0) == 1000
    assert units_at_decision(1000, 0.0, threshold=40.0) is None
    assert units_at_decision(1000, -3.0, threshold=40.0) is None
    assert units_at_decision(0, 0.0, threshold=40.0) is None


def test_days() -> None:
    """Missing units at this traffic, and the window of the last one."""
    assert days_until(700, units_per_day=100) == pytest.approx(7.0)
    assert days_until(700, units_per_day=100, window_days=1.0) == pytest.approx(8.0)
    assert days_until(0, units_per_day=0.0) == 0.0
    assert days_until(1, units_per_day=0.0) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"baseline_mean": 1.0}, "baseline_mean must be a probability"),
        ({"treated_share": 0.0}, "treated_share must be a probability"),
        ({"alpha": 1.0}, "alpha must be a probability"),
        ({"variance": 0.3}, "wanted: a variance above 0, at most"),
        ({"variance": 0.0}, "found: 0.0"),
    ],
)
def test_plans_that_cannot_be(fields: dict[str, float], message: str) -> None:
    """Each wrong number is named."""
    with pytest.raises(InvalidRequestError, match=message):
        Plan(**{"baseline_mean": 0.8, "treated_share": 0.1, **fields})


def test_questions_that_cannot_be() -> None:
    """Gains beyond 1, no units, thresholds that nothing has to pass, traffic below 0."""
    plan = Plan(baseline_mean=0.8, treated_share=0.1)
    for effect in (0.0, 0.21, math.nan):
        with pytest.raises(InvalidRequestError, match=r"wanted: an effect in \(0, 0.2\]"):
            plan.units(effect)
    with pytest.raises(InvalidRequestError, match="wanted: units above 0"):
        plan.detectable_effect(0)
    with pytest.raises(InvalidRequestError, match="wanted: a threshold above 1"):
        units_at_decision(10, 1.0, threshold=1.0)
    with pytest.raises(InvalidRequestError, match="log e-value"):
        units_at_decision(10, math.nan, threshold=40.0)
    with pytest.raises(InvalidRequestError, match="wanted: units_per_day"):
        days_until(10, units_per_day=-1.0)
