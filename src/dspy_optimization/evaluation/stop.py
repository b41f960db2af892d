"""The signal that ends a search: set once, stays set, seen within one call."""

import threading

from dspy_optimization.errors import StopSearch


class StopSignal:
    """Holds why work has to end. A signal with a parent is also ended by its parent.

    The flag stays set: a thread pool that swallowed one stop meets it again at the next call.
    """

    def __init__(self, parent: "StopSignal | None" = None) -> None:
        self._parent = parent
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._reason: StopSearch | None = None
        self._children: list[threading.Event] = []
        if parent is not None:
            parent.wake(self._event)

    def wake(self, wake: threading.Event) -> None:
        """Set this event too when the work has to end."""
        with self._lock:
            self._children.append(wake)
            if self._event.is_set():
                wake.set()

    def stop(self, reason: StopSearch) -> None:
        """End the work; the first reason given is the one that counts."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            self._event.set()
            for wake in self._children:
                wake.set()

    @property
    def reason(self) -> StopSearch | None:
        """Why the work has to end; None while it may go on. The parent's reason comes first."""
        inherited = self._parent.reason if self._parent is not None else None
        return inherited if inherited is not None else self._reason

    def check(self) -> None:
        """Raise the reason when there is one."""
        reason = self.reason
        if reason is not None:
            raise reason

    def wait(self, seconds: float) -> None:
        """Sleep so long, or raise the reason as soon as there is one."""
        self._event.wait(max(seconds, 0.0))
        self.check()
