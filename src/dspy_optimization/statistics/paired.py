"""Two candidates' scores on the same examples, and the tests of their difference.

The null hypothesis of every test here: baseline and candidate are exchangeable on each unit, so a unit's
difference is as likely to have the opposite sign. A unit is an example, or a cluster of examples where there
are clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import special

from dspy_optimization.errors import InvalidRequestError

RESAMPLES = 9_999
"""Sign patterns or bootstrap samples drawn where enumeration is too long."""

ENUMERATION_LIMIT = 16
"""Up to this many non-zero units all 2 ** m sign patterns are counted."""

CELLS_PER_CHUNK = 2_000_000
"""Random numbers held in memory at a time."""

ROUNDING = 1e-12
"""Differences below this share of the scores they come from are rounding, and count as 0."""


class PairedMethod(StrEnum):
    """How a paired p-value was computed."""

    # One answer an example, right or wrong: binomial on the discordant pairs.
    MCNEMAR = "mcnemar_exact"
    # Every sign pattern of the examples counted.
    SIGN_FLIP_EXACT = "sign_flip_exact"
    # RESAMPLES random sign patterns of the examples.
    SIGN_FLIP_MONTE_CARLO = "sign_flip_monte_carlo"
    # Every sign pattern of the clusters counted.
    CLUSTER_SIGN_FLIP_EXACT = "cluster_sign_flip_exact"
    # RESAMPLES random sign patterns of the clusters.
    CLUSTER_SIGN_FLIP_MONTE_CARLO = "cluster_sign_flip_monte_carlo"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSample:
    """The scores of a baseline and a candidate on the same examples, in the same order; higher is better.

    Raises:
        InvalidRequestError: no example, lengths that differ, or a score that is not a finite number.
    """

    baseline: tuple[float, ...]
    """(n_examples,), one score an example; several answers to one example are averaged before."""
    candidate: tuple[float, ...]
    """(n_examples,), in the order of `baseline`."""
    clusters: tuple[str, ...] | None = None
    """(n_examples,), the conversation, document or customer of each example; None = all independent."""

    def __post_init__(self) -> None:
        n = len(self.baseline)
        if n == 0:
            raise InvalidRequestError(
                "a paired sample needs at least 1 example, found 0; possible: scores of both on the same examples"
            )
        lengths = {"candidate": len(self.candidate)}
        if self.clusters is not None:
            lengths["clusters"] = len(self.clusters)
        for name, length in lengths.items():
            if length != n:
                raise InvalidRequestError(
                    f"{name} must have one entry for each of the {n} baseline scores, found {length}; "
                    "possible: only examples that both were scored on"
                )
        for name, scores in (("baseline", self.baseline), ("candidate", self.candidate)):
            for index, score in enumerate(scores):
                if not math.isfinite(score):
                    raise InvalidRequestError(
                        f"{name} scores must be finite numbers, found {score} at index {index}; possible: "
                        "the floor of the metric for a failed example"
                    )

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.baseline)

    @property
    def clustered(self) -> bool:
        """Whether any cluster has two examples; clusters of one are no clusters."""
        return self.clusters is not None and len(set(self.clusters)) < self.n

    @property
    def units(self) -> int:
        """The number of independent units: clusters where there are any, else examples."""
        return self.n if self.clusters is None else len(set(self.clusters))

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return {*self.baseline, *self.candidate} <= {0.0, 1.0}

    @property
    def score_range(self) -> float:
        """Largest minus smallest score of either, at least as large as any difference."""
        scores = (*self.baseline, *self.candidate)
        return max(scores) - min(scores)

    def differences(self) -> npt.NDArray[np.float64]:
        """Return candidate minus baseline, (n_examples,), with rounding errors set to 0."""
        baseline, candidate = np.asarray(self.baseline, float), np.asarray(self.candidate, float)
        differences: npt.NDArray[np.float64] = candidate - baseline
        differences[np.abs(differences) <= ROUNDING * np.maximum(np.abs(baseline), np.abs(candidate))] = 0.0
        return differences

    def unit_sums(self) -> npt.NDArray[np.float64]:
        """Return the summed difference of each unit, (units,), with rounding errors set to 0."""
        differences = self.differences()
        if not self.clustered:
            return differences
        sums = sum_by_cluster(differences, self.clusters)
        sums[np.abs(sums) <= ROUNDING * sum_by_cluster(np.abs(differences), self.clusters)] = 0.0
        return sums

    def improvement_percentage(self) -> float | None:
        """Return 100 (candidate - baseline) / |baseline| of the means; None when the baseline's mean is 0."""
        base = math.fsum(self.baseline)
        if abs(base) <= ROUNDING * math.fsum(map(abs, self.baseline)):
            return None
        return 100.0 * math.fsum(self.differences()) / abs(base)

    def standard_error(self) -> float | None:
        """Return the standard error of the mean difference, clustered where there are clusters."""
        return standard_error(self.differences(), self.clusters)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """A two-sided test of one paired sample."""

    p_value: float
    """In (0, 1]; valid: P(p_value <= a) <= a when baseline and candidate are exchangeable."""
    mid_p: float | None
    """McNemar's mid-p, less conservative, may exceed its level a little; None for other methods."""
    method: PairedMethod
    n: int
    """Examples."""
    units: int
    """Independent units: clusters, or examples."""
    wins: int
    """Units on which the candidate is better."""
    losses: int
    """Units on which the baseline is better."""

    def __post_init__(self) -> None:
        if not 0.0 < self.p_value <= 1.0:
            raise InvalidRequestError(f"p_value must lie in (0, 1], found {self.p_value}; possible: any other number")

    @property
    def non_zero(self) -> int:
        """Units on which the two differ: McNemar's discordant pairs."""
        return self.wins + self.losses


