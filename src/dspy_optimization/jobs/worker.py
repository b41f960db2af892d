"""Carries jobs out, one a call, and ends them all when its process has to go."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from dspy_optimization.errors import InfrastructureError, StoreError
from dspy_optimization.jobs.job import Job

logger = logging.getLogger(__name__)

RETRY_DELAYS_SECONDS = (15.0, 60.0, 300.0, 900.0)
"""How long a job waits before its next attempt when what failed may pass by itself; then a person has to look."""
BUSY_DELAY_SECONDS = 5.0
LONGEST_BUSY_DELAY_SECONDS = 300.0
STORE_DELAY_SECONDS = 1.0


class LeftToOthers(BaseException):
    """This process may not say what became of a job, not even that it ended: another one is to do it.

    No `Exception`: whoever keeps the jobs writes down every `Exception` as an end.
    """


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"  # nothing more to do, whatever came of it
    PASSING = "passing"  # something failed that may work later
    BUSY = "busy"  # somebody else still holds the subject: look again soon
    INTERRUPTED = "interrupted"  # this process has to go: another one goes on at once


class Interruption:
    """Whether this process has to go. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._listeners: dict[object, Callable[[], None]] = {}

    @property
    def is_set(self) -> bool:
        """True from the moment it has to go."""
        return self._is_set

    def set(self) -> None:
        """Tell everybody who listens, once."""
        with self._lock:
            self._is_set = True
            listeners, self._listeners = list(self._listeners.values()), {}
        for told in listeners:
            told()

    @contextmanager
    def telling(self, told: Callable[[], None]) -> Iterator[None]:
        """Call `told` should it be set inside the block, at once when it is set already."""
        key = object()
        with self._lock:
            late = self._is_set
            if not late:
                self._listeners[key] = told
        if late:
            told()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.pop(key, None)


class Handler(Protocol):
    """Knows how to carry subjects out."""

    def carry_out(self, job: Job, interruption: Interruption) -> Outcome:
        """Work until it is done; return soon after the interruption is set.

        An attempt may have been made before by a process that died: whatever was done then must not be done twice.
        Raises `InfrastructureError` for what may pass.
        """
        ...

    def wait_again(self, job: Job, outcome: Outcome) -> None:
        """Queue the job's next attempt in the transaction of the subject's own change. Raises `StoreError`."""
        ...

    def give_up(self, job: Job, reason: str) -> None:
        """Leave the subject in a state from which a person can go on, and say why. Raises `StoreError`.

        Nothing happens when it is in such a state already, or when another process works on it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of one attempt; kept with the job for operators."""

    outcome: Outcome
    error: str | None = None


class JobWorker:
    """Makes the attempts of one process. Thread-safe."""

    def __init__(self, handler: Handler, running_changed: Callable[[int], None] | None = None) -> None:
        """Carry out with `handler`; `running_changed` is told how many attempts run whenever that changes."""
        self._handler = handler
        self._running_changed = running_changed
        self._interruption = Interruption()
        self._abandoned = threading.Event()
        self._running = 0
        self._count = threading.Lock()

    @property
    def running(self) -> int:
        """Attempts this process works on now."""
        return self._running

    @property
    def is_draining(self) -> bool:
        """Whether this process takes nothing new."""
        return self._interruption.is_set

    def attempt(self, job: Job) -> Attempt:
        """Make one attempt and see to the next one where there has to be one.

        While the database is away it waits: what became of the job has to be written somewhere. Raises
        `LeftToOthers` once this process is to go, or is taken for dead.
        """
        if self._interruption.is_set:
            raise LeftToOthers(job.id)
        self._count_running(1)
        try:
            return self._attempt(job)
        finally:
            self._count_running(-1)

    def interrupt(self) -> None:
        """Ask every attempt to end and begin none: other processes go on."""
        self._interruption.set()

    def abandon(self) -> None:
        """Let go of every attempt without a word: others were given the jobs while this process was not seen."""
        self._abandoned.set()
        self._interruption.set()

    def _count_running(self, by: int) -> None:
        with self._count:
            self._running += by
            if self._running_changed is not None:
                self._running_changed(self._running)

    def _attempt(self, job: Job) -> Attempt:
        try:
            outcome, error = self._handler.carry_out(job, self._interruption), None
        except InfrastructureError as passing:
            outcome, error = Outcome.PASSING, str(passing)
        except Exception as defect:
            # A defect of ours must not take the other jobs of this process with it.
            logger.exception("Job failed", extra={"action": "job_failed", "job": job.id})
            self._check_ours(job)
            reason = f"{type(defect).__name__}: {defect}"
            self._written(lambda: self._handler.give_up(job, reason))
            return Attempt(outcome=Outcome.DONE, error=reason)
        self._check_ours(job)
        if outcome is Outcome.DONE:
            return Attempt(outcome=outcome, error=error)
        if outcome is Outcome.PASSING and job.attempt > len(RETRY_DELAYS_SECONDS):
            # It is paused already and says why, unless nothing could be written: a person looks, and resumes it.
            self._written(lambda: self._handler.give_up(job, error or outcome.value))
            return Attempt(outcome=Outcome.DONE, error=error)
        again = self._next(job, outcome)
        self._written(lambda: self._handler.wait_again(again, outcome))
        return Attempt(outcome=outcome, error=error)

    def _check_ours(self, job: Job) -> None:
        """Raise `LeftToOthers` when others were given the job: what becomes of it is theirs to say."""
        if self._abandoned.is_set():
            raise LeftToOthers(job.id)

    def _next(self, job: Job, outcome: Outcome) -> Job:
        match outcome:
            case Outcome.PASSING:
                return job.again(RETRY_DELAYS_SECONDS[job.attempt - 1])
            case Outcome.BUSY:
                delay = min(BUSY_DELAY_SECONDS * 2.0 ** min(job.number - 1, 10), LONGEST_BUSY_DELAY_SECONDS)
                return replace(job.again(delay), attempt=job.attempt)
            case _:
                return replace(job.again(0.0), attempt=job.attempt)

    def _written(self, write: Callable[[], None]) -> None:
        while True:
            try:
                write()
            except StoreError:
                if self._abandoned.wait(STORE_DELAY_SECONDS):
                    raise LeftToOthers from None
            else:
                return
