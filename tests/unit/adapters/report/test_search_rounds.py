"""How an evolving search went, from its events alone."""

from dataclasses import replace
from typing import Any

import pytest
from pareto_samples import ROUNDS, told

from dspy_optimization.adapters.report.search_rounds import search_rounds
from dspy_optimization.events import EventType, RecordedEvent


def changed(one: RecordedEvent, **data: Any) -> RecordedEvent:
    return replace(one, event=replace(one.event, data={**one.event.data, **data}))


def test_the_newest_round_says_how_far_it_came() -> None:
    """Counts and ways of the last one; trust of all, in spans of the same reason whatever its numbers."""
    (found,) = search_rounds(ROUNDS)

    assert ("genetic", 5, 40, 540, 1000, 10, 2) == (
        found.algorithm, found.rounds, found.candidates, found.evaluations, found.evaluations_at_most,
        found.instructions, found.unreadable,
    )  # fmt: skip
    assert [("child", 9, 1.4), ("champion", 7, 2.9)] == [(one.name, one.tries, one.wins) for one in found.ways]
    assert 2.9 / 7 == pytest.approx(found.ways[1].share)
    assert [("1 to 2", 0.0, 0.0), ("3 to 4", 0.38, 0.41), ("5", 0.0, 0.0)] == [
        (one.rounds, one.low, one.high) for one in found.trusts
    ]
    assert "16 rows" in str(found.trusts[0].doubt)
    assert found.trusts[1].doubt is None


def test_the_order_of_events_decides_nothing_and_a_resumed_round_counts_once() -> None:
    """A search that was resumed tells its rounds again."""
    assert search_rounds(ROUNDS) == search_rounds(tuple(reversed(ROUNDS)))
    assert search_rounds(ROUNDS) == search_rounds((*ROUNDS, *ROUNDS))


def test_algorithms_are_told_of_apart() -> None:
    """Two that go in rounds, each with its own."""
    other = [changed(one, algorithm="mine", population=3) for one in ROUNDS[:2]]

    assert [("genetic", 5), ("mine", 2)] == [(one.algorithm, one.rounds) for one in search_rounds((*ROUNDS, *other))]


@pytest.mark.parametrize(
    "wrong",
    [
        {"operators": None}, {"operators": [1]}, {"surrogate_trust": "much"}, {"surrogate_trust": float("nan")},
        {"population": "all"}, {"iteration": None}, {"algorithm": 7}, {"evaluations": True},
    ],
)  # fmt: skip
def test_what_a_plugin_tells_in_another_form_is_left_out(wrong: dict[str, Any]) -> None:
    """A report never fails for what an algorithm calls a round."""
    assert () == search_rounds([changed(ROUNDS[0], **wrong)])


def test_ways_of_another_form_and_untried_ones_are_left_out() -> None:
    """The others stay."""
    odd = {
        "child": {"tries": 2, "wins": 1},
        "bad": 3,
        "worse": {"tries": "x", "wins": 0},
        "never": {"tries": 0, "wins": 0},
    }
    (found,) = search_rounds([changed(ROUNDS[0], operators=odd)])

    assert [("child", 2, 1.0)] == [(one.name, one.tries, one.wins) for one in found.ways]


def test_a_search_without_a_bound_of_its_own_says_none() -> None:
    """The largest number there is means that calls are bounded elsewhere."""
    (found,) = search_rounds([changed(told(1, 0.0, None), evaluations_at_most=2**63 - 1)])

    assert found.evaluations_at_most is None


def test_other_events_are_no_rounds() -> None:
    """Progress of another phase, other events."""
    other = replace(ROUNDS[0], event=replace(ROUNDS[0].event, type=EventType.BUDGET_WARNING))

    assert () == search_rounds([changed(ROUNDS[0], phase="finals"), other])
