"""The heartbeat of every optimization a process works on: one statement a second a tenant, however many there are."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dspy_optimization.errors import (
    CancelRequested,
    ConflictError,
    PauseRequested,
    RequestFailed,
    StoreError,
)
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.request import Wish

SECONDS = 1.0
"""Between two beats: how soon a wish is obeyed, and how much worked time a killed process forgets."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Somebody works on the optimization."""

    optimization_id: OptimizationId
    elapsed_seconds: float
    """Time worked on it, over all resumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came back."""

    wish: Wish | None = None
    """What a person asked for."""
    taken: ConflictError | None = None
    """Another process took the optimization over."""


class Beats(Protocol):
    """Keeps beats of one tenant. Those of one tenant are equal."""

    def beat(self, beats: Sequence[Beat]) -> Mapping[OptimizationId, Heard]:
        """Keep the beats and return what is wished of each; one that cannot be told of now is absent.

        Raises `StoreError` when the database is away.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    beats: Beats
    stop: StopSignal
    elapsed_seconds: Callable[[], float]


class Pulse:
    """Keeps the time worked and obeys wishes, for all optimizations of a process. Thread-safe."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Beat this often while there is anything to beat for."""
        self._seconds = seconds
        self._turn = threading.Lock()
        self._patients: dict[OptimizationId, _Patient] = {}
        self._ended = threading.Event()

    @contextmanager
    def watching(
        self, beats: Beats, optimization_id: OptimizationId, stop: StopSignal, elapsed_seconds: Callable[[], float]
    ) -> Iterator[None]:
        """Beat for one optimization until the context ends, and stop its work when that is wished.

        Args:
            beats: of its tenant.
            optimization_id: held by this process.
            stop: ended with `PauseRequested`, `CancelRequested`, or `RequestFailed` when it was taken over.
            elapsed_seconds: time worked on it by now.
        """
        with self._turn:
            self._patients[optimization_id] = _Patient(beats=beats, stop=stop, elapsed_seconds=elapsed_seconds)
            if len(self._patients) == 1:
                self._ended = threading.Event()
                threading.Thread(target=self._run, args=[self._ended], name="pulse", daemon=True).start()
        try:
            yield
        finally:
            with self._turn:
                del self._patients[optimization_id]
                if not self._patients:
                    self._ended.set()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self._seconds):
            with self._turn:
                patients = dict(self._patients)
            for beats in {one.beats for one in patients.values()}:
                self._beat(beats, {key: one for key, one in patients.items() if one.beats == beats})

    def _beat(self, beats: Beats, patients: Mapping[OptimizationId, _Patient]) -> None:
        told = [Beat(optimization_id=key, elapsed_seconds=one.elapsed_seconds()) for key, one in patients.items()]
        try:
            heard = beats.beat(told)
        except StoreError as error:
            # The ledger, which cannot go on without the database, decides.
            logger.warning("No heartbeat", extra={"action": "heartbeat_failed", "error": str(error)})
            return
        for key, found in heard.items():
            stop = patients[key].stop
            if found.taken is not None:
                # Somebody else works on it now: whatever is called here would be paid twice.
                stop.stop(RequestFailed(found.taken))
            elif found.wish is Wish.PAUSE:
                stop.stop(PauseRequested("a person asked for a pause"))
            elif found.wish is Wish.CANCEL:
                stop.stop(CancelRequested("a person asked for the end"))
