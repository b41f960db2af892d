"""What a paired design can show: the smallest sample, the power, the smallest detectable effect."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability


def minimum_units(alpha: float) -> int:
    """Return the fewest non-zero pairs (or clusters) with which a two-sided paired test can reach p < alpha.

    Both exact McNemar and the sign-flip test end at p = 2 ** (1 - m) when all m non-zero units point the same
    way: 6 at 0.05, 8 at 0.01.

    Args:
        alpha: two-sided, in (0, 1).
    """
    checked_probability("alpha", alpha)
    units = 1
    while 2.0 ** (1 - units) >= alpha:
        units += 1
    return units


def mcnemar_sample_size(*, effect: float, discordant_share: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many examples show a difference of two paired success rates.

    Args:
        effect: candidate minus baseline, 0 < |effect| <= discordant_share; only its size counts.
        discordant_share: share of the examples that exactly one of the two gets right, in (0, 1].
        alpha: two-sided.
        power: chance to find the effect.

    Raises:
        InvalidRequestError: no such pair of success rates exists.
    Source: Connor 1987, n = ((z_a sqrt(pd) + z_b sqrt(pd - psi^2)) / psi)^2, a normal
    approximation: exact McNemar has a few points less power (see `mcnemar_power`).
    """
    z_alpha, z_power = _normal_quantiles(alpha, power)
    _check_discordance(effect, discordant_share)
    if effect == 0.0:
        raise InvalidRequestError(
            "effect must differ from 0 to be found by any sample size, found 0; possible: the smallest gain "
            "that matters, for example 0.05"
        )
    root = z_alpha * math.sqrt(discordant_share) + z_power * math.sqrt(discordant_share - effect**2)
    return max(minimum_units(alpha), math.ceil((root / effect) ** 2))


def mcnemar_power(n: int, *, effect: float, discordant_share: float, alpha: float = 0.05) -> float:
    """Return the exact chance that two-sided exact McNemar gets p < alpha, in [0, 1].

    Args:
        n: examples, at least 1.
        effect: candidate minus baseline, in [-discordant_share, discordant_share].
        discordant_share: in (0, 1].
        alpha: two-sided.
    Source: the definition, summed over the binomial number of discordant pairs.
    """
    _check_count("n", n)
    checked_probability("alpha", alpha)
    _check_discordance(effect, discordant_share)
    from scipy import stats  # takes a second, and nothing else here needs it

    discordant = np.arange(n + 1)
    chance = stats.binom.pmf(discordant, n, discordant_share)
    candidate_share = (discordant_share + effect) / (2.0 * discordant_share)
    critical = stats.binom.ppf(alpha / 2.0, discordant, 0.5) - 1.0
    rejected = stats.binom.cdf(critical, discordant, candidate_share)
    rejected += stats.binom.cdf(critical, discordant, 1.0 - candidate_share)
    return float(min(1.0, np.sum(chance * rejected)))


def detectable_share(n: int, *, discordant_share: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Return the smallest difference of two paired success rates that n examples show, or None when none.

    The equation of `mcnemar_sample_size` solved for the effect. An effect cannot exceed the share of
    discordant pairs, so where the solution would, the share is taken to grow with the effect, all of it in
    one direction: that is why a sample without any discordant pair still has an answer.

    Args:
        n: examples, at least 1.
        discordant_share: observed or expected, in [0, 1].
        alpha: two-sided.
        power: chance to find the effect.

    Returns:
        In (0, 1]; None when even a difference of 1 is too small for n.
    Source: with y = (z_a sqrt(n) + z_b sqrt(n + z_b^2 - z_a^2)) / (n + z_b^2), psi = sqrt(pd) y, and psi =
        y^2
    where psi would exceed pd.
    """
    _check_count("n", n)
    z_alpha, z_power = _normal_quantiles(alpha, power)
    if not 0.0 <= discordant_share <= 1.0:
        raise InvalidRequestError(
            f"discordant_share must lie in [0, 1], found {discordant_share}; possible: the share of examples "
            "that exactly one of the two gets right"
        )
    # Below z_a^2 even n differences that all point one way stay under the normal quantile.
    if n < minimum_units(alpha) or n < z_alpha**2:
        return None
    inside = n + z_power**2 - z_alpha**2
    root = (z_alpha * math.sqrt(n) + z_power * math.sqrt(inside)) / (n + z_power**2)
    return root * max(math.sqrt(discordant_share), root)


def detectable_mean(n: int, *, standard_deviation: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Return the smallest mean paired difference that n independent units show, in the unit of the score.

    Args:
        n: examples or clusters.
        standard_deviation: of one unit's difference, above 0; for clusters the clustered standard error times
            sqrt(n).
        alpha: two-sided.
        power: chance to find the effect.

    Returns:
        Above 0; None when n is too small for any test to reach alpha.
    Source: (t_{1-a/2} + t_power) sd / sqrt(n) with n - 1 degrees of freedom, an approximation to the
        non-central t
    (within 2 % from 10 units on).
    """
    _check_count("n", n)
    checked_probability("alpha", alpha)
    checked_probability("power", power)
    if not (math.isfinite(standard_deviation) and standard_deviation > 0.0):
        raise InvalidRequestError(
            f"standard_deviation must be a number above 0, found {standard_deviation}; possible: the spread "
            "of the paired differences of an earlier evaluation"
        )
    if n < minimum_units(alpha):
        return None
    quantiles = special.stdtrit(n - 1, [1.0 - alpha / 2.0, power])
    return float(np.sum(quantiles)) * standard_deviation / math.sqrt(n)


def _normal_quantiles(alpha: float, power: float) -> tuple[float, float]:
    checked_probability("alpha", alpha)
    checked_probability("power", power)
    return float(special.ndtri(1.0 - alpha / 2.0)), float(special.ndtri(power))


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise InvalidRequestError(f"{name} must be at least 1, found {value}; possible: the number of examples")


def _check_discordance(effect: float, discordant_share: float) -> None:
    if not (0.0 < discordant_share <= 1.0 and abs(effect) <= discordant_share):
        raise InvalidRequestError(
            f"discordant_share must lie in (0, 1] and be at least the effect, found {discordant_share} with "
            f"an effect of {effect}; possible: a larger discordant_share or a smaller effect"
        )
