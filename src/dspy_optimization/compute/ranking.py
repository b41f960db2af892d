"""Who is better than whom among points with several objectives, and who of them survives.

Everything is float64 on the CPU, also where a GPU is at hand: a sort and a sweep beat a matrix of all pairs there, and
rounding to float32 would make and break ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import moocore
import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64)
Numbers = npt.NDArray[np.signedinteger]
_FEW, _MANY = 3, 4000
"""Objectives and points from which on it pays to look which objective goes with which."""
_MOST_SHORT = np.iinfo(np.int16).max


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
    if (excess is None or not excess.any()) and np.isfinite(points).all():
        return _ranks(points)
    if excess is None:
        excess = np.zeros(len(points))
    unknown = np.isnan(points).any(axis=1) | np.isnan(excess)
    feasible = ~unknown & (excess == 0.0)
    found = np.zeros(len(points), dtype=np.int64)
    count = 0
    if feasible.any():
        found[feasible] = _ranks(_finite(points[feasible]))
        count = int(found[feasible].max()) + 1
    infeasible = ~unknown & ~feasible
    if infeasible.any():
        steps, place = np.unique(excess[infeasible], return_inverse=True)
        found[infeasible] = count + place
        count += len(steps)
    found[unknown] = count
    return found


def _ranks(points: Floats) -> Integers:
    """Return fronts of finite points. moocore sorts by the last objective, and is done at once if that is done."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    points = _lone_last(points)
    order = np.argsort(points[:, -1])[::-1]
    found = np.empty(len(points), dtype=np.int64)
    found[order] = moocore.pareto_rank(points[order])
    return found


def _lone_last(points: Floats) -> Floats:
    """Return the points with the objective last that goes least with the others: no other front, but less to search.

    For each front moocore keeps who is best in all objectives but the last so far: the more those agree, the fewer.
    """
    count = points.shape[1]
    if count < _FEW or len(points) < _MANY:
        return points
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        apart = points - points.mean(axis=0)
        together = apart.T @ apart
        width = np.sqrt(together.diagonal())
        lone = int(np.argmin((together / width).sum(axis=1) / width))
    return points[:, [place for place in range(count) if place != lone] + [lone]]


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
    return _crowding(points, group, None if seniority is None else seniorities(seniority, len(points)))


def _crowding(points: Floats, group: Integers, age: Integers | None) -> Floats:
    if not len(points):
        return np.zeros(0)
    if group.min() < 0 or group.max() > _MOST_SHORT:
        group = np.unique(group, return_inverse=True)[1]
    short = _short(group)
    room = _room_of_different(points, short) if np.isfinite(points).all() else None
    return _room_of_any(points, short, age) if room is None else room


def _room_of_different(points: Floats, group: Numbers) -> Floats | None:
    """Return the room of finite points; None: two of a group are level in an objective."""
    room = np.zeros(len(points))
    layout = _Layout.of(np.sort(group, kind="stable"))
    order: Integers | None = None
    for column in points.T:
        # Who is next to whom in one objective may be so in the following one, too: on a front of two they are.
        if order is not None and layout.rises(falling := -column[order]):
            room[order] += layout.room(falling)
            continue
        order = _grouped(group, np.argsort(column))
        value = column[order]
        if not layout.rises(value):
            return None
        room[order] += layout.room(value)
    return room


def _room_of_any(points: Floats, group: Numbers, age: Integers | None) -> Floats:
    room = np.zeros(len(points))
    known = np.flatnonzero(~np.isnan(points).any(axis=1))
    if age is not None:
        known = known[np.argsort(age[known], kind="stable")]
    order = known[np.lexsort((*points[known].T[::-1], group[known]))]
    alike = np.zeros(len(order), dtype=bool)
    alike[1:] = (points[order[1:]] == points[order[:-1]]).all(axis=1) & (group[order[1:]] == group[order[:-1]])
    order = order[~alike]
    if not len(order):
        return room
    layout = _Layout.of(group[order])
    for place, column in enumerate(points.T):
        ranked = _grouped(group, order[np.argsort(column[order], kind="stable")]) if place else order
        room[ranked] += layout.room(column[ranked])
    return room


