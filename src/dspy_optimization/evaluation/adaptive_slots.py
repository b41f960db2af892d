"""How many calls may be in flight at once, learnt from what the server can take. Pure: no clock, no threads."""

from dspy_optimization.errors import InvalidRequestError


class AdaptiveSlots:
    """Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does it.

    The limit starts at the maximum, is halved when the server says it is busy and grows by one for every full
    limit of successes. Answers to calls that were sent before the last halving say nothing about the new limit:
    one burst of refusals halves once, not once a call. Not thread-safe; its owner holds the lock.
    """

    def __init__(self, maximum: int) -> None:
        """Allow `maximum` calls at once, at least 1."""
        if maximum < 1:
            raise InvalidRequestError(f"max_concurrency: wanted at least 1, found {maximum}")
        self._maximum = maximum
        self._limit = maximum
        self._in_flight = 0
        self._successes = 0
        self._reduced_at = float("-inf")

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, from 1 to the maximum."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """Calls that are; above the limit for a while after a halving."""
        return self._in_flight

    @property
    def free(self) -> bool:
        """Whether one more may start."""
        return self._in_flight < self._limit

    def start(self) -> None:
        """Take a slot."""
        if not self.free:
            raise ValueError(f"wanted a free slot, found {self._in_flight} of {self._limit} in flight")
        self._in_flight += 1

    def succeed(self, started_at: float) -> None:
        """Free the slot of a call that was answered; `started_at` in the seconds of one monotonic clock."""
        self._in_flight -= 1
        if self._limit == self._maximum or started_at < self._reduced_at:
            return
        self._successes += 1
        if self._successes >= self._limit:
            self._limit += 1
            self._successes = 0

    def refuse(self, started_at: float, now: float) -> None:
        """Free the slot of a call that the server was too busy for, and allow half as many."""
        self._in_flight -= 1
        if started_at < self._reduced_at:
            return
        self._limit = max(1, self._limit // 2)
        self._successes = 0
        self._reduced_at = now

    def fail(self) -> None:
        """Free the slot of a call that failed for another reason: it says nothing about how much is too much."""
        self._in_flight -= 1
