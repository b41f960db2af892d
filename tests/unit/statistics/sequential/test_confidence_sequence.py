"""The grid and the bounds on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from dspy_optimization.statistics.sequential.confidence_sequence import (
    BET_WEIGHTS,
    GRID,
    STEPS,
    difference_at,
    log_mixture,
    raised_bound,
)

LAST = (len(GRID) - 1) * STEPS


def test_the_grid_is_symmetric_and_holds_no_difference() -> None:
    """Mirroring the grid has to give the grid, and 0 has to be one of its points."""
    assert [-tau for tau in reversed(GRID)] == list(GRID)
    assert GRID[len(GRID) // 2] == 0.0
    assert (GRID[0], GRID[-1]) == (-1.0, 1.0)
    assert list(GRID) == sorted(set(GRID))


@given(st.integers(0, LAST), st.integers(0, LAST))
def test_places_are_in_the_order_of_differences(one: int, other: int) -> None:
    """A larger place is a larger difference."""
    assert (one < other) is (difference_at(one) < difference_at(other))


def test_ends_of_the_grid() -> None:
    """Places of grid points are those points."""
    assert [difference_at(cell * STEPS) for cell in range(len(GRID))] == list(GRID)


@given(st.lists(st.floats(-2000, 500), min_size=4, max_size=4))
def test_mixture_is_the_log_of_the_weighted_sum(log_wealth: list[float]) -> None:
    """Against scipy's logsumexp, where plain numbers would over- or underflow."""
    expected = special.logsumexp(log_wealth, b=BET_WEIGHTS)

    assert log_mixture(np.array(log_wealth)[:, None])[0] == pytest.approx(expected, abs=1e-10)


def straight(slope: float, level: float) -> np.ndarray:
    """Return log wealth that falls along the grid, alike for all bets, after one unit."""
    return np.repeat((level - slope * np.array(GRID))[:, None, None], 4, axis=1)


@pytest.mark.parametrize("root", [-0.93, -0.0123, 0.0, 0.0123, 0.31, 0.999])
def test_finds_where_a_line_crosses(root: float) -> None:
    """Along a straight line the bound is the crossing itself, rounded down by less than a step."""
    place = raised_bound(0, straight(200.0, 3.0 + 200.0 * root), 3.0)

    assert difference_at(place) <= root + 1e-9
    assert difference_at(place) == pytest.approx(root, abs=2e-7)


def test_takes_the_best_of_all_looks_and_never_falls() -> None:
    """The bound of several units is the largest of theirs; an old one above stays."""
    looks = np.concatenate([straight(100.0, 3.0 + 100.0 * root) for root in (0.1, 0.21, -0.4)], axis=2)
    best = raised_bound(0, looks, 3.0)

    assert best == max(raised_bound(0, looks[:, :, look : look + 1], 3.0) for look in range(3))
    assert difference_at(best) == pytest.approx(0.21, abs=2e-7)
    assert best == raised_bound(best, looks[:, :, :1], 3.0)
    assert raised_bound(LAST, looks, 3.0) == LAST


def test_nothing_refuted_and_everything_refuted() -> None:
    """Both ends of the grid are possible answers."""
    assert raised_bound(0, straight(1.0, 0.0), math.log(40)) == 0
    assert raised_bound(0, straight(1.0, 100.0), math.log(40)) == LAST
