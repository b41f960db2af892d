"""Centred inverse-propensity pseudo-outcomes: one number a unit whose mean is the difference of the arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dspy_optimization.statistics.sequential.plain import Json
from dspy_optimization.statistics.sequential.units import Units

SHRINKAGE_UNITS = 20.0
"""How many units the historical baseline counts for, in the centre and in the variance."""
LEAST_VARIANCE = 1e-6
"""What stands for a variance of 0, where all outcomes and the historical baseline are 0 or all are 1."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What earlier units say of the next one: all that the centre and the variance are predicted from."""

    n_treated: int = 0
    n_control: int = 0
    sum_treated: float = 0.0
    """Of the outcomes."""
    sum_control: float = 0.0
    weight: float = 0.0
    """Sum of the weights that make both arms count alike: 1 / (2 pi) if treated, 1 / (2 (1 - pi)) if not."""
    weighted: float = 0.0
    """Of the outcomes, so weighted."""
    weighted_squares: float = 0.0

    def to_json(self) -> dict[str, Json]:
        """Return the fields."""
        return {
            "n_treated": self.n_treated,
            "n_control": self.n_control,
            "sum_treated": self.sum_treated,
            "sum_control": self.sum_control,
            "weight": self.weight,
            "weighted": self.weighted,
            "weighted_squares": self.weighted_squares,
        }


class PseudoOutcomes(NamedTuple):
    """Arrays of shape (n,), in exposure order; all but `value` were known before the unit's arm and outcome."""

    value: Array
    """phi, with mean mu1 - factor mu0 given the past."""
    lowest: Array
    """b: minus the least phi that an outcome in [0, 1] of either arm could give."""
    highest: Array
    """c: the largest phi."""
    variance: Array
    """v / pi + factor^2 v / (1 - pi)."""


def pseudo_outcomes(
    units: Units, moments: Moments, *, historical_mean: float, factor: float
) -> tuple[PseudoOutcomes, Moments]:
    """Return the pseudo-outcomes of further units, and the moments after them.

    The centre m is the running mean of the outcomes, weighted so that both arms count alike and shrunk to
    `historical_mean` with the weight of 20 units; the variance v is the same running mean of the squares minus m^2,
    shrunk to the variance h (1 - h) of successes and failures. Both use earlier units only.

    Args:
        units: in exposure order, after those the moments were taken from.
        moments: of all earlier units.
        historical_mean: of the baseline before the experiment, in [0, 1]; a wrong one costs power, never validity.
        factor: k: phi has the mean mu1 - k mu0.
    Source: research notes 3b; phi = A (Y - m) / pi - k (1 - A) (Y - m) / (1 - pi) + m (1 - k).
    """
    y, pi = units.outcome, units.propensity
    weights = 0.5 / np.where(units.treated, pi, 1.0 - pi)
    weight = _running(moments.weight, weights)
    weighted = _running(moments.weighted, weights * y)
    weighted_squares = _running(moments.weighted_squares, weights * y * y)
    prior, counted = SHRINKAGE_UNITS * historical_mean, SHRINKAGE_UNITS + weight[:-1]
    # The prior's mean square is h as well: h (1 - h) + h^2.
    m = (prior + weighted[:-1]) / counted
    v = np.maximum((prior + weighted_squares[:-1]) / counted - m * m, LEAST_VARIANCE)
    residual = y - m
    shift = m * (1.0 - factor)
    value = np.where(units.treated, residual / pi, -factor * residual / (1.0 - pi)) + shift
    outcomes = PseudoOutcomes(
        value=value,
        lowest=np.maximum(m / pi, factor * (1.0 - m) / (1.0 - pi)) - shift,
        highest=np.maximum((1.0 - m) / pi, factor * m / (1.0 - pi)) + shift,
        variance=v / pi + factor * factor * v / (1.0 - pi),
    )
    after = Moments(
        n_treated=moments.n_treated + int(np.count_nonzero(units.treated)),
        n_control=moments.n_control + int(np.count_nonzero(~units.treated)),
        sum_treated=_total(moments.sum_treated, np.where(units.treated, y, 0.0)),
        sum_control=_total(moments.sum_control, np.where(units.treated, 0.0, y)),
        weight=float(weight[-1]),
        weighted=float(weighted[-1]),
        weighted_squares=float(weighted_squares[-1]),
    )
    return outcomes, after


def _total(before: float, values: Array) -> float:
    return float(_running(before, values)[-1])


def _running(before: float, values: Array) -> Array:
    """Return (n + 1,): the sum before each value, and after the last; added one by one, so pieces do not matter."""
    return np.add.accumulate(np.concatenate(([before], values)))
