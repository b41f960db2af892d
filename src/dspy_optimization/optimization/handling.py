"""Carries optimizations out as jobs: what a worker does with one, and what is written when it cannot go on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

from dspy_optimization.errors import CancelRequested, ConflictError, PauseRequested
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.jobs.job import Job
from dspy_optimization.jobs.queue import JobQueue
from dspy_optimization.jobs.worker import Interruption, Outcome
from dspy_optimization.optimization.optimizer import Optimizer, Stores
from dspy_optimization.optimization.request import Optimization, OptimizationStatus, Wish
from dspy_optimization.tenancy import TenantId

_AWAITED = frozenset({OptimizationStatus.QUEUED, OptimizationStatus.RUNNING})
"""Somebody waits for these to go on by themselves: none may be left so when nothing goes on."""
_ENDED = frozenset({OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED, OptimizationStatus.FAILED})


class HandoverRequested(PauseRequested):
    """This process has to go; another one goes on."""


class _TakenOverError(Exception):
    """Another job, or nobody, goes on with the optimization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationHandler:
    """The `Handler` of optimizations, of every tenant. Thread-safe."""

    optimizer: Callable[[TenantId], Optimizer]
    queue: JobQueue
    now: Callable[[], datetime]

    def carry_out(self, job: Job, interruption: Interruption) -> Outcome:
        """Run the optimization until it ends, pauses, or this process has to go."""
        optimizer = self.optimizer(job.tenant)
        stores, optimization_id = optimizer.stores, OptimizationId(job.subject)
        found = stores.optimizations.get(optimization_id)
        if found.job != job.id or found.status in _ENDED or _paused_by_a_person(found):
            return Outcome.DONE  # cancelled, paused, or handed in anew, while this job waited
        stop = _obeying(found.wish)
        try:
            with (
                interruption.telling(lambda: stop.stop(HandoverRequested("this process has to go"))),
                self._until(found.request.constraints.deadline, stop),
            ):
                ended = optimizer.run(optimization_id, stop)
        except ConflictError:
            return self._refused(stores, optimization_id)
        if ended.status is not OptimizationStatus.PAUSED or _paused_by_a_person(ended):
            return Outcome.DONE
        if isinstance(stop.reason, HandoverRequested):
            return Outcome.INTERRUPTED
        return Outcome.DONE if ended.error is None else Outcome.PASSING

    def wait_again(self, job: Job, outcome: Outcome) -> None:
        """Queue the next attempt together with where the optimization stands until then.

        Nothing happens when a person took it over meanwhile: cancelled it, or had it go on as another job.
        """
        stores, optimization_id = self.optimizer(job.tenant).stores, OptimizationId(job.subject)
        data: dict[str, Json] = {"reason": outcome.value, "retry_in_seconds": job.delay_seconds}
        event = Event(type=EventType.OPTIMIZATION_QUEUED, optimization_id=optimization_id, at=self.now(), data=data)

        def change(before: Optimization) -> Optimization:
            if before.job != job.before or before.status in _ENDED:
                raise _TakenOverError
            waits = outcome is Outcome.INTERRUPTED and before.status is OptimizationStatus.PAUSED
            status = OptimizationStatus.QUEUED if waits else before.status
            return replace(before, status=status, job=job.id, updated_at=self.now())

        # Somebody else works on it: nothing changed that users have to be told of.
        events = [] if outcome is Outcome.BUSY else [event]
        with suppress(_TakenOverError):
            stores.optimizations.update(
                optimization_id, change, events, also=[lambda transaction: self.queue.submit(job, transaction)]
            )

    def give_up(self, job: Job, reason: str) -> None:
        """Fail the optimization for a defect of ours; it can be resumed."""
        stores, optimization_id = self.optimizer(job.tenant).stores, OptimizationId(job.subject)
        if stores.optimizations.get(optimization_id).status not in _AWAITED:
            return
        error = (
            f"wanted: to carry it out; found: {reason}; possible: resume it, and report this when it happens again: it "
            "is a defect of the engine"
        )
        event = Event(
            type=EventType.OPTIMIZATION_FAILED,
            optimization_id=optimization_id,
            at=self.now(),
            data={"error": error, "error_type": "defect"},
        )
        stores.optimizations.update(
            optimization_id,
            lambda before: replace(before, status=OptimizationStatus.FAILED, error=error, updated_at=self.now()),
            [event],
        )

    def _refused(self, stores: Stores, optimization_id: OptimizationId) -> Outcome:
        """Say what to do about one that another process holds, or that ended meanwhile."""
        status = stores.optimizations.get(optimization_id).status
        return Outcome.DONE if status in _ENDED else Outcome.BUSY

    @contextmanager
    def _until(self, deadline: datetime | None, stop: StopSignal) -> Iterator[None]:
        """Cancel at the deadline: what was found until then is kept."""
        if deadline is None:
            yield
            return
        left = max((deadline - self.now()).total_seconds(), 0.0)
        timer = threading.Timer(
            min(left, threading.TIMEOUT_MAX), stop.stop, [CancelRequested("the deadline is reached")]
        )
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _paused_by_a_person(optimization: Optimization) -> bool:
    """Say whether it stands still until a person resumes it; every other pause ends by itself."""
    return optimization.status is OptimizationStatus.PAUSED and optimization.wish is Wish.PAUSE


def _obeying(wish: Wish | None) -> StopSignal:
    """Return a signal, set when a person asked for an end that the process which died did not come to."""
    stop = StopSignal()
    if wish is Wish.PAUSE:
        stop.stop(PauseRequested("a person asked for a pause"))
    elif wish is Wish.CANCEL:
        stop.stop(CancelRequested("a person asked for the end"))
    return stop
