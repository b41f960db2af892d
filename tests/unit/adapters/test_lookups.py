"""Names looked up in time, so many at once."""

import threading
import time
from collections.abc import Sequence

import pytest

from dspy_optimization.adapters.lookups import MOST_LOOKUPS, Lookups, system_resolver


class Slow:
    """A resolver that answers when it is let."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.let = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int) -> Sequence[str]:
        if host == "quick":
            return ["192.0.2.1"]
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.let.wait(20.0)
        with self._lock:
            self.under_way -= 1
        return ["192.0.2.2"]


def test_a_lookup_ends_in_time_for_who_asks() -> None:
    """It goes on without them and holds up no other name."""
    slow = Slow()
    lookups = Lookups(slow)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        lookups.look("slow", 443, 0.05)
    took = time.monotonic() - begun

    assert took < 3.0
    assert ["192.0.2.1"] == lookups.look("quick", 443, 5.0)
    slow.let.set()
    assert ["192.0.2.2"] == lookups.look("slow", 443, 5.0)


def test_there_is_an_end_to_lookups() -> None:
    """Those that nobody waits for any more count; when the system has ended them there is room again."""
    slow = Slow()
    lookups = Lookups(slow)
    for _ in range(MOST_LOOKUPS):
        with pytest.raises(TimeoutError):
            lookups.look("slow", 443, 0.0)
    with pytest.raises(TimeoutError, match=f"{MOST_LOOKUPS} others under way"):
        lookups.look("quick", 443, 0.05)
    slow.let.set()

    assert ["192.0.2.1"] == lookups.look("quick", 443, 20.0)
    assert MOST_LOOKUPS >= slow.most


@pytest.mark.parametrize("error", [OSError("nobody"), ZeroDivisionError("a defect")])
def test_what_a_resolver_raises_comes_to_who_asks(error: Exception) -> None:
    """At once, each time, and there is room for the next."""

    def broken(host: str, port: int) -> Sequence[str]:
        raise error

    lookups = Lookups(broken)
    for _ in range(MOST_LOOKUPS + 1):
        with pytest.raises(type(error), match=str(error)):
            lookups.look("broken", 443, 5.0)


def test_a_name_that_is_none() -> None:
    """A label that is too long is no defect but a name nobody has."""
    with pytest.raises(OSError, match="no name"):
        system_resolver("a" * 64 + ".example.org", 443)
