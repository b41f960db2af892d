"""Who makes how many newcomers: all are given out, nobody who cannot makes one, who earns more makes more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.algorithms.operators import Operator, OperatorBook

weights_of = st.dictionaries(
    st.sampled_from(list(Operator)), st.floats(0.0, 10.0).filter(lambda one: one == 0.0 or one > 1e-6)
)
noted = st.lists(st.tuples(st.sampled_from(list(Operator)), st.floats(0.0, 1.0), st.floats(1.0, 5.0)), max_size=20)


def book_of(notes: list[tuple[Operator, float, float]]) -> OperatorBook:
    book = OperatorBook()
    for operator, win, cost in notes:
        book.count(operator, win, cost)
    return book


@settings(max_examples=100, deadline=None)
@given(weights=weights_of, notes=noted, count=st.integers(0, 40), seed=st.integers(0, 99))
def test_all_newcomers_are_given_out(
    weights: dict[Operator, float], notes: list[tuple[Operator, float, float]], count: int, seed: int
) -> None:
    """To those that can be used; to nobody where none can; the same again; as near to the chances as can be."""
    book = book_of(notes)
    shares = book.shares(weights, count, np.random.default_rng(seed))
    chances = {way: weights.get(way, 0.0) * book.worth(way) for way in Operator}
    total = sum(chances.values())

    assert (count if total > 0.0 else 0) == sum(shares.values())
    assert shares == book.shares(weights, count, np.random.default_rng(seed))
    for way, share in shares.items():
        assert share >= 0
        assert share == 0 or weights[way] > 0.0
        if total > 0.0:
            assert abs(share - count * chances[way] / total) < 1.0 + 1e-9


@settings(max_examples=60, deadline=None)
@given(notes=noted, win=st.floats(0.0, 0.9), gain=st.floats(0.05, 0.1), tries=st.integers(1, 20))
def test_who_earns_more_is_worth_more(
    notes: list[tuple[Operator, float, float]], win: float, gain: float, tries: int
) -> None:
    """And who costs more is worth less; what others earn is nothing to it."""
    mine = [note for note in notes if note[0] is not Operator.CHILD]
    less, more, dear = (
        book_of([*mine, *[(Operator.CHILD, own, cost)] * tries])
        for own, cost in ((win, 1.0), (win + gain, 1.0), (win + gain, 2.0))
    )

    assert less.worth(Operator.CHILD) < more.worth(Operator.CHILD)
    assert dear.worth(Operator.CHILD) < more.worth(Operator.CHILD)
    for other in set(Operator) - {Operator.CHILD}:
        assert less.worth(other) == more.worth(other) > 0.0


def test_better_operators_get_more_over_many_rounds() -> None:
    weights = dict.fromkeys((Operator.CHILD, Operator.MUTATED), 1.0)
    book = book_of([(Operator.CHILD, 0.5, 1.0), (Operator.MUTATED, 0.1, 1.0)] * 10)
    rng = np.random.default_rng(0)

    given_out = [book.shares(weights, 4, rng) for _ in range(200)]
    child, mutated = (np.mean([one[way] for one in given_out]) for way in weights)

    assert book.worth(Operator.CHILD) / book.worth(Operator.MUTATED) == pytest.approx(3.0)
    assert child == pytest.approx(3.0, abs=0.05)
    assert mutated == pytest.approx(1.0, abs=0.05)


def test_before_anything_was_tried_all_are_worth_the_same() -> None:
    book = OperatorBook()

    assert {0.25} == {book.worth(way) for way in Operator}
    assert {way.value: {"tries": 0, "wins": 0.0} for way in Operator} == book.to_json()


def test_what_is_told_of_it() -> None:
    book = book_of([(Operator.CROSSED, 0.5, 2.0), (Operator.CROSSED, 0.12345, 1.0)])

    assert {"tries": 2, "wins": 0.623} == book.to_json()["crossed"]
