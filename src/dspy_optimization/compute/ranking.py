"""Who is better than whom among points with several objectives, and who of them survives.

Everything is float64 on the CPU, also where a GPU is at hand: a sort and a sweep beat a matrix of all pairs there, and
rounding to float32 would make and break ties.
"""

from __future__ import annotations

from typing import TypeVar

import moocore
import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64)


def checked(values: npt.ArrayLike) -> Floats:
    """Return the points as a float64 matrix.

    Raises:
        InvalidRequestError: not two-dimensional, or without an objective.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or not found.shape[1]:
        raise InvalidRequestError(
            f"objectives: wanted: a matrix of points by objectives; found: shape {found.shape}; possible: one column "
            "for a single objective"
        )
    return found


def fronts(values: npt.ArrayLike, violations: npt.ArrayLike | None = None) -> Integers:
    """Return which front each point is in, (n,), from 0: no point of it is dominated by one of the same or a later one.

    Constrained domination: whoever violates nothing is before whoever does; those that violate are ordered by how much.
    A point with a NaN is in the last front, behind all that are known.

    Args:
        values: (n, m), smaller is better; infinities are values like others.
        violations: (n,), how much each violates its constraints, 0 or less for not at all; None: nobody does.

    Raises:
        InvalidRequestError: shapes that do not fit.

    Source: Deb et al. (2002), NSGA-II, sections III-A and VI-A. The sorting is moocore's (Jensen-Fortin).
    """
    points = checked(values)
    excess = _excess(violations, len(points))
    unknown = np.isnan(points).any(axis=1) | np.isnan(excess)
    feasible = ~unknown & (excess == 0.0)
    found = np.zeros(len(points), dtype=np.int64)
    count = 0
    if feasible.any():
        found[feasible] = moocore.pareto_rank(_finite(points[feasible]))
        count = int(found[feasible].max()) + 1
    infeasible = ~unknown & ~feasible
    if infeasible.any():
        steps, place = np.unique(excess[infeasible], return_inverse=True)
        found[infeasible] = count + place
        count += len(steps)
    found[unknown] = count
    return found


def crowding(values: npt.ArrayLike, groups: npt.ArrayLike, seniority: npt.ArrayLike | None = None) -> Floats:
    """Return how much room each point has within its group, (n,), 0 to infinity; at an edge it is infinite.

    The room is the sum over objectives of the distance between both neighbours, as a share of what the group spans.
    Of points that are the same in everything only the most senior one counts, the others have 0.

    Args:
        values: (n, m); a point with a NaN has no room.
        groups: (n,), whole numbers, such as `fronts`.
        seniority: (n,), all different, smaller is more senior; None: in the order given.

    Raises:
        InvalidRequestError: shapes that do not fit.

    Source: Deb et al. (2002), section III-B; duplicates as Fortin and Parizeau (2013).
    """
    points = checked(values)
    group = _column(groups, len(points), np.int64, "groups")
    age = seniorities(seniority, len(points))
    room = np.zeros(len(points))
    known = np.flatnonzero(~np.isnan(points).any(axis=1))
    known = known[np.argsort(age[known], kind="stable")]
    order = known[np.lexsort((*points[known].T[::-1], group[known]))]
    alike = np.zeros(len(order), dtype=bool)
    alike[1:] = (points[order[1:]] == points[order[:-1]]).all(axis=1) & (group[order[1:]] == group[order[:-1]])
    order = order[~alike]
    # Groups lie one after the other, in this order and in that of every objective.
    _, starts, size = np.unique(group[order], return_index=True, return_counts=True)
    ends, number = starts + size - 1, np.repeat(np.arange(len(starts)), size).astype(_short(len(starts)))
    for place, column in enumerate(points.T):
        ranked = order
        if place:
            by_value = np.argsort(column[order], kind="stable")
            ranked = order[by_value[np.argsort(number[by_value], kind="stable")]]
        room[ranked] += _room(column[ranked], starts, ends, size)
    return room


def _room(value: Floats, starts: Integers, ends: Integers, size: Integers) -> Floats:
    """Return the room in one objective, of groups that lie one after the other, each in ascending order."""
    gap = np.zeros(len(value))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Infinite values are as far apart as equal ones: there is no share of an infinite span.
        span = np.nan_to_num(value[ends] - value[starts], nan=0.0)
        shares = (value[2:] - value[:-2]) / np.repeat(span, size)[1:-1]
        gap[1:-1] = np.nan_to_num(shares, nan=0.0, posinf=0.0)
    # An objective in which all are alike says nothing about room, not even who stands at its edge.
    flat = (span == 0.0) & (size > 1)
    gap[starts[~flat]] = gap[ends[~flat]] = np.inf
    gap[np.repeat(flat, size)] = 0.0
    return gap


def _short(count: int) -> type[np.signedinteger]:
    """Return an integer that holds this many numbers: short ones are sorted without being compared."""
    return np.int16 if count <= np.iinfo(np.int16).max else np.int64


def best_first(
    values: npt.ArrayLike, violations: npt.ArrayLike | None = None, seniority: npt.ArrayLike | None = None
) -> Integers:
    """Return the points' places, (n,), the best first: by front, then by room, then by seniority.

    The same points in another order give the same sequence of points, provided their seniority goes with them.

    Args:
        values: (n, m), smaller is better.
        violations: (n,), as in `fronts`.
        seniority: (n,), as in `crowding`.

    Raises:
        InvalidRequestError: shapes that do not fit.
    """
    points = checked(values)
    front = fronts(points, violations)
    age = seniorities(seniority, len(points))
    return np.lexsort((age, -crowding(points, front, age), front)).astype(np.int64)


def seniorities(seniority: npt.ArrayLike | None, count: int) -> Integers:
    """Return who is how senior, (count,), smaller is more; None: in the order given. Raises `InvalidRequestError`."""
    if seniority is None:
        return np.arange(count, dtype=np.int64)
    found = _column(seniority, count, np.int64, "seniority")
    if len(np.unique(found)) < count:
        raise InvalidRequestError(
            "seniority: wanted: another number for each point; found: one twice; possible: None, for the order given"
        )
    return found


def _finite(points: Floats) -> Floats:
    """Return points in the same order in every objective, without infinities: moocore 0.3.2 crashes on those."""
    if np.isfinite(points).all():
        return points
    places = [np.unique(column, return_inverse=True)[1] for column in points.T]
    return np.column_stack(places).astype(np.float64)


def _excess(violations: npt.ArrayLike | None, count: int) -> Floats:
    if violations is None:
        return np.zeros(count)
    return np.asarray(np.maximum(_column(violations, count, np.float64, "violations"), 0.0))


def _column(given: npt.ArrayLike, count: int, kind: type[Number], name: str) -> npt.NDArray[Number]:
    found: npt.NDArray[Number] = np.asarray(given, dtype=kind)
    if found.shape != (count,):
        raise InvalidRequestError(
            f"{name}: wanted: one number for each of {count} points; found: shape {found.shape}; possible: shape "
            f"({count},)"
        )
    return found
