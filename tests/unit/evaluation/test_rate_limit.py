"""So much a minute, and never more in any 60 seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.rate_limit import WINDOW_SECONDS, RateLimit


@given(
    limit=st.integers(1, 40),
    calls=st.lists(st.tuples(st.integers(1, 60), st.floats(0.0, 30.0), st.integers(0, 60)), max_size=80),
)
def test_no_window_of_sixty_seconds_ever_holds_more(limit: int, calls: list[tuple[int, float, int]]) -> None:
    """Each call waits as long as it is told; what it really used replaces what was assumed.

    A microsecond is left to rounding.
    """
    rate, now, entries = RateLimit(limit, name="tokens_per_minute"), 0.0, []
    for amount, pause, used in calls:
        now += pause
        wait = rate.seconds_until(amount, now)
        now += wait
        while (rest := rate.seconds_until(amount, now)) > 0:
            now += rest
        taken = rate.take(amount, now)
        rate.correct(taken, min(used, taken.amount))
        entries.append(taken)

    for last in entries:
        window = [entry.amount for entry in entries if last.at - WINDOW_SECONDS + 1e-6 < entry.at <= last.at]

        assert sum(window) <= limit


@given(limit=st.integers(1, 100), seconds=st.integers(61, 600))
def test_all_of_the_limit_can_be_used(limit: int, seconds: int) -> None:
    """A caller who is always there gets the whole limit in every minute, not a share of it."""
    rate, now, count = RateLimit(limit, name="requests_per_minute"), 0.0, 0
    while True:
        now += rate.seconds_until(1, now)
        if now >= seconds:
            break
        rate.take(1, now)
        count += 1

    assert count == limit * -(-seconds // 60)


def test_what_was_not_used_is_free_again() -> None:
    """A call that may take 900 and takes 100 leaves 900 of 1000."""
    rate = RateLimit(1000, name="tokens_per_minute")
    taken = rate.take(900, 0.0)
    before = rate.seconds_until(500, 1.0)
    rate.correct(taken, 100)

    assert (59.0, 0.0) == (before, rate.seconds_until(900, 1.0))


def test_correcting_what_left_the_window_changes_nothing() -> None:
    """An answer may take longer than a minute."""
    rate = RateLimit(10, name="tokens_per_minute")
    old = rate.take(10, 0.0)
    rate.take(10, 60.0)
    rate.correct(old, 0)

    assert rate.seconds_until(1, 61.0) == 59.0


def test_more_than_the_limit_waits_for_an_empty_window() -> None:
    """A prompt longer than a minute's tokens is not refused: estimates are high."""
    rate = RateLimit(10, name="tokens_per_minute")
    rate.take(1, 0.0)
    wait = rate.seconds_until(50, 5.0)
    taken = rate.take(50, 5.0 + wait)

    assert (55.0, 10) == (wait, taken.amount)


def test_taking_too_early_and_limits_below_one_are_refused() -> None:
    """The owner has to ask first, and a limit of nothing is a mistake."""
    rate = RateLimit(1, name="requests_per_minute")
    rate.take(1, 0.0)

    with pytest.raises(ValueError, match="possible in 60 s"):
        rate.take(1, 0.0)
    with pytest.raises(InvalidRequestError, match="requests_per_minute: wanted at least 1, found 0"):
        RateLimit(0, name="requests_per_minute")
