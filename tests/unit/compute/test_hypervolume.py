"""The dominated volume against inclusion and exclusion, and what follows from what it is."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.compute.hypervolume import contributions, hypervolume
from dspy_optimization.errors import InvalidRequestError

value = st.one_of(st.integers(-3, 4).map(float), st.just(math.nan), st.just(math.inf))


@st.composite
def points(draw: st.DrawFn) -> np.ndarray:
    columns = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(value, min_size=columns, max_size=columns), max_size=7))
    return np.array(rows, dtype=np.float64).reshape(len(rows), columns)


def counted(values: np.ndarray, corner: np.ndarray) -> float:
    """Return the volume of the union of boxes as the sum over all their intersections, with alternating signs."""
    inside = [point for point in values if not np.isnan(point).any() and (point < corner).all()]
    return sum(
        (-1.0) ** (size + 1) * float(np.prod(corner - np.max(chosen, axis=0)))
        for size in range(1, len(inside) + 1)
        for chosen in combinations(inside, size)
    )


@given(points())
def test_it_is_the_volume_of_the_union_of_boxes(values: np.ndarray) -> None:
    corner = np.full(values.shape[1], 3.5)

    assert counted(values, corner) == pytest.approx(hypervolume(values, corner), abs=1e-9)


@given(points())
def test_a_contribution_is_what_is_lost_without_the_point(values: np.ndarray) -> None:
    corner = np.full(values.shape[1], 3.5)
    whole = counted(values, corner)

    found = contributions(values, corner)

    lost = [whole - counted(np.delete(values, place, axis=0), corner) for place in range(len(values))]
    assert lost == pytest.approx(found.tolist(), abs=1e-9)


def test_a_point_no_better_than_the_reference_adds_nothing() -> None:
    assert 1.0 == hypervolume([[1.0, 1.0], [0.0, 2.0], [3.0, -5.0]], [2.0, 2.0])


@pytest.mark.parametrize(
    ("values", "reference", "said"),
    [
        ([[1.0, 2.0]], [3.0], "wanted: 2 finite numbers, one an objective; found: \\[3.0\\]"),
        ([[1.0]], [math.inf], "reference: wanted: 1 finite numbers"),
        ([[-math.inf]], [1.0], "dominates an infinite volume"),
    ],
)
def test_what_has_no_volume_is_refused(values: list[list[float]], reference: list[float], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        hypervolume(values, reference)
