"""The breaker: errors or slowness so plain that nobody waits for a test."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.bounds import checked_moment, checked_name, checked_number
from dspy_optimization.experiments.split import Variant

WINDOW_SECONDS = 300.0
TIMES = 3.0
"""How many times the baseline's error rate is too many."""
MOST = 5
"""So many errors, or slow calls, may be chance: more are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One answer of one version, as it was served."""

    id: str
    """Its own: told again it is the same call."""
    variant: Variant
    at: datetime
    """When it ended, aware."""
    failed: bool
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        where = f"call {checked_name('call: id', self.id)}"
        object.__setattr__(self, "at", checked_moment(f"{where}: at", self.at))
        if self.latency_ms is not None:
            latency = checked_number(f"{where}: latency_ms", self.latency_ms, possible="0 or more, or leave it out")
            object.__setattr__(self, "latency_ms", latency)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerTerms:
    """When it trips."""

    timeout_ms: float
    """After which an answer is of no use."""
    usual_error_rate: float
    """Of the baseline, measured before, in [0, 1]; 0 where nothing is known. The larger one of it and the window's
    counts: the baseline's own calls in five minutes, a twentieth of the traffic at the end, often show no error at
    all, and three times nothing would trip at the sixth error of a sound version."""
    window_seconds: float = WINDOW_SECONDS

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        possible = "the time-out of the agent, 60000"
        set_(
            self, "timeout_ms", checked_number("breaker: timeout_ms", self.timeout_ms, open_low=True, possible=possible)
        )
        rate = checked_number("breaker: usual_error_rate", self.usual_error_rate, high=1.0, possible="0.01, or 0")
        set_(self, "usual_error_rate", rate)
        window = checked_number("breaker: window_seconds", self.window_seconds, open_low=True, possible="300")
        set_(self, "window_seconds", window)


class TripCause(StrEnum):
    """What was too much."""

    ERRORS = "errors"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """That the breaker tripped, with its numbers."""

    at: datetime
    cause: TripCause
    n_calls: int
    """Of the new version, in the window."""
    n_errors: int
    error_rate: float
    allowed_rate: float
    """Three times the baseline's."""
    p95_ms: float | None
    """Of the new version; None when no call told its latency."""
    timeout_ms: float
    window_seconds: float

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        plain: dict[str, Json] = {name: getattr(self, name) for name in self.__slots__ if name not in {"at", "cause"}}
        return {**plain, "at": self.at.isoformat(), "cause": self.cause.value}


def trip_of(terms: BreakerTerms, calls: Iterable[Call], now: datetime, *, since: datetime | None = None) -> Trip | None:
    """Return whether the last five minutes are too bad to go on; None when they are not.

    Errors: a rate above three times the baseline's, and more than 5. Latency: a 95th percentile (nearest rank) above
    the time-out, and more than 5 calls above it. A function of the set of calls: order and repetition do not matter.

    Args:
        terms: fixed when the rollout began.
        calls: of both versions, in any order; those outside of (now - window, now] do not count.
        now: the end of the window.
        since: the start of the rollout; calls before it are of another one.
    """
    end = checked_moment("now", now)
    start = end - timedelta(seconds=terms.window_seconds)
    recent: dict[str, Call] = {}
    for call in calls:
        if not start < call.at <= end or (since is not None and call.at < since):
            continue
        known = recent.get(call.id)
        if known is not None and (known.variant, known.at) != (call.variant, call.at):
            raise InvalidRequestError(
                f"call {call.id}: wanted: one call an id; found: {known.variant.value} at {known.at.isoformat()} and "
                f"{call.variant.value} at {call.at.isoformat()}; possible: an id of its own for each"
            )
        # Told twice and differently, the worse of the two counts, whichever came first.
        if known is None or _badness(known) < _badness(call):
            recent[call.id] = call
    new = [call for call in recent.values() if call.variant is Variant.OPTIMIZED]
    old = [call for call in recent.values() if call.variant is Variant.BASELINE]
    errors, old_errors = sum(call.failed for call in new), sum(call.failed for call in old)
    allowed = TIMES * max(terms.usual_error_rate, old_errors / len(old) if old else 0.0)
    rate = errors / len(new) if new else 0.0
    latencies = sorted(call.latency_ms for call in new if call.latency_ms is not None)
    p95 = latencies[(95 * len(latencies) + 99) // 100 - 1] if latencies else None
    n_slow = sum(latency > terms.timeout_ms for latency in latencies)
    if errors > MOST and rate > allowed:
        cause = TripCause.ERRORS
    elif n_slow > MOST and p95 is not None and p95 > terms.timeout_ms:
        cause = TripCause.LATENCY
    else:
        return None
    return Trip(
        at=end,
        cause=cause,
        n_calls=len(new),
        n_errors=errors,
        error_rate=rate,
        allowed_rate=allowed,
        p95_ms=p95,
        timeout_ms=terms.timeout_ms,
        window_seconds=terms.window_seconds,
    )


def _badness(call: Call) -> tuple[bool, float]:
    return call.failed, -1.0 if call.latency_ms is None else call.latency_ms
