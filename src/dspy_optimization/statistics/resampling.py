"""Bootstrap samples of several means at once, of the same examples: what is paired stays paired."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.paired import CELLS_PER_CHUNK, check_resamples, sum_by_cluster


def resampled_means(
    columns: npt.NDArray[np.float64],
    *,
    clusters: tuple[str, ...] | None,
    rng: np.random.Generator,
    resamples: int,
    rows: int | None = None,
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the means of every column in bootstrap samples of the examples, (some samples, n_columns) at a time.

    Args:
        columns: (n_examples, n_columns), finite; one column for each score of each candidate.
        clusters: (n_examples,), drawn whole; None: examples are drawn one by one.
        rng: read from; the same one gives the same samples, however many columns there are.
        resamples: samples in all, at least 1.
        rows: how many at a time at most; None: as many as fit into memory well.

    Raises:
        InvalidRequestError: no example, no resample, or clusters of another length.
    Source: Efron and Tibshirani 1993, chapter 6; whole clusters as Cameron, Gelbach and Miller 2008, the mean of a
    sample being the ratio of its sums.
    """
    check_resamples(resamples)
    n = columns.shape[0]
    if n == 0 or (clusters is not None and len(clusters) != n):
        raise InvalidRequestError(
            f"wanted: scores of at least 1 example, each with its cluster; found: {n} examples and "
            f"{n if clusters is None else len(clusters)} clusters; possible: the examples both were scored on"
        )
    sums = np.column_stack([sum_by_cluster(column, clusters) for column in columns.T])
    sizes = sum_by_cluster(np.ones(n), clusters)
    units = sizes.size
    most = max(1, CELLS_PER_CHUNK // max(units, columns.shape[1]))
    step = most if rows is None else max(1, min(rows, most))
    for start in range(0, resamples, step):
        drawn = rng.multinomial(units, np.full(units, 1.0 / units), size=min(step, resamples - start))
        yield np.asarray(drawn @ sums / (drawn @ sizes)[:, None], np.float64)
