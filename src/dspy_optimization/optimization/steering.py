"""What a person may do with an optimization from outside: hand it in, pause, cancel, go on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from dspy_optimization.errors import ConflictError, InfrastructureError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event, EventType
from dspy_optimization.jobs.job import Job, job_id
from dspy_optimization.jobs.queue import JobQueue
from dspy_optimization.optimization.intake import Checked, Intake, Submission
from dspy_optimization.optimization.request import (
    AWAITED,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Wish,
)
from dspy_optimization.optimization.store import Hook, OptimizationStore
from dspy_optimization.tenancy import TenantId

logger = logging.getLogger(__name__)
FINAL = frozenset({OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED})
GOES_ON = frozenset({OptimizationStatus.PAUSED, OptimizationStatus.FAILED})
_STEPS = {
    Wish.PAUSE: (OptimizationStatus.PAUSED, EventType.OPTIMIZATION_PAUSED),
    Wish.CANCEL: (OptimizationStatus.CANCELLED, EventType.OPTIMIZATION_CANCELLED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An optimization after somebody asked something of it."""

    optimization: Optimization
    is_done: bool
    """False: a process works on it and does so after the calls in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Takes requests in for workers and passes on what people want of them. One tenant's."""

    tenant: TenantId
    optimizations: OptimizationStore
    queue: JobQueue | None
    """None: there are no workers; whoever hands in carries out."""
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]

    def submit(self, intake: Intake, checked: Checked, *also: Callable[[OptimizationId], Hook]) -> Optimization:
        """Keep the request and queue its job, both or neither. Raises `QueueFullError`.

        Args:
            intake: keeps agent, dataset and request.
            checked: the proposal.
            also: return, for the id of the request, what else happens in the same transaction.
        """
        return intake.accept(
            checked, lambda request: self._submission(request, tuple(make(request.id) for make in also))
        )

    def pause(self, optimization_id: OptimizationId) -> Asked:
        """Ask for a pause. Raises `ConflictError` when it does not run."""
        found = self.optimizations.get(optimization_id)
        if found.status is not OptimizationStatus.RUNNING:
            raise ConflictError(
                f"wanted: a running optimization to pause; found: {optimization_id} is {found.status.value}; "
                f"possible: {_possible(found.status)}"
            )
        return self._ask(found, Wish.PAUSE)

    def cancel(self, optimization_id: OptimizationId) -> Asked:
        """End it for good, the best so far kept. Raises `ConflictError` when it has ended."""
        found = self.optimizations.get(optimization_id)
        if found.status in FINAL:
            raise ConflictError(
                f"wanted: an optimization to cancel; found: {optimization_id} is {found.status.value}, that is final; "
                "possible: nothing, it has ended"
            )
        if found.status is OptimizationStatus.FAILED:
            raise ConflictError(
                f"wanted: an optimization to cancel; found: {optimization_id} is failed, so nothing runs; possible: "
                f"{_possible(found.status)}"
            )
        asked = self._ask(found, Wish.CANCEL)
        if asked.is_done:
            self._withdraw(found)
        return asked

    def resume(self, optimization_id: OptimizationId) -> Optimization:
        """Queue a paused or failed one again; what was answered is not paid again.

        Raises `ConflictError` when it has ended, runs or waits already, and `QueueFullError`.
        """
        found = self.optimizations.get(optimization_id)
        if found.status not in GOES_ON:
            raise ConflictError(
                f"wanted: an optimization that is paused or failed; found: {optimization_id} is {found.status.value}; "
                f"possible: {_possible(found.status)}"
            )
        submission = self._submission(found.request, ())

        def queued(now: Optimization) -> Optimization:
            if now.status not in GOES_ON or now.job != found.job:
                raise ConflictError(
                    f"wanted: an optimization that is paused or failed; found: {optimization_id} was resumed by "
                    f"somebody else at this moment; possible: {_possible(now.status)}"
                )
            return replace(
                now, status=OptimizationStatus.QUEUED, error=None, wish=None, job=submission.job, updated_at=self.now()
            )

        resumed = self.optimizations.update(
            optimization_id,
            queued,
            [Event(type=EventType.OPTIMIZATION_QUEUED, optimization_id=optimization_id, at=self.now(), data={})],
            also=submission.also,
        )
        self._withdraw(found)  # an attempt that would have come by itself later
        return resumed

    def _withdraw(self, before: Optimization) -> None:
        """Take out the job it had.

        One that stays in is claimed, finds that it is not its turn, and ends. So what was done is answered as done, and
        that the queue could not be reached just now is for operators.
        """
        if before.job is None or self.queue is None:
            return
        try:
            self.queue.withdraw([before.job])
        except InfrastructureError as error:
            facts = {"job": before.job, "optimization": str(before.request.id), "error": str(error)}
            logger.warning("Job not withdrawn", extra={"action": "job_not_withdrawn", **facts})

    def _submission(self, request: OptimizationRequest, also: tuple[Hook, ...]) -> Submission:
        queue = self.queue
        if queue is None:
            return Submission(also=also)
        job = Job(
            id=job_id(request.id, self.new_id()),
            tenant=self.tenant,
            subject=request.id,
            lane=request.constraints.lane,
            priority=request.constraints.priority,
            partitions=tuple(sorted({choice.name for choice in request.algorithms})),
        )
        return Submission(job=job.id, also=(*also, lambda transaction: queue.submit(job, transaction)))

    def _ask(self, found: Optimization, wish: Wish) -> Asked:
        """Make the wish known to the process that works on it, or take the step here when no process does."""
        optimization_id = found.request.id
        try:
            with self.optimizations.owning(optimization_id):
                status, kind = _STEPS[wish]
                kept = wish if wish is Wish.PAUSE else None
                event = Event(type=kind, optimization_id=optimization_id, at=self.now(), data={})
                ended = self.optimizations.update(
                    optimization_id,
                    lambda now: replace(now, status=status, wish=kept, updated_at=self.now()),
                    [event],
                )
                return Asked(optimization=ended, is_done=True)
        except ConflictError:
            if self.optimizations.get(optimization_id).status not in AWAITED:
                raise
        wished = self.optimizations.update(
            optimization_id,
            lambda now: replace(now, wish=wish if now.status in AWAITED else now.wish, updated_at=self.now()),
        )
        return Asked(optimization=wished, is_done=False)


def _possible(status: OptimizationStatus) -> str:
    match status:
        case OptimizationStatus.QUEUED:
            return "wait until it runs, or cancel it"
        case OptimizationStatus.RUNNING:
            return "pause it, cancel it, or watch it"
        case OptimizationStatus.PAUSED | OptimizationStatus.FAILED:
            return "resume it"
        case OptimizationStatus.COMPLETED | OptimizationStatus.CANCELLED:
            return "nothing, it has ended; a new optimization pays for nothing that was answered"
