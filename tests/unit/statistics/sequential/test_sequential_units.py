"""Units, and the one order they may be seen in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import BetDesign, EProcess, Units, exposure_order


@given(st.permutations(range(40)), st.lists(st.integers(0, 5), min_size=40, max_size=40))
def test_the_order_of_arrival_does_not_matter(arrival: list[int], times: list[int]) -> None:
    """Any permutation of units, ties among them, gives the same evidence bit for bit."""
    rng = np.random.default_rng(0)
    treated, outcome = rng.random(40) < 0.5, rng.random(40)
    ids = [f"unit-{number}" for number in range(40)]
    start = EProcess.start(BetDesign.difference(effect=0.1, historical_mean=0.5))

    def taken(places: list[int]) -> EProcess:
        row = exposure_order([times[place] for place in places], [ids[place] for place in places])
        order = np.array(places)[row]
        return start.extend(Units.of(treated[order], outcome[order], 0.5))

    assert taken(list(range(40))) == taken(arrival)


def test_order_is_by_time_then_id() -> None:
    """Ids in the order of their characters; equal to Python's sort of the pairs."""
    times, ids = [3, 1, 3, 1, 2], ["b", "z", "a", "ä", "m"]
    expected = sorted(range(5), key=lambda place: (times[place], ids[place]))

    assert expected == exposure_order(times, ids).tolist()


def test_large_whole_times_keep_their_order() -> None:
    """Microseconds since 1970 that differ by one."""
    assert [1, 0] == exposure_order([1_760_000_000_000_001, 1_760_000_000_000_000], ["a", "b"]).tolist()


def test_arrays_are_copied_and_closed() -> None:
    """What the caller does to his arrays later does not reach the units."""
    treated, outcome = np.array([True, False]), np.array([1.0, 0.0])
    units = Units.of(treated, outcome, 0.5)
    outcome[0] = 0.3

    assert units.outcome.tolist() == [1.0, 0.0]
    assert len(units) == 2
    with pytest.raises(ValueError, match="read-only"):
        units.outcome[0] = 0.5


@pytest.mark.parametrize(
    ("treated", "outcome", "propensity", "message"),
    [
        ([True], [0.5, 0.5], 0.5, r"shapes \(1,\), \(2,\)"),
        ([True, False], [0.5, 0.5], [0.5], r"and \(1,\)"),
        ([True], [1.5], 0.5, r"every outcome in \[0, 1\]; found: 1.5 for unit 0"),
        ([True, False], [0.5, float("nan")], 0.5, "found: nan for unit 1"),
        ([True], [0.5], 1.0, r"every propensity in \(0, 1\); found: 1.0"),
        ([True], [0.5], 0.0, "found: 0.0 for unit 0"),
    ],
)
def test_units_that_cannot_be(treated: list[bool], outcome: list[float], propensity: object, message: str) -> None:
    """The first wrong one is named."""
    with pytest.raises(InvalidRequestError, match=message):
        Units.of(treated, outcome, propensity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "ids", "message"),
    [
        ([1, 2], ["a", "a"], "1 repeated ids"),
        ([1], ["a", "b"], "for 2 units"),
        ([1.0, float("nan")], ["a", "b"], "finite time"),
        (["1", "2"], ["a", "b"], "type <U1"),
    ],
)
def test_orders_that_cannot_be(times: list[object], ids: list[str], message: str) -> None:
    """One time and one place a unit."""
    with pytest.raises(InvalidRequestError, match=message):
        exposure_order(times, ids)  # type: ignore[arg-type]
