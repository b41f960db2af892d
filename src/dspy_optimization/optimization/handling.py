"""Carries optimizations out as jobs: what a worker does with one, and what is written when it cannot go on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from dspy_optimization.errors import CancelRequested, ConflictError, PauseRequested, ProcessDiedError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.jobs.job import Job
from dspy_optimization.jobs.queue import JobQueue
from dspy_optimization.jobs.worker import Interruption, Outcome
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.optimization.request import AWAITED, Isolation, Optimization, OptimizationStatus, Wish
from dspy_optimization.optimization.store import Stores
from dspy_optimization.tenancy import TenantId

_ENDED = frozenset({OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED, OptimizationStatus.FAILED})


_LETTING_GO_SECONDS = 5.0
"""How long the database may take to notice that a process is gone, and to free what it owned."""


class HandoverRequested(PauseRequested):
    """This process has to go; another one goes on."""


class _TakenOverError(Exception):
    """Another job, or nobody, goes on with the optimization."""


class IsolatedRuns(Protocol):
    """Runs optimizations in processes of their own."""

    def run(self, tenant: TenantId, optimization_id: OptimizationId, stop: StopSignal) -> None:
        """Work on it until it ends, pauses, or is stopped; what became of it stands in the store.

        Args:
            tenant: whose it is.
            optimization_id: as for `Optimizer.run`.
            stop: ended from outside with `PauseRequested` or `CancelRequested`; after `HandoverRequested` a process
                that does not end by itself is ended.
        Raises:
            ConflictError: it has ended, or another living process works on it.
            ProcessDiedError: the process ended without saying what became of it.
            InfrastructureError: the process could not be started, or could not write down what happened.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationHandler:
    """The `Handler` of optimizations, of every tenant. Thread-safe."""

    optimizer: Callable[[TenantId], Optimizer]
    isolated: IsolatedRuns
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
                if found.request.constraints.isolation is Isolation.PROCESS:
                    self.isolated.run(job.tenant, optimization_id, stop)
                    ended = stores.optimizations.get(optimization_id)
                else:
                    ended = optimizer.run(optimization_id, stop)
        except ConflictError:
            return self._refused(stores, optimization_id)
        except ProcessDiedError as died:
            return self._died(stores, optimization_id, died, stop)
        return _outcome(ended, stop)

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

        def failed(before: Optimization) -> Optimization:
            return replace(before, status=OptimizationStatus.FAILED, error=error, updated_at=self.now())

        with ExitStack() as held:
            # Whoever holds it works on it, and says himself what becomes of it.
            is_ours = _held(stores, optimization_id, held)
            if is_ours and stores.optimizations.get(optimization_id).status in AWAITED:
                stores.optimizations.update(optimization_id, failed, [event])

    def _refused(self, stores: Stores, optimization_id: OptimizationId) -> Outcome:
        """Say what to do about one that another process holds, or that ended meanwhile."""
        status = stores.optimizations.get(optimization_id).status
        return Outcome.DONE if status in _ENDED else Outcome.BUSY

    def _died(
        self, stores: Stores, optimization_id: OptimizationId, died: ProcessDiedError, stop: StopSignal
    ) -> Outcome:
        """Write down that its process died, unless that process came to its end before, or was to go anyway.

        Pauses for what may pass, and raises it; fails for what a person has to mend.
        """
        with ExitStack() as held:
            if not _held(stores, optimization_id, held):
                return self._refused(stores, optimization_id)
            found = stores.optimizations.get(optimization_id)
            if found.status not in AWAITED or isinstance(stop.reason, HandoverRequested):
                return _outcome(found, stop)
            failed = not died.may_pass
            # One that waits cannot pause: it never began.
            waits = found.status is OptimizationStatus.QUEUED
            kind = EventType.OPTIMIZATION_FAILED if failed else EventType.OPTIMIZATION_PAUSED
            kept = found.status if waits else OptimizationStatus.PAUSED
            event = Event(
                type=kind,
                optimization_id=optimization_id,
                at=self.now(),
                data={"error": str(died), "error_type": type(died).__name__},
            )
            stores.optimizations.update(
                optimization_id,
                lambda before: replace(
                    before,
                    status=OptimizationStatus.FAILED if failed else kept,
                    error=str(died),
                    wish=None if failed else before.wish,
                    updated_at=self.now(),
                ),
                [event] if failed or not waits else [],
            )
        if died.may_pass:
            raise died
        return Outcome.DONE

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


def _outcome(ended: Optimization, stop: StopSignal) -> Outcome:
    """Say what has to follow when nobody works on it any longer."""
    handover = isinstance(stop.reason, HandoverRequested)
    if handover and ended.status in AWAITED:
        return Outcome.INTERRUPTED  # its process went without coming to a pause
    if ended.status is not OptimizationStatus.PAUSED or _paused_by_a_person(ended):
        return Outcome.DONE
    if handover:
        return Outcome.INTERRUPTED
    return Outcome.DONE if ended.error is None else Outcome.PASSING


def _held(stores: Stores, optimization_id: OptimizationId, held: ExitStack) -> bool:
    """Hold the optimization in `held` once its dead process lets go; False when somebody living does not."""
    until = time.monotonic() + _LETTING_GO_SECONDS
    while True:
        try:
            held.enter_context(stores.optimizations.owning(optimization_id))
        except ConflictError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        else:
            return True


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
