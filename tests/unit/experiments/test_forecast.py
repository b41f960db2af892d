"""What an experiment can find, told beforehand."""

import pytest
from conducting_world import house, proposal

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.forecast import Forecast, forecast, forecast_of
from dspy_optimization.experiments.plan import MissingOutcome, PrimaryMetric, Window
from dspy_optimization.experiments.split import Split

SHORT = Window(seconds=1.0, grace_seconds=0.0)


def reckoned(expected: float = 0.8, mde: float = 0.05, buckets: int = 1_000, **more: object) -> Forecast:
    primary = PrimaryMetric(metric="solved", mde=mde, expected=expected, missing=MissingOutcome.ZERO)
    given: dict[str, object] = {"window": SHORT, **more}
    return forecast(primary, Split(buckets=buckets), 0.05, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("buckets", "effects"), [(1_000, (0.18, 0.058, 0.018)), (5_000, (0.109, 0.034, 0.011))], ids=["tenth", "half"]
)
def test_a_week_shows_what_the_research_notes_say(buckets: int, effects: tuple[float, ...]) -> None:
    """Reference: the planner's table of the notes, p = .8, alpha = .05, 100, 1,000 and 10,000 units a day.

    Within 3 %: the notes let a gain shrink the variance of the optimized version, the plan does not.
    """
    found = reckoned(buckets=buckets)

    assert (100.0, 1_000.0, 10_000.0) == tuple(one.units_per_day for one in found.detectable)
    for one, effect in zip(found.detectable, effects, strict=True):
        assert pytest.approx(effect, rel=0.03) == one.effect


def test_outcomes_that_are_not_in_yet_do_not_count() -> None:
    """With a window of a day a week has six days."""
    whole, day = reckoned(), reckoned(window=Window(grace_seconds=0.0))
    wide = reckoned(units_per_day=1_000.0 * 6 / 7)

    assert pytest.approx(wide.detectable[0].effect, rel=1e-4) == day.detectable[1].effect
    assert whole.units_needed == day.units_needed


def test_the_days_a_difference_takes() -> None:
    """Units over units a day, and the window of the last one."""
    found = reckoned(units_per_day=500, window=Window(seconds=43_200.0, grace_seconds=0.0))
    (one,) = found.detectable

    assert found.units_needed is not None
    assert found.fixed_units is not None
    assert pytest.approx(found.units_needed / 500 + 0.5) == one.days_needed
    assert 1.5 < found.units_needed / found.fixed_units < 2.5
    assert f"{found.units_needed:,} units" in found.sentence
    assert "at 500 units a day seven days show differences of" in found.sentence


@pytest.mark.parametrize(("expected", "mde"), [(1.0, 0.05), (0.97, 0.05)])
def test_where_nothing_is_left_to_gain(expected: float, mde: float) -> None:
    """No number instead of a wrong one."""
    found = reckoned(expected, mde)

    assert (None, None) == (found.units_needed, found.fixed_units)
    assert {None} == {one.days_needed for one in found.detectable}
    assert "no winner by so much" in found.sentence


def test_a_baseline_that_never_succeeded_leaves_everything() -> None:
    """Its outcomes do not vary, the better version's do."""
    found = reckoned(0.0, 0.05)

    assert found.units_needed is not None
    assert 0 < found.units_needed < 20_000


@pytest.mark.parametrize(("mde", "traffic"), [(1e-300, 1.0), (5e-324, 1e12), (1e-9, 100.0), (0.05, 5e-324)], ids=repr)
def test_numbers_that_nobody_can_count(mde: float, traffic: float) -> None:
    """Said, and never infinite."""
    found = reckoned(0.5, mde, units_per_day=traffic)

    assert (mde == 0.05) == (found.units_needed is not None)
    assert [None] == [one.days_needed for one in found.detectable]
    assert mde == 0.05 or "more units than can be counted" in found.sentence


@pytest.mark.parametrize("traffic", [0, -1.0, float("nan"), float("inf"), True, "1000"])
def test_traffic_that_is_none(traffic: object) -> None:
    """Refused in words."""
    with pytest.raises(InvalidRequestError, match="units_per_day: wanted"):
        reckoned(units_per_day=traffic)


def test_of_a_plan() -> None:
    """What the optimization measured is reckoned with."""
    found = forecast_of(house().conductor.planned(proposal()), units_per_day=100)

    assert (0.6, 0.05, 0.5, 0.05) == (found.expected, found.mde, found.share, found.alpha)
