"""Who may call a model now: one queue in front of its slots and its rate limits. Thread-safe.

One `Admission` stands for one model of one process, whoever uses it; each caller brings its own `wait`, which
raises when that caller's work has to end.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dspy_optimization.evaluation.adaptive_slots import AdaptiveSlots
from dspy_optimization.evaluation.rate_limit import RateLimit, Taken

LOOK_AGAIN_SECONDS = 0.25
"""How late somebody in the queue may notice that the work has to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """What one model takes from one process."""

    max_concurrency: int = 64
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The right to make one attempt; given back with `answered`, `refused` or `failed`, exactly once."""

    started_at: float
    tokens: Taken | None


class Admission:
    """First come, first served; a repeated attempt goes before calls that never started.

    A `Retry-After` stops everybody: the server spoke to the key, not to the call.
    """

    def __init__(self, limits: AdmissionLimits, *, clock: Callable[[], float]) -> None:
        """Let nobody wait yet; `clock` gives monotonic seconds.

        Raises:
            InvalidRequestError: a limit below 1.
        """
        self._clock = clock
        self._slots = AdaptiveSlots(limits.max_concurrency)
        self._requests = _limit(limits.requests_per_minute, "requests_per_minute")
        self._tokens = _limit(limits.tokens_per_minute, "tokens_per_minute")
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()
        self._closed_until = float("-inf")
        self._resting_until = float("-inf")

    @property
    def limit(self) -> int:
        """Calls that may be in flight now; shrinks when the server is busy, grows back with successes."""
        return self._slots.limit

    @property
    def in_flight(self) -> int:
        """Calls that are being answered."""
        return self._slots.in_flight

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue)

    def enter(self, tokens: int, wait: Callable[[float], None], *, again: bool = False) -> Pass:
        """Return once the call may start.

        Args:
            tokens: that prompt and answer may take at most.
            wait: sleeps so many seconds, or raises what ends the work; then the place in the queue is free.
            again: this is not the first attempt of its call.
        """
        bell = threading.Event()
        with self._lock:
            if again:
                self._queue.appendleft(bell)
            else:
                self._queue.append(bell)
        try:
            while True:
                with self._lock:
                    bell.clear()
                    seconds = self._seconds_until(bell, tokens)
                    if seconds == 0:
                        return self._start(tokens)
                if seconds is None:
                    bell.wait(LOOK_AGAIN_SECONDS)
                    wait(0.0)
                else:
                    wait(min(seconds, LOOK_AGAIN_SECONDS))
        finally:
            with self._lock:
                self._leave_queue(bell)

    def _seconds_until(self, bell: threading.Event, tokens: int) -> float | None:
        """Return in how many seconds it may be this one's turn; None: when somebody rings the bell."""
        if self._queue[0] is not bell or not self._slots.free:
            return None
        now = self._clock()
        waits = [self._closed_until - now]
        if self._requests is not None:
            waits.append(self._requests.seconds_until(1, now))
        if self._tokens is not None:
            waits.append(self._tokens.seconds_until(tokens, now))
        return max(0.0, *waits)

    def _start(self, tokens: int) -> Pass:
        now = self._clock()
        self._slots.start()
        if self._requests is not None:
            self._requests.take(1, now)
        return Pass(started_at=now, tokens=None if self._tokens is None else self._tokens.take(tokens, now))

    def _leave_queue(self, bell: threading.Event) -> None:
        self._queue.remove(bell)
        self._ring()

    def _ring(self) -> None:
        if self._queue:
            self._queue[0].set()

    def answered(self, granted: Pass, tokens: int) -> None:
        """Give the pass back after an answer that really took so many tokens."""
        with self._lock:
            self._slots.succeed(granted.started_at)
            if self._tokens is not None and granted.tokens is not None:
                self._tokens.correct(granted.tokens, tokens)
            self._ring()

    def refused(self, granted: Pass, retry_after_seconds: float | None) -> None:
        """Give the pass back after the server was too busy; nobody starts before it asked to be left alone."""
        with self._lock:
            now = self._clock()
            self._slots.refuse(granted.started_at, now)
            if retry_after_seconds is not None:
                self._closed_until = max(self._closed_until, now + retry_after_seconds)
            self._ring()

    def failed(self) -> None:
        """Give a pass back after any other end; what it took of the rate limits stays taken."""
        with self._lock:
            self._slots.fail()
            self._ring()

    def rest(self, seconds: float) -> None:
        """Remember for so long that the model is down, so that others need not find it out again."""
        with self._lock:
            self._resting_until = self._clock() + seconds

    @property
    def resting(self) -> bool:
        """Whether the model failed for good a moment ago."""
        return self._clock() < self._resting_until


def _limit(per_minute: int | None, name: str) -> RateLimit | None:
    return None if per_minute is None else RateLimit(per_minute, name=name)
