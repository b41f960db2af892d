"""Whose turn it is: tenants take turns by weight, nobody starves, what ran before goes on first."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspy_optimization.adapters.dbos import migrate_queue
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.queue_table import DELAYED, RUNNING, WAITING, QueueTable, admitted, turn
from dspy_optimization.jobs.job import Job, Priority, job_id
from dspy_optimization.tenancy import TenantId

QUEUE = "q"
HELD = "h"
TENANTS = tuple(TenantId(UUID(int=number)) for number in range(1, 4))


class Waiting:
    """The queue's own table, filled by hand: jobs come, are claimed in order, and end."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def submit(
        self, tenant: TenantId, priority: Priority = Priority.NORMAL, *, number: int = 1, status: str = WAITING
    ) -> int:
        """Hand a job in; return its place."""
        job = Job(id=job_id(uuid4(), uuid4()), tenant=tenant, subject=uuid4(), priority=priority)
        place = turn(self.connection, QUEUE, HELD, replace(job, number=number), ())
        self.connection.execute(
            sa.text(
                "INSERT INTO dbos.workflow_status (workflow_uuid, status, queue_name, priority, authenticated_user,"
                " authenticated_roles, created_at, updated_at) SELECT :id, :status, :queue, :place, :tenant, :line,"
                " count(*), 0 FROM dbos.workflow_status"
            ),
            {
                "id": job.id,
                "status": status,
                "queue": QUEUE,
                "place": place,
                "tenant": str(tenant),
                "line": f'["{priority.value}"]',
            },
        )
        return place

    def claim(self) -> tuple[TenantId, int] | None:
        """Claim the next job as DBOS does; return whose it is and its place."""
        row = self.connection.execute(
            sa.text(
                "UPDATE dbos.workflow_status SET status = :running WHERE workflow_uuid ="
                " (SELECT workflow_uuid FROM dbos.workflow_status WHERE status = :waiting"
                " ORDER BY priority, created_at LIMIT 1) RETURNING authenticated_user, priority"
            ),
            {"running": RUNNING, "waiting": WAITING},
        ).first()
        return None if row is None else (TenantId(UUID(row[0])), row[1])

    def end(self) -> None:
        """Let everything that runs end."""
        self.connection.execute(
            sa.text("UPDATE dbos.workflow_status SET status = 'SUCCESS' WHERE status = :running"), {"running": RUNNING}
        )

    def head(self) -> int | None:
        """Return the place of the next one."""
        query = sa.text("SELECT min(priority) FROM dbos.workflow_status WHERE status = :waiting")
        return self.connection.execute(query, {"waiting": WAITING}).scalar_one()


@pytest.fixture
def queued(database: Database, database_url: str) -> Database:
    """A database with the queue's tables."""
    migrate_queue(database_url)
    return database


@pytest.fixture
def waiting(queued: Database) -> Iterator[Waiting]:
    with queued.shared() as connection:
        yield Waiting(connection)


def _served(waiting: Waiting, count: int) -> list[TenantId]:
    """Claim and end one job after the other; return whose they were."""
    served = []
    for _ in range(count):
        claimed = waiting.claim()
        assert claimed is not None
        waiting.end()
        served.append(claimed[0])
    return served


def test_a_tenant_with_many_jobs_leaves_every_second_turn_to_the_other(waiting: Waiting) -> None:
    """A hundred jobs first, then four of another: these do not wait for the hundred."""
    many, few, _ = TENANTS
    for _ in range(100):
        waiting.submit(many)
    waiting.claim()
    for _ in range(4):
        waiting.submit(few)

    assert 4 == _served(waiting, 9).count(few)


def test_turns_go_by_weight(waiting: Waiting) -> None:
    """Sixteen of high for four of normal and one of low, to within one turn."""
    high, normal, low = TENANTS
    for _ in range(40):
        waiting.submit(low, Priority.LOW)
        waiting.submit(normal, Priority.NORMAL)
        waiting.submit(high, Priority.HIGH)
    served = _served(waiting, 42)

    assert all(abs(served.count(one) - share) <= 1 for one, share in ((high, 32), (normal, 8), (low, 2)))


def test_who_comes_back_each_time_it_was_served_starves_nobody(waiting: Waiting) -> None:
    """One job at a time, each handed in when the one before has ended and nothing runs: an old job has its turn."""
    patient, eager, _ = TENANTS
    for _ in range(3):
        waiting.submit(patient)
    waiting.submit(eager)
    served = []
    for _ in range(6):
        served += _served(waiting, 1)
        waiting.submit(eager)

    assert 3 == served.count(patient)


