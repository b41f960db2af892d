"""Schedules fire: the newest due time once, nothing lost silently, one trouble kept from the others."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.adapters.postgres.overview_store import PostgresOverview
from dspy_optimization.adapters.postgres.schedule_store import Firing, PostgresSchedules
from dspy_optimization.bootstrap import new_id
from dspy_optimization.errors import ConflictError, InvalidRequestError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.cron import Cron
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.schedule import Schedule, ScheduleId
from dspy_optimization.serving import ServiceRole, Serving, open_serving
from dspy_optimization.tenancy import LOCAL_TENANT
from dspy_optimization.web.firing import Firer, FiringTerms, fire
from service_world import request_body, service_settings

pytestmark = pytest.mark.xdist_group("service")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MOST_WAITING = 12


class Clock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture(scope="module")
def serving(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A process that takes requests in and carries none out."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    folder = tmp_path_factory.mktemp("data")
    settings = service_settings(postgres.url_of(name), "http://127.0.0.1:9/v1", folder, queue_size=MOST_WAITING)
    with open_serving(settings, ServiceRole.API) as opened:
        yield opened


@pytest.fixture
def schedules(serving: Serving) -> Iterator[PostgresSchedules]:
    """The schedules; nothing of a test is due in the next one, and nothing waits."""
    kept = PostgresSchedules(serving.foundation.database, LOCAL_TENANT)
    yield kept
    for one in kept.page(None, 200):
        kept.remove(one.id)
    end_all(serving)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def firer(serving: Serving, clock: Clock) -> Firer:
    return Firer(serving, now=clock, terms=FiringTerms(pause_seconds=600.0, longest_pause_seconds=600.0))


@pytest.fixture
def add(schedules: PostgresSchedules) -> Callable[..., ScheduleId]:
    """Keep a schedule that was due for the first time at noon."""

    def keep(name: str = "minutely", cron: str = "* * * * *", body: Mapping[str, Any] | None = None) -> ScheduleId:
        schedule = Schedule(
            id=ScheduleId(new_id()),
            name=name,
            cron=cron,
            timezone="UTC",
            is_paused=False,
            next_due_at=Cron(expression=cron).newest(NOON),
            created_at=NOON - timedelta(days=400),
            last_due_at=None,
            last_fired_at=None,
            last_optimization_id=None,
            last_optimization_status=None,
            last_error=None,
        )
        schedules.add(schedule, request_body(prefix=name) if body is None else body)
        return schedule.id

    return keep


def end_all(serving: Serving) -> None:
    """Cancel what waits: a schedule makes no other while its last one has not ended."""
    engine = serving.engine(LOCAL_TENANT)
    for one in engine.stores.optimizations.newest(500):
        if one.status is OptimizationStatus.QUEUED:
            engine.steering.cancel(one.request.id)


def made_by(serving: Serving, schedule_id: ScheduleId) -> list[OptimizationId]:
    """Return the optimizations of a schedule, the oldest first, by what their own events say."""
    overview = PostgresOverview(serving.foundation.database, LOCAL_TENANT)
    every = [one.request.id for one in serving.engine(LOCAL_TENANT).stores.optimizations.newest(500)]
    return sorted(one for one in every if overview.moment(one).accepted.get("schedule") == str(schedule_id))


def try_again(serving: Serving) -> None:
    """Claims end by the database's clock; it is not waited for."""
    with serving.foundation.database.shared() as connection:
        connection.execute(sa.text("UPDATE schedule_due SET claimed_until = now() - interval '1 second'"))


def test_each_due_time_once(
    serving: Serving, schedules: PostgresSchedules, firer: Firer, clock: Clock, add: Callable[..., ScheduleId]
) -> None:
    """Minute by minute; the optimization says what made it, the schedule what it made."""
    schedule_id = add()
    for minute in range(4):
        clock.at = NOON + minute * MINUTE + timedelta(seconds=7)
        assert firer.step()
        assert not firer.step()
        end_all(serving)
    found, made = schedules.get(schedule_id), made_by(serving, schedule_id)
    accepted = PostgresOverview(serving.foundation.database, LOCAL_TENANT).moment(made[-1]).accepted

    assert 4 == len(made)
    assert (made[-1], NOON + 3 * MINUTE, NOON + 4 * MINUTE, clock.at, None) == (
        found.last_optimization_id,
        found.last_due_at,
        found.next_due_at,
        found.last_fired_at,
        found.last_error,
    )
    assert (NOON + 3 * MINUTE).isoformat() == accepted["due_at"]
    assert "minutely" == accepted["schedule_name"]


