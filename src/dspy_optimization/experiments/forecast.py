"""What an experiment can find, told before it begins: units it needs, differences it can see in seven days."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from dspy_optimization.experiments.bounds import checked_number
from dspy_optimization.experiments.plan import DAY_HOURS, HOUR, REVIEW_HOURS, ExperimentPlan, PrimaryMetric, Window
from dspy_optimization.experiments.split import Split
from dspy_optimization.statistics.sequential import Plan, days_until

EXAMPLE_TRAFFIC = (100.0, 1_000.0, 10_000.0)
"""Units a day that are reckoned with where nobody says how many there are."""
MOST_UNITS = (1 << 53) - 1
"""The most that a number of JSON says exactly."""
_LEAST_MEAN = 1e-6
"""For a baseline that never succeeded: the plan needs outcomes that vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectable:
    """What one amount of traffic allows."""

    units_per_day: float
    effect: float | None
    """The smallest difference found in seven days with a power of 0.8, in (0, 1); None: not even the largest is."""
    days_needed: float | None
    """Until the `mde` is found; None: it never is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an experiment can find at a power of 0.8, reckoned for successes and failures, the widest outcomes."""

    expected: float
    """Mean of the baseline that was reckoned with, in [0, 1]."""
    mde: float
    share: float
    """Of the units that get the optimized version, in (0, 1)."""
    alpha: float
    units_needed: int | None
    """Of both versions, to find the `mde`; None: the baseline does not leave so much to gain, or nobody has so many."""
    fixed_units: int | None
    """The same for one test at a fixed end, without looks in between."""
    detectable: tuple[Detectable, ...]

    @property
    def sentence(self) -> str:
        """The same in words."""
        if self.units_needed is None:
            if self.mde <= 1.0 - self.expected:
                return f"A difference of {self.mde:.3g} takes more units than can be counted: plan a larger one."
            return (
                f"A baseline of {self.expected:.3g} leaves no {self.mde:.3g} to gain: the experiment can find harm and "
                "broken guardrails, and no winner by so much."
            )
        needed = (
            f"{self.units_needed:,} units (of both versions) find a difference of {self.mde:.3g} at a split of "
            f"{self.share:.4g}"
        )
        return "; ".join([needed, *map(_told, self.detectable)]) + "."


def forecast(
    primary: PrimaryMetric, split: Split, alpha: float, *, window: Window, units_per_day: object = None
) -> Forecast:
    """Return what an experiment on these terms can find.

    Args:
        primary: with the mean of the baseline and the smallest difference that matters.
        split: at the start.
        alpha: two-sided, in (0, 1).
        window: outcomes of the last days of a week are not in yet when it ends.
        units_per_day: of both versions, above 0; None: some examples.
    Raises:
        InvalidRequestError: `units_per_day` is no such number.
    """
    traffic = EXAMPLE_TRAFFIC if units_per_day is None else (checked_traffic(units_per_day),)
    mean = max(primary.expected, _LEAST_MEAN)
    plan = Plan(baseline_mean=mean, treated_share=split.share, alpha=alpha) if mean < 1.0 else None
    is_possible = plan is not None and primary.mde <= 1.0 - mean
    needed = _counted(plan.units, primary.mde) if plan is not None and is_possible else None
    days = (window.seconds + window.grace_seconds) / (DAY_HOURS * HOUR)
    return Forecast(
        expected=primary.expected,
        mde=primary.mde,
        share=split.share,
        alpha=alpha,
        units_needed=needed,
        fixed_units=_counted(plan.fixed_horizon_units, primary.mde) if plan is not None and is_possible else None,
        detectable=tuple(_detectable(plan, needed, one, days) for one in traffic),
    )


def checked_traffic(units_per_day: object) -> float:
    """Return the units a day, above 0. Raises `InvalidRequestError` when it is no such number."""
    possible = "how many users or sessions come on a day, 1000"
    return checked_number("units_per_day", units_per_day, open_low=True, high=1e12, possible=possible)


def forecast_of(plan: ExperimentPlan, *, units_per_day: object = None) -> Forecast:
    """Return what an experiment of this plan can find. As `forecast`."""
    return forecast(plan.primary, plan.split, plan.terms.alpha, window=plan.window, units_per_day=units_per_day)


def _detectable(plan: Plan | None, needed: int | None, units_per_day: float, window_days: float) -> Detectable:
    counted = units_per_day * (REVIEW_HOURS / DAY_HOURS - window_days)
    days = None if needed is None else days_until(needed, units_per_day=units_per_day, window_days=window_days)
    return Detectable(
        units_per_day=units_per_day,
        effect=None if plan is None or counted == 0.0 else plan.detectable_effect(counted),
        days_needed=days if days is not None and math.isfinite(days) else None,
    )


def _counted(units: Callable[[float], int], effect: float) -> int | None:
    """Return so many units; None where they are more than numbers can say."""
    try:
        found = units(effect)
    except OverflowError:
        return None
    return found if found <= MOST_UNITS else None


def _told(one: Detectable) -> str:
    seen = (
        "seven days show no difference that is possible"
        if one.effect is None
        else f"seven days show differences of {one.effect:.2g} and more"
    )
    return f"at {one.units_per_day:,g} units a day {seen}"
