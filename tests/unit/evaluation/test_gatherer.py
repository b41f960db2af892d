"""One thread that works for many."""

import threading

from dspy_optimization.evaluation.gatherer import Gatherer


def test_a_process_that_ends_without_closing_does_not_hang() -> None:
    """What crashed must die, so that another process can take over: the thread is no reason to stay."""
    gatherer: Gatherer[int] = Gatherer("gatherer-of-this-test", lambda _items: None, lambda _items: None)
    kinds = [thread.daemon for thread in threading.enumerate() if thread.name == "gatherer-of-this-test"]
    gatherer.close()

    assert [True] == kinds


def test_what_is_handed_over_before_closing_is_worked_on() -> None:
    """In the order it came; afterwards nothing is taken any more."""
    done: list[int] = []
    gatherer: Gatherer[int] = Gatherer("gatherer", done.extend, lambda _items: None)
    taken = [gatherer.hand_over(number) for number in range(100)]
    gatherer.close()
    gatherer.close()

    assert [True] * 100 == taken
    assert list(range(100)) == done
    assert gatherer.hand_over(100) is False
