"""An interval for the difference of the arms that holds at every sample size, at a cost per unit that never grows.

The log wealth of a bet against "the difference is tau" is concave in tau (a sum of log(1 + lam (phi - tau))). So it
is kept for a fixed grid of differences, and between two of them the straight line is never above it: where the line
says that a difference is refuted, it is. The interval is a little too wide, by at most about lam h^2 / 8 for cells of
width h, and never too narrow. Places between grid points are counted in 2^-24 of a cell and rounded outwards, so a
bound is a whole number and does not depend on how the units were cut into pieces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_SIDE = (
    0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0,
)  # fmt: skip
GRID = (*(-tau for tau in reversed(_SIDE)), 0.0, *_SIDE)
"""The differences whose wealth is kept: symmetric, with 0, finer where differences of agents usually are."""
STEPS = 1 << 24
"""Places in a cell of the grid."""

Array = npt.NDArray[np.float64]

BET_WEIGHTS = (0.25, 0.40, 0.25, 0.10)
"""What of the wealth starts on each bet."""
_LOG_WEIGHTS = np.log(BET_WEIGHTS)


class DifferenceInterval(NamedTuple):
    """The differences (optimized minus baseline) that are not refuted, strictly between the two bounds.

    A bound of 0 therefore says that 0 itself is refuted.
    """

    lower: float
    upper: float


def log_mixture(log_wealth: Array) -> Array:
    """Return the log e-value of the mixture of bets.

    Args:
        log_wealth: (n_bets, ...), natural logs.

    Returns:
        (...).
    """
    terms = [log_wealth[bet] + _LOG_WEIGHTS[bet] for bet in range(len(BET_WEIGHTS))]
    largest = np.maximum(np.maximum(terms[0], terms[1]), np.maximum(terms[2], terms[3]))
    total = np.exp(terms[0] - largest)
    for term in terms[1:]:
        total += np.exp(term - largest)
    return np.asarray(largest + np.log(total))


def raised_bound(place: int, log_wealth: Array, log_threshold: float) -> int:
    """Return the lower bound after further units: the largest one that any of them reaches, or the old one.

    Args:
        place: of the old bound, cell times `STEPS` plus steps into the cell.
        log_wealth: (n_grid, n_bets, n), of bets that the difference is larger than the grid's, after each unit.
        log_threshold: natural log of the e-value that refutes a difference.

    Returns:
        A place in [place, (n_grid - 1) STEPS].
    Source: for upper bounds hand in the grid mirrored, the wealth of the opposite bets and the mirrored place.
    """
    last: int = log_wealth.shape[0] - 1
    cell, steps = divmod(place, STEPS)
    while cell < last and (log_mixture(log_wealth[cell + 1]) >= log_threshold).any():
        cell, steps = cell + 1, 0
    if cell == last:
        return last * STEPS
    left, right = log_wealth[cell], log_wealth[cell + 1]
    # The first trial is the next place: most of the time nothing has changed, and that is all it costs.
    beyond, trial = STEPS, steps + 1
    while beyond - steps > 1:
        reached = log_mixture(left + (trial / STEPS) * (right - left)) >= log_threshold
        if reached.any():
            left, right, steps = left[:, reached], right[:, reached], trial
        else:
            beyond = trial
        trial = (steps + beyond) // 2
    return cell * STEPS + steps


def difference_at(place: int) -> float:
    """Return the difference at a place of the grid, in [-1, 1]."""
    cell, steps = divmod(place, STEPS)
    if steps == 0:
        return GRID[cell]
    return GRID[cell] + (GRID[cell + 1] - GRID[cell]) * (steps / STEPS)
