"""A clock that moves only when it is told."""

import threading
from datetime import UTC, datetime, timedelta


class FixedClock:
    """One time for every question; `sleep` moves it at once. Thread-safe."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Stand at `start`, which is aware."""
        self._start = start
        self._passed = 0.0
        self._lock = threading.Lock()
        self.slept: list[float] = []
        """Every sleep asked for, in seconds."""

    def now(self) -> datetime:
        """Return the time of day."""
        return self._start + timedelta(seconds=self.seconds())

    def seconds(self) -> float:
        """Return seconds since the start; never goes back."""
        with self._lock:
            return self._passed

    def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting."""
        with self._lock:
            self.slept.append(seconds)
            self._passed += seconds
