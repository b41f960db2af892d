"""How long the work waits for a database that is away."""

from collections.abc import Callable
from typing import TypeVar

from dspy_optimization.errors import StoreError

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


class Patience:
    """Tries again while the database is away, for a stated time. Holds no state between runs."""

    def __init__(self, patience_seconds: float, seconds: Callable[[], float]) -> None:
        """Keep how long an outage may last.

        Args:
            patience_seconds: from the first failure to the last try; 0 tries once.
            seconds: a clock that never goes back.
        """
        self._patience_seconds = patience_seconds
        self._seconds = seconds

    def run(self, action: Callable[[], Result], pause: Callable[[float], None]) -> Result:
        """Return what the action returns; between tries `pause` for 0.05 s, doubling up to 2 s.

        Raises:
            StoreError: the database stayed away.
        """
        delay = _FIRST_PAUSE_SECONDS
        first_failure: float | None = None
        while True:
            try:
                return action()
            except StoreError as error:
                now = self._seconds()
                first_failure = now if first_failure is None else first_failure
                left = first_failure + self._patience_seconds - now
                if left <= 0:
                    raise StoreError(
                        f"the database did not answer for {now - first_failure:.1f} s; last: {error}; "
                        "possible: bring it back, then resume"
                    ) from error
            pause(min(delay, left))
            delay = min(2 * delay, _LONGEST_PAUSE_SECONDS)
