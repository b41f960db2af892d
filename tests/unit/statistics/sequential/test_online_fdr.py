"""e-LOND against its definition and another package."""

from __future__ import annotations

import numpy as np
import pytest

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import e_lond_level, e_lond_threshold, expected_false_wins


def test_levels() -> None:
    """alpha / (t (t + 1)) times one more than the wins before."""
    assert e_lond_level(experiment=1, wins_before=0) == pytest.approx(0.025)
    assert e_lond_level(experiment=3, wins_before=2, alpha=0.1) == pytest.approx(0.1 * 3 / 12)
    assert e_lond_threshold(experiment=1, wins_before=0) == pytest.approx(40.0)


def test_levels_without_wins_sum_to_alpha() -> None:
    """The first win of all: over 100,000 experiments no more than alpha is spent."""
    total = sum(e_lond_level(experiment=number, wins_before=0) for number in range(1, 100_001))

    assert 0.0499 < total <= 0.05


def test_decides_as_online_fdr_does() -> None:
    """The package online-fdr (ELond) with the same sequence, on 300 e-values."""
    package = pytest.importorskip("online_fdr.e_values.sequential")
    sequences = pytest.importorskip("online_fdr.core.abstract.abstract_gamma_seq")

    class Harmonic(sequences.AbstractGammaSequence):  # type: ignore[misc, name-defined]
        """1 / (t (t + 1))."""

        def __init__(self) -> None:
            super().__init__(gamma_exp=0.0, c=1.0)

        def calc_gamma(self, j: int, **_: object) -> float:
            return 1.0 / (j * (j + 1))

    theirs = package.ELond(alpha=0.05, gamma_seq=Harmonic())
    e_values = np.exp(np.random.default_rng(1).normal(3.0, 4.0, 300))
    wins, expected = [], []
    for number, e_value in enumerate(e_values, start=1):
        expected.append(theirs.test_one(float(e_value)))
        wins.append(bool(e_value >= e_lond_threshold(experiment=number, wins_before=sum(wins))))

    assert expected == wins
    assert 5 < sum(wins) < 290


def test_expected_false_wins() -> None:
    """Ten experiments at .05: half a false win."""
    assert expected_false_wins(alpha=0.05, experiments=10) == pytest.approx(0.5)
    assert expected_false_wins(alpha=0.05, experiments=0) == 0.0
    with pytest.raises(InvalidRequestError, match="found: -1"):
        expected_false_wins(alpha=0.05, experiments=-1)


@pytest.mark.parametrize(("experiment", "wins_before"), [(0, 0), (2, 2), (3, -1)])
def test_histories_that_cannot_be(experiment: int, wins_before: int) -> None:
    """More wins than experiments before."""
    with pytest.raises(InvalidRequestError, match="wanted: an experiment from 1 on and fewer earlier wins"):
        e_lond_level(experiment=experiment, wins_before=wins_before)
