"""So much a minute and never more, in any 60 seconds. Pure: no clock, no threads."""

from collections import deque

from dspy_optimization.errors import InvalidRequestError

WINDOW_SECONDS = 60.0


class Taken:
    """What one call took from a limit; its amount may be corrected when the truth is known."""

    __slots__ = ("amount", "at", "counts")

    def __init__(self, at: float, amount: int) -> None:
        self.at = at
        self.amount = amount
        self.counts = True


class RateLimit:
    """An exact sliding window: everything taken in the last 60 seconds is remembered.

    A token bucket of size N that refills N a minute lets up to 2 N pass in one minute (a full bucket, then its
    refill), and one that never does gives part of the limit away. This gives all of it and never more.
    Not thread-safe; its owner holds the lock.
    """

    def __init__(self, per_minute: int, *, name: str) -> None:
        """Allow `per_minute` units, at least 1; `name` is the setting, for messages."""
        if per_minute < 1:
            raise InvalidRequestError(f"{name}: wanted at least 1, found {per_minute}")
        self._per_minute = per_minute
        self._window: deque[Taken] = deque()
        self._used = 0

    def seconds_until(self, amount: int, now: float) -> float:
        """Return in how many seconds so much may be taken, 0 for now.

        More than the whole limit at once counts as the whole limit: it has to wait for an empty window.
        """
        self._forget(now)
        excess = self._used + min(amount, self._per_minute) - self._per_minute
        wait = 0.0
        for taken in self._window:
            if excess <= 0:
                break
            excess -= taken.amount
            wait = taken.at + WINDOW_SECONDS - now
        return max(wait, 0.0)

    def take(self, amount: int, now: float) -> Taken:
        """Take so much now; ask `seconds_until` before."""
        wait = self.seconds_until(amount, now)
        if wait > 0:
            raise ValueError(f"wanted {amount}, possible in {wait:g} s")
        taken = Taken(now, min(amount, self._per_minute))
        self._window.append(taken)
        self._used += taken.amount
        return taken

    def correct(self, taken: Taken, amount: int) -> None:
        """Put what was really used in the place of what was assumed."""
        amount = min(amount, self._per_minute)
        if taken.counts:
            self._used += amount - taken.amount
            taken.amount = amount

    def _forget(self, now: float) -> None:
        while self._window and now - self._window[0].at >= WINDOW_SECONDS:
            taken = self._window.popleft()
            taken.counts = False
            self._used -= taken.amount
