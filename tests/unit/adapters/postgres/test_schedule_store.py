"""Schedules: seen by their tenant alone; a due time is one process's at a time, and moves with what it made or not."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.schedule_store import (
    MOST_SCHEDULES,
    Due,
    Firing,
    OvertakenError,
    PostgresDueTimes,
    PostgresSchedules,
)
from dspy_optimization.bootstrap import new_id
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.schedule import Schedule, ScheduleId
from dspy_optimization.tenancy import TenantId

LEASE_SECONDS = 60.0
HOUR = timedelta(hours=1)


@pytest.fixture
def schedules(database: Database, tenant: TenantId) -> PostgresSchedules:
    return PostgresSchedules(database, tenant)


@pytest.fixture
def due_times(database: Database) -> PostgresDueTimes:
    return PostgresDueTimes(database)


@pytest.fixture
def schedule_of(noon: datetime) -> Callable[..., Schedule]:
    def make(name: str = "hourly", **changes: object) -> Schedule:
        fresh = Schedule(
            id=ScheduleId(new_id()),
            name=name,
            cron="0 * * * *",
            timezone="UTC",
            is_paused=False,
            next_due_at=noon,
            created_at=noon - HOUR,
            last_due_at=None,
            last_fired_at=None,
            last_optimization_id=None,
            last_optimization_status=None,
            last_error=None,
        )
        return replace(fresh, **changes)

    return make


@pytest.fixture
def schedule(schedules: PostgresSchedules, schedule_of: Callable[..., Schedule]) -> Schedule:
    schedules.add(schedule_of(), {"target": {"id": "a\0b"}, "dataset": {"id": "d"}})
    return schedules.page(None, 9)[0]


def claimed(due_times: PostgresDueTimes, now: datetime) -> Due:
    due = due_times.claim(now, LEASE_SECONDS)
    assert due is not None
    return due


def let_claims_end(database: Database) -> None:
    """The database's clock says when a claim ends; it is not waited for."""
    with database.shared() as connection:
        connection.execute(sa.text("UPDATE schedule_due SET claimed_until = now() - interval '1 second'"))


def test_what_is_kept(schedules: PostgresSchedules, schedule: Schedule, schedule_of: Callable[..., Schedule]) -> None:
    """Everything comes back, the request by itself."""
    assert schedule_of(id=schedule.id) == schedule == schedules.get(schedule.id)
    assert {"target": {"id": "a\0b"}, "dataset": {"id": "d"}} == schedules.request(schedule.id)


def test_pages_begin_behind_the_one_before(schedules: PostgresSchedules, schedule_of: Callable[..., Schedule]) -> None:
    """The newest first."""
    for name in "abc":
        schedules.add(schedule_of(name), {})
    first = schedules.page(None, 2)

    assert ["c", "b"] == [one.name for one in first]
    assert ["a"] == [one.name for one in schedules.page(first[-1].id, 2)]


def test_a_name_is_taken_once(
    database: Database, other_tenant: TenantId, schedules: PostgresSchedules, schedule: Schedule,
    schedule_of: Callable[..., Schedule],
) -> None:  # fmt: skip
    """Within a tenant."""
    with pytest.raises(ConflictError, match="'hourly' is taken"):
        schedules.add(schedule_of(), {})
    PostgresSchedules(database, other_tenant).add(schedule_of(), {})

    assert [schedule] == schedules.page(None, 9)


def test_there_is_a_bound(
    database: Database, tenant: TenantId, schedules: PostgresSchedules, schedule_of: Callable[..., Schedule]
) -> None:
    """One tenant cannot fill everybody's table."""
    with database.transaction(tenant) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO schedule (schedule_id, name, cron, timezone, request, created_at)"
                " SELECT gen_random_uuid(), n::text, '0 * * * *', 'UTC', '{}', now() FROM generate_series(1, :most) n"
            ),
            {"most": MOST_SCHEDULES},
        )

    with pytest.raises(ConflictError, match="at most 500 schedules"):
        schedules.add(schedule_of(), {})


