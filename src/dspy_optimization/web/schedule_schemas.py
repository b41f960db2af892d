"""What requests and answers about schedules hold."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from dspy_optimization.events import Json
from dspy_optimization.optimization.schedule import Schedule
from dspy_optimization.web.answers import Answer
from dspy_optimization.web.schemas import OptimizeIn, Request, Text


class ScheduleIn(Request):
    """A request that recurs."""

    name: Text = Field(description="Its own among the schedules of the tenant.", examples=["nightly"])
    cron: Text = Field(
        description="Five fields: minute, hour, day of the month, month, day of the week.", examples=["0 3 * * 1"]
    )
    timezone: Text = Field(
        default="UTC", description="On whose clocks; a name of the IANA.", examples=["Europe/Berlin"]
    )
    request: OptimizeIn = Field(description="What is handed in at every due time, as for /api/v1/optimize.")


class ScheduleOut(Answer):
    """A schedule at a glance."""

    id: UUID
    name: str
    cron: str
    timezone: str
    is_paused: bool
    next_due_at: datetime | None = Field(description="Null while it is paused.")
    created_at: datetime
    last_due_at: datetime | None = Field(description="The due time that was dealt with last, whatever came of it.")
    last_fired_at: datetime | None = Field(description="When its last optimization was handed in.")
    last_optimization_id: UUID | None
    last_optimization_status: str | None
    last_error: str | None = Field(description="Why the last due time made no optimization; null when it did.")


class ScheduleDetail(ScheduleOut):
    """A schedule with what it hands in."""

    request: dict[str, Any]
    upcoming: list[datetime] = Field(description="The next five due times; none while it is paused.")


def schedule_out(one: Schedule) -> ScheduleOut:
    """Return the answer."""
    return ScheduleOut(
        id=one.id,
        name=one.name,
        cron=one.cron,
        timezone=one.timezone,
        is_paused=one.is_paused,
        next_due_at=one.next_due_at,
        created_at=one.created_at,
        last_due_at=one.last_due_at,
        last_fired_at=one.last_fired_at,
        last_optimization_id=one.last_optimization_id,
        last_optimization_status=None if one.last_optimization_status is None else one.last_optimization_status.value,
        last_error=one.last_error,
    )


def schedule_detail(one: Schedule, request: Mapping[str, Json], upcoming: Sequence[datetime]) -> ScheduleDetail:
    """Return the answer with what it hands in."""
    return ScheduleDetail(**schedule_out(one).model_dump(), request=dict(request), upcoming=list(upcoming))
