"""Optimizations that somebody waits for although nothing goes on with them, and giving them back to people.

A job ends after its optimization: first it is written where the optimization stands, or which job goes on, then the job
is done. What can break that order is outside of it: an operator cancels the job in the queue's own tools, the queue
gives it up after too many deaths, what the job says cannot be read any more, or the last word about the optimization
was refused. The optimization then stands as queued or running for ever.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dspy_optimization.errors import ConflictError, NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event, EventType
from dspy_optimization.jobs.job import JobId
from dspy_optimization.optimization.request import AWAITED, Optimization, OptimizationStatus
from dspy_optimization.optimization.store import OptimizationStore
from dspy_optimization.tenancy import TenantId

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """An optimization whose job will not go on."""

    tenant: TenantId
    id: OptimizationId
    job: JobId
    how: str
    """What became of the job, in the queue's own word; missing: it is not there."""


class _GoesOnError(Exception):
    """It was resumed, or ended, meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Fails what is stranded, so that a person may resume it. Any number of processes may do so at once."""

    stranded: Callable[[], Sequence[Stranded]]
    optimizations: Callable[[TenantId], OptimizationStore]
    now: Callable[[], datetime]

    def step(self) -> int:
        """Return how many were failed. Raises `StoreError` when the database is away."""
        return sum(self._fail(one) for one in self.stranded())

    def _fail(self, one: Stranded) -> bool:
        error = (
            f"wanted: to carry it out; found: its job has ended ({one.how}) and said nothing of it; possible: resume "
            "it, what was answered is not paid again"
        )
        event = Event(
            type=EventType.OPTIMIZATION_FAILED,
            optimization_id=one.id,
            at=self.now(),
            data={"error": error, "error_type": "stranded"},
        )

        def failed(before: Optimization) -> Optimization:
            if before.status not in AWAITED or before.job != one.job:
                raise _GoesOnError
            return replace(before, status=OptimizationStatus.FAILED, error=error, updated_at=self.now())

        facts = {"optimization": str(one.id), "job": one.job, "how": one.how}
        try:
            self.optimizations(one.tenant).update(one.id, failed, [event])
        except (_GoesOnError, NotFoundError, ConflictError):
            return False
        except StoreError as broken:
            # One that cannot be read must not keep the others from being given back.
            logger.warning(
                "Stranded optimization stays", extra={"action": "stranded_stays", "error": str(broken), **facts}
            )
            return False
        logger.warning("Stranded optimization failed", extra={"action": "stranded_failed", **facts})
        return True