def test_missed_due_times_are_one(
    serving: Serving, schedules: PostgresSchedules, firer: Firer, clock: Clock, add: Callable[..., ScheduleId]
) -> None:
    """After three days away: the newest, then the next to come."""
    schedule_id = add()
    clock.at = NOON + timedelta(days=3, seconds=30)
    steps = [firer.step(), firer.step()]
    found = schedules.get(schedule_id)

    assert [True, False] == steps
    assert 1 == len(made_by(serving, schedule_id))
    assert (NOON + timedelta(days=3), NOON + timedelta(days=3) + MINUTE) == (found.last_due_at, found.next_due_at)


def test_a_clock_that_goes_back_repeats_nothing(
    serving: Serving, schedules: PostgresSchedules, clock: Clock, add: Callable[..., ScheduleId]
) -> None:
    """The due time that was claimed is the one that is used, whatever the clock says a moment later."""
    schedule_id = add()
    readings = iter([NOON, NOON - timedelta(minutes=90)])

    assert Firer(serving, now=lambda: next(readings)).step()

    assert (NOON, NOON + MINUTE) == (schedules.get(schedule_id).last_due_at, schedules.get(schedule_id).next_due_at)


def test_many_processes_fire_each_due_time_once(
    serving: Serving, schedules: PostgresSchedules, clock: Clock, add: Callable[..., ScheduleId]
) -> None:
    """Four look at the same time, again and again."""
    ids = [add(f"many-{n}") for n in range(6)]
    begin = threading.Barrier(4)

    def work() -> None:
        mine = Firer(serving, now=clock)
        begin.wait()
        while mine.step():
            pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [1] * 6 == [len(made_by(serving, one)) for one in ids]
    assert {NOON + MINUTE} == {schedules.get(one).next_due_at for one in ids}


def test_while_the_last_one_goes_on_a_due_time_is_skipped(
    serving: Serving, schedules: PostgresSchedules, firer: Firer, clock: Clock, add: Callable[..., ScheduleId]
) -> None:
    """With a sentence that names it; the next one fires and takes the sentence away."""
    schedule_id = add()
    firer.step()
    clock.at = NOON + MINUTE
    firer.step()
    skipped = schedules.get(schedule_id)
    end_all(serving)
    clock.at = NOON + 2 * MINUTE
    firer.step()
    found, made = schedules.get(schedule_id), made_by(serving, schedule_id)

    assert f"{made[0]} is queued; possible: wait until it ends" in str(skipped.last_error)
    assert (NOON + MINUTE, NOON, NOON + 2 * MINUTE) == (
        skipped.last_due_at,
        skipped.last_fired_at,
        skipped.next_due_at,
    )
    assert 2 == len(made)
    assert found.last_error is None


def test_a_full_queue_is_tried_again(
    serving: Serving, schedules: PostgresSchedules, firer: Firer, clock: Clock, add: Callable[..., ScheduleId]
) -> None:
    """As long as the due time is the newest; said meanwhile; then the newer one takes its place."""
    schedule_id = add("hourly", "0 * * * *")
    filling = [add(f"fills-{n}") for n in range(MOST_WAITING)]
    for one in filling:
        fire(serving, serving.engine(LOCAL_TENANT), Firing(schedule=schedules.get(one), at=NOON))
        schedules.remove(one)
    assert firer.step()
    waits = schedules.get(schedule_id)
    assert not firer.step(), "not at once"
    try_again(serving)
    clock.at = NOON + timedelta(minutes=20)
    assert firer.step()
    still = schedules.get(schedule_id)
    end_all(serving)
    try_again(serving)
    clock.at = NOON + timedelta(minutes=90)
    assert firer.step()
    found = schedules.get(schedule_id)

    assert "wait" in str(waits.last_error)
    assert (NOON, None, NOON, None) == (
        waits.next_due_at, waits.last_due_at, still.next_due_at, still.last_optimization_id
    )  # fmt: skip
    assert (None, NOON + timedelta(hours=1), NOON + timedelta(hours=2)) == (
        found.last_error, found.last_due_at, found.next_due_at
    )  # fmt: skip
    assert 1 == len(made_by(serving, schedule_id))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": {"id": "0" * 64}}, "wanted: "),
        ({"target": {"id": "nobody"}}, "the agent nobody"),
        ({"objectives": []}, "request.objectives: wanted: a request that this version"),
        ({"a_field_of_yesterday": 1}, "request.a_field_of_yesterday: "),
    ],
)
def test_what_cannot_be_carried_out_any_more_is_said(
    schedules: PostgresSchedules, firer: Firer, add: Callable[..., ScheduleId], caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any], said: str,
) -> None:  # fmt: skip
    """On the schedule and in the log; the next due time is tried again."""
    schedule_id = add(body={**request_body(), **changes})
    with caplog.at_level(logging.WARNING, "dspy_optimization.web.firing"):
        assert firer.step()
    found = schedules.get(schedule_id)

    assert said in str(found.last_error)
    assert (NOON, NOON + MINUTE, None) == (found.last_due_at, found.next_due_at, found.last_optimization_id)
    assert [("schedule_not_fired", str(schedule_id), found.last_error)] == [
        (one.action, one.schedule, one.reason) for one in caplog.records
    ]


