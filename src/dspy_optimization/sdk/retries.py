"""When a request is sent again, and how long to wait before it is."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import uuid4

from dspy_optimization.errors import InvalidRequestError


def _now() -> datetime:
    return datetime.now(tz=UTC)


def _new_key() -> str:
    return str(uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Time and chance as they come in from outside; tests bring their own."""

    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _now
    chance: Callable[[], float] = random.random
    """In [0, 1)."""
    new_key: Callable[[], str] = _new_key
    """A fresh idempotency key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how patiently. Only what may be asked twice is asked twice."""

    attempts: int = 5
    """All of them together; 1: nothing is sent again."""
    first_delay_seconds: float = 0.5
    """Doubled every time …"""
    max_delay_seconds: float = 8.0
    """… up to this."""
    max_retry_after_seconds: float = 60.0
    """The longest that a `Retry-After` of the service is obeyed."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidRequestError(f"attempts: wanted: 1 or more; found: {self.attempts}; possible: 1 sends once")

    def delay_seconds(self, attempt: int, *, retry_after_seconds: float | None, chance: float) -> float:
        """Return how long to wait after the `attempt`-th failure (from 1); half of it is left to chance.

        What the service asked for is a lower bound, and clients that were told the same do not come back at once.
        """
        backoff = min(self.first_delay_seconds * 2.0 ** min(attempt - 1, 30), self.max_delay_seconds)
        jittered = backoff * (0.5 + 0.5 * chance)
        if retry_after_seconds is None:
            return jittered
        return min(max(retry_after_seconds, 0.0), self.max_retry_after_seconds) + jittered * 0.5


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Return what a `Retry-After` header asks for, given as seconds or as a date; None when it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        wanted = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = wanted if wanted.tzinfo is not None else wanted.replace(tzinfo=UTC)
    return max((aware - now).total_seconds(), 0.0)
