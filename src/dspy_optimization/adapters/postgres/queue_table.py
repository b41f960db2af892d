"""What the queue's own tables say: who waits, who runs, whose turn it is. They are DBOS's, in the same database."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.jobs.job import WEIGHT_COST, Job

SCHEMA = "dbos"
WAITING, DELAYED, RUNNING = "ENQUEUED", "DELAYED", "PENDING"
_ADMISSION_LOCK = 0x6473_7079_6164_6D69
_FIRST_TURN, _LATEST_TURN = 1, (1 << 31) - 1

_workflow = sa.table(
    "workflow_status",
    sa.column("workflow_uuid"),
    sa.column("status"),
    sa.column("queue_name"),
    sa.column("priority"),
    sa.column("authenticated_user"),
    sa.column("authenticated_roles", sa.Text()),
    sa.column("executor_id"),
    schema=SCHEMA,
)


def admitted(connection: sa.Connection, queues: Sequence[str], bound: int) -> bool:
    """Say whether another job may wait. True holds until the transaction ends: admissions take turns."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADMISSION_LOCK)))
    waiting = (
        sa.select(sa.func.count())
        .select_from(_workflow)
        .where(_workflow.c.queue_name.in_(queues), _workflow.c.status == WAITING)
    )
    return bool(connection.execute(waiting).scalar_one() < bound)


def turn(connection: sa.Connection, queue: str, job: Job) -> int:
    """Return the place of a job: the queue serves lower ones first.

    Tenants take turns by weight, however many jobs one of them hands in, and nobody waits for ever; each priority of a
    tenant is a line of its own: the virtual time
    is the place of the job claimed last, never before that of the next one to be claimed, so no new job passes it. A
    job that had its turn before takes no new one; it goes on before those that never ran.
    Source: self-clocked fair queueing, Golestani 1994.
    """
    here = _workflow.c.queue_name == queue
    running = sa.select(sa.func.max(_workflow.c.priority)).where(here, _workflow.c.status == RUNNING)
    begun: int = connection.execute(running).scalar_one() or 0
    if job.number > 1:
        return max(begun, _FIRST_TURN)
    head = sa.select(sa.func.min(_workflow.c.priority)).where(here, _workflow.c.status == WAITING)
    last = sa.select(sa.func.max(_workflow.c.priority)).where(
        here,
        _workflow.c.status.in_((WAITING, DELAYED)),
        _workflow.c.authenticated_user == str(job.tenant),
        # Jobs of one priority stand in line; those of a higher one do not stand behind them.
        _workflow.c.authenticated_roles.contains(f'"{job.priority.value}"'),
    )
    begun = max(begun, connection.execute(head).scalar_one() or 0, connection.execute(last).scalar_one() or 0)
    return min(begun + WEIGHT_COST[job.priority], _LATEST_TURN)


class QueueTable:
    """Looks at the queues of every tenant: numbers only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return (queue, state) → how many jobs."""
        query = (
            sa.select(_workflow.c.queue_name, _workflow.c.status, sa.func.count())
            .where(_workflow.c.status.in_((WAITING, DELAYED, RUNNING)), _workflow.c.queue_name.is_not(None))
            .group_by(_workflow.c.queue_name, _workflow.c.status)
        )
        with self._database.shared() as connection:
            return {(queue, status): count for queue, status, count in connection.execute(query)}

    def claimed_by(self) -> Mapping[str, int]:
        """Return worker → how many jobs it runs."""
        query = (
            sa.select(_workflow.c.executor_id, sa.func.count())
            .where(_workflow.c.status == RUNNING)
            .group_by(_workflow.c.executor_id)
        )
        with self._database.shared() as connection:
            return {str(row[0]): row[1] for row in connection.execute(query)}
