"""Optimizations that recur."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.events import Json
from dspy_optimization.sdk.answers import Accepted, OptimizationStatus
from dspy_optimization.sdk.handle import OptimizationHandle
from dspy_optimization.sdk.pages import pages
from dspy_optimization.sdk.request import OptimizationRequest
from dspy_optimization.sdk.transport import Transport, segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A request that is handed in whenever it is due, and what came of it the last time."""

    id: str
    name: str
    cron: str
    timezone: str
    is_paused: bool
    next_due_at: datetime | None = None
    """None while it is paused."""
    created_at: datetime | None = None
    last_due_at: datetime | None = None
    """The due time that was dealt with last, whatever came of it."""
    last_fired_at: datetime | None = None
    last_optimization_id: str | None = None
    last_optimization_status: OptimizationStatus | None = None
    last_error: str | None = None
    """Why the last due time made no optimization; None: it did."""
    request: Mapping[str, Json] = field(default_factory=dict)
    """What it hands in; empty in lists."""
    upcoming: tuple[datetime, ...] = ()
    """The next five due times; empty in lists and while it is paused."""


class Schedules:
    """`client.schedules`: iterating it yields all of them, the newest first."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __iter__(self) -> Iterator[Schedule]:
        """Yield all schedules."""
        return pages(self._transport, Schedule, "/schedules")

    def create(self, name: str, cron: str, request: OptimizationRequest, *, timezone: str = "UTC") -> Schedule:
        """Return a schedule that is due from now on.

        Args:
            name: no other schedule has it.
            cron: five fields: minute, hour, day of the month, month, day of the week.
            request: handed in at every due time; the examples of a file are read now.
            timezone: on whose clocks, by the name of the IANA.
        Raises:
            InvalidRequestError: these times never come, or the request cannot be carried out; says what to mend.
            ConflictError: the name is taken.
        """
        body = {"name": name, "cron": cron, "timezone": timezone, "request": request.to_json()}
        return self._transport.post_as(Schedule, "/schedules", body)

    def get(self, schedule_id: str) -> Schedule:
        """Return a schedule with its request and its next due times. Raises `NotFoundError`."""
        return self._transport.get_as(Schedule, _path(schedule_id))

    def pause(self, schedule_id: str) -> Schedule:
        """Let it be due no more until it is resumed."""
        return self._transport.post_as(Schedule, f"{_path(schedule_id)}/pause")

    def resume(self, schedule_id: str) -> Schedule:
        """Let it be due again; what it missed is not made up for."""
        return self._transport.post_as(Schedule, f"{_path(schedule_id)}/resume")

    def fire(self, schedule_id: str) -> OptimizationHandle:
        """Hand it in now, paused or not. Raises `ConflictError` while its last optimization has not ended."""
        accepted = self._transport.post_as(Accepted, f"{_path(schedule_id)}/fire")
        return OptimizationHandle(self._transport, accepted.optimization_id)

    def delete(self, schedule_id: str) -> None:
        """Remove it; the optimizations it made stay. Raises `NotFoundError`."""
        self._transport.delete(_path(schedule_id))


def _path(schedule_id: str) -> str:
    return f"/schedules/{segment(schedule_id)}"
