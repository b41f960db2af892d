"""Fronts and room against definitions written out, and laws that hold for any points."""

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.compute.ranking import best_first, crowding, fronts
from dspy_optimization.errors import InvalidRequestError

# Few different values, so that there are ties and duplicates; both zeros, and what is beyond all numbers.
value = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, math.inf])
unknown = st.one_of(value, value, value, st.just(math.nan))


@st.composite
def points(draw: st.DrawFn, *, of: st.SearchStrategy[float] = value) -> np.ndarray:
    columns = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(of, min_size=columns, max_size=columns), max_size=25))
    return np.array(rows, dtype=np.float64).reshape(len(rows), columns)


@st.composite
def constrained(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    found = draw(points(of=unknown))
    excess = st.sampled_from([-1.0, 0.0, 0.0, 0.25, 1.0, math.inf, math.nan])
    return found, np.array(draw(st.lists(excess, min_size=len(found), max_size=len(found))), dtype=np.float64)


def dominates(one: np.ndarray, other: np.ndarray, excess: float, other_excess: float) -> bool:
    """Say whether one point is better than another, as Deb et al. define it; what is not known is better than none."""
    if np.isnan([*other, other_excess]).any():
        return not np.isnan([*one, excess]).any()
    if np.isnan([*one, excess]).any():
        return False
    if max(excess, 0.0) != max(other_excess, 0.0):
        return excess < other_excess
    return excess <= 0.0 and bool((one <= other).all() and (one < other).any())


def peeled(values: np.ndarray, violations: np.ndarray) -> list[int]:
    """Return the fronts by taking away whoever is not dominated, again and again."""
    left, found, number = set(range(len(values))), [0] * len(values), 0
    while left:
        front = {
            one
            for one in left
            if not any(dominates(values[other], values[one], violations[other], violations[one]) for other in left)
        }
        for one in front:
            found[one] = number
        left -= front
        number += 1
    return found


@given(constrained())
def test_fronts_are_what_is_left_when_the_ones_before_are_taken_away(
    given_points: tuple[np.ndarray, np.ndarray],
) -> None:
    values, violations = given_points

    assert peeled(values, violations) == fronts(values, violations).tolist()


@given(points(of=unknown))
def test_without_constraints_nobody_violates_any(values: np.ndarray) -> None:
    assert fronts(values, np.zeros(len(values))).tolist() == fronts(values).tolist()


def test_a_point_that_is_not_known_is_never_in_front_of_one_that_is() -> None:
    assert [0, 2, 1, 2] == fronts([[1.0, 1.0], [math.nan, 0.0], [2.0, 2.0], [0.0, math.nan]]).tolist()


def test_infinities_are_values_like_others_to_a_library_that_crashes_on_them() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        values = rng.choice([-math.inf, -1.0, 0.0, 1.0, math.inf], (12, 3))
        assert peeled(values, np.zeros(12)) == fronts(values).tolist()


def test_zeros_of_either_sign_are_the_same() -> None:
    assert [0, 0] == fronts([[0.0, -0.0], [-0.0, 0.0]]).tolist()


def room_of(group: np.ndarray) -> list[float]:
    """Return the room of each of one group, one objective after the other; later duplicates have none."""
    distinct = [place for place, point in enumerate(group.tolist()) if point not in group.tolist()[:place]]
    room = [0.0] * len(group)
    for objective in range(group.shape[1]):
        order = sorted(distinct, key=lambda place: group[place, objective])
        low, high = group[order[0], objective], group[order[-1], objective]
        if low == high and len(order) > 1:
            continue
        room[order[0]] = room[order[-1]] = math.inf
        for before, (here, after) in zip(order, pairwise(order[1:]), strict=False):
            room[here] += (group[after, objective] - group[before, objective]) / (high - low)
    return room


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 4), st.integers(1, 4))
def test_room_is_what_the_definition_says(seed: int, count: int, objectives: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    # All different in each column, for the definition leaves open who of equal ones is whose neighbour.
    values = np.column_stack([rng.permutation(count) for _ in range(objectives)]).astype(np.float64)
    group = rng.integers(0, groups, count)

    found = crowding(values, group)

    for one in set(group.tolist()):
        assert room_of(values[group == one]) == pytest.approx(found[group == one].tolist())


def test_of_equal_points_the_most_senior_one_has_the_room() -> None:
    values = [[0.0, 2.0], [1.0, 1.0], [1.0, 1.0], [2.0, 0.0]]

    assert [math.inf, 0.0, 2.0, math.inf] == crowding(values, [0] * 4, [3, 2, 1, 0]).tolist()


def test_an_objective_in_which_all_are_alike_gives_nobody_room() -> None:
    assert [math.inf, 1.0, math.inf] == crowding([[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]], [0, 0, 0]).tolist()


@given(constrained(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(given_points: tuple[np.ndarray, np.ndarray], random: Random) -> None:
    values, violations = given_points
    age = np.array(random.sample(range(100), len(values)), dtype=np.int64)
    shuffled = np.array(random.sample(range(len(values)), len(values)), dtype=np.int64)

    straight = best_first(values, violations, age)
    mixed = best_first(values[shuffled], violations[shuffled], age[shuffled])

    assert age[straight].tolist() == age[shuffled][mixed].tolist()


@given(constrained())
def test_the_best_first_go_by_front_then_by_room(given_points: tuple[np.ndarray, np.ndarray]) -> None:
    values, violations = given_points
    front = fronts(values, violations)
    room = crowding(values, front)

    order = best_first(values, violations)

    assert sorted(order.tolist()) == list(range(len(values)))
    keys = [(front[one], -room[one], one) for one in order]
    assert sorted(keys) == keys


@given(constrained(), st.integers(0, 30), st.booleans(), st.randoms(use_true_random=False))
def test_the_best_few_are_the_first_of_all(
    given_points: tuple[np.ndarray, np.ndarray], count: int, aged: bool, random: Random
) -> None:
    values, violations = given_points
    age = np.array(random.sample(range(100), len(values)), dtype=np.int64) if aged else None

    assert (
        best_first(values, violations, age)[:count].tolist()
        == best_first(values, violations, age, count=count).tolist()
    )


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_fronts_of_many_points_are_the_same_in_any_order_of_objectives(objectives: int) -> None:
    """Many are sorted by another objective than few are."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5000, objectives)) @ rng.standard_normal((objectives, objectives))
    found = fronts(values)

    for moved in range(1, objectives):
        assert found.tolist() == fronts(np.roll(values, moved, axis=1)).tolist()
    assert (found[:2000] >= fronts(values[:2000])).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3))
def test_room_does_not_depend_on_how_groups_are_called(seed: int, count: int, objectives: int) -> None:
    """Short numbers, long ones and those below 0; with values that are level and without."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (count, objectives)) if seed % 2 else rng.random((count, objectives))
    group = rng.integers(0, 4, count)
    names = np.array([-(10**12), 7, 40_000, 10**12])

    assert crowding(values, group).tolist() == crowding(values, names[group]).tolist()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fronts([1.0, 2.0]), "a matrix of points by objectives; found: shape \\(2,\\)"),
        (lambda: fronts(np.empty((3, 0))), "found: shape \\(3, 0\\)"),
        (lambda: fronts([[1.0], [2.0]], [0.0]), "violations: wanted: one number for each of 2 points"),
        (lambda: crowding([[1.0]], [0, 1]), "groups: wanted: one number for each of 1 points"),
        (lambda: best_first([[1.0], [2.0]], None, [5, 5]), "seniority: wanted: another number for each point"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        call()
