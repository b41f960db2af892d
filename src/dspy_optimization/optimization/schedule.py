"""An optimization that recurs."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType
from uuid import UUID

from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.cron import Cron
from dspy_optimization.optimization.request import OptimizationStatus

ScheduleId = NewType("ScheduleId", UUID)
NOT_ENDED = frozenset({OptimizationStatus.QUEUED, OptimizationStatus.RUNNING, OptimizationStatus.PAUSED})
"""While the last optimization of a schedule is one of these, the schedule makes no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A request that is handed in whenever it is due, and what came of it the last time."""

    id: ScheduleId
    name: str
    """Its own within the tenant."""
    cron: str
    timezone: str
    is_paused: bool
    next_due_at: datetime | None
    """None: paused, or its times cannot be read any more."""
    created_at: datetime
    last_due_at: datetime | None
    """The due time that was dealt with last, whatever came of it; None: none was."""
    last_fired_at: datetime | None
    """When its last optimization was handed in."""
    last_optimization_id: OptimizationId | None
    last_optimization_status: OptimizationStatus | None
    last_error: str | None
    """Why the last due time made no optimization; None: it did."""

    @property
    def times(self) -> Cron:
        """When it is due. Raises `InvalidRequestError` when this machine cannot tell any more."""
        return Cron(expression=self.cron, timezone=self.timezone)
