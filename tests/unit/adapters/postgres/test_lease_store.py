"""Leases by the database's clock, and what a worker that is taken for dead still holds."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database, PostgresLeases
from dspy_optimization.adapters.postgres.database import session_name
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.jobs.job import Lane
from dspy_optimization.jobs.lease import Worker, WorkerId
from dspy_optimization.tenancy import TenantId


@pytest.fixture
def leases(database: Database) -> PostgresLeases:
    return PostgresLeases(database)


@pytest.fixture
def worker_of(noon: datetime) -> Callable[..., Worker]:
    def make(name: str, minutes: int = 0) -> Worker:
        lanes = (Lane.CPU, Lane.GPU)
        began = noon + timedelta(minutes=minutes)
        return Worker(id=WorkerId(name), host="h", process_id=7, lanes=lanes, version="1", started_at=began)

    return make


def test_a_lease_is_what_the_worker_said_until_it_expires(
    leases: PostgresLeases, worker_of: Callable[..., Worker]
) -> None:
    """Everything is read as it was written, the newest worker first; alive or not by the database's clock."""
    old, new = worker_of("old"), replace(worker_of("new", 1), lanes=())
    leases.beat(old, 60.0)
    leases.beat(new, -1.0)
    found = leases.leases()

    assert [(new, False), (old, True)] == [(lease.worker, lease.is_alive) for lease in found]
    assert 50.0 < (found[1].expires_at - found[0].expires_at).total_seconds() < 62.0


def test_a_beat_extends_and_what_was_given_up_is_gone(leases: PostgresLeases, worker_of: Callable[..., Worker]) -> None:
    """A silent worker that shows itself in time lives; one that ended well leaves no trace."""
    worker = worker_of("one")
    held = [leases.beat(worker, -1.0), leases.beat(worker, 60.0)]
    alive = [lease.is_alive for lease in leases.leases()]
    leases.give_up(worker.id)

    assert ([True, True], [True], []) == (held, alive, leases.leases())


def test_what_was_taken_away_cannot_be_extended(leases: PostgresLeases, worker_of: Callable[..., Worker]) -> None:
    """Its jobs run elsewhere by then; another worker is not touched."""
    dead, other = worker_of("dead"), worker_of("other")
    leases.beat(dead, -1.0)
    leases.beat(other, -1.0)
    leases.take_away(dead.id)

    assert (False, True) == (leases.beat(dead, 60.0), leases.beat(other, 60.0))
    assert [other.id] == [lease.worker.id for lease in leases.leases()]


def test_who_showed_itself_in_the_last_moment_keeps_its_lease(
    leases: PostgresLeases, worker_of: Callable[..., Worker]
) -> None:
    """The reaper read an old lease; by the time it acts the lease is a new one."""
    worker = worker_of("late")
    leases.beat(worker, 60.0)
    leases.take_away(worker.id)

    assert leases.beat(worker, 60.0)


def test_one_process_reaps_at_a_time(leases: PostgresLeases, database_url: str) -> None:
    """The turn ends with the block, also when the block fails."""
    with Database.open(database_url) as second:
        other = PostgresLeases(second)
        with leases.reaping() as mine, other.reaping() as theirs:
            first = (mine, theirs)
        with pytest.raises(ZeroDivisionError), other.reaping() as theirs:
            raise ZeroDivisionError
        with leases.reaping() as mine:
            assert ((True, False), True, True) == (first, theirs, mine)


def test_the_dead_hold_nothing(
    leases: PostgresLeases,
    worker_of: Callable[..., Worker],
    database: Database,
    database_url: str,
    tenant: TenantId,
    optimization_id: OptimizationId,
) -> None:
    """A worker that stands still keeps its sessions; they end with its lease, those of others stay."""
    still = worker_of("still")
    with (
        Database.open(database_url, worker=still.id) as its,
        Database.open(database_url, worker="st") as others,
        its.owning(tenant, optimization_id),
        others.shared() as kept,
    ):
        leases.beat(still, -1.0)
        leases.take_away(still.id)
        until = time.monotonic() + 5.0
        while _sessions(database_url, session_name(still.id)) and time.monotonic() < until:
            time.sleep(0.01)
        with database.owning(tenant, optimization_id):
            assert 0 == _sessions(database_url, session_name(still.id))
            assert 1 == kept.execute(sa.text("SELECT 1")).scalar_one()


def test_nobody_can_be_cut_off_but_workers(database: Database, database_url: str) -> None:
    """The function takes a worker's id, and no way around its name; nobody else may call it."""
    with database.shared() as connection:
        for name in ("", "%", "' OR '1'='1", "ization"):
            assert 0 == connection.execute(sa.text("SELECT cut_off_worker(:name)"), {"name": name}).scalar_one()
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE ROLE a_stranger_here")
        connection.execute("SET ROLE a_stranger_here")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT cut_off_worker('x')")


def test_leases_taken_away_long_ago_are_forgotten(
    leases: PostgresLeases, worker_of: Callable[..., Worker], database: Database
) -> None:
    """After a day; until then they can be looked at."""
    for name, age in (("old", 25 * 3600.0), ("young", 23 * 3600.0)):
        leases.beat(worker_of(name), -age)
        leases.take_away(WorkerId(name))
    leases.take_away(WorkerId("nobody"))
    with database.shared() as connection:
        assert ["young"] == connection.execute(sa.text("SELECT worker_id FROM worker_lease")).scalars().all()


def test_a_database_that_is_away_is_said_to_be(leases: PostgresLeases, database_url: str, worker_of: Callable) -> None:
    """The keeper waits for `StoreError` and for nothing else."""
    name = database_url.partition("/test_")[2].partition("?")[0]
    with psycopg.connect(database_url.replace(f"test_{name}", "postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE test_{name} ALLOW_CONNECTIONS false")
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test_{name}'")
        with pytest.raises(StoreError):
            leases.beat(worker_of("one"), 60.0)
        with pytest.raises(StoreError), leases.reaping():
            pass


def _sessions(url: str, name: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name]).fetchone()
        assert row is not None
        return int(row[0])
