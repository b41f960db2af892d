"""Pseudo-outcomes: their mean, their range, and that they look back only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.statistics.sequential.pseudo_outcomes import Moments, pseudo_outcomes
from dspy_optimization.statistics.sequential.units import Units


@given(st.integers(0, 2**32), st.floats(0.01, 0.99), st.floats(0, 1), st.sampled_from([1.0, 1.1, 3.0]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_mean_and_range(seed: int, pi: float, y1: float, k: float, y0: float) -> None:
    """pi phi(1, y1) + (1 - pi) phi(0, y0) = y1 - k y0, and every phi lies between its announced ends."""
    rng = np.random.default_rng(seed)
    history = Units.of(rng.random(30) < pi, rng.random(30), pi)
    _, moments = pseudo_outcomes(history, Moments(), historical_mean=0.7, factor=k)

    def one(treated: bool, outcome: float) -> tuple[float, float, float, float]:
        found, _ = pseudo_outcomes(Units.of([treated], [outcome], pi), moments, historical_mean=0.7, factor=k)
        return float(found.value[0]), float(found.lowest[0]), float(found.highest[0]), float(found.variance[0])

    treated, control = one(True, y1), one(False, y0)
    ends = [one(arm, end)[0] for arm in (True, False) for end in (0.0, 1.0)]

    assert pi * treated[0] + (1 - pi) * control[0] == pytest.approx(y1 - k * y0, abs=1e-9)
    assert treated[1:] == control[1:]
    assert treated[1] == pytest.approx(-min(ends))
    assert treated[2] == pytest.approx(max(ends))


def test_centre_and_variance_are_predicted() -> None:
    """A unit's own arm and outcome change nothing of what its bet goes by; history does."""
    rng = np.random.default_rng(1)
    treated, outcome = rng.random(50) < 0.3, rng.random(50)
    one, _ = pseudo_outcomes(Units.of(treated, outcome, 0.3), Moments(), historical_mean=0.5, factor=1.0)
    treated[49], outcome[49] = not treated[49], 1.0 - outcome[49]
    other, _ = pseudo_outcomes(Units.of(treated, outcome, 0.3), Moments(), historical_mean=0.5, factor=1.0)

    assert one.value[49] != other.value[49]
    for name in ("lowest", "highest", "variance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert np.unique(one.variance).size == 50


def test_both_arms_count_alike() -> None:
    """At 1 in 50 treated, the centre goes half way between the arms: 0.5 for 1 and 0, not 0.02."""
    treated = np.arange(20_000) % 50 == 0
    _, moments = pseudo_outcomes(
        Units.of(treated, treated.astype(float), 0.02), Moments(), historical_mean=0.9, factor=1.0
    )
    last, _ = pseudo_outcomes(Units.of([True], [1.0], 0.02), moments, historical_mean=0.9, factor=1.0)

    assert last.value[0] == pytest.approx(0.5 / 0.02, rel=1e-3)
    assert (moments.n_treated, moments.n_control) == (400, 19_600)
    assert (moments.sum_treated, moments.sum_control) == (400.0, 0.0)


def test_variance_is_that_of_the_outcomes() -> None:
    """Of 10,000 uniform outcomes 1/12, not the 1/4 of successes and failures with the same mean."""
    rng = np.random.default_rng(2)
    units = Units.of(rng.random(10_000) < 0.5, rng.random(10_000), 0.5)
    found, _ = pseudo_outcomes(units, Moments(), historical_mean=0.5, factor=1.0)

    assert found.variance[0] == pytest.approx(4 * 0.25)
    assert found.variance[-1] == pytest.approx(4 / 12, rel=0.02)