def paired_test(sample: PairedSample, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> PairedTest:
    """Return the test that suits the sample.

    Binary scores without clusters: exact McNemar. All else: the sign-flip test on the units.
    """
    if sample.clustered or not sample.binary:
        return sign_flip_test(sample, rng=rng, resamples=resamples)
    differences = sample.differences()
    return mcnemar_test(
        only_baseline=int(np.sum(differences < 0.0)),
        only_candidate=int(np.sum(differences > 0.0)),
        n=sample.n,
    )


def mcnemar_test(*, only_baseline: int, only_candidate: int, n: int) -> PairedTest:
    """Return exact two-sided McNemar on the discordant pairs; without any, p is 1.

    Args:
        only_baseline: examples that only the baseline gets right.
        only_candidate: examples that only the candidate gets right.
        n: all examples.

    Raises:
        InvalidRequestError: negative counts, or more discordant pairs than examples.
    Source: p = min(1, 2 P[Bin(b + c, 1/2) <= min(b, c)]); mid-p (Fagerland, Lydersen, Laake 2013) counts the
    observed table half, p - P[Bin = min(b, c)], at most 1.
    """
    discordant = only_baseline + only_candidate
    if min(only_baseline, only_candidate) < 0 or not 0 < n >= discordant:
        raise InvalidRequestError(
            f"discordant counts must be at least 0 and at most n together, found {only_baseline} and "
            f"{only_candidate} of {n}; possible: counts of one table of at least 1 example"
        )
    fewer = min(only_baseline, only_candidate)
    doubled = 2.0 * float(special.bdtr(fewer, discordant, 0.5))
    observed = doubled / 2.0 - (float(special.bdtr(fewer - 1, discordant, 0.5)) if fewer > 0 else 0.0)
    return PairedTest(
        p_value=min(1.0, doubled),
        mid_p=min(1.0, doubled - observed),
        method=PairedMethod.MCNEMAR,
        n=n,
        units=n,
        wins=only_candidate,
        losses=only_baseline,
    )


def sign_flip_test(sample: PairedSample, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> PairedTest:
    """Return the two-sided sign-flip (randomization) test of the summed difference.

    Whole clusters flip together. Exact by enumeration up to ENUMERATION_LIMIT non-zero units, exact by the
    binomial where all non-zero units have one size, else by `resamples` random patterns, (count + 1) /
    (resamples + 1), which is valid and never 0.
    Source: Fisher 1935; Phipson and Smyth 2010 for the + 1.
    """
    sums = sample.unit_sums()
    non_zero = sums[sums != 0.0]
    exact = True
    if non_zero.size == 0:
        p_value = 1.0
    elif np.ptp(np.abs(non_zero)) <= ROUNDING * np.abs(non_zero).max():
        fewer = min(int(np.sum(non_zero > 0.0)), int(np.sum(non_zero < 0.0)))
        p_value = min(1.0, 2.0 * float(special.bdtr(fewer, non_zero.size, 0.5)))
    else:
        exact = non_zero.size <= ENUMERATION_LIMIT
        totals = enumerated_sums(non_zero) if exact else flipped_sums(non_zero[:, None], rng, resamples)[:, 0]
        # Sums that are equal on paper differ by rounding; a tie must count as one.
        least = abs(non_zero.sum()) - 1e-10 * np.abs(non_zero).sum()
        count = int(np.sum(np.abs(totals) >= least))
        p_value = count / totals.size if exact else (count + 1) / (resamples + 1)
    return PairedTest(
        p_value=p_value,
        mid_p=None,
        method=_sign_flip_method(clustered=sample.clustered, exact=exact),
        n=sample.n,
        units=sample.units,
        wins=int(np.sum(sums > 0.0)),
        losses=int(np.sum(sums < 0.0)),
    )


def enumerated_sums(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum of the values under every sign pattern, (2 ** values.size,)."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums + value, sums - value))
    return sums


def flipped_sums(values: npt.NDArray[np.float64], rng: np.random.Generator, resamples: int) -> npt.NDArray[np.float64]:
    """Return the column sums under random signs, one sign for each row in each sample.

    Args:
        values: (n_units, n_columns).
        rng: read from, chunk by chunk.
        resamples: at least 1.

    Returns:
        (resamples, n_columns)
    """
    check_resamples(resamples)
    rows = max(1, CELLS_PER_CHUNK // max(1, values.shape[0]))
    totals = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), values.shape[0])
        signs = 2.0 * rng.integers(0, 2, size=size, dtype=np.int8) - 1.0
        totals[start : start + size[0]] = signs @ values
    return totals


def sum_by_cluster(values: npt.NDArray[np.float64], clusters: tuple[str, ...] | None) -> npt.NDArray[np.float64]:
    """Return the sum of each cluster, in the order of the sorted names; without clusters, the values."""
    if clusters is None:
        return values
    _, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    return np.asarray(np.bincount(cluster_of, weights=values), np.float64)


def standard_error(values: npt.NDArray[np.float64], clusters: tuple[str, ...] | None = None) -> float | None:
    """Return the standard error of the mean, robust to dependence within clusters; None below 2 units.

    Source: sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2) / n, Miller 2024 with
    the small-sample factor G / (G - 1); clusters of one give the usual s / sqrt(n).
    """
    deviations = sum_by_cluster(values - values.mean(), clusters)
    units = deviations.size
    if units < 2:
        return None
    return math.sqrt(units / (units - 1) * float(np.sum(deviations**2))) / values.size


def check_resamples(resamples: int) -> None:
    """Refuse a number of random samples below 1.

    Raises:
        InvalidRequestError: `resamples` is below 1.
    """
    if resamples < 1:
        raise InvalidRequestError(
            f"resamples must be at least 1, found {resamples}; possible: {RESAMPLES}, the default"
        )


def _sign_flip_method(*, clustered: bool, exact: bool) -> PairedMethod:
    if clustered:
        return PairedMethod.CLUSTER_SIGN_FLIP_EXACT if exact else PairedMethod.CLUSTER_SIGN_FLIP_MONTE_CARLO
    return PairedMethod.SIGN_FLIP_EXACT if exact else PairedMethod.SIGN_FLIP_MONTE_CARLO
