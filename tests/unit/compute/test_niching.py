"""Directions fill the simplex evenly; survivors are whole fronts and, of the last one, the emptiest niches."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.compute.niching import directions, niched
from dspy_optimization.compute.ranking import fronts
from dspy_optimization.errors import InvalidRequestError


@pytest.mark.parametrize(("objectives", "divisions"), [(1, 5), (2, 1), (2, 99), (3, 12), (5, 4)])
def test_directions_are_all_the_ways_to_divide(objectives: int, divisions: int) -> None:
    found = directions(objectives, divisions)

    parts = np.rint(found * divisions)
    assert math.comb(objectives + divisions - 1, divisions) == len(np.unique(parts, axis=0)) == len(found)
    assert np.allclose(found.sum(axis=1), 1.0)
    assert np.allclose(parts, found * divisions)
    assert parts.min() >= 0


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 40), st.integers(1, 4), st.data())
def test_whole_fronts_survive_before_anybody_behind_them(
    seed: int, count: int, objectives: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 1.0, 2.0, 3.0, math.nan], (count, objectives), p=[0.3, 0.3, 0.2, 0.15, 0.05])
    violations = rng.choice([0.0, 0.0, 0.0, 1.0, 2.0], count)
    wanted = data.draw(st.integers(0, count))

    found = niched(values, wanted, directions(objectives, 4), rng, violations=violations)

    front = fronts(values, violations)
    assert wanted == len(found) == len(set(found.tolist()))
    assert sorted(front.tolist())[:wanted] == front[found].tolist()


@given(seeds)
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, age, shuffled = rng.random((30, 3)), rng.permutation(30), rng.permutation(30)
    rays = directions(3, 4)

    straight = niched(values, 11, rays, np.random.default_rng(1), seniority=age)
    mixed = niched(values[shuffled], 11, rays, np.random.default_rng(1), seniority=age[shuffled])

    assert age[straight].tolist() == age[shuffled][mixed].tolist()


def test_the_emptiest_niches_are_filled_first() -> None:
    """A crowd at one end of a front and one point for each other direction: all of the others survive."""
    rays = directions(2, 10)
    crowd = np.column_stack([np.linspace(0.0, 0.02, 50), 1.0 - np.linspace(0.0, 0.02, 50)])
    values = np.concatenate([crowd, rays[1:]])

    found = niched(values, 11, rays, np.random.default_rng(0))

    nearest = Counter(int(np.argmin(np.linalg.norm(rays - values[one], axis=1))) for one in found)
    assert dict.fromkeys(range(11), 1) == dict(nearest)


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_objectives_of_different_size_count_alike(scale: float) -> None:
    rays = directions(2, 10)
    values = np.concatenate([rays, rays * 0.999 + 0.0005]) * [1.0, scale]

    found = niched(values, 11, rays, np.random.default_rng(0))

    assert set(range(11)) == {
        int(np.argmin(np.linalg.norm(rays - values[one] / [1.0, scale], axis=1))) for one in found
    }


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: directions(0, 3), "at least one objective and one division"),
        (lambda: directions(10, 30), "at most 1,000,000; found: 211915132"),
        (lambda: niched([[1.0]], 2, [[1.0]], np.random.default_rng(0)), "count: wanted: 0 to 1"),
        (lambda: niched([[1.0]], 1, [[1.0, 0.0]], np.random.default_rng(0)), "rows of 1 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        call()
