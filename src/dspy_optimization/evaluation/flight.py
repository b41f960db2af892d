"""Identical calls in flight are one call: one leads, the others follow."""

import threading

from dspy_optimization.errors import ModelError
from dspy_optimization.evaluation.model import ModelResponse
from dspy_optimization.evaluation.stop import StopSignal

_LOOK_UP_SECONDS = 0.1


class Flight:
    """One call on its way; its leader lands it once."""

    def __init__(self) -> None:
        self._landed = threading.Event()
        self.outcome: ModelResponse | ModelError | None = None
        """What came of it. None once it landed: its leader was stopped, and a follower has to take over."""

    def land(self, outcome: ModelResponse | ModelError | None) -> None:
        """Wake the followers."""
        self.outcome = outcome
        self._landed.set()

    def follow(self, stop: StopSignal) -> None:
        """Wait until it landed. Raises the follower's own reason to stop."""
        while not self._landed.wait(_LOOK_UP_SECONDS):
            stop.check()
