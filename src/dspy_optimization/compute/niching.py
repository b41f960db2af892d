"""Survivors spread along reference directions, for three and more objectives, where room says little."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.ranking import Floats, Integers, checked, fronts, seniorities
from dspy_optimization.errors import InvalidRequestError

_FAR = 1e-6
"""Weight of the other objectives when the extreme point of one is looked for."""
_THIN = 1e-10
"""A front that spans less than this in an objective is flat there."""


def directions(objectives: int, divisions: int) -> Floats:
    """Return evenly spread points of the unit simplex, (k, objectives): every row sums to 1, in steps of 1 / divisions.

    Raises:
        InvalidRequestError: less than one objective or division, or more than a million directions.

    Source: Das and Dennis (1998).
    """
    if objectives < 1 or divisions < 1:
        raise InvalidRequestError(
            f"directions: wanted: at least one objective and one division; found: {objectives} and {divisions}; "
            "possible: 3 and 12, which gives 91"
        )
    count = comb(objectives + divisions - 1, divisions)
    if count > 1_000_000:
        raise InvalidRequestError(
            f"directions: wanted: at most 1,000,000; found: {count}; possible: fewer divisions than {divisions}"
        )
    # Stars and bars: where the bars stand among the stars says how many stars each objective gets.
    bars = np.array(list(combinations(range(objectives + divisions - 1), objectives - 1)), dtype=np.int64)
    bars = bars.reshape(count, objectives - 1)
    walls = np.column_stack([np.full(count, -1), bars, np.full(count, objectives + divisions - 1)])
    return (np.diff(walls, axis=1) - 1) / divisions


def niched(
    values: npt.ArrayLike,
    count: int,
    along: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    violations: npt.ArrayLike | None = None,
    seniority: npt.ArrayLike | None = None,
) -> Integers:
    """Return the survivors' places, (count,), by front: whole ones, and of the last those of the emptiest directions.

    The same points in another order, with their seniority, and a generator in the same state give the same survivors.

    Args:
        values: (n, m), smaller is better.
        count: how many survive, at most n.
        along: (k, m), `directions`.
        rng: decides between directions and points that are level.
        violations: (n,), as in `ranking.fronts`.
        seniority: (n,), all different, smaller is more senior; None: in the order given.

    Raises:
        InvalidRequestError: shapes that do not fit, or more survivors than points.

    Source: Deb and Jain (2014), NSGA-III.
    """
    points = checked(values)
    rays = np.asarray(along, dtype=np.float64)
    if rays.ndim != 2 or rays.shape[1] != points.shape[1] or not len(rays):
        raise InvalidRequestError(
            f"directions: wanted: rows of {points.shape[1]} numbers; found: shape {rays.shape}; possible: "
            "compute.niching.directions"
        )
    if not 0 <= count <= len(points):
        raise InvalidRequestError(
            f"count: wanted: 0 to {len(points)}, as many as there are points; found: {count}; possible: more points"
        )
    by_age = np.argsort(seniorities(seniority, len(points)))
    ranked = fronts(points, violations)[by_age]
    sizes = np.cumsum(np.bincount(ranked, minlength=1))
    last = int(np.searchsorted(sizes, count))
    sure = np.flatnonzero(ranked < last)
    sure = sure[np.argsort(ranked[sure], kind="stable")]
    torn = np.flatnonzero(ranked == last)
    missing = count - len(sure)
    if missing and missing < len(torn):
        if np.isfinite(points[by_age[np.r_[sure, torn]]]).all():
            torn = torn[_fill(points[by_age], sure, torn, missing, rays, rng)]
        else:
            torn = torn[:missing]
    elif not missing:
        torn = torn[:0]
    return by_age[np.r_[sure, torn]].astype(np.int64)


def _fill(
    points: Floats, sure: Integers, torn: Integers, missing: int, rays: Floats, rng: np.random.Generator
) -> Integers:
    """Return which of the torn front's members fill up, as places within it."""
    nearest, distance = _associate(_normalised(points[np.r_[sure, torn]]), rays)
    niche, near = nearest[len(sure) :], distance[len(sure) :]
    crowd = np.bincount(nearest[: len(sure)], minlength=len(rays)).astype(np.float64)
    waiting = np.ones(len(torn), dtype=bool)
    crowd[np.bincount(niche, minlength=len(rays)) == 0] = np.inf
    taken = []
    for _ in range(missing):
        ray = rng.choice(np.flatnonzero(crowd == crowd.min()))
        members = np.flatnonzero(waiting & (niche == ray))
        one = int(members[np.argmin(near[members])] if crowd[ray] == 0 else rng.choice(members))
        taken.append(one)
        waiting[one] = False
        crowd[ray] = crowd[ray] + 1 if len(members) > 1 else np.inf
    return np.array(taken, dtype=np.int64)


def _normalised(points: Floats) -> Floats:
    """Return the points between 0 at the best of each objective and 1 where the plane of the extreme points cuts it."""
    moved = points - points.min(axis=0)
    axes = np.where(np.eye(points.shape[1], dtype=bool), 1.0, _FAR)
    extreme = moved[np.argmin((moved[:, None, :] / axes[None]).max(axis=2), axis=0)]
    reach = moved.max(axis=0)
    with np.errstate(divide="ignore"):
        try:
            cut = 1.0 / np.linalg.solve(extreme, np.ones(len(extreme)))
        except np.linalg.LinAlgError:
            cut = reach
    # A plane that is nearly parallel to an axis cuts it nowhere near the points.
    if not ((cut > _THIN) & (cut <= reach + _THIN)).all():
        cut = reach
    scaled: Floats = moved / np.where(cut > _THIN, cut, 1.0)
    return scaled


def _associate(points: Floats, rays: Floats) -> tuple[Integers, Floats]:
    """Return the direction nearest to each point, and how far it is away."""
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    along = points @ unit.T
    square = (points**2).sum(axis=1, keepdims=True) - along**2
    nearest = square.argmin(axis=1)
    return nearest, np.sqrt(np.maximum(square[np.arange(len(points)), nearest], 0.0))
