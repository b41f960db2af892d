"""Planning an experiment: units for an effect, effect for units, and when a running one will be decided."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability

POWER = 0.8
"""Chance to find the effect; the inflations below were measured at it."""
INFLATION = 1.7
"""Units of the e-process for a power of 0.8, as a multiple of a fixed horizon's where both arms vary alike."""
INFLATION_NEAR_ONE = 2.3
"""The same for each arm's own variance, where the baseline's mean is 0.9 or more and at most 10 % are treated."""
NEAR_ONE = 0.9
SMALL_ARM = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known before an experiment.

    Raises:
        InvalidRequestError: a number is out of its range.
    """

    baseline_mean: float
    """Mean outcome of the baseline, in (0, 1)."""
    treated_share: float
    """Share of the units that get the optimized arm, in (0, 1)."""
    variance: float | None = None
    """Of one unit's outcome in the baseline, in (0, mean (1 - mean)]; None for successes and failures."""
    alpha: float = 0.05
    """Two-sided, in (0, 1)."""

    def __post_init__(self) -> None:
        for name in ("baseline_mean", "treated_share", "alpha"):
            checked_probability(name, getattr(self, name))
        largest = self.baseline_mean * (1.0 - self.baseline_mean)
        if self.variance is not None and not 0.0 < self.variance <= largest * (1.0 + 1e-9):
            raise InvalidRequestError(
                f"wanted: a variance above 0, at most mean (1 - mean) = {largest:.4g}; found: {self.variance}; "
                "possible: None where the outcome is success or failure"
            )

    def fixed_horizon_units(self, effect: float) -> int:
        """Return the units of both arms with which one test at a fixed end finds the effect with a power of 0.8.

        Args:
            effect: optimized minus baseline, in (0, 1 - baseline_mean].
        Source: (z_alpha/2 + z_power)^2 (v1 / share + v0 / (1 - share)) / effect^2.
        """
        control, treated = self._variances(effect)
        return math.ceil(self._fixed_units(effect, treated, control))

    def units(self, effect: float) -> int:
        """Return the units of both arms with which the e-process finds the effect with a power of 0.8 or more.

        Measured .80 to .93 over success rates of .05 to .98 and shares of .01 to .5. Too few for more than about 15
        points at a share of 0.1, where one unit may not stake enough: .62 for .80 to .98.

        Args:
            effect: optimized minus baseline, in (0, 1 - baseline_mean]; the design bets on the same.
        """
        return math.ceil(self._units(effect))

    def detectable_effect(self, units: float) -> float | None:
        """Return the smallest effect that the e-process finds with a power of 0.8; None when even the largest is not.

        Args:
            units: of both arms, above 0; days times units a day, 7 days for the alert.

        Returns:
            In (0, 1 - baseline_mean]: `units` of it is the number given.
        """
        if not (math.isfinite(units) and units > 0.0):
            raise InvalidRequestError(
                f"wanted: units above 0; found: {units}; possible: days of the experiment times units a day"
            )
        small, large = 0.0, 1.0 - self.baseline_mean
        if self._units(large) > units:
            return None
        while large - small > 1e-12:
            middle = 0.5 * (small + large)
            if self._units(middle) > units:
                small = middle
            else:
                large = middle
        return large

    def _units(self, effect: float) -> float:
        control, treated = self._variances(effect)
        # A gain above one half shrinks the treated arm's variance, but not what the e-process needs (measured).
        needed = INFLATION * self._fixed_units(effect, max(control, treated), control)
        if self.baseline_mean >= NEAR_ONE and self.treated_share <= SMALL_ARM:
            needed = max(needed, INFLATION_NEAR_ONE * self._fixed_units(effect, treated, control))
        return needed

    def _fixed_units(self, effect: float, treated: float, control: float) -> float:
        quantiles = float(special.ndtri(1.0 - self.alpha / 2.0)) + float(special.ndtri(POWER))
        return (quantiles / effect) ** 2 * (treated / self.treated_share + control / (1.0 - self.treated_share))

    def _variances(self, effect: float) -> tuple[float, float]:
        """Return those of the baseline and of the optimized arm."""
        if not 0.0 < effect <= 1.0 - self.baseline_mean:
            raise InvalidRequestError(
                f"wanted: an effect in (0, {1.0 - self.baseline_mean:.4g}], what a baseline of {self.baseline_mean} "
                f"leaves to gain; found: {effect}; possible: for example {0.5 * (1.0 - self.baseline_mean):.4g}"
            )
        if self.variance is not None:
            return self.variance, self.variance
        better = self.baseline_mean + effect
        return self.baseline_mean * (1.0 - self.baseline_mean), better * (1.0 - better)


def units_at_decision(n_units: int, log_e: float, *, threshold: float) -> int | None:
    """Return how many units a running experiment will have when it is decided, if it goes on as so far.

    Args:
        n_units: of both arms so far, 0 or more.
        log_e: natural log of the current e-value (not of the largest one).
        threshold: the e-value that decides, above 1; 40 for superiority at 0.05.

    Returns:
        n_units log(threshold) / log_e, at least n_units; None while there is no evidence in that direction.
    """
    if not (math.isfinite(threshold) and threshold > 1.0):
        raise InvalidRequestError(f"wanted: a threshold above 1; found: {threshold}; possible: 40")
    if n_units < 0 or math.isnan(log_e):
        raise InvalidRequestError(
            f"wanted: a number of units and a log e-value; found: {n_units} and {log_e}; possible: those of an EProcess"
        )
    if log_e <= 0.0 or n_units == 0:
        return None
    return max(n_units, math.ceil(n_units * math.log(threshold) / log_e))


def days_until(units: float, *, units_per_day: float, window_days: float = 0.0) -> float | None:
    """Return the days until so many further units can be counted; None without traffic.

    Args:
        units: still missing; 0 or less takes no time.
        units_per_day: of both arms, 0 or more.
        window_days: how long a unit's outcome is waited for.
    """
    if not (units_per_day >= 0.0 and window_days >= 0.0 and math.isfinite(units_per_day + window_days + units)):
        raise InvalidRequestError(
            f"wanted: units_per_day and window_days of 0 or more; found: {units_per_day} and {window_days} for {units} "
            "units; possible: the traffic of the last days"
        )
    if units <= 0.0:
        return 0.0
    return None if units_per_day == 0.0 else units / units_per_day + window_days
