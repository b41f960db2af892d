"""Schedules of one tenant, and the due times from which processes fire for all of them.

When a schedule is due next stands once, in `schedule_due`. It is moved on in the transaction that keeps the request
the due time made, so that no death of a process can lose a due time or use it twice. Due times are compared with the
clock of whoever asks; how long a claim lasts is by the database's, for those of the machines may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import optimization_request
from dspy_optimization.adapters.postgres.tables import schedule as table
from dspy_optimization.adapters.postgres.tables import schedule_due as dues
from dspy_optimization.adapters.postgres.transaction_lock import lock
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.jobs.queue import Transaction
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.schedule import Schedule, ScheduleId
from dspy_optimization.optimization.store import Hook
from dspy_optimization.tenancy import TenantId

MOST_SCHEDULES = 500
"""So many a tenant."""
_SHOWN = 5


class OvertakenError(ConflictError):
    """Nothing to mend: the schedule was fired, paused or removed by somebody else at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A due time that one process may use for a while; holds ids only."""

    tenant: TenantId
    schedule_id: ScheduleId
    at: datetime
    until: datetime
    """Marks whose claim it is: what is said under an older one is not heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One use of a schedule, before it is known what comes of it."""

    schedule: Schedule
    """As it was when it was decided to fire: another optimization of it since then undoes this one."""
    at: datetime
    due: Due | None = None
    """None: a person fires it; when it is due next does not change by that."""
    due_at: datetime | None = None
    """The due time it is fired for, the newest of those that were missed."""
    next_due_at: datetime | None = None


class PostgresSchedules:
    """Schedules of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def add(self, schedule: Schedule, request: Mapping[str, Json]) -> None:
        """Keep a new schedule. Raises `ConflictError` when the name is taken or there are too many."""
        row = {
            "schedule_id": schedule.id,
            "name": schedule.name,
            "cron": schedule.cron,
            "timezone": schedule.timezone,
            "request": dict(request),
            "created_at": schedule.created_at,
        }
        due = {"holder": self._tenant, "schedule_id": schedule.id, "due_at": schedule.next_due_at}
        kept = insert(table).values(row).on_conflict_do_nothing(index_elements=[table.c.tenant_id, table.c.name])
        with self._database.transaction(self._tenant) as connection:
            # Until it ends nobody else adds one: all would find room for the last.
            lock(connection, f"schedules/{self._tenant}")
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() >= MOST_SCHEDULES:
                raise ConflictError(
                    f"wanted: at most {MOST_SCHEDULES} schedules; found: as many already; possible: remove one first"
                )
            if connection.execute(kept.returning(table.c.schedule_id)).first() is None:
                raise ConflictError(
                    f"name: wanted: one that no schedule has; found: {schedule.name!r} is taken; possible: another "
                    "name, or remove that schedule first"
                )
            connection.execute(sa.insert(dues).values(due))

    def page(self, after: ScheduleId | None, limit: int) -> Sequence[Schedule]:
        """Return schedules, the newest first, behind this one."""
        query = self._schedules().order_by(table.c.schedule_id.desc()).limit(limit)
        if after is not None:
            query = query.where(table.c.schedule_id < after)
        with self._database.transaction(self._tenant) as connection:
            return [_schedule(row) for row in connection.execute(query)]

    def get(self, schedule_id: ScheduleId) -> Schedule:
        """Return it. Raises `NotFoundError`, naming the newest ids."""
        with self._database.transaction(self._tenant) as connection:
            return self._found(connection, schedule_id)

    def request(self, schedule_id: ScheduleId) -> Mapping[str, Json]:
        """Return what it hands in. Raises `NotFoundError`."""
        query = sa.select(table.c.request).where(table.c.schedule_id == schedule_id)
        with self._database.transaction(self._tenant) as connection:
            found = connection.execute(query).one_or_none()
            if found is None:
                raise _unknown(connection, schedule_id)
            return cast("Mapping[str, Json]", found.request)

    def pause(self, schedule_id: ScheduleId) -> Schedule:
        """Let it be due no more; a firing that has not ended is undone. Raises `NotFoundError`."""
        return self._set(schedule_id, is_paused=True, next_due_at=None)

    def resume(self, schedule_id: ScheduleId, next_due_at: datetime) -> Schedule:
        """Let it be due from then on. Raises `NotFoundError`."""
        return self._set(schedule_id, is_paused=False, next_due_at=next_due_at)

    def remove(self, schedule_id: ScheduleId) -> None:
        """Forget it; its optimizations stay. Raises `NotFoundError`."""
        gone = sa.delete(table).where(table.c.schedule_id == schedule_id)
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(gone).rowcount == 0:
                raise _unknown(connection, schedule_id)

    def firing(self, firing: Firing, optimization_id: OptimizationId) -> Hook:
        """Return what notes the optimization of a firing and moves its due time on, in the transaction of its request.

        Raises `OvertakenError`, which undoes all of it, when the schedule or its due time is somebody else's meanwhile.
        """

        def note(transaction: Transaction) -> None:
            connection = cast("sa.Connection", transaction)
            values: dict[str, object] = {
                "last_fired_at": firing.at,
                "last_optimization_id": optimization_id,
                "last_error": None,
            }
            before = table.c.last_optimization_id.is_not_distinct_from(
                sa.literal(firing.schedule.last_optimization_id, sa.Uuid())
            )
            if firing.due_at is not None:
                values["last_due_at"] = firing.due_at
            changed = sa.update(table).where(table.c.schedule_id == firing.schedule.id, before).values(values)
            if connection.execute(changed).rowcount == 0:
                raise _overtaken(firing.schedule)
            if firing.due is not None and connection.execute(_moved(firing.due, firing.next_due_at)).rowcount == 0:
                raise _overtaken(firing.schedule)

        return note

    def fired(self, firing: Firing, optimization_id: OptimizationId) -> None:
        """Note it outside of that transaction, for an optimization that was there already. Raises `OvertakenError`."""
        with self._database.transaction(self._tenant) as connection:
            self.firing(firing, optimization_id)(connection)

    def not_fired(self, due: Due, due_at: datetime, why: str, next_due_at: datetime | None) -> bool:
        """Note why a due time makes no optimization, and when the next is; False: it is somebody else's meanwhile."""
        return self._noted(due, {"last_due_at": due_at, "last_error": why}, _moved(due, next_due_at))

    def put_off(self, due: Due, why: str, seconds: float) -> bool:
        """Note why a due time waits; it can be claimed again after so many seconds. False as above."""
        return self._noted(due, {"last_error": why}, _of(due).values(claimed_until=_in(seconds)))

    def _noted(self, due: Due, values: Mapping[str, object], moved: sa.Update) -> bool:
        changed = sa.update(table).where(table.c.schedule_id == due.schedule_id).values(dict(values))
        with self._database.transaction(self._tenant) as connection:
            # In this order, which is that of everybody who holds both rows.
            locked = sa.select(table.c.schedule_id).where(table.c.schedule_id == due.schedule_id)
            connection.execute(locked.with_for_update(key_share=True))
            if connection.execute(moved).rowcount == 0:
                return False
            connection.execute(changed)
            return True

    def _set(self, schedule_id: ScheduleId, *, is_paused: bool, next_due_at: datetime | None) -> Schedule:
        changed = sa.update(table).where(table.c.schedule_id == schedule_id).values(is_paused=is_paused)
        moved = (
            sa.update(dues)
            .where(dues.c.holder == self._tenant, dues.c.schedule_id == schedule_id)
            .values(due_at=next_due_at, claimed_until=None)
        )
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(changed).rowcount == 0:
                raise _unknown(connection, schedule_id)
            connection.execute(moved)
            return self._found(connection, schedule_id)

    def _schedules(self) -> "sa.Select[tuple[object, ...]]":
        columns = [column for column in table.c if column.name != "request"]
        made = optimization_request
        joined = table.join(
            dues, sa.and_(dues.c.holder == table.c.tenant_id, dues.c.schedule_id == table.c.schedule_id)
        ).outerjoin(
            made,
            sa.and_(made.c.tenant_id == table.c.tenant_id, made.c.optimization_id == table.c.last_optimization_id),
        )
        return (
            sa.select(*columns, dues.c.due_at, made.c.status.label("last_status"))
            .select_from(joined)
            .where(dues.c.holder == self._tenant)
        )

    def _found(self, connection: sa.Connection, schedule_id: ScheduleId) -> Schedule:
        row = connection.execute(self._schedules().where(table.c.schedule_id == schedule_id)).one_or_none()
        if row is None:
            raise _unknown(connection, schedule_id)
        return _schedule(row)


