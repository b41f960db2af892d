"""What the queue's own tables say: who waits, who runs, whose turn it is. They are DBOS's, in the same database."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.errors import StoreError
from dspy_optimization.jobs.job import WEIGHT_COST, Job, JobId
from dspy_optimization.jobs.partitions import Waiting, moves
from dspy_optimization.jobs.queue import LaneTerms

SCHEMA = "dbos"
WAITING, DELAYED, RUNNING = "ENQUEUED", "DELAYED", "PENDING"
_ADMISSION_LOCK = 0x6473_7079_6164_6D69
_DOOR_LOCK = 0x6473_7079_646F_6F72
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
    sa.column("queue_partition_key", sa.Text()),
    sa.column("created_at"),
    schema=SCHEMA,
)
_queue = sa.table(
    "queues",
    sa.column("name"),
    sa.column("concurrency"),
    sa.column("worker_concurrency"),
    sa.column("updated_at"),
    schema=SCHEMA,
)
_kept = sa.select(_queue.c.name, _queue.c.concurrency, _queue.c.worker_concurrency).where(
    _queue.c.concurrency.is_not(None)
)
_BOUND = "partition-"
"""Before the name of a partition: of the row that keeps how many of it run at once. Nobody listens to such a queue."""
_uses: sa.ColumnElement[list[str]] = sa.func.string_to_array(
    sa.func.coalesce(_workflow.c.queue_partition_key, ""), ",", type_=ARRAY(sa.Text())
)
"""The partitions of a job."""


def bound_name(partition: str) -> str:
    """Return the name under which the bound of a partition is kept."""
    return f"{_BOUND}{partition}"


def partition_key(job: Job) -> str | None:
    """Return how a job's partitions are kept beside it."""
    return ",".join(sorted(job.partitions)) or None


def bounds(connection: sa.Connection) -> Mapping[str, int]:
    """Return partition → how many may run at once, of those that are bounded."""
    query = sa.select(_queue.c.name, _queue.c.concurrency).where(
        _queue.c.name.startswith(_BOUND, autoescape=True), _queue.c.concurrency.is_not(None)
    )
    return {name.removeprefix(_BOUND): concurrency for name, concurrency in connection.execute(query)}


