"""Optimizations whose job will not go on are given back to people; all others are left alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.dbos import DbosQueue, QueueTerms, migrate_queue
from dspy_optimization.adapters.postgres import Database, PostgresAgents, PostgresDatasets, PostgresOptimizations
from dspy_optimization.adapters.postgres.stranded_store import stranded
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType
from dspy_optimization.jobs.job import Job, Lane, job_id
from dspy_optimization.optimization.request import OptimizationRequest
from dspy_optimization.optimization.request import OptimizationStatus as Status
from dspy_optimization.optimization.stranded import Stranded, Sweep
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from evidence_world import stores_of

pytestmark = pytest.mark.xdist_group("dbos")

HandIn = Callable[..., OptimizationId]


@pytest.fixture
def queue(database: Database, database_url: str) -> Iterator[DbosQueue]:
    migrate_queue(database_url)
    queue = DbosQueue(database_url, database, QueueTerms(bound=99, concurrency=dict.fromkeys(Lane, 2)))
    yield queue
    queue.close()


@pytest.fixture
def handed_in(
    database: Database,
    database_url: str,
    queue: DbosQueue,
    agent: AgentConfig,
    dataset: Dataset,
    request_of: Callable[..., OptimizationRequest],
) -> HandIn:
    """Hand one in, with a job in that state; None: no row of the job is there."""

    def make(job_state: str | None, status: Status = Status.QUEUED, tenant: TenantId = LOCAL_TENANT) -> OptimizationId:
        PostgresAgents(database, tenant, AllowList()).add(agent)
        PostgresDatasets(database, tenant).add(dataset)
        request = request_of()
        job = Job(id=job_id(request.id, uuid4()), tenant=tenant, subject=request.id)
        store = PostgresOptimizations(database, tenant)
        store.add(request, job=job.id, also=[lambda transaction: queue.submit(job, transaction)])
        for step in {Status.QUEUED: (), Status.RUNNING: (Status.RUNNING,)}.get(status, (Status.RUNNING, status)):
            store.update(request.id, lambda now, to=step: replace(now, status=to))
        with psycopg.connect(database_url) as connection:
            if job_state is None:
                connection.execute("DELETE FROM dbos.workflow_status WHERE workflow_uuid = %s", [job.id])
            else:
                change = "UPDATE dbos.workflow_status SET status = %s WHERE workflow_uuid = %s"
                connection.execute(change, [job_state, job.id])
        return request.id

    return make


@pytest.fixture
def sweep(database: Database, noon: datetime) -> Sweep:
    return Sweep(
        stranded=lambda: stranded(database),
        optimizations=lambda tenant: PostgresOptimizations(database, tenant),
        now=lambda: noon,
    )


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
@pytest.mark.parametrize("how", ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", None])
def test_what_nobody_goes_on_with_is_failed(
    database: Database, handed_in: HandIn, sweep: Sweep, how: str | None, status: Status
) -> None:
    """It says why and what to do; the log tells it; once is enough."""
    handed_in("ENQUEUED")  # so that the queue knows the tenant
    lost = handed_in(how, status)
    done = [sweep.step(), sweep.step()]
    found = stores_of(database).optimizations.get(lost)
    last = stores_of(database).events.events(lost)[-1].event

    assert [1, 0] == done
    assert Status.FAILED is found.status
    assert f"its job has ended ({how or 'missing'})" in str(found.error)
    assert "possible: resume it" in str(found.error)
    assert (EventType.OPTIMIZATION_FAILED, found.error) == (last.type, last.data["error"])


@pytest.mark.parametrize("how", ["ENQUEUED", "DELAYED", "PENDING"])
@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_what_goes_on_is_left_alone(handed_in: HandIn, sweep: Sweep, how: str, status: Status) -> None:
    """Its job waits or runs."""
    handed_in(how, status)

    assert 0 == sweep.step()


@pytest.mark.parametrize("status", [Status.PAUSED, Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_what_stands_still_is_left_alone(handed_in: HandIn, sweep: Sweep, status: Status) -> None:
    """Nobody waits for it."""
    handed_in("SUCCESS", status)

    assert 0 == sweep.step()


def test_every_tenant_is_looked_at(database: Database, handed_in: HandIn, sweep: Sweep, other_tenant: TenantId) -> None:
    """Each row is changed as its own tenant."""
    mine, theirs = handed_in("ERROR"), handed_in("ERROR", tenant=other_tenant)

    assert 2 == sweep.step()
    assert Status.FAILED is stores_of(database).optimizations.get(mine).status
    assert Status.FAILED is stores_of(database, other_tenant).optimizations.get(theirs).status


def test_what_was_resumed_meanwhile_goes_on(database: Database, handed_in: HandIn, sweep: Sweep) -> None:
    """Between the look and the step somebody gave it another job."""
    one = handed_in("ERROR")
    (seen,) = stranded(database)
    store = stores_of(database).optimizations
    store.update(one, lambda now: replace(now, job=job_id(one, uuid4())))
    late = replace(sweep, stranded=lambda: [seen])

    assert 0 == late.step()
    assert Status.QUEUED is store.get(one).status


def test_one_that_cannot_be_read_keeps_no_other(
    database: Database, database_url: str, handed_in: HandIn, sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    """Operators are told of it."""
    broken, other = handed_in("ERROR"), handed_in("ERROR")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE optimization_request SET document = '{\"version\": 99}' WHERE optimization_id = %s", [broken]
        )

    assert 1 == sweep.step()
    assert Status.FAILED is stores_of(database).optimizations.get(other).status
    assert {"stranded_stays", "stranded_failed"} == {record.__dict__["action"] for record in caplog.records}
    assert isinstance(stranded(database)[0], Stranded)