class PostgresDueTimes:
    """What is due, of every tenant. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, now: datetime, lease_seconds: float) -> Due | None:
        """Take what is due longest, if anything; nobody else gets it before the lease is over."""
        due = (
            sa.select(dues.c.holder, dues.c.schedule_id)
            .where(
                dues.c.due_at <= now,
                sa.or_(dues.c.claimed_until.is_(None), dues.c.claimed_until <= sa.func.now()),
            )
            .order_by(dues.c.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        taken = (
            sa.update(dues)
            .where(dues.c.holder == due.c.holder, dues.c.schedule_id == due.c.schedule_id)
            .values(claimed_until=_in(lease_seconds))
            .returning(dues)
        )
        with self._database.shared() as connection:
            row = connection.execute(taken).one_or_none()
        if row is None:
            return None
        return Due(
            tenant=TenantId(row.holder),
            schedule_id=ScheduleId(row.schedule_id),
            at=row.due_at,
            until=row.claimed_until,
        )


def _of(due: Due) -> sa.Update:
    return sa.update(dues).where(
        dues.c.holder == due.tenant,
        dues.c.schedule_id == due.schedule_id,
        dues.c.claimed_until == due.until,
    )


def _moved(due: Due, next_due_at: datetime | None) -> sa.Update:
    return _of(due).values(due_at=next_due_at, claimed_until=None)


def _in(seconds: float) -> "sa.ColumnElement[datetime]":
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _schedule(row: "sa.Row[tuple[object, ...]]") -> Schedule:
    made = row.last_optimization_id
    return Schedule(
        id=ScheduleId(row.schedule_id),
        name=row.name,
        cron=row.cron,
        timezone=row.timezone,
        is_paused=row.is_paused,
        next_due_at=row.due_at,
        created_at=row.created_at,
        last_due_at=row.last_due_at,
        last_fired_at=row.last_fired_at,
        last_optimization_id=None if made is None else OptimizationId(made),
        last_optimization_status=None if row.last_status is None else OptimizationStatus(row.last_status),
        last_error=row.last_error,
    )


def _overtaken(schedule: Schedule) -> OvertakenError:
    return OvertakenError(
        f"wanted: the schedule {schedule.name!r} as it was; found: it was fired, paused or removed by somebody else at "
        "this moment; possible: look at it again"
    )


def _unknown(connection: sa.Connection, schedule_id: ScheduleId) -> NotFoundError:
    newest = sa.select(table.c.schedule_id).order_by(table.c.schedule_id.desc()).limit(_SHOWN)
    known = ", ".join(str(one) for one in connection.execute(newest).scalars()) or "none yet"
    return NotFoundError(f"wanted: the schedule {schedule_id}; found: none of that id; possible, newest first: {known}")
