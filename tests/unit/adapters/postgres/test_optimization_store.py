"""Optimizations, their events and who works on them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, PostgresEvents, PostgresOptimizations
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.pulse import Beat, Heard
from dspy_optimization.optimization.request import (
    ALLOWED,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Wish,
)
from dspy_optimization.tenancy import TenantId

Change = Callable[[Optimization], Optimization]
RUNNING = OptimizationStatus.RUNNING

OWNER = """
import sys, time
from uuid import UUID
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.tenancy import LOCAL_TENANT
with Database.open(sys.argv[1]) as database, database.owning(LOCAL_TENANT, UUID(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def to(status: OptimizationStatus, **changes: object) -> Change:
    return lambda one: replace(one, status=status, **changes)


@pytest.fixture
def store(database: Database, tenant: TenantId) -> PostgresOptimizations:
    return PostgresOptimizations(database, tenant)


def test_an_optimization_begins_queued(
    store: PostgresOptimizations, request_of: Callable[..., OptimizationRequest], optimization_id: OptimizationId
) -> None:
    """What was asked for comes back, with nothing done yet."""
    request = request_of()

    added = store.add(request)

    expected = Optimization(request=request, status=OptimizationStatus.QUEUED, updated_at=request.created_at)
    assert (expected, expected) == (added, store.get(request.id))


def test_an_id_is_added_once(
    store: PostgresOptimizations, request_of: Callable[..., OptimizationRequest], optimization_id: OptimizationId
) -> None:
    """The second one is refused and changes nothing."""
    request = request_of()
    store.add(request)

    with pytest.raises(ConflictError, match=f"new optimization {request.id}"):
        store.add(replace(request, algorithms=()))

    assert request == store.get(request.id).request


def test_an_optimization_needs_its_agent_and_dataset(
    store: PostgresOptimizations, request_of: Callable[..., OptimizationRequest], optimization_id: OptimizationId
) -> None:
    """What it points at has to be kept first."""
    request = request_of()
    with pytest.raises(NotFoundError, match="an agent of version nope"):
        store.add(replace(request, target=replace(request.target, version="nope")))
    with pytest.raises(NotFoundError, match="a dataset of version nope"):
        store.add(replace(request, dataset="nope"))


def test_an_unknown_id_names_the_newest(store: PostgresOptimizations, optimization_id: OptimizationId) -> None:
    """So that a typing error is seen at once."""
    with pytest.raises(NotFoundError, match=f"newest first: {optimization_id}"):
        store.get(OptimizationId(uuid4()))


def test_the_newest_come_first(store: PostgresOptimizations, optimization_in: Callable[..., OptimizationId]) -> None:
    """By the time they were created, not by the order they were added."""
    ids = [optimization_in(minutes=minutes) for minutes in (5, 9, 1)]

    assert [ids[1], ids[0]] == [one.request.id for one in store.newest(2)]


@pytest.mark.parametrize("before", OptimizationStatus)
@pytest.mark.parametrize("after", OptimizationStatus)
def test_only_allowed_steps_are_taken(
    store: PostgresOptimizations,
    optimization_id: OptimizationId,
    database_url: str,
    before: OptimizationStatus,
    after: OptimizationStatus,
) -> None:
    """Every pair of states: the step is taken, or refused with the allowed ones and without its events."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE optimization_request SET status = %s", [before.value])

    if after is before or after in ALLOWED[before]:
        store.update(optimization_id, to(after))
        expected = after
    else:
        with pytest.raises(ConflictError, match=f"is {before.value} and cannot become {after.value}; allowed: "):
            store.update(optimization_id, to(after))
        expected = before

    assert expected is store.get(optimization_id).status


def test_a_change_is_kept_whole(store: PostgresOptimizations, optimization_id: OptimizationId, noon: datetime) -> None:
    """Everything but the request may change, and text may hold anything."""
    later = noon + timedelta(hours=1)
    changed = {
        "progress": 0.5,
        "elapsed_seconds": 9.5,
        "error": "a \x00 in it",
        "wish": Wish.PAUSE,
        "updated_at": later,
    }

    after = store.update(optimization_id, to(RUNNING, **changed))

    assert after == store.get(optimization_id)
    assert changed == {name: getattr(after, name) for name in changed}


def test_progress_never_falls(store: PostgresOptimizations, optimization_id: OptimizationId) -> None:
    """A resumed run that starts to count anew does not take back what was shown."""
    store.update(optimization_id, to(RUNNING, progress=0.6))

    assert 0.6 == store.update(optimization_id, to(RUNNING, progress=0.2)).progress
    assert 1.0 == store.update(optimization_id, to(RUNNING, progress=1.5)).progress


def test_a_request_never_changes(store: PostgresOptimizations, optimization_id: OptimizationId) -> None:
    """What was asked for is part of the evidence."""
    with pytest.raises(ConflictError, match="with its request as it was"):
        store.update(optimization_id, lambda one: replace(one, request=replace(one.request, algorithms=())))


def test_events_are_written_with_the_change_or_not_at_all(
    store: PostgresOptimizations,
    database: Database,
    tenant: TenantId,
    optimization_id: OptimizationId,
    noon: datetime,
) -> None:
    """A refused step tells nothing."""
    events = PostgresEvents(database, tenant)
    begun = Event(type=EventType.OPTIMIZATION_STARTED, optimization_id=optimization_id, at=noon)
    store.update(optimization_id, to(RUNNING), [begun])
    with pytest.raises(ConflictError):
        store.update(optimization_id, to(OptimizationStatus.QUEUED), [begun])

    assert [begun] == [one.event for one in events.events(optimization_id)]


def test_changes_of_one_optimization_wait_for_each_other(
    store: PostgresOptimizations, optimization_id: OptimizationId
) -> None:
    """Ten threads that each add a second add ten."""

    def add() -> None:
        store.update(optimization_id, lambda one: replace(one, elapsed_seconds=one.elapsed_seconds + 1))

    threads = [threading.Thread(target=add) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 10.0 == store.get(optimization_id).elapsed_seconds


def test_known_facts_are_told_once(
    database: Database, tenant: TenantId, optimization_id: OptimizationId, noon: datetime
) -> None:
    """A replay tells what has a key once; what has none is told every time. Reading goes on from an id."""
    store = PostgresEvents(database, tenant)
    keyed = Event(
        type=EventType.VERDICT, optimization_id=optimization_id, at=noon, key="verdict", data={"b": [1e22], "a": "\x00"}
    )
    loose = Event(type=EventType.PROGRESS, optimization_id=optimization_id, at=noon)
    for event in (keyed, loose, keyed, loose):
        store.emit(event)

    found = store.events(optimization_id)

    assert [keyed, loose, loose] == [one.event for one in found]
    assert found[1:2] == store.events(optimization_id, after=found[0].id, limit=1)
    assert ["b", "a"] == list(found[0].event.data)


def test_an_event_needs_its_optimization(database: Database, tenant: TenantId, noon: datetime) -> None:
    """A fact about nothing is refused."""
    with pytest.raises(NotFoundError, match="add the optimization first"):
        PostgresEvents(database, tenant).emit(Event(type=EventType.PROGRESS, optimization_id=uuid4(), at=noon))


def test_one_process_works_on_an_optimization(
    store: PostgresOptimizations, database_url: str, tenant: TenantId, optimization_in: Callable[..., OptimizationId]
) -> None:
    """Neither another process nor another thread gets it, until the first lets go."""
    one, two = optimization_in(), optimization_in()
    with Database.open(database_url) as elsewhere:
        there = PostgresOptimizations(elsewhere, tenant)
        with store.owning(one), there.owning(two):
            for refused in (there.owning(one), store.owning(two), store.owning(one)):
                with pytest.raises(ConflictError, match="works on it"), refused:
                    pass
        with there.owning(one), store.owning(two):
            pass


@pytest.mark.crash
def test_a_killed_process_lets_go(
    store: PostgresOptimizations, database_url: str, optimization_id: OptimizationId
) -> None:
    """Nothing has to expire: the server notices the death at once."""
    command = [sys.executable, "-c", OWNER, database_url, str(optimization_id)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert "held" == owner.stdout.readline().strip()
        with pytest.raises(ConflictError), store.owning(optimization_id):
            pass

        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()

    assert _taken_within(store, optimization_id, seconds=5.0)


def _taken_within(store: PostgresOptimizations, optimization_id: OptimizationId, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with store.owning(optimization_id):
                return True
        except ConflictError:
            time.sleep(0.02)
    return False


def test_what_is_owned_outlives_a_lost_connection(
    store: PostgresOptimizations, database_url: str, tenant: TenantId, optimization_id: OptimizationId
) -> None:
    """The lock went with the connection; it is taken again before the next change."""
    with store.owning(optimization_id), Database.open(database_url) as elsewhere:
        _end_sessions(database_url)
        store.update(optimization_id, to(RUNNING))

        with pytest.raises(ConflictError), PostgresOptimizations(elsewhere, tenant).owning(optimization_id):
            pass


def test_who_was_overtaken_is_told(
    store: PostgresOptimizations, database_url: str, tenant: TenantId, optimization_id: OptimizationId
) -> None:
    """Two processes never go on with one optimization after the database was away."""
    with ExitStack() as stack:
        stack.enter_context(store.owning(optimization_id))
        _end_sessions(database_url)
        elsewhere = stack.enter_context(Database.open(database_url))
        stack.enter_context(PostgresOptimizations(elsewhere, tenant).owning(optimization_id))

        with pytest.raises(ConflictError, match="took it over while the database was away"):
            store.update(optimization_id, to(RUNNING))

    assert OptimizationStatus.QUEUED is store.get(optimization_id).status


def test_a_beat_keeps_the_time_worked_and_tells_what_is_wished(
    store: PostgresOptimizations, optimization_in: Callable[..., OptimizationId]
) -> None:
    """One statement for all; what does not run and what is another tenant's is left as it is."""
    wished, plain, ended, waiting = (optimization_in(minutes=minutes) for minutes in range(4))
    for one in (wished, plain, ended):
        store.update(one, to(RUNNING))
    store.update(wished, to(RUNNING, wish=Wish.PAUSE))
    store.update(ended, to(OptimizationStatus.COMPLETED, elapsed_seconds=3.0))

    ids = (wished, plain, ended, waiting)
    heard = store.beat([Beat(optimization_id=one, elapsed_seconds=9.5) for one in ids])

    assert {wished: Heard(wish=Wish.PAUSE), plain: Heard()} == heard
    assert [9.5, 9.5, 3.0, 0.0] == [store.get(one).elapsed_seconds for one in ids]


def test_a_row_that_is_being_changed_delays_no_beat(
    store: PostgresOptimizations, optimization_in: Callable[..., OptimizationId]
) -> None:
    """It is told of at the next one."""
    changing, free = optimization_in(minutes=0), optimization_in(minutes=1)
    for one in (changing, free):
        store.update(one, to(RUNNING))
    told: list[object] = []

    def change(now: Optimization) -> Optimization:
        told.append(store.beat([Beat(optimization_id=one, elapsed_seconds=1.0) for one in (changing, free)]))
        return now

    store.update(changing, change)

    assert [{free: Heard()}] == told
    assert {changing, free} == store.beat(
        [Beat(optimization_id=one, elapsed_seconds=2.0) for one in (changing, free)]
    ).keys()


def test_a_beat_of_one_tenant_reaches_no_other(
    database: Database, store: PostgresOptimizations, other_tenant: TenantId, optimization_id: OptimizationId
) -> None:
    store.update(optimization_id, to(RUNNING))

    heard = PostgresOptimizations(database, other_tenant).beat(
        [Beat(optimization_id=optimization_id, elapsed_seconds=9.5)]
    )

    assert {} == heard
    assert 0.0 == store.get(optimization_id).elapsed_seconds


def test_a_beat_tells_what_another_process_took(
    store: PostgresOptimizations, database_url: str, tenant: TenantId, optimization_in: Callable[..., OptimizationId]
) -> None:
    """Only of the one that was lost; its row is the other's to write."""
    lost, ours = optimization_in(minutes=0), optimization_in(minutes=1)
    with ExitStack() as stack:
        for one in (lost, ours):
            store.update(one, to(RUNNING))
            stack.enter_context(store.owning(one))
        _end_sessions(database_url)
        elsewhere = stack.enter_context(Database.open(database_url))
        stack.enter_context(PostgresOptimizations(elsewhere, tenant).owning(lost))

        heard = store.beat([Beat(optimization_id=one, elapsed_seconds=9.5) for one in (lost, ours)])

    assert isinstance(heard[lost].taken, ConflictError)
    assert Heard() == heard[ours]
    assert [0.0, 9.5] == [store.get(one).elapsed_seconds for one in (lost, ours)]


def test_letting_go_of_a_lost_connection_is_no_error(
    store: PostgresOptimizations, database_url: str, optimization_id: OptimizationId
) -> None:
    """Nobody holds it any more, which is what was wanted."""
    with store.owning(optimization_id):
        _end_sessions(database_url)

    with store.owning(optimization_id):
        pass


def _end_sessions(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
