"""Children stay within the space, resemble their parents, and change as often as they are told to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dspy_optimization.compute import variation
from dspy_optimization.compute.variation import (
    Population,
    Space,
    VariationTerms,
    offspring,
    random_population,
    tournament,
)
from dspy_optimization.errors import InvalidRequestError

SPACE = Space(choices=(1, 2, 7, 300), bounds=((0.0, 1.0), (-5.0, 5.0), (3.0, 3.0), (1e6, 2e6)))
COPIES = VariationTerms(crossover=0.0, mutation=0.0)
seeds = st.integers(0, 2**32 - 1)
spaces = st.builds(
    Space,
    choices=st.lists(st.integers(1, 400), min_size=1, max_size=5).map(tuple),
    bounds=st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(0.0, 1e6)).map(lambda both: (both[0], both[0] + both[1])), max_size=5
    ).map(tuple),
)


@given(spaces, seeds, st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.1, 100.0))
def test_nobody_leaves_the_space(space: Space, seed: int, crossover: float, mutation: float, index: float) -> None:
    rng = np.random.default_rng(seed)
    mothers, fathers = random_population(space, 20, rng), random_population(space, 20, rng)
    terms = VariationTerms(crossover=crossover, mutation=mutation, crossover_index=index, mutation_index=index)

    born = offspring(space, mothers, fathers, rng, terms)

    low, high = np.array(space.bounds).reshape(-1, 2).T
    assert 40 == len(born)
    for one in (mothers, born):
        assert ((one.codes >= 0) & (one.codes < np.array(space.choices))).all()
        assert ((one.numbers >= low) & (one.numbers <= high)).all()


def test_who_is_neither_crossed_nor_changed_is_a_copy() -> None:
    rng = np.random.default_rng(0)
    mothers, fathers = random_population(SPACE, 9, rng), random_population(SPACE, 9, rng)

    born = offspring(SPACE, mothers, fathers, rng, COPIES)

    assert mothers.with_more(fathers).keys().tolist() == born.keys().tolist()


def test_every_code_of_a_child_is_one_of_its_parents() -> None:
    rng = np.random.default_rng(0)
    mothers, fathers = random_population(SPACE, 500, rng), random_population(SPACE, 500, rng)

    born = offspring(SPACE, mothers, fathers, rng, VariationTerms(crossover=1.0, mutation=0.0))

    first, second = born[:500], born[500:]
    swapped = (first.codes == fathers.codes) & (second.codes == mothers.codes)
    assert (swapped | ((first.codes == mothers.codes) & (second.codes == fathers.codes))).all()
    differ = mothers.codes[:, 3] != fathers.codes[:, 3]
    assert 0.42 < swapped[differ, 3].mean() < 0.58


def test_two_children_are_spread_around_the_middle_of_their_parents() -> None:
    """Far from the bounds simulated binary crossover keeps the mean of every pair."""
    wide = Space(bounds=((-1e9, 1e9),))
    rng = np.random.default_rng(0)
    mothers, fathers = (Population(codes=np.zeros((400, 0), np.int16), numbers=rng.random((400, 1))) for _ in range(2))

    born = offspring(wide, mothers, fathers, rng, VariationTerms(crossover=1.0, mutation=0.0)).numbers

    assert np.allclose(born[:400] + born[400:], mothers.numbers + fathers.numbers)
    assert not np.allclose(born[:400], mothers.numbers)


def test_the_spread_follows_the_distribution_of_its_index() -> None:
    """Deb and Agrawal: the spread b has the density (n + 1) b^n / 2 up to 1 and (n + 1) / (2 b^(n + 2)) beyond."""
    index, count = 4.0, 4000
    wide = Space(bounds=((-1e9, 1e9),))
    rng = np.random.default_rng(0)
    zeros = np.zeros((count, 0), np.int16)
    mothers, fathers = (Population(codes=zeros, numbers=np.full((count, 1), at)) for at in (0.0, 1.0))

    born = offspring(wide, mothers, fathers, rng, VariationTerms(crossover=1.0, mutation=0.0, crossover_index=index))

    spread = np.abs(born.numbers[:count] - born.numbers[count:]).ravel()
    moved = spread[np.abs(spread - 1.0) > 1e-12]  # the others, every second one, are copies

    def share(limit: np.ndarray) -> np.ndarray:
        return np.where(limit <= 1.0, limit ** (index + 1) / 2.0, 1.0 - limit ** -(index + 1) / 2.0)

    assert 0.45 < len(moved) / count < 0.55
    assert stats.kstest(moved, share).pvalue > 0.01


def test_children_do_not_pile_up_at_the_bounds() -> None:
    """The distribution is cut there, not what was drawn from it."""
    space = Space(bounds=((0.0, 1.0),))
    zeros = np.zeros((4000, 0), np.int16)
    mothers, fathers = (Population(codes=zeros, numbers=np.full((4000, 1), at)) for at in (0.02, 0.97))
    terms = VariationTerms(crossover=1.0, mutation=0.0, crossover_index=1.0)

    born = offspring(space, mothers, fathers, np.random.default_rng(0), terms).numbers

    assert 0.0 < born.min() < 0.001
    assert 0.999 < born.max() < 1.0


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 1.0])
def test_genes_change_as_often_as_they_are_told_to_and_never_to_the_same(chance: float) -> None:
    rng = np.random.default_rng(0)
    parents = random_population(SPACE, 4000, rng)

    born = offspring(SPACE, parents, parents, rng, VariationTerms(crossover=0.0, mutation=chance))

    changed = (born.codes != parents.with_more(parents).codes).mean(axis=0)
    assert [0.0, chance, chance, chance] == pytest.approx(changed.tolist(), abs=0.02)
    moved = (born.numbers != parents.with_more(parents).numbers).mean(axis=0)
    assert [chance, chance, 0.0, chance] == pytest.approx(moved.tolist(), abs=0.02)


@pytest.mark.parametrize("chance", [1e-300, 1e-4, 0.02, 0.2, 0.3, 1.0])
def test_who_is_chosen_is_so_independently_of_others(chance: float) -> None:
    """How many are chosen is binomial, and every place is chosen as often as any other."""
    rng, count, times = np.random.default_rng(0), 50, 4000
    drawn = [variation._chosen(count, chance, rng) for _ in range(times)]

    for places in drawn:
        assert (np.diff(places) > 0).all()
        assert ((places >= 0) & (places < count)).all()
    number = np.array([len(places) for places in drawn])
    assert abs(number.mean() - count * chance) <= 4.5 * math.sqrt(count * chance * (1.0 - chance) / times)
    if 0.01 < chance < 1.0:
        by_place = np.bincount(np.concatenate(drawn), minlength=count)
        assert number.var() == pytest.approx(count * chance * (1.0 - chance), rel=0.1)
        assert stats.chisquare(by_place).pvalue > 0.01


@pytest.mark.parametrize("exponent", [1.0, 2.0, 16.0, 21.0, 63.0, 64.0, 65.0, 2.5])
def test_powers_are_those_of_the_library(exponent: float) -> None:
    base = np.random.default_rng(0).random(100)
    before = base.copy()

    assert np.allclose(base**exponent, variation._power(base, exponent), rtol=1e-13, atol=0.0)
    assert before.tolist() == base.tolist()


def test_a_changed_code_is_any_other_alike() -> None:
    space = Space(choices=(5,))
    start = Population(codes=np.full((5000, 1), 2, np.int16), numbers=np.zeros((5000, 0)))

    born = offspring(space, start, start, np.random.default_rng(0), VariationTerms(crossover=0.0, mutation=1.0))

    counts = np.bincount(born.codes.ravel(), minlength=5)
    assert not counts[2]
    assert stats.chisquare(counts[[0, 1, 3, 4]]).pvalue > 0.01


def test_a_change_is_the_smaller_the_greater_its_index() -> None:
    space = Space(bounds=((0.0, 1.0),))
    start = Population(codes=np.zeros((4000, 0), np.int16), numbers=np.full((4000, 1), 0.5))

    steps = []
    for index in (1.0, 5.0, 20.0, 100.0):
        terms = VariationTerms(crossover=0.0, mutation=1.0, mutation_index=index)
        born = offspring(space, start, start, np.random.default_rng(0), terms).numbers
        assert abs((born < 0.5).mean() - 0.5) < 0.03
        steps.append(float(np.abs(born - 0.5).mean()))

    assert sorted(steps, reverse=True) == steps
    assert steps[0] > 10 * steps[-1]


@pytest.mark.parametrize("count", [2, 7, 50])
def test_the_further_in_front_the_more_children(count: int) -> None:
    """In a duel of two the one at place k wins against all behind it: with probability 2 (n - 1 - k) / (n (n - 1))."""
    draws = 20_000
    place = np.random.default_rng(1).permutation(count)

    won = np.bincount(place[tournament(place, draws, np.random.default_rng(0))], minlength=count) / draws

    wanted = [2 * (count - 1 - k) / (count * (count - 1)) for k in range(count)]
    assert wanted == pytest.approx(won.tolist(), abs=0.01)


def test_whoever_is_alone_wins_and_nobody_wins_among_none() -> None:
    rng = np.random.default_rng(0)

    assert [0, 0, 0] == tournament([4], 3, rng).tolist()
    assert [] == tournament([], 3, rng).tolist()


def test_equal_points_have_equal_keys_whatever_the_sign_of_a_zero() -> None:
    def keys(number: float, code: int) -> object:
        return Population(codes=np.array([[code]], np.int16), numbers=np.array([[number]])).keys()[0].tobytes()

    assert keys(0.0, 1) == keys(-0.0, 1)
    assert 3 == len({keys(0.0, 1), keys(0.0, 2), keys(1.0, 1)})


@pytest.mark.parametrize(
    ("choices", "bounds", "said"),
    [
        ((), (), "genes: wanted: at least one"),
        ((0,), (), r"choices\[0\]: wanted: 1 to 32767; found: 0"),
        ((1, 40_000), (), r"choices\[1\]: wanted: 1 to 32767; found: 40000"),
        ((), ((0.0, math.inf),), r"bounds\[0\]: wanted: two finite numbers"),
        (
            (),
            ((0.0, 1.0), (2.0, 1.0)),
            r"bounds\[1\]: wanted: two finite numbers, the smaller one first; found: 2 and 1",
        ),
    ],
)
def test_a_space_without_choice_is_refused(
    choices: tuple[int, ...], bounds: tuple[tuple[float, float], ...], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        Space(choices=choices, bounds=bounds)
