"""Bootstrap samples of many means at once."""

import numpy as np
import pytest

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics import resampled_means


def _all(columns: "np.typing.NDArray[np.float64]", **more: object) -> "np.typing.NDArray[np.float64]":
    terms: dict[str, object] = {"clusters": None, "rng": np.random.default_rng(5), "resamples": 4_000, **more}
    return np.vstack(list(resampled_means(columns, **terms)))  # type: ignore[arg-type]


def test_spread_and_middle_are_those_of_the_closed_form() -> None:
    """The bootstrap variance of a mean is the population variance over n (Efron and Tibshirani 1993, eq. 6.6)."""
    values = np.random.default_rng(1).normal(size=(40, 2))

    drawn = _all(values)

    assert np.allclose(values.mean(axis=0), drawn.mean(axis=0), atol=0.01)
    assert np.allclose(np.sqrt(values.var(axis=0) / 40), drawn.std(axis=0), rtol=0.05)


def test_clusters_are_drawn_whole() -> None:
    """Two clusters: a sample is one of them twice, or both; the mean of both weighs them by their size."""
    values = np.array([[0.0], [0.0], [0.0], [1.0]])

    drawn = _all(values, clusters=("a", "a", "a", "b"))

    assert {0.0, 0.25, 1.0} == set(np.round(drawn[:, 0], 12))
    assert 0.5 == pytest.approx(float(np.mean(drawn == 0.25)), abs=0.03)


def test_what_is_paired_stays_paired_however_it_is_cut() -> None:
    """Equal columns have equal samples; pieces and further columns change no sample."""
    values = np.random.default_rng(2).random((23, 3))
    values[:, 2] = values[:, 0]

    whole, cut, alone = _all(values), _all(values, rows=7), _all(values[:, :1])

    assert np.allclose(whole[:, 0], whole[:, 2], atol=1e-12)
    assert np.allclose(whole, cut, atol=1e-12)
    assert np.allclose(whole[:, :1], alone, atol=1e-12)


def test_what_cannot_be_resampled_is_refused() -> None:
    """No examples, other clusters, no samples."""
    with pytest.raises(InvalidRequestError, match="found: 0 examples"):
        _all(np.empty((0, 1)))
    with pytest.raises(InvalidRequestError, match="3 examples and 2 clusters"):
        _all(np.zeros((3, 1)), clusters=("a", "b"))
    with pytest.raises(InvalidRequestError, match="resamples must be at least 1"):
        _all(np.zeros((3, 1)), resamples=0)