def _grouped(group: Numbers, order: Integers) -> Integers:
    """Return the same places, one group after the other."""
    return order[np.argsort(group[order], kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where groups begin and end that lie one after the other: the same in the order of every objective."""

    begins: npt.NDArray[np.bool_]
    """(n,), whether a point is the first of its group."""
    starts: Integers
    ends: Integers
    sizes: Integers

    @classmethod
    def of(cls, groups: Numbers) -> _Layout:
        begins = np.ones(len(groups), dtype=bool)
        np.not_equal(groups[1:], groups[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        ends = np.empty_like(starts)
        ends[:-1], ends[-1] = starts[1:] - 1, len(groups) - 1
        return cls(begins=begins, starts=starts, ends=ends, sizes=ends - starts + 1)

    def rises(self, value: Floats) -> bool:
        """Say whether each of a group has a greater value than the one before."""
        return bool(((value[1:] > value[:-1]) | self.begins[1:]).all())

    def room(self, value: Floats) -> Floats:
        """Return the room in one objective whose values rise within each group, or stay as they are."""
        gap = np.zeros(len(value))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            span = value[self.ends] - value[self.starts]
            if not np.isfinite(span).all():
                # Infinite values are as far apart as equal ones.
                span = np.nan_to_num(span, nan=0.0)
            np.divide(value[2:] - value[:-2], np.repeat(span, self.sizes)[1:-1], out=gap[1:-1])
        # An objective in which all are alike says nothing about room, not even who stands at its edge.
        edge = np.where((self.sizes > 1) & (span == 0.0), 0.0, np.inf)
        gap[self.starts] = gap[self.ends] = 0.0
        if not np.isfinite(gap).all():
            gap[~np.isfinite(gap)] = 0.0
        gap[self.starts] = gap[self.ends] = edge
        return gap


def best_first(
    values: npt.ArrayLike,
    violations: npt.ArrayLike | None = None,
    seniority: npt.ArrayLike | None = None,
    *,
    count: int | None = None,
) -> Integers:
    """Return the points' places, (count,), the best first: by front, then by room, then by seniority.

    The same points in another order give the same sequence of points, provided their seniority goes with them.

    Args:
        values: (n, m), smaller is better.
        violations: (n,), as in `fronts`.
        seniority: (n,), as in `crowding`.
        count: how many, from 0; None or more than there are: all of them.

    Raises:
        InvalidRequestError: shapes that do not fit.
    """
    points = checked(values)
    front = fronts(points, violations)
    age = None if seniority is None else seniorities(seniority, len(points))
    if count is None or count >= len(points):
        return _in_order(points, front, age)
    # Room is asked of those fronts only that somebody survives of.
    last = int(np.searchsorted(np.cumsum(np.bincount(front)), count))
    torn = np.flatnonzero(front <= last)
    return torn[_in_order(points[torn], front[torn], None if age is None else age[torn])][:count]


def _in_order(points: Floats, front: Integers, age: Integers | None) -> Integers:
    room = _crowding(points, front, age)
    if age is None:
        by_room = np.argsort(-room, kind="stable")
        return by_room[np.argsort(_short(front)[by_room], kind="stable")]
    return np.lexsort((age, -room, front)).astype(np.int64)


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


def _short(numbers: Integers) -> Numbers:
    """Return the same numbers, from 0, short if they fit: short ones are sorted by counting."""
    return numbers.astype(np.int16) if len(numbers) and numbers.max() <= _MOST_SHORT else numbers


def _finite(points: Floats) -> Floats:
    """Return points in the same order in every objective, without infinities: moocore 0.3.2 crashes on those."""
    if np.isfinite(points).all():
        return points
    places = [np.unique(column, return_inverse=True)[1] for column in points.T]
    return np.column_stack(places).astype(np.float64)


def _excess(violations: npt.ArrayLike | None, count: int) -> Floats | None:
    if violations is None:
        return None
    return np.asarray(np.maximum(_column(violations, count, np.float64, "violations"), 0.0))


def _column(given: npt.ArrayLike, count: int, kind: type[Number], name: str) -> npt.NDArray[Number]:
    found: npt.NDArray[Number] = np.asarray(given, dtype=kind)
    if found.shape != (count,):
        raise InvalidRequestError(
            f"{name}: wanted: one number for each of {count} points; found: shape {found.shape}; possible: shape "
            f"({count},)"
        )
    return found
