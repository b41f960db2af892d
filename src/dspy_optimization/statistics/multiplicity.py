"""Several claims at once: Holm, Benjamini-Hochberg, step-down max-T, and re-use of one test split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.paired import RESAMPLES, flipped_sums, sum_by_cluster
from dspy_optimization.statistics.probability import checked_probability


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's adjusted p-values, in the order given: the chance of any false claim stays at the level.

    Args:
        p_values: each in [0, 1], any dependence.
    Source: Holm 1979, step-down Bonferroni.
    """
    p, order = _sorted(p_values)
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _unsorted(stepped, order)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Benjamini-Hochberg's q-values, in the order given: the expected share of false claims.

    Args:
        p_values: each in [0, 1], independent or positively dependent.
    Source: Benjamini and Hochberg 1995, step-up.
    """
    p, order = _sorted(p_values)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    return _unsorted(np.minimum.accumulate(scaled[::-1])[::-1], order)


def max_t(
    differences: npt.NDArray[np.float64],
    *,
    rng: np.random.Generator,
    clusters: tuple[str, ...] | None = None,
    resamples: int = RESAMPLES,
) -> tuple[float, ...]:
    """Return step-down max-T adjusted two-sided p-values, for many comparisons on the same examples.

    One sign for each example (or cluster) flips all comparisons together, so their correlation is used and
    not paid for. For candidates times objectives where no untouched test split exists; two-sided, because a
    regression is a finding too.

    Args:
        differences: (n_examples, n_comparisons), candidate minus baseline, finite.
        rng: read from.
        clusters: (n_examples,), or None where examples are independent.
        resamples: random sign patterns.

    Returns:
        (n_comparisons,), each in (0, 1], in the order of the columns; 1 for a column of zeros.
    Source: Westfall and Young 1993, algorithm 4.1, with t_k = sum_i d_ik / sqrt(sum_i d_ik^2) in absolute
    value and (count + 1) / (resamples + 1).
    """
    if differences.ndim != 2 or 0 in differences.shape or not np.isfinite(differences).all():
        raise InvalidRequestError(
            f"differences must be finite numbers of shape (n_examples, n_comparisons), found shape "
            f"{differences.shape}; possible: one column for each candidate and objective"
        )
    sums = np.column_stack([sum_by_cluster(column, clusters) for column in differences.T])
    scale = np.sqrt(np.sum(sums**2, axis=0))
    scale[scale == 0.0] = 1.0
    observed = np.abs(sums.sum(axis=0)) / scale
    flipped = np.abs(flipped_sums(sums, rng, resamples)) / scale
    order = np.argsort(-observed, kind="stable")
    # Column k becomes the largest statistic among comparison k and all less extreme ones.
    rest = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]
    counts = np.sum(rest >= observed[order] * (1.0 - 1e-10), axis=0)
    return _unsorted(np.maximum.accumulate((counts + 1) / (resamples + 1)), order)


def reuse_level(alpha: float, use: int) -> float:
    """Return the level for the `use`-th test on one test split: alpha / (use (use + 1)).

    Over all uses the levels sum to alpha, so the split may be used for ever; after the fifth use (alpha / 30)
    a fresh split is the better answer.

    Args:
        alpha: for all uses together, in (0, 1).
        use: 1 for the first.
    """
    checked_probability("alpha", alpha)
    if use < 1:
        raise InvalidRequestError(f"use must be at least 1, found {use}; possible: 1 for the first test of a split")
    return alpha / (use * (use + 1))


def check_reuse(alpha: float, use: int) -> None:
    """Refuse a use of a test split whose level is below what the random tests can resolve.

    Args:
        alpha: for all uses together, in (0, 1).
        use: 1 for the first.

    Raises:
        InvalidRequestError: the level is not above 1 / (RESAMPLES + 1); at an alpha of 0.05 from the 22nd use on.
    """
    level = reuse_level(alpha, use)
    if level <= 1.0 / (RESAMPLES + 1):
        raise InvalidRequestError(
            f"wanted: a test split that can still prove something; found: use {use} of this one, which leaves a level "
            f"of {level:.2g}; possible: a dataset with fresh test examples"
        )


def _sorted(p_values: Sequence[float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    p = np.asarray(p_values, float)
    if not bool(np.all((p >= 0.0) & (p <= 1.0))):
        raise InvalidRequestError(
            f"p-values must lie in [0, 1], found {[float(value) for value in p]}; possible: one for each claim"
        )
    return p, np.argsort(p, kind="stable")


def _unsorted(values: npt.NDArray[np.float64], order: npt.NDArray[np.intp]) -> tuple[float, ...]:
    result = np.empty(order.size)
    result[order] = np.minimum(1.0, values)
    return tuple(map(float, result))
