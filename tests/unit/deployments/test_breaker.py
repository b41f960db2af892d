"""The breaker: a function of the calls of five minutes, in any order."""

import random
from datetime import timedelta
from typing import Any

import pytest
from deployment_world import START
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.deployments.breaker import BreakerTerms, Call, Trip, TripCause, trip_of
from dspy_optimization.deployments.words import tripped
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.split import Variant

TERMS = BreakerTerms(timeout_ms=2_000.0, usual_error_rate=0.01)
NOW = START + timedelta(minutes=30)


def calls(variant: Variant, n: int, errors: int, *, latency_ms: float | None = 300.0, ago: float = 60.0) -> list[Call]:
    """So many calls a minute ago, the first ones failed."""
    return [
        Call(
            id=f"{variant}-{ago}-{number}",
            variant=variant,
            at=NOW - timedelta(seconds=ago),
            failed=number < errors,
            latency_ms=latency_ms,
        )
        for number in range(n)
    ]


def look(new: list[Call], old: list[Call], terms: BreakerTerms = TERMS, **said: Any) -> TripCause | None:
    """What it finds."""
    found = trip_of(terms, [*new, *old], NOW, **said)
    return None if found is None else found.cause


@pytest.mark.parametrize(
    ("new", "old", "usual", "wanted"),
    [
        ((100, 6), (1_000, 10), 0.0, TripCause.ERRORS),  # 6 % against 3 %
        ((100, 5), (1_000, 10), 0.0, None),  # five may be chance
        ((200, 6), (1_000, 10), 0.0, None),  # exactly three times
        ((199, 6), (1_000, 10), 0.0, TripCause.ERRORS),
        ((100, 6), (1_000, 0), 0.0, TripCause.ERRORS),  # three times nothing
        ((1_000, 6), (50, 0), 0.01, None),  # the baseline's own calls are few, and its usual rate is known
        ((1_000, 31), (50, 0), 0.01, TripCause.ERRORS),
        ((50, 50), (0, 0), 0.0, TripCause.ERRORS),  # nobody gets the baseline
        ((0, 0), (100, 90), 0.0, None),
        ((0, 0), (0, 0), 0.0, None),
    ],
)
def test_errors(new: tuple[int, int], old: tuple[int, int], usual: float, wanted: TripCause | None) -> None:
    """More than three times the baseline's rate, and more than five."""
    terms = BreakerTerms(timeout_ms=2_000.0, usual_error_rate=usual)

    assert wanted is look(calls(Variant.OPTIMIZED, *new), calls(Variant.BASELINE, *old), terms)


@pytest.mark.parametrize(("fast", "slow", "wanted"), [(94, 6, TripCause.LATENCY), (114, 6, None), (1, 5, None)])
def test_latency(fast: int, slow: int, wanted: TripCause | None) -> None:
    """The 95th percentile beyond the time-out, and more than five calls."""
    new = calls(Variant.OPTIMIZED, fast, 0) + calls(Variant.OPTIMIZED, slow, 0, latency_ms=2_500.0, ago=90.0)

    assert wanted is look(new, [])
    assert None is look(calls(Variant.OPTIMIZED, 50, 0, latency_ms=2_000.0), [])
    assert None is look(calls(Variant.OPTIMIZED, 50, 0, latency_ms=None), [])


@pytest.mark.parametrize(("ago", "wanted"), [(0.0, True), (299.0, True), (300.0, False), (-1.0, False)])
def test_five_minutes(ago: float, wanted: bool) -> None:
    """What is older does not count, and what has not happened neither."""
    assert wanted is (look(calls(Variant.OPTIMIZED, 20, 20, ago=ago), []) is not None)


def test_calls_of_an_earlier_rollout_do_not_count() -> None:
    """Who tries again is not tripped by what came before."""
    bad = calls(Variant.OPTIMIZED, 20, 20)

    assert None is look(bad, [], since=NOW - timedelta(seconds=30))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-10, 400)), max_size=40), st.randoms())
def test_order_and_repetition_do_not_matter(rows: list[tuple[bool, bool, int]], rng: random.Random) -> None:
    """The same set, the same finding."""
    some = [
        Call(
            id=str(number),
            variant=Variant.OPTIMIZED if is_new else Variant.BASELINE,
            at=NOW - timedelta(seconds=ago),
            failed=failed,
            latency_ms=10.0 * ago + 200.0,
        )
        for number, (is_new, failed, ago) in enumerate(rows)
    ]
    again = some + [one for one in some if rng.random() < 0.5]
    rng.shuffle(again)

    assert trip_of(TERMS, some, NOW) == trip_of(TERMS, again, NOW)


def test_a_call_told_twice_counts_once_and_as_the_worse_one() -> None:
    """Whichever came first; two calls under one id are a defect."""
    fine, failed = calls(Variant.OPTIMIZED, 6, 0), calls(Variant.OPTIMIZED, 6, 6)

    assert TripCause.ERRORS is look(fine + failed, []) is look(failed + fine, [])
    with pytest.raises(InvalidRequestError, match="wanted: one call an id"):
        look([fine[0], Call(id=fine[0].id, variant=Variant.BASELINE, at=fine[0].at, failed=False)], [])


def test_it_says_so() -> None:
    """With its numbers."""
    slow = trip_of(TERMS, calls(Variant.OPTIMIZED, 40, 0, latency_ms=9_000.0), NOW)

    assert isinstance(slow, Trip)
    assert (40, 0, 9_000.0) == (slow.n_calls, slow.n_errors, slow.p95_ms)
    assert "95th percentile of the new version's latency was 9,000 ms in 5 minutes, above the time-out of 2,000" in (
        tripped(slow)
    )
    assert {"at", "cause", "n_calls"} <= set(slow.to_json())


@pytest.mark.parametrize("wrong", [{"timeout_ms": 0.0}, {"usual_error_rate": 1.5}, {"window_seconds": float("nan")}])
def test_terms_have_bounds(wrong: dict[str, float]) -> None:
    """And say them."""
    with pytest.raises(InvalidRequestError, match=f"breaker: {next(iter(wrong))}: wanted: "):
        BreakerTerms(**({"timeout_ms": 2_000.0, "usual_error_rate": 0.0} | wrong))