def test_the_end_holds_for_those_who_add_at_once(
    database_url: str, schedules: PostgresSchedules, schedule_of: Callable[..., Schedule]
) -> None:
    """Nobody counts while another one's is not committed: of four who come for the last place one gets it."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO schedule (tenant_id, schedule_id, name, cron, timezone, request, created_at)"
            " SELECT tenant_id, gen_random_uuid(), n::text, '0 * * * *', 'UTC', '{}', now()"
            " FROM tenant, generate_series(2, %s) n",
            [MOST_SCHEDULES],
        )

    def added(number: int) -> bool:
        try:
            schedules.add(schedule_of(f"new {number}"), {})
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        with psycopg.connect(database_url) as connection:
            # Lets them count and nobody write, until all have come.
            connection.execute("LOCK TABLE schedule IN SHARE MODE")
            adding = [pool.submit(added, number) for number in range(4)]
            end = time.monotonic() + 20.0
            while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() != (4,):
                assert time.monotonic() < end
                time.sleep(0.01)
        outcomes = [one.result() for one in adding]

    assert 1 == sum(outcomes)


def test_another_tenant_sees_and_changes_nothing(
    database: Database, other_tenant: TenantId, schedule: Schedule, noon: datetime, schedules: PostgresSchedules
) -> None:
    """Every method."""
    others = PostgresSchedules(database, other_tenant)
    due = Due(tenant=other_tenant, schedule_id=schedule.id, at=noon, until=noon)
    for ask in (
        lambda: others.get(schedule.id),
        lambda: others.request(schedule.id),
        lambda: others.pause(schedule.id),
        lambda: others.resume(schedule.id, noon),
        lambda: others.remove(schedule.id),
    ):
        with pytest.raises(NotFoundError, match="none yet"):
            ask()
    with pytest.raises(OvertakenError):
        others.fired(Firing(schedule=schedule, at=noon), OptimizationId(uuid4()))

    assert [] == others.page(None, 9)
    assert (False, False) == (others.not_fired(due, noon, "no", None), others.put_off(due, "no", 1.0))
    assert schedule == schedules.get(schedule.id)


def test_due_is_what_its_time_has_come(due_times: PostgresDueTimes, schedule: Schedule, noon: datetime) -> None:
    """Of every tenant, the one that is due longest first; not before its time."""
    assert due_times.claim(noon - timedelta(seconds=1), LEASE_SECONDS) is None
    due = claimed(due_times, noon)

    assert (schedule.id, noon) == (due.schedule_id, due.at)
    assert due_times.claim(noon, LEASE_SECONDS) is None


def test_the_longest_due_of_all_tenants_comes_first(
    database: Database, tenant: TenantId, other_tenant: TenantId, due_times: PostgresDueTimes, noon: datetime,
    schedule_of: Callable[..., Schedule],
) -> None:  # fmt: skip
    """Nobody stands behind another tenant's newer ones."""
    for whose, minutes in ((tenant, 2), (other_tenant, 1), (tenant, 3)):
        at = noon + timedelta(minutes=minutes)
        PostgresSchedules(database, whose).add(schedule_of(str(minutes), next_due_at=at), {})
    found = [claimed(due_times, noon + HOUR) for _ in range(3)]

    assert [other_tenant, tenant, tenant] == [one.tenant for one in found]
    assert [1, 2, 3] == [(one.at - noon).seconds // 60 for one in found]


def test_two_claimers_never_have_the_same(
    database: Database, database_url: str, schedules: PostgresSchedules, schedule_of: Callable[..., Schedule],
    noon: datetime,
) -> None:  # fmt: skip
    """Six claimers, each with connections of its own, and thirty due times: each is claimed once."""
    for number in range(30):
        schedules.add(schedule_of(str(number)), {})
    found: list[ScheduleId] = []
    begin = threading.Barrier(6)

    def claim() -> None:
        with Database.open(database_url, pool_size=1) as mine:
            begin.wait()
            while (due := PostgresDueTimes(mine).claim(noon, LEASE_SECONDS)) is not None:
                found.append(due.schedule_id)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 30 == len(found) == len(set(found))


def test_a_claimer_passes_over_what_another_is_taking(
    database_url: str,
    due_times: PostgresDueTimes,
    schedules: PostgresSchedules,
    noon: datetime,
    schedule_of: Callable[..., Schedule],
) -> None:
    """A row that somebody holds is skipped, not waited for."""
    schedules.add(schedule_of("held", next_due_at=noon - HOUR), {})
    schedules.add(schedule_of("free"), {})
    with psycopg.connect(database_url) as holder:
        # Whoever waits is let go after a while, and fails below.
        holder.execute("SET idle_in_transaction_session_timeout = '3s'")
        held = holder.execute("SELECT schedule_id FROM schedule_due ORDER BY due_at LIMIT 1 FOR UPDATE").fetchone()
        due = claimed(due_times, noon)
        assert held is not None
        assert held[0] != due.schedule_id
        holder.rollback()


def test_a_claim_ends_by_itself(
    database: Database, due_times: PostgresDueTimes, schedule: Schedule, noon: datetime
) -> None:
    """Whoever died is replaced, and is not heard should it come back."""
    dead = claimed(due_times, noon)
    let_claims_end(database)
    alive = claimed(due_times, noon)
    mine = PostgresSchedules(database, dead.tenant)

    assert (dead.schedule_id, dead.at) == (alive.schedule_id, alive.at)
    assert not mine.not_fired(dead, noon, "too late", noon + HOUR)
    assert not mine.put_off(dead, "too late", 1.0)
    assert mine.get(schedule.id).last_error is None
    assert mine.not_fired(alive, noon, "no", noon + HOUR)


def test_what_was_made_is_noted_with_the_time_moved_on(
    schedules: PostgresSchedules, due_times: PostgresDueTimes, schedule: Schedule, noon: datetime,
    optimization_id: OptimizationId,
) -> None:  # fmt: skip
    """In one transaction; a sentence of an earlier time is gone."""
    assert schedules.put_off(claimed(due_times, noon), "the queue is full", -1.0)
    waits = schedules.get(schedule.id)
    due = claimed(due_times, noon)
    schedules.fired(Firing(schedule=waits, at=noon, due=due, due_at=noon, next_due_at=noon + HOUR), optimization_id)
    found = schedules.get(schedule.id)

    assert ("the queue is full", noon, None) == (waits.last_error, waits.next_due_at, waits.last_due_at)
    assert (None, noon, noon, noon + HOUR) == (
        found.last_error,
        found.last_due_at,
        found.last_fired_at,
        found.next_due_at,
    )
    assert (optimization_id, OptimizationStatus.QUEUED) == (found.last_optimization_id, found.last_optimization_status)
    assert due_times.claim(noon, LEASE_SECONDS) is None


def test_fired_by_hand_moves_no_time(
    schedules: PostgresSchedules, schedule: Schedule, noon: datetime, optimization_id: OptimizationId
) -> None:
    """It is due when it would have been."""
    schedules.fired(Firing(schedule=schedule, at=noon - timedelta(minutes=5)), optimization_id)
    found = schedules.get(schedule.id)

    assert (noon, None, optimization_id) == (found.next_due_at, found.last_due_at, found.last_optimization_id)


def test_two_firings_of_one_schedule_are_one(
    schedules: PostgresSchedules, due_times: PostgresDueTimes, schedule: Schedule, noon: datetime,
    optimization_in: Callable[..., OptimizationId],
) -> None:  # fmt: skip
    """By hand and by time at the same moment: whoever comes second is undone, whole."""
    due = claimed(due_times, noon)
    first, second = optimization_in(minutes=1), OptimizationId(uuid4())
    schedules.fired(Firing(schedule=schedule, at=noon), first)

    with pytest.raises(OvertakenError, match="'hourly'"):
        schedules.fired(Firing(schedule=schedule, at=noon, due=due, due_at=noon, next_due_at=noon + HOUR), second)

    assert (first, noon) == (schedules.get(schedule.id).last_optimization_id, schedules.get(schedule.id).next_due_at)


@pytest.mark.parametrize("what", ["pause", "remove", "claim"])
def test_who_lost_the_due_time_makes_nothing(
    database: Database, schedules: PostgresSchedules, due_times: PostgresDueTimes, schedule: Schedule, noon: datetime,
    optimization_id: OptimizationId, what: str,
) -> None:  # fmt: skip
    """Paused, removed or taken over meanwhile."""
    due = claimed(due_times, noon)
    match what:
        case "pause":
            schedules.pause(schedule.id)
        case "remove":
            schedules.remove(schedule.id)
        case _:
            let_claims_end(database)
            claimed(due_times, noon)

    with pytest.raises(OvertakenError):
        schedules.fired(
            Firing(schedule=schedule, at=noon, due=due, due_at=noon, next_due_at=noon + HOUR), optimization_id
        )
    if what != "remove":
        assert schedules.get(schedule.id).last_optimization_id is None


def test_paused_ones_are_due_at_no_time(
    schedules: PostgresSchedules, due_times: PostgresDueTimes, schedule: Schedule, noon: datetime
) -> None:
    """Until they are resumed; then at the time that was said."""
    paused = schedules.pause(schedule.id)
    assert (True, None) == (paused.is_paused, paused.next_due_at)
    assert due_times.claim(noon + 100 * HOUR, LEASE_SECONDS) is None

    resumed = schedules.resume(schedule.id, noon + HOUR)
    assert (False, noon + HOUR) == (resumed.is_paused, resumed.next_due_at)
    assert noon + HOUR == claimed(due_times, noon + HOUR).at


def test_removed_ones_leave_no_due_time(
    database: Database, schedules: PostgresSchedules, due_times: PostgresDueTimes, schedule: Schedule, noon: datetime
) -> None:
    """Nor does anything else know of them."""
    schedules.remove(schedule.id)

    with pytest.raises(NotFoundError):
        schedules.remove(schedule.id)
    with database.shared() as connection:
        assert 0 == connection.execute(sa.text("SELECT count(*) FROM schedule_due")).scalar_one()
    assert due_times.claim(noon, LEASE_SECONDS) is None
