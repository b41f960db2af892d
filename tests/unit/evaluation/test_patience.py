"""Waiting for a database."""

import pytest

from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.testing.fixed_clock import FixedClock


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise StoreError(f"away {self.tries}")
        return "here"


def test_a_short_outage_is_waited_out_with_growing_pauses() -> None:
    """Pauses double from 0.05 s up to 2 s."""
    clock = FixedClock()

    assert Patience(60.0, clock.seconds).run(Flaky(8), clock.sleep) == "here"
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_an_outage_ends_the_patience_at_the_stated_second() -> None:
    """The last try comes exactly when the time is over; the error names it and the cause."""
    clock = FixedClock()
    flaky = Flaky(10**6)
    with pytest.raises(StoreError, match=r"did not answer for 1\.0 s; last: away 6"):
        Patience(1.0, clock.seconds).run(flaky, clock.sleep)

    assert clock.slept == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.25])


def test_the_patience_counts_from_the_first_failure() -> None:
    """Time that passed before the outage is not taken from it, and a new run starts anew."""
    clock = FixedClock()
    patience = Patience(1.0, clock.seconds)
    clock.sleep(100.0)

    assert patience.run(Flaky(4), clock.sleep) == "here"
    assert patience.run(Flaky(4), clock.sleep) == "here"


def test_without_patience_one_try_is_made() -> None:
    """0 seconds: the first failure is the last."""
    clock = FixedClock()
    flaky = Flaky(1)
    with pytest.raises(StoreError):
        Patience(0.0, clock.seconds).run(flaky, clock.sleep)

    assert (flaky.tries, clock.slept) == (1, [])