def test_times_that_cannot_be_told_any_more_stop_it(
    serving: Serving, schedules: PostgresSchedules, firer: Firer, add: Callable[..., ScheduleId]
) -> None:
    """A place that the zone data of this machine does not know: said, and due no more; resuming says it again."""
    schedule_id = add()
    with psycopg.connect(serving.foundation.url) as connection:
        connection.execute("UPDATE schedule SET timezone = 'Europe/Atlantis' WHERE schedule_id = %s", [schedule_id])
    assert firer.step()
    found = schedules.get(schedule_id)

    assert "found: 'Europe/Atlantis'" in str(found.last_error)
    assert found.next_due_at is None
    with pytest.raises(InvalidRequestError, match="Atlantis"):
        _ = found.times


def test_a_defect_keeps_no_other_from_firing(
    serving: Serving, schedules: PostgresSchedules, clock: Clock, add: Callable[..., ScheduleId],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """It is said and put off; the schedules behind it go on."""
    broken, whole = add("broken", "30 11 * * *"), add("whole")

    class Defective:
        """Breaks for the first that asks."""

        def __init__(self) -> None:
            self.asked = 0

        def __getattr__(self, name: str) -> object:
            if name == "engine" and self.asked == 0:
                self.asked += 1
                raise ZeroDivisionError("a defect")
            return getattr(serving, name)

    firer = Firer(Defective(), now=clock)
    with caplog.at_level(logging.ERROR, "dspy_optimization.web.firing"):
        steps = [firer.step(), firer.step(), firer.step()]
    found = {one.name: one for one in schedules.page(None, 9)}
    said = [one for one in found.values() if one.last_error is not None]

    assert [True, True, False] == steps
    assert [broken] == [one.id for one in said]
    assert "a defect of the engine" in str(said[0].last_error)
    assert [0, 1] == [len(made_by(serving, broken)), len(made_by(serving, whole))]
    assert "ZeroDivisionError" in caplog.text


def test_a_key_that_made_it_before_is_noted(
    serving: Serving, schedules: PostgresSchedules, firer: Firer, add: Callable[..., ScheduleId]
) -> None:
    """An optimization under the key of the due time is this due time's: nothing is made, and the time moves on."""
    schedule_id = add()
    schedule = schedules.get(schedule_id)
    key = f"schedule/{schedule_id}/{NOON.isoformat()}"
    made = fire(serving, serving.engine(LOCAL_TENANT), Firing(schedule=schedule, at=NOON), key)
    end_all(serving)
    with psycopg.connect(serving.foundation.url) as connection:
        connection.execute("UPDATE schedule SET last_optimization_id = NULL WHERE schedule_id = %s", [schedule_id])
    assert firer.step()
    found = schedules.get(schedule_id)

    assert [made.request.id] == made_by(serving, schedule_id)
    assert (made.request.id, NOON, NOON + MINUTE) == (
        found.last_optimization_id, found.last_due_at, found.next_due_at
    )  # fmt: skip


def test_one_by_hand_does_not_overtake(
    serving: Serving, schedules: PostgresSchedules, add: Callable[..., ScheduleId]
) -> None:
    """Two people at the same moment: one of them is told."""
    seen = schedules.get(add())
    fire(serving, serving.engine(LOCAL_TENANT), Firing(schedule=seen, at=NOON))

    with pytest.raises(ConflictError, match="somebody else at this moment"):
        fire(serving, serving.engine(LOCAL_TENANT), Firing(schedule=seen, at=NOON))

    assert 1 == len(made_by(serving, seen.id))


def test_it_goes_on_when_the_database_comes_back(
    serving: Serving, schedules: PostgresSchedules, add: Callable[..., ScheduleId], caplog: pytest.LogCaptureFixture
) -> None:
    """The thread waits, says so, and fires."""
    schedule_id = add()
    database = serving.foundation.database
    failures = iter([True, True, False])
    fired = threading.Event()

    class Away:
        """A database that is away for a while."""

        def __getattr__(self, name: str) -> object:
            if name == "shared" and next(failures, False):
                raise StoreError("wanted: the database; found: it is away; possible: bring it back")
            return getattr(database, name)

    away = replace(serving, foundation=replace(serving.foundation, database=Away()))

    def now() -> datetime:
        if made_by(serving, schedule_id):
            fired.set()
        return NOON

    firer = Firer(away, now=now, terms=FiringTerms(poll_seconds=0.05))
    with caplog.at_level(logging.WARNING, "dspy_optimization.web.firing"):
        firer.start()
        assert fired.wait(20.0)
        firer.stop()

    assert ["schedules_wait"] * 2 == [one.action for one in caplog.records]
    assert 1 == len(made_by(serving, schedule_id))
