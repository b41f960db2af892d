"""The betting e-process: evidence for and against "the optimized arm is better", valid after every single unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability
from dspy_optimization.statistics.sequential.confidence_sequence import (
    BET_WEIGHTS,
    GRID,
    STEPS,
    DifferenceInterval,
    difference_at,
    log_mixture,
    raised_bound,
)
from dspy_optimization.statistics.sequential.levels import (
    breach_threshold,
    non_inferiority_threshold,
    two_sided_threshold,
)
from dspy_optimization.statistics.sequential.plain import Json, PlainState, stored
from dspy_optimization.statistics.sequential.pseudo_outcomes import Moments, PseudoOutcomes, pseudo_outcomes
from dspy_optimization.statistics.sequential.units import Units

BET_MULTIPLES = (0.5, 1.0, 2.0, 4.0)
"""Which multiples of the design's effect are bet on."""
STAKE = 0.95
"""Largest share of the wealth that one unit can take."""
UNITS_AT_ONCE = 1024

Array = npt.NDArray[np.float64]

_N_BETS = len(BET_WEIGHTS)
_LAST_PLACE = (len(GRID) - 1) * STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class BetDesign:
    """What an e-process bets on, fixed before its first unit.

    Raises:
        InvalidRequestError: a number is out of its range, or an interval is asked of a factor other than 1.
    """

    effect: float
    """The difference worth detecting (MDE), in the unit of the outcome, in (0, 1]; half or twice the true one costs
    5 to 15 % more units, never validity. A true difference below a quarter of it is never proven."""
    historical_mean: float
    """Of the baseline before the experiment, in [0, 1]; a wrong one costs power, never validity."""
    factor: float = 1.0
    """k, at least 1: optimized is compared with factor times baseline; 1 + margin for a guardrail."""
    interval_alpha: float | None = None
    """Chance that the interval ever misses the difference, in (0, 1); None for no interval, at a tenth of the
    cost."""

    def __post_init__(self) -> None:
        if not 0.0 < self.effect <= 1.0:
            raise InvalidRequestError(
                f"wanted: an effect in (0, 1]; found: {self.effect}; possible: the smallest difference of mean "
                "outcomes that matters, for example 0.05"
            )
        if not 0.0 <= self.historical_mean <= 1.0:
            raise InvalidRequestError(
                f"wanted: a historical_mean in [0, 1]; found: {self.historical_mean}; possible: the baseline's mean "
                "on the sealed split, scaled as the outcome is"
            )
        if not (math.isfinite(self.factor) and self.factor >= 1.0):
            raise InvalidRequestError(
                f"wanted: a factor of at least 1; found: {self.factor}; possible: 1 for a difference, 1 + margin for "
                "a guardrail"
            )
        if self.interval_alpha is not None:
            checked_probability("interval_alpha", self.interval_alpha)
            if self.factor != 1.0:
                raise InvalidRequestError(
                    f"wanted: a factor of 1 with an interval for the difference; found: {self.factor}; possible: "
                    "interval_alpha None for guardrails"
                )

    @staticmethod
    def difference(*, effect: float, historical_mean: float, alpha: float = 0.05) -> BetDesign:
        """Return the design of a primary objective: superiority, harm and an interval at `alpha`."""
        return BetDesign(effect=effect, historical_mean=historical_mean, interval_alpha=alpha)

    @staticmethod
    def guardrail(*, margin: float, historical_mean: float) -> BetDesign:
        """Return the design of a guardrail whose outcome is better when lower (cost, latency, errors).

        Bets on arms that are equal, margin times historical_mean away from the border.

        Args:
            margin: how much larger than the baseline's mean is still allowed, as a share of it, above 0; 0.1 for 10 %.
            historical_mean: of the baseline's outcome, in (0, 1].

        Raises:
            InvalidRequestError: the margin or the mean is 0 or less: then nothing lies between equal and worse.
        """
        if not (math.isfinite(margin) and margin > 0.0 and 0.0 < historical_mean <= 1.0):
            raise InvalidRequestError(
                f"wanted: a margin above 0 and a historical_mean in (0, 1]; found: {margin} and {historical_mean}; "
                "possible: a margin of 0.1, and (events + 1) / (units + 2) for the mean of a rare event"
            )
        return BetDesign(
            effect=min(1.0, margin * historical_mean), historical_mean=historical_mean, factor=1.0 + margin
        )

    def to_json(self) -> dict[str, Json]:
        """Return the fields."""
        return {
            "effect": self.effect,
            "historical_mean": self.historical_mean,
            "factor": self.factor,
            "interval_alpha": self.interval_alpha,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EProcess:
    """The evidence so far; grows by `extend`, and is the same bit for bit however the units were cut into pieces.

    *Above* is the evidence that the optimized arm's mean is more than factor times the baseline's, *below* that it is
    less. Each is a bet that starts at 1 and on average never grows where its claim is false, for any outcomes in
    [0, 1], any drift and any propensities that were fixed before the arm was drawn.

        process = EProcess.start(BetDesign.difference(effect=0.05, historical_mean=0.8))
        process = process.extend(units)          # again and again, in exposure order
        process.is_superior(0.05), process.p_value, process.interval

    Source: research notes 3b ("GRO mixture"); Ville's inequality; Waudby-Smith and Ramdas 2024.
    """

    design: BetDesign
    moments: Moments
    pseudo_sum: float
    above: tuple[float, ...]
    """Log wealth of each bet against each difference that is kept, by difference, then bet."""
    below: tuple[float, ...]
    max_log_e_above: float
    """Natural log of the largest e-value so far, at least 0; for p-values and thresholds, and no e-value itself."""
    max_log_e_below: float
    lower_place: int
    """Of the interval's bounds, in `confidence_sequence`; the upper one on the mirrored grid."""
    upper_place: int

    @staticmethod
    def start(design: BetDesign) -> EProcess:
        """Return the process before its first unit: e-values of 1, a p-value of 1, an interval of (-1, 1)."""
        nothing = (0.0,) * (_n_kept(design) * _N_BETS)
        return EProcess(
            design=design,
            moments=Moments(),
            pseudo_sum=0.0,
            above=nothing,
            below=nothing,
            max_log_e_above=0.0,
            max_log_e_below=0.0,
            lower_place=0,
            upper_place=0,
        )

    def extend(self, units: Units) -> EProcess:
        """Return the process after further units.

        Args:
            units: in exposure order, all of them exposed after those already taken in.
        """
        process = self
        for start in range(0, len(units), UNITS_AT_ONCE):
            process = process._after(units.between(start, start + UNITS_AT_ONCE))
        return process

    @property
    def n_units(self) -> int:
        """Units of both arms."""
        return self.moments.n_treated + self.moments.n_control

    @property
    def mean_treated(self) -> float | None:
        """Mean outcome of the optimized arm, in [0, 1]; None without units. For display: a ramp biases it."""
        return self.moments.sum_treated / self.moments.n_treated if self.moments.n_treated else None

    @property
    def mean_control(self) -> float | None:
        """Mean outcome of the baseline, in [0, 1]; None without units. For display: a ramp biases it."""
        return self.moments.sum_control / self.moments.n_control if self.moments.n_control else None

    @property
    def difference(self) -> float | None:
        """Estimate of mu1 - factor mu0, unbiased at a fixed n for any propensities; None without units.

        Inflated where the experiment stopped because of it.
        """
        return self.pseudo_sum / self.n_units if self.n_units else None

    @property
    def log_e_above(self) -> float:
        """Natural log of the current e-value against mu1 <= factor mu0."""
        return self._current(self.above)

    @property
    def log_e_below(self) -> float:
        """Natural log of the current e-value against mu1 >= factor mu0."""
        return self._current(self.below)

    @property
    def p_value(self) -> float:
        """Two-sided and valid at every look, in [0, 1]; never rises."""
        return min(self.p_superior, self.p_harmful)

    @property
    def p_superior(self) -> float:
        """The part of the two-sided p-value that speaks for the optimized arm, in [0, 1]; never rises."""
        return min(1.0, 2.0 * math.exp(-self.max_log_e_above))

    @property
    def p_harmful(self) -> float:
        """The part of the two-sided p-value that speaks for the baseline, in [0, 1]; never rises."""
        return min(1.0, 2.0 * math.exp(-self.max_log_e_below))

    @property
    def interval(self) -> DifferenceInterval | None:
        """The differences refuted at no look so far; (-1, 1) at first, and only ever shrinks.

        Excludes 0 exactly when `is_superior` or `is_harmful` holds at the design's alpha. However many units there
        are, it stays wider than about a third of the design's effect: no smaller difference is bet on. None where the
        design asks for no interval, and where no difference is left: then the effect has changed over time and no one
        number describes it.
        """
        if self.design.interval_alpha is None:
            return None
        return _between(self.lower_place, self.upper_place)

    @property
    def current_interval(self) -> DifferenceInterval | None:
        """The differences that this look does not refute, whatever earlier looks did; valid too, and wider.

        None as for `interval`.
        """
        if self.design.interval_alpha is None:
            return None
        log_threshold = math.log(two_sided_threshold(self.design.interval_alpha))
        above, below = _by_difference(self.above)[:, :, None], _by_difference(self.below)[::-1, :, None]
        return _between(raised_bound(0, above, log_threshold), raised_bound(0, below, log_threshold))

    def is_superior(self, alpha: float, *, comparisons: int = 1) -> bool:
        """Return whether the optimized arm is proven better at any look so far.

        Args:
            alpha: two-sided, for all comparisons; `stage_alpha` for a stage of a rollout.
            comparisons: variants that are each compared with the baseline.
        """
        return self.max_log_e_above >= math.log(two_sided_threshold(alpha, comparisons=comparisons))

    def is_harmful(self, alpha: float, *, comparisons: int = 1) -> bool:
        """Return whether the optimized arm is proven worse at any look so far; arguments as in `is_superior`."""
        return self.max_log_e_below >= math.log(two_sided_threshold(alpha, comparisons=comparisons))

    def is_non_inferior(self, alpha: float) -> bool:
        """Return whether a lower-is-better outcome is proven to stay below factor times the baseline's mean.

        Args:
            alpha: one-sided, for this guardrail alone.
        """
        return self.max_log_e_below >= math.log(non_inferiority_threshold(alpha))

    def is_breached(self, alpha: float, *, guardrails: int) -> bool:
        """Return whether a lower-is-better outcome is proven to exceed factor times the baseline's mean.

        Args:
            alpha: for all guardrails together.
            guardrails: how many the experiment has.
        """
        return self.max_log_e_above >= math.log(breach_threshold(alpha, guardrails=guardrails))

    def to_json(self) -> dict[str, Json]:
        """Return everything as plain finite numbers; `from_json` gives back the same process, bit for bit."""
        return stored(
            "e_process",
            {
                "design": self.design.to_json(),
                "moments": self.moments.to_json(),
                "pseudo_sum": self.pseudo_sum,
                "above": list(self.above),
                "below": list(self.below),
                "max_log_e_above": self.max_log_e_above,
                "max_log_e_below": self.max_log_e_below,
                "lower_place": self.lower_place,
                "upper_place": self.upper_place,
            },
        )

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> EProcess:
        """Return the process that `to_json` stored.

        Raises:
            InvalidRequestError: it is something else, or of another version; the message names the field.
        """
        state = PlainState.of(data, "e_process")
        design_fields, moment_fields = state.part("design"), state.part("moments")
        design = BetDesign(
            effect=design_fields.number("effect"),
            historical_mean=design_fields.number("historical_mean"),
            factor=design_fields.number("factor"),
            interval_alpha=design_fields.optional_number("interval_alpha"),
        )
        moments = Moments(
            n_treated=moment_fields.integer("n_treated"),
            n_control=moment_fields.integer("n_control"),
            sum_treated=moment_fields.number("sum_treated"),
            sum_control=moment_fields.number("sum_control"),
            weight=moment_fields.number("weight"),
            weighted=moment_fields.number("weighted"),
            weighted_squares=moment_fields.number("weighted_squares"),
        )
        size = _n_kept(design) * _N_BETS
        return EProcess(
            design=design,
            moments=moments,
            pseudo_sum=state.number("pseudo_sum"),
            above=state.numbers("above", size),
            below=state.numbers("below", size),
            max_log_e_above=state.number("max_log_e_above"),
            max_log_e_below=state.number("max_log_e_below"),
            lower_place=state.integer("lower_place", _LAST_PLACE),
            upper_place=state.integer("upper_place", _LAST_PLACE),
        )

    def _current(self, wealth: tuple[float, ...]) -> float:
        return float(log_mixture(_by_difference(wealth)[_n_kept(self.design) // 2]))

    def _after(self, units: Units) -> EProcess:
        design = self.design
        outcomes, moments = pseudo_outcomes(
            units, self.moments, historical_mean=design.historical_mean, factor=design.factor
        )
        differences = np.array((0.0,) if design.interval_alpha is None else GRID)
        no_difference = differences.size // 2
        above, below = _log_wealth(self, outcomes, differences)
        lower_place, upper_place = self.lower_place, self.upper_place
        if design.interval_alpha is not None:
            log_threshold = math.log(two_sided_threshold(design.interval_alpha))
            lower_place = raised_bound(lower_place, above, log_threshold)
            upper_place = raised_bound(upper_place, below[::-1], log_threshold)
        return EProcess(
            design=design,
            moments=moments,
            pseudo_sum=float(np.add.accumulate(np.concatenate(([self.pseudo_sum], outcomes.value)))[-1]),
            above=tuple(above[:, :, -1].ravel().tolist()),
            below=tuple(below[:, :, -1].ravel().tolist()),
            max_log_e_above=max(self.max_log_e_above, float(log_mixture(above[no_difference]).max())),
            max_log_e_below=max(self.max_log_e_below, float(log_mixture(below[no_difference]).max())),
            lower_place=lower_place,
            upper_place=upper_place,
        )


def _log_wealth(before: EProcess, outcomes: PseudoOutcomes, differences: Array) -> tuple[Array, Array]:
    """Return (n_differences, n_bets, n) above and below: the log wealth after each unit."""
    factor = before.design.factor
    aims = np.array(BET_MULTIPLES)[:, None] * before.design.effect / outcomes.variance
    bets_above = np.minimum(aims, STAKE / (outcomes.lowest + factor))
    bets_below = np.minimum(aims, STAKE / (outcomes.highest + factor))
    gain = (outcomes.value - differences[:, None])[:, None, :]
    return _grown(before.above, bets_above * gain), _grown(before.below, -bets_below * gain)


def _grown(before: tuple[float, ...], gain: Array) -> Array:
    """Return the log wealth after each unit, added one by one."""
    n_kept, n_bets, n = gain.shape
    growth = np.empty((n_kept, n_bets, n + 1))
    growth[:, :, 0] = _by_difference(before)
    gain += 1.0
    np.log(gain, out=growth[:, :, 1:])
    return np.add.accumulate(growth, axis=2, out=growth)[:, :, 1:]


def _between(lower_place: int, upper_place: int) -> DifferenceInterval | None:
    lower, upper = difference_at(lower_place), difference_at(_LAST_PLACE - upper_place)
    return DifferenceInterval(lower, upper) if lower < upper else None


def _by_difference(wealth: tuple[float, ...]) -> Array:
    return np.array(wealth).reshape(-1, _N_BETS)


def _n_kept(design: BetDesign) -> int:
    return 1 if design.interval_alpha is None else len(GRID)
