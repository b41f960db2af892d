"""Processes that are killed while a schedule fires: each due time makes one optimization, never none, never two."""

import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from crash_world import World
from forked import begin
from schedule_child import LEASE_SECONDS

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.schedule_store import PostgresSchedules
from dspy_optimization.bootstrap import new_id
from dspy_optimization.optimization.schedule import Schedule, ScheduleId
from dspy_optimization.tenancy import LOCAL_TENANT
from service_world import request_body

pytestmark = pytest.mark.crash

# Once a year: no other time is due while this runs.
YEARLY = "0 0 1 1 *"


def child(world: World, where: str) -> tuple[int, str]:
    """Let a process fire what is due; return its exit status and all it said."""
    log = world.folder / "fires.log"
    status = begin("fire", where, environment=world.environment(), log=log).wait(120)
    return status, log.read_text(encoding="utf-8")


def counted(database: Database) -> list[int]:
    """Return how many optimizations there are, jobs of them, and events that say they were accepted."""
    with database.transaction(LOCAL_TENANT) as connection:
        return [
            connection.execute(sa.text(f"SELECT count(*) FROM {what}")).scalar_one()
            for what in (
                "optimization_request",
                "dbos.workflow_status WHERE queue_name IS NOT NULL",
                "event WHERE type = 'optimization.accepted'",
            )
        ]


@pytest.mark.parametrize(("where", "left"), [("claimed", 0), ("handing in", 0), ("handed in", 1)])
def test_killed_while_it_fires(world_of: Callable[[str], World], where: str, left: int) -> None:
    """Before, in the middle of, and after handing in: the next process makes up for it or has nothing to do."""
    world = world_of("schedule")
    began = datetime.now(UTC)
    with Database.open(world.url) as database:
        schedules = PostgresSchedules(database, LOCAL_TENANT)
        schedule = Schedule(
            id=ScheduleId(new_id()),
            name="yearly",
            cron=YEARLY,
            timezone="UTC",
            is_paused=False,
            next_due_at=began,
            created_at=began,
            last_due_at=None,
            last_fired_at=None,
            last_optimization_id=None,
            last_optimization_status=None,
            last_error=None,
        )
        schedules.add(schedule, request_body())
        killed, said = child(world, where)
        after_kill = counted(database)
        time.sleep(LEASE_SECONDS)
        second = child(world, "ends")
        found = schedules.get(schedule.id)

        assert -signal.SIGKILL == killed, said
        assert [left] * 3 == after_kill
        assert (0, f"{1 - left}\n") == second
        assert [1, 1, 1] == counted(database)
        assert found.last_optimization_id is not None
        assert (began, None) == (found.last_due_at, found.last_error)
        assert found.next_due_at is not None
        assert found.next_due_at > began
