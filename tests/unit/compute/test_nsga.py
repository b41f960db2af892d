"""Populations find fronts that are known, obey constraints, and are the same again with the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from dspy_optimization.compute.hypervolume import hypervolume
from dspy_optimization.compute.niching import directions
from dspy_optimization.compute.nsga import Scores, evolve, first_generation, next_generation
from dspy_optimization.compute.variation import Population, Space, VariationTerms, random_population
from dspy_optimization.errors import InvalidRequestError

ZDT = Space(bounds=((0.0, 1.0),) * 10)
ZDT1_VOLUME = 1.1**2 - 1 / 3
"""Under the whole front of ZDT1 and the reference (1.1, 1.1): 1.21 less the area below 1 - sqrt(f), which is 1/3."""


def zdt1(points: Population) -> Scores:
    """Zitzler, Deb and Thiele (2000)."""
    first = points.numbers[:, 0]
    rest = 1.0 + 9.0 * points.numbers[:, 1:].mean(axis=1)
    return Scores(values=np.column_stack([first, rest * (1.0 - np.sqrt(first / rest))]))


def test_it_finds_a_front_that_is_known_and_chance_does_not() -> None:
    rng = np.random.default_rng(0)

    found = evolve(ZDT, zdt1, size=100, generations=100, rng=rng)

    by_chance = zdt1(random_population(ZDT, 101 * 100, rng)).values
    assert hypervolume(found.scores.values, [1.1, 1.1]) > 0.985 * ZDT1_VOLUME
    assert hypervolume(by_chance, [1.1, 1.1]) < 0.3 * ZDT1_VOLUME


def test_niches_cover_a_front_of_three_objectives_evenly() -> None:
    """DTLZ2: its front is the part of the unit sphere where all are positive."""

    def dtlz2(points: Population) -> Scores:
        away = 1.0 + ((points.numbers[:, 2:] - 0.5) ** 2).sum(axis=1)
        one, other = points.numbers[:, 0] * np.pi / 2, points.numbers[:, 1] * np.pi / 2
        shape = np.column_stack([np.cos(one) * np.cos(other), np.cos(one) * np.sin(other), np.sin(one)])
        return Scores(values=away[:, None] * shape)

    rays = directions(3, 12)
    found = evolve(ZDT, dtlz2, size=92, generations=150, rng=np.random.default_rng(0), along=rays)

    length = np.linalg.norm(found.scores.values, axis=1)
    nearest = (found.scores.values @ (rays / np.linalg.norm(rays, axis=1, keepdims=True)).T).argmax(axis=1)
    assert np.median(length) < 1.01
    assert len(set(nearest.tolist())) >= 85


def test_constraints_come_first() -> None:
    """Only points whose first number is at least 0.4 are allowed: the front ends there."""

    def bounded(points: Population) -> Scores:
        return Scores(values=zdt1(points).values, violations=0.4 - points.numbers[:, 0])

    found = evolve(ZDT, bounded, size=60, generations=80, rng=np.random.default_rng(0))

    first = found.points.numbers[:, 0]
    assert (first >= 0.4).all()
    assert first.min() < 0.401


def test_who_says_nothing_of_constraints_violates_none() -> None:
    """Scores of a generation before there were constraints do not take away those that come with the next."""

    def forbidden(points: Population) -> Scores:
        return Scores(values=zdt1(points).values - 10.0, violations=np.ones(len(points)))

    rng = np.random.default_rng(0)
    before = first_generation(ZDT, zdt1, 20, rng)
    after = next_generation(ZDT, before, forbidden, 20, rng)

    assert set(after.points.keys().tolist()) == set(before.points.keys().tolist())


def test_the_same_seed_gives_the_same_population() -> None:
    once, again = (evolve(ZDT, zdt1, size=30, generations=5, rng=np.random.default_rng(7)) for _ in range(2))
    other = evolve(ZDT, zdt1, size=30, generations=5, rng=np.random.default_rng(8))

    assert once.points.keys().tolist() == again.points.keys().tolist()
    assert once.points.keys().tolist() != other.points.keys().tolist()


def test_a_generation_knows_the_keys_of_its_points() -> None:
    """Also one that was made elsewhere and does not."""
    rng = np.random.default_rng(0)
    first = first_generation(ZDT, zdt1, 30, rng)
    found = next_generation(ZDT, replace(first, keys=None), zdt1, 30, rng)

    for one in (first, found):
        assert one.keys is not None
        assert one.points.keys().tolist() == one.keys.tolist()


@pytest.mark.parametrize(
    "terms",
    [
        VariationTerms(),
        VariationTerms(crossover=0.0),
        VariationTerms(crossover=0.5, mutation=0.05),
        VariationTerms(crossover=1.0, mutation=0.0),
    ],
)
def test_a_generation_has_as_many_new_children_as_it_should(terms: VariationTerms) -> None:
    """However many of those that are born are copies of a parent."""
    asked: list[int] = []

    def counted(points: Population) -> Scores:
        asked.append(len(points))
        return zdt1(points)

    rng = np.random.default_rng(0)
    found = first_generation(ZDT, counted, 101, rng)
    for _ in range(3):
        found = next_generation(ZDT, found, counted, 101, rng, terms=terms)

    assert [101] * 4 == asked


def test_nobody_is_there_twice_and_a_small_space_is_used_up() -> None:
    space = Space(choices=(4, 5))
    seen: list[bytes] = []

    def ones(points: Population) -> Scores:
        seen.extend(key.tobytes() for key in list(points.keys()))
        return Scores(values=points.codes.sum(axis=1, keepdims=True).astype(np.float64))

    rng = np.random.default_rng(0)
    found = first_generation(space, ones, 12, rng)
    for _ in range(20):
        found = next_generation(space, found, ones, 20, rng)
        assert len(found.points) == len(set(found.points.keys().tolist()))

    assert 20 == len(found.points)
    assert set(found.points.keys().tolist()) == {
        Population(codes=np.array([[a, b]], np.int16), numbers=np.zeros((1, 0))).keys().tolist()[0]
        for a in range(4)
        for b in range(5)
    }


def test_who_is_not_known_never_survives_before_who_is() -> None:
    def partly(points: Population) -> Scores:
        values = zdt1(points).values
        values[points.numbers[:, 1] > 0.5] = np.nan
        return Scores(values=values)

    found = evolve(ZDT, partly, size=40, generations=10, rng=np.random.default_rng(0))

    assert not np.isnan(found.scores.values).any()


def test_a_population_of_one_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="population: wanted: at least 2; found: 1"):
        evolve(ZDT, zdt1, size=1, generations=1, rng=np.random.default_rng(0))
