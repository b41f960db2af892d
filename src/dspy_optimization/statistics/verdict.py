"""The verdict on one objective: what a paired comparison on held-out examples allows to be said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.intervals import (
    Interval,
    improvement_interval,
    is_sparse,
    paired_interval,
    wilson_interval,
)
from dspy_optimization.statistics.multiplicity import holm
from dspy_optimization.statistics.paired import RESAMPLES, PairedMethod, PairedSample, PairedTest, paired_test
from dspy_optimization.statistics.power import detectable_mean, detectable_share, minimum_units
from dspy_optimization.statistics.probability import checked_probability

NEGLIGIBLE = 1e-9
"""A difference of scores that nobody can care about; stands in for a minimum effect of 0."""


class Verdict(StrEnum):
    """What may be said of a candidate against the baseline."""

    # The candidate is better, p < alpha.
    IMPROVED = "improved"
    # An improvement as large as the minimum effect is ruled out.
    NO_IMPROVEMENT = "no_improvement"
    # The candidate is worse, p < alpha.
    REGRESSED = "regressed"
    # The data allow an improvement as well as none.
    INDECISIVE = "indecisive"
    # No result on so few examples, or so few differences, could be significant.
    INSUFFICIENT_DATA = "insufficient_data"
    # The baseline is so near its ceiling that the minimum effect does not fit above it; see `headroom`.
    NO_HEADROOM = "no_headroom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The evidence on one objective; verdict and reason follow from it and cannot be set.

    The first line that applies decides. `needed` is `minimum_units(alpha)`, 6 at 0.05; "effect" the minimum
    effect.

        units < needed                                                       insufficient_data
        non-zero units < needed, a difference beyond +-effect ruled out      no_improvement
        non-zero units < needed, not ruled out                               insufficient_data
        p < alpha, difference > 0                                            improved
        p < alpha, difference < 0                                            regressed
        effect > 0, upper end of the interval < effect                       no_improvement
        else                                                                 indecisive

    Ruled out: the interval lies within +-effect (1e-9 where the effect is 0) and, for McNemar, so does Wilson's
    bound on the share of discordant pairs. Newcombe's interval alone is too sure of itself without discordant
    pairs: on 45 examples it would miss a gain of 0.05 in 10 % of cases, not in 2.5 %.

    `p` is the adjusted p-value. The test decides, never the interval: near the level the two may disagree by
    a hair (the test is exact, the interval is not, and it is not adjusted for several objectives).
    `no_headroom` is never the verdict of a comparison: `headroom` tells it before a candidate exists.
    """

    n: int
    """Examples."""
    units: int
    """Independent units: clusters, or examples where there are none."""
    clustered: bool
    baseline_mean: float
    candidate_mean: float
    difference: float
    """Candidate minus baseline, mean over examples, in the unit of the score; above 0 is better."""
    interval: Interval | None
    """Of `difference`, at level 1 - alpha; None when the sample cannot tell."""
    improvement_percentage: float | None
    """100 difference / |baseline_mean|; None at a baseline of 0."""
    improvement_interval: Interval | None
    """Of `improvement_percentage`, at level 1 - alpha; None when the ratio has none."""
    test: PairedTest
    adjusted_p_value: float
    """The p-value that decides: the test's own, or Holm's over several objectives."""
    mde: float | None
    """Smallest difference found with chance `power` in such a sample; None when no difference could be."""
    alpha: float
    """Two-sided level, in (0, 1)."""
    minimum_effect: float
    """Smallest difference that matters, in the unit of the score, at least 0."""
    power: float

    @property
    def needed(self) -> int:
        """The fewest non-zero units that can reach p < alpha."""
        return minimum_units(self.alpha)

    @property
    def reaches_minimum_effect(self) -> bool:
        """Whether the measured difference, not only its sign, is at least the minimum effect."""
        return self.difference >= self.minimum_effect - NEGLIGIBLE

    @property
    def verdict(self) -> Verdict:
        """What may be said, by the table above."""
        if self.units < self.needed:
            return Verdict.INSUFFICIENT_DATA
        if self.test.non_zero < self.needed:
            return Verdict.NO_IMPROVEMENT if self._negligible() else Verdict.INSUFFICIENT_DATA
        if self.adjusted_p_value < self.alpha:
            return Verdict.IMPROVED if self.difference > 0.0 else Verdict.REGRESSED
        ruled_out = self.interval is not None and self.interval.upper < self.minimum_effect
        return Verdict.NO_IMPROVEMENT if self.minimum_effect > 0.0 and ruled_out else Verdict.INDECISIVE

    @property
    def reason(self) -> str:
        """The verdict in plain English, with the numbers it rests on."""
        detectable = "no difference at all" if self.mde is None else f"a difference of {self.mde:.3g}"
        small = f"A sample like this finds {detectable} with {self.power:.0%} chance."
        unit = "clusters" if self.clustered else "examples"
        match self.verdict:
            case Verdict.IMPROVED:
                reached = "reaches" if self.reaches_minimum_effect else "stays below"
                sentence = (
                    f"The candidate is better: {self._numbers()}, below {self.alpha:.3g}. The measured gain "
                    f"{reached} the minimum effect of {self.minimum_effect:.3g}."
                )
            case Verdict.REGRESSED:
                sentence = f"The candidate is worse: {self._numbers()}, below {self.alpha:.3g}."
            case Verdict.NO_IMPROVEMENT:
                sentence = f"A gain of the minimum effect of {self.minimum_effect:.3g} is ruled out: {self._numbers()}."
            case Verdict.INSUFFICIENT_DATA if self.units < self.needed:
                sentence = (
                    f"Nothing can be shown on {self.units} {unit}: at a level of {self.alpha:.3g} at least "
                    f"{self.needed} are needed, and far more for small gains. {small}"
                )
            case Verdict.INSUFFICIENT_DATA:
                sentence = (
                    f"The two differ on {self.test.non_zero} of {self.units} {unit}; below {self.needed} no "
                    f"result reaches a level of {self.alpha:.3g}, and a gain that matters is not ruled out: "
                    f"{self._numbers()}. {small}"
                )
            case _:
                sentence = f"The data do not decide: {self._numbers()}, not below {self.alpha:.3g}. {small}"
        return sentence

    def _negligible(self) -> bool:
        """Whether so few differences rule out any beyond the minimum effect."""
        bound = max(self.minimum_effect, NEGLIGIBLE)
        if self.interval is None or not self.interval.within(bound):
            return False
        if self.test.method is not PairedMethod.MCNEMAR:
            return True
        return wilson_interval(self.test.non_zero, self.units, level=1.0 - self.alpha).upper <= bound

    def _numbers(self) -> str:
        interval = "no interval"
        if self.interval is not None:
            interval = f"{self.interval.level:.3g} interval {self.interval.lower:+.3g} to {self.interval.upper:+.3g}"
        of_clusters = f" in {self.units} clusters" if self.clustered else ""
        return (
            f"{self.candidate_mean:.3g} against {self.baseline_mean:.3g} on {self.n} examples{of_clusters}, "
            f"difference {self.difference:+.3g} ({interval}), p = {self.adjusted_p_value:.3g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """How much better than the baseline any candidate can be."""

    n: int
    """Examples the baseline was scored on."""
    baseline_mean: float
    possible_gain: float
    """Ceiling minus the baseline's mean, in the unit of the score."""
    largest_gain: float
    """Ceiling minus the lower confidence bound of the baseline's mean."""
    minimum_effect: float

    @property
    def exhausted(self) -> bool:
        """Whether the minimum effect does not fit: the verdict is then `no_headroom`."""
        return self.largest_gain < self.minimum_effect

    @property
    def reason(self) -> str:
        """The finding in plain English, with the numbers it rests on."""
        fits = "does not fit" if self.exhausted else "fits"
        return (
            f"The baseline scores {self.baseline_mean:.3g} on {self.n} examples, so no candidate can gain "
            f"more than {self.largest_gain:.3g}; the minimum effect of {self.minimum_effect:.3g} {fits}."
        )


def compare(
    sample: PairedSample,
    *,
    alpha: float,
    minimum_effect: float,
    rng: np.random.Generator,
    power: float = 0.8,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Return the whole evidence on one objective: test, intervals, smallest detectable difference, verdict.

    Args:
        sample: scores of both on the sealed test split, higher is better.
        alpha: two-sided level of test and intervals; on a re-used split `reuse_level(alpha, use)`.
        minimum_effect: smallest difference that matters, in the unit of the score, at least 0.
        rng: read from by Monte Carlo and bootstrap; the same seed gives the same comparison.
        power: for `mde`.
        resamples: sign patterns and bootstrap samples.

    Raises:
        InvalidRequestError: alpha or power no probability, a minimum effect below 0, or too few resamples for
            alpha.
    """
    checked_probability("alpha", alpha)
    checked_probability("power", power)
    _check_minimum_effect(minimum_effect)
    if 1.0 / (resamples + 1) >= alpha:
        raise InvalidRequestError(
            f"alpha must exceed 1 / (resamples + 1) or no random test can reach it, found alpha {alpha} with "
            f"{resamples} resamples; possible: more resamples, or a fresh test split at a larger alpha"
        )
    test = paired_test(sample, rng=rng, resamples=resamples)
    level = 1.0 - alpha
    return Comparison(
        n=sample.n,
        units=sample.units,
        clustered=sample.clustered,
        baseline_mean=math.fsum(sample.baseline) / sample.n,
        candidate_mean=math.fsum(sample.candidate) / sample.n,
        difference=math.fsum(sample.differences()) / sample.n,
        interval=paired_interval(sample, rng=rng, level=level, resamples=resamples),
        improvement_percentage=sample.improvement_percentage(),
        improvement_interval=improvement_interval(sample, rng=rng, level=level, resamples=resamples),
        test=test,
        adjusted_p_value=test.p_value,
        mde=_detectable(sample, test, alpha=alpha, power=power),
        alpha=alpha,
        minimum_effect=minimum_effect,
        power=power,
    )


def adjust_for_objectives(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return co-primary objectives with Holm's p-values, and the verdicts that follow from them.

    The chance of any false `improved` or `regressed` among them is at most alpha. Intervals stay at 1 - alpha
    each.

    Args:
        comparisons: by objective, all at one alpha; secondary metrics and guardrails do not belong here.

    Raises:
        InvalidRequestError: the objectives were compared at different levels.
    """
    levels = sorted({comparison.alpha for comparison in comparisons.values()})
    if len(levels) > 1:
        raise InvalidRequestError(
            f"co-primary objectives need one alpha, found {', '.join(map(str, levels))}; possible: compare "
            f"all of {', '.join(comparisons)} at the same level"
        )
    adjusted = holm([comparison.test.p_value for comparison in comparisons.values()])
    return {
        name: replace(comparison, adjusted_p_value=p_value)
        for (name, comparison), p_value in zip(comparisons.items(), adjusted, strict=True)
    }


def headroom(
    baseline: Sequence[float],
    *,
    minimum_effect: float,
    level: float = 0.95,
    floor: float = 0.0,
    ceiling: float = 1.0,
) -> Headroom:
    """Return how much room the baseline leaves above itself, from its scores on the val split.

    Args:
        baseline: scores of independent examples, each in [floor, ceiling].
        minimum_effect: smallest difference that matters, in the unit of the score, at least 0.
        level: of the two-sided interval whose lower bound is used, in (0, 1).
        floor: lowest possible score.
        ceiling: highest possible score.

    Raises:
        InvalidRequestError: no scores, scores outside their bounds, or a ceiling not above the floor.
    Source: Wilson's bound on the mean of the scores stretched to [0, 1]; conservative (finds headroom rather
    than none) for scores between the bounds, because none varies more than a coin with its mean.
    """
    _check_minimum_effect(minimum_effect)
    scores = np.asarray(baseline, float)
    if scores.size == 0 or not bool(np.all((floor <= scores) & (scores <= ceiling))) or not floor < ceiling:
        found = f"{scores.min()} to {scores.max()}" if scores.size else "none"
        raise InvalidRequestError(
            f"baseline needs at least 1 score within [{floor}, {ceiling}], found {found}; possible: the "
            "bounds that the metric declares"
        )
    mean = float(scores.mean())
    share = min(1.0, max(0.0, (mean - floor) / (ceiling - floor)))
    bound = wilson_interval(share * scores.size, scores.size, level=level).lower
    return Headroom(
        n=scores.size,
        baseline_mean=mean,
        possible_gain=ceiling - mean,
        largest_gain=(ceiling - floor) * (1.0 - bound),
        minimum_effect=minimum_effect,
    )


def _detectable(sample: PairedSample, test: PairedTest, *, alpha: float, power: float) -> float | None:
    if sample.binary and not sample.clustered:
        return detectable_share(sample.n, discordant_share=test.non_zero / sample.n, alpha=alpha, power=power)
    error = sample.standard_error()
    if is_sparse(sample, alpha=alpha) or error is None or error == 0.0:
        share = detectable_share(sample.units, discordant_share=0.0, alpha=alpha, power=power)
        return None if share is None or sample.score_range == 0.0 else share * sample.score_range
    deviation = error * math.sqrt(sample.units)
    return detectable_mean(sample.units, standard_deviation=deviation, alpha=alpha, power=power)


def _check_minimum_effect(minimum_effect: float) -> None:
    if not (math.isfinite(minimum_effect) and minimum_effect >= 0.0):
        raise InvalidRequestError(
            f"minimum_effect must be a number of at least 0, found {minimum_effect}; possible: the smallest "
            "gain that matters, for example 0.02"
        )
