"""Something another thread will have done."""

import threading
from typing import Generic, TypeVar

from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.stop import StopSignal

Result = TypeVar("Result")

_LOOK_UP_SECONDS = 0.1


class Receipt(Generic[Result]):
    """What one thread waits for and another ends, once, with a result or a `StoreError`."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._results: list[Result] = []
        self._error: StoreError | None = None

    def wait(self, stop: StopSignal | None = None) -> Result:
        """Return the result.

        Raises:
            StoreError: the database stayed away; what was asked for may or may not be done.
            StopSearch: the signal's reason; what was asked for may or may not be done.
        """
        while not self._ended.wait(None if stop is None else _LOOK_UP_SECONDS):
            if stop is not None:
                stop.check()
        if self._error is not None:
            raise StoreError(str(self._error)) from self._error
        return self._results[0]

    def end(self, result: Result) -> None:
        """Wake everybody who waits."""
        self._results.append(result)
        self._ended.set()

    def fail(self, error: StoreError) -> None:
        """Wake everybody who waits, with the error."""
        self._error = error
        self._ended.set()