def admitted(connection: sa.Connection, queues: Sequence[str], bound: int) -> bool:
    """Say whether another job may wait. True holds until the transaction ends: admissions take turns."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADMISSION_LOCK)))
    return waiting(connection, queues) < bound


def waiting(connection: sa.Connection, queues: Sequence[str]) -> int:
    """Return how many jobs wait for their first turn."""
    count = (
        sa.select(sa.func.count())
        .select_from(_workflow)
        .where(_workflow.c.queue_name.in_(queues), _workflow.c.status == WAITING)
    )
    found: int = connection.execute(count).scalar_one()
    return found


def turn(connection: sa.Connection, queue: str, held: str, job: Job, bounded: Collection[str]) -> int:
    """Return the place of a job: the queue serves lower ones first.

    Tenants take turns by weight, however many jobs one of them hands in, and nobody waits for ever; each priority of a
    tenant is a line of its own, and so are jobs of bounded partitions, which others do not stand behind: the virtual
    time is the place of the job claimed last, never before that of the next one to be claimed, so no new job passes
    it. A job that had its turn before takes no new one; it goes on before those that never ran.

    Args:
        connection: of the transaction that hands it in.
        queue: of its lane.
        held: where jobs wait that may not enter the lane yet.
        job: the one handed in.
        bounded: partitions of which not all may run at once.
    Source: self-clocked fair queueing, Golestani 1994.
    """
    here = _workflow.c.queue_name == queue
    running = sa.select(sa.func.max(_workflow.c.priority)).where(here, _workflow.c.status == RUNNING)
    begun: int = connection.execute(running).scalar_one() or 0
    if job.number > 1:
        return max(begun, _FIRST_TURN)
    head = sa.select(sa.func.min(_workflow.c.priority)).where(here, _workflow.c.status == WAITING)
    own = [partition for partition in job.partitions if partition in bounded]
    last = sa.select(sa.func.max(_workflow.c.priority)).where(
        _workflow.c.queue_name.in_((queue, held)),
        _overlaps(own) if own else sa.not_(_overlaps(bounded)),
        _workflow.c.status.in_((WAITING, DELAYED)),
        _workflow.c.authenticated_user == str(job.tenant),
        # Jobs of one priority stand in line; those of a higher one do not stand behind them.
        _workflow.c.authenticated_roles.contains(f'"{job.priority.value}"'),
    )
    begun = max(begun, connection.execute(head).scalar_one() or 0, connection.execute(last).scalar_one() or 0)
    return min(begun + WEIGHT_COST[job.priority], _LATEST_TURN)


def _overlaps(partitions: Collection[str]) -> sa.ColumnElement[bool]:
    return _uses.op("&&", return_type=sa.Boolean())(sa.literal(list(partitions), ARRAY(sa.Text())))


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

    def terms(self, queues: Collection[str]) -> Mapping[str, LaneTerms]:
        """Return queue → how many of it may run at once, of those there are already."""
        query = _kept.where(_queue.c.name.in_(queues))
        with self._database.shared() as connection:
            return {
                name: LaneTerms(concurrency=concurrency, worker_concurrency=worker_concurrency)
                for name, concurrency, worker_concurrency in connection.execute(query)
            }

    def change_terms(self, queue: str, change: Callable[[LaneTerms], LaneTerms]) -> None:
        """Keep what `change` makes of how many may run at once, when `LaneTerms.check` has nothing against it.

        Not by DBOS's own setters: each writes one of the two numbers, after a check that others may pass meanwhile.
        Raises `StoreError` when there is no such queue.
        """
        with self._database.shared() as connection:
            row = connection.execute(_kept.where(_queue.c.name == queue).with_for_update()).one_or_none()
            if row is None:
                raise StoreError(
                    f"wanted: the queue {queue}; found: none of that name; possible: start a process of the service, "
                    "which makes it"
                )
            wanted = change(LaneTerms(concurrency=row.concurrency, worker_concurrency=row.worker_concurrency))
            wanted.check()
            connection.execute(
                sa.update(_queue)
                .where(_queue.c.name == queue)
                .values(
                    concurrency=wanted.concurrency,
                    worker_concurrency=wanted.worker_concurrency,
                    updated_at=sa.cast(sa.extract("epoch", sa.func.clock_timestamp()) * 1000, sa.BigInteger()),
                )
            )

    def bounds(self) -> Mapping[str, int]:
        """Return partition → how many may run at once, of those that are bounded."""
        with self._database.shared() as connection:
            return bounds(connection)

    def partitions(self, queues: Sequence[str]) -> Mapping[tuple[str, str], int]:
        """Return (partition, state) → how many jobs of these queues, whether the partition is bounded or not."""
        each = sa.select(sa.func.unnest(_uses).label("partition"), _workflow.c.status).where(
            _workflow.c.status.in_((WAITING, DELAYED, RUNNING)), _workflow.c.queue_name.in_(queues)
        )
        used = each.subquery()
        query = sa.select(used.c.partition, used.c.status, sa.func.count()).group_by(used.c.partition, used.c.status)
        with self._database.shared() as connection:
            return {(partition, status): count for partition, status, count in connection.execute(query)}

    def settle(self, doors: Mapping[str, str]) -> int:
        """Make the moves of this moment; return how many. Nothing when another process is at it.

        Args:
            doors: queue of a lane → where its held jobs wait.
        """
        with self._database.shared() as connection:
            if not connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_DOOR_LOCK))).scalar_one():
                return 0
            bounded = bounds(connection)
            # One look: a job stands in it in exactly one state. Whoever is admitted is so under the lock alone, so
            # what is counted here can only become less until the end of this transaction.
            query = (
                sa.select(_workflow.c.workflow_uuid, _workflow.c.queue_name, _workflow.c.status, _uses)
                .where(
                    _workflow.c.queue_name.in_((*doors.keys(), *doors.values())),
                    # Written out: with parameters PostgreSQL cannot tell that the index of what is in flight will do.
                    _workflow.c.status.in_(sa.literal_column(f"'{state}'") for state in (WAITING, RUNNING)),
                    sa.or_(_workflow.c.queue_name.in_(doors.values()), _overlaps(bounded.keys())),
                )
                .order_by(_workflow.c.priority, _workflow.c.created_at, _workflow.c.workflow_uuid)
            )
            waiting, running = [], Counter[str]()
            for job, queue, status, uses in connection.execute(query):
                if status == RUNNING:
                    running.update(uses)
                else:
                    waiting.append(Waiting(id=JobId(job), partitions=tuple(uses), is_held=queue not in doors))
            wanted = moves(waiting, running, bounded)
            lanes = {held: lane for lane, held in doors.items()}
            held = self._moved(connection, wanted.held, doors)
            if held < len(wanted.held):
                return held  # one of them was claimed at this moment: who enters is decided at the next
            return held + self._moved(connection, wanted.admitted, lanes)

    def _moved(self, connection: sa.Connection, jobs: Sequence[JobId], to: Mapping[str, str]) -> int:
        """Move jobs that still wait from one queue to another; return how many."""
        if not jobs:
            return 0
        moved = (
            sa.update(_workflow)
            .where(
                _workflow.c.workflow_uuid.in_(jobs),
                _workflow.c.status == WAITING,
                _workflow.c.queue_name.in_(to.keys()),
            )
            .values(queue_name=sa.case(to, value=_workflow.c.queue_name))
        )
        return connection.execute(moved).rowcount