def test_what_was_done_while_nobody_else_waited_is_not_held_against_a_tenant(waiting: Waiting) -> None:
    """It used an idle queue for fifty jobs; whoever comes now shares with it as an equal."""
    early, late, _ = TENANTS
    for _ in range(60):
        waiting.submit(early)
    _served(waiting, 50)
    for _ in range(10):
        waiting.submit(late)

    assert _served(waiting, 10).count(early) in {5, 6}


@pytest.mark.parametrize("status", [WAITING, DELAYED])
def test_a_job_that_ran_before_goes_on_before_those_that_never_did(waiting: Waiting, status: str) -> None:
    """Its process had to go; it had its turn, and does not queue up behind its own tenant's hundred jobs."""
    tenant, other, _ = TENANTS
    for _ in range(10):
        waiting.submit(tenant)
        waiting.submit(other)
    waiting.claim()
    again = waiting.submit(other, number=2, status=status)
    head = waiting.head()

    assert head is not None
    assert 0 < again <= head


def test_queues_and_ended_jobs_do_not_count(waiting: Waiting) -> None:
    """Each lane has its own time; it begins anew when nothing waits and nothing runs."""
    tenant = TENANTS[0]
    first = [waiting.submit(tenant) for _ in range(3)]
    job = Job(id=job_id(uuid4(), uuid4()), tenant=tenant, subject=uuid4())
    elsewhere = turn(waiting.connection, "other", HELD, job, ())
    _served(waiting, 3)

    assert ([4, 8, 12], 4, 4) == (first, elsewhere, waiting.submit(tenant))


def test_an_urgent_job_does_not_stand_behind_the_others_of_its_tenant(waiting: Waiting) -> None:
    """With one tenant alone priorities are worth something too."""
    tenant = TENANTS[0]
    low = [waiting.submit(tenant, Priority.LOW) for _ in range(3)]
    waiting.claim()
    high = waiting.submit(tenant, Priority.HIGH)

    assert low[1] < high < low[2], "behind the one whose turn is next, before the others"


Step = Callable[[Waiting], object]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(TENANTS), st.sampled_from(Priority)),
        st.tuples(st.just("claim"), st.none(), st.none()),
        st.tuples(st.just("end"), st.none(), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_new_job_passes_the_one_whose_turn_is_next(queued: Database, steps: list[tuple[str, ...]]) -> None:
    """Law: whatever comes, runs and ends, a new job stands behind the head and behind its own line, its
    tenant's jobs of its priority.

    So the head is always served next, the place of the head never falls while anything waits, and a job at place p is
    reached after finitely many others.
    """
    with queued.shared() as connection:
        waiting = Waiting(connection)
        last: dict[object, int] = {}
        for kind, tenant, priority in steps:
            head = waiting.head()
            if kind == "submit":
                place = waiting.submit(tenant, priority)  # type: ignore[arg-type]

                assert place > (head or 0)
                assert place > last.get((tenant, priority), 0)
                last[tenant, priority] = place
            elif kind == "claim":
                claimed = waiting.claim()

                assert head == (None if claimed is None else claimed[1])
            else:
                waiting.end()
            if waiting.head() is None:
                last.clear()
        connection.rollback()


def test_numbers_by_queue_and_worker(waiting: Waiting, queued: Database) -> None:
    """Waiting, delayed and running ones; what ended is not counted."""
    tenant = TENANTS[0]
    for status in (WAITING, WAITING, DELAYED):
        waiting.submit(tenant, status=status)
    waiting.claim()
    waiting.connection.execute(sa.text("UPDATE dbos.workflow_status SET executor_id = 'w' WHERE status = 'PENDING'"))
    waiting.submit(tenant, status="SUCCESS")
    waiting.connection.commit()
    table = QueueTable(queued)

    assert {(QUEUE, WAITING): 1, (QUEUE, DELAYED): 1, (QUEUE, RUNNING): 1} == table.counts()
    assert {"w": 1} == table.claimed_by()


def test_so_many_may_wait_and_no_more(waiting: Waiting) -> None:
    """What runs, is delayed or waits in another queue takes no place."""
    tenant = TENANTS[0]
    for status in (WAITING, WAITING, DELAYED, RUNNING):
        waiting.submit(tenant, status=status)

    assert (True, False, True) == (
        admitted(waiting.connection, [QUEUE], 3),
        admitted(waiting.connection, [QUEUE], 2),
        admitted(waiting.connection, ["other"], 1),
    )
