"""Jobs on DBOS: queues in the engine's own PostgreSQL, claimed by workers, taken back from dead ones.

A job is one DBOS workflow that makes one attempt. DBOS is a singleton of its process, so a process opens one
`DbosRuntime`. What DBOS does not do by itself, letting another process go on with the jobs of a dead one, is done by
`jobs.lease` on DBOS's public interface.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from uuid import UUID

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions
from dbos._error import DBOSException

from dspy_optimization.adapters.postgres.database import Database, session_name
from dspy_optimization.adapters.postgres.neighbour import alone
from dspy_optimization.adapters.postgres.queue_table import (
    DELAYED,
    RUNNING,
    WAITING,
    QueueTable,
    admitted,
    bound_name,
    bounds,
    partition_key,
    turn,
    waiting,
)
from dspy_optimization.adapters.postgres.tables import APPLICATION_ROLE
from dspy_optimization.errors import QueueFullError, StoreError
from dspy_optimization.events import Json
from dspy_optimization.jobs.job import Job, JobId, Lane, Priority
from dspy_optimization.jobs.lease import Worker, WorkerId
from dspy_optimization.jobs.partitions import PartitionLoad
from dspy_optimization.jobs.queue import LaneLoad, LaneTerms, Transaction
from dspy_optimization.jobs.worker import JobWorker
from dspy_optimization.tenancy import TenantId

if TYPE_CHECKING:
    import sqlalchemy as sa

APPLICATION = "dspy-optimization"
VERSION = "1"
"""Of what a job is made of: changed only when workers of the release before could not carry new jobs out."""
WORKFLOW = "carry_out"
POLLING_SECONDS = 0.5
_RETRY_AFTER_SECONDS = 15.0
_MIGRATION_LOCK = 0x6473_7079_6462_6F73

logger = logging.getLogger(__name__)


def queue_name(lane: Lane) -> str:
    """Return the name of a lane's queue."""
    return f"optimizations-{lane.value}"


def held_name(lane: Lane) -> str:
    """Return where jobs wait that may not enter a lane yet; nobody claims from there."""
    return f"held-{lane.value}"


_DOORS = {queue_name(lane): held_name(lane) for lane in Lane}
_QUEUES = (*_DOORS, *_DOORS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTerms:
    """How much may wait and run."""

    bound: int
    """Jobs that may wait, over all tenants and lanes."""
    concurrency: Mapping[Lane, int]
    """How many may run at once, over all workers; the first start writes it, later `change_terms` does."""
    worker_concurrency: int | None = None
    """How many of each lane may run at once in each worker, None: any number; written as `concurrency` is."""
    partitions: Mapping[str, int] = field(default_factory=dict)
    """Partition → how many of it may run at once, over all lanes and workers; written as `concurrency` is."""

    def __post_init__(self) -> None:
        """Raise `InvalidRequestError` when one worker may run more than all of them together."""
        for lane in self.concurrency:
            self.of(lane).check()

    def of(self, lane: Lane) -> LaneTerms:
        """Return how many of a lane may run at once where nobody said so before."""
        return LaneTerms(concurrency=self.concurrency[lane], worker_concurrency=self.worker_concurrency)


def migrate_queue(url: str) -> None:
    """Bring the queue's own tables to their newest form, and let the application's role hand jobs in."""
    with alone(url, _MIGRATION_LOCK):
        DBOS.migrate(_for_dbos(url), application_role=APPLICATION_ROLE)


class DbosQueue:
    """The `JobQueue`, and the `Claims` of whoever reaps. Thread-safe. `StoreError` when the database is away.

    DBOS itself would wait for the database, for up to a minute and a half after it is back.
    """

    def __init__(self, url: str, database: Database, terms: QueueTerms) -> None:
        with database.guarded():
            self._client = DBOSClient(
                system_database_url=_for_dbos(url),
                serializer=DBOSPortableJSONSerializer(),
                application_name=APPLICATION,
                retry_connection_errors=False,
            )
        self._database = database
        self._table = QueueTable(database)
        self._terms = terms

    def check_room(self) -> None:
        """Raise `QueueFullError` while as many wait as may: before any work is put into what would be refused.

        Promises nothing: only `submit` takes a place.
        """
        with self._database.shared() as connection:
            if waiting(connection, _QUEUES) >= self._terms.bound:
                raise self._full()

    def submit(self, job: Job, transaction: Transaction) -> None:
        """Add the job when the caller's transaction commits. Raises `QueueFullError`; later attempts are taken."""
        connection = cast("sa.Connection", transaction)
        if job.number == 1 and not admitted(connection, _QUEUES, self._terms.bound):
            raise self._full()
        name, held = queue_name(job.lane), held_name(job.lane)
        bounded = bounds(connection)
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": held if bounded.keys() & set(job.partitions) else name,
            "workflow_id": job.id,
            "app_version": VERSION,
            "priority": turn(connection, name, held, job, bounded.keys()),
            "authenticated_user": str(job.tenant),
            "authenticated_roles": [job.priority.value],  # which line of the tenant's it stands in
        }
        key = partition_key(job)
        if key is not None:
            options["queue_partition_key"] = key
        if job.delay_seconds > 0.0:
            options["delay_seconds"] = job.delay_seconds
        self._client.enqueue_in_transaction(connection, options, _written(job))

    def _full(self) -> QueueFullError:
        return QueueFullError(
            f"wanted: a place in the queue; found: {self._terms.bound} optimizations wait already, as many as "
            "OPTIMIZATION_QUEUE_SIZE allows; possible: hand it in again later",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )

    def withdraw(self, jobs: Sequence[JobId]) -> None:
        """Take jobs out that wait; what runs or is done stays as it is."""
        with self._database.guarded():
            waiting = self._client.list_workflows(
                workflow_ids=list(jobs), status=[WAITING, DELAYED], load_input=False, load_output=False
            )
            if waiting:
                self._client.cancel_workflows([one.workflow_id for one in waiting])

    def load(self) -> Mapping[Lane, LaneLoad]:
        """Return how busy every lane is."""
        counts = self._table.counts()
        kept = self._table.terms(_DOORS)
        return {
            lane: LaneLoad(
                waiting=sum(
                    counts.get((name, state), 0)
                    for name in (queue_name(lane), held_name(lane))
                    for state in (WAITING, DELAYED)
                ),
                running=counts.get((queue_name(lane), RUNNING), 0),
                concurrency=terms.concurrency,
                worker_concurrency=terms.worker_concurrency,
            )
            for lane, terms in ((lane, kept.get(queue_name(lane), self._terms.of(lane))) for lane in Lane)
        }

    def claimed_by(self) -> Mapping[str, int]:
        """Return worker → how many jobs it runs."""
        return self._table.claimed_by()

    def change_terms(self, lane: Lane, change: Callable[[LaneTerms], LaneTerms]) -> None:
        """Let so many run at once from now on as `change` makes of what was in force; what runs already goes on.

        `InvalidRequestError`, and nothing changes, when what it made does not pass `LaneTerms.check`. `StoreError`
        also before the first start, which makes the lanes.
        """
        self._table.change_terms(queue_name(lane), change)

    def partitions(self) -> Mapping[str, PartitionLoad]:
        """Return how busy every bounded partition is, by name."""
        counts = self._table.partitions(_QUEUES)
        return {
            partition: PartitionLoad(
                waiting=counts.get((partition, WAITING), 0) + counts.get((partition, DELAYED), 0),
                running=counts.get((partition, RUNNING), 0),
                concurrency=concurrency,
            )
            for partition, concurrency in sorted(self._table.bounds().items())
        }

    def set_bound(self, partition: str, concurrency: int | None) -> None:
        """Let so many of a partition run at once from now on, None: any number; what runs already goes on."""
        with self._database.guarded():
            self._client.register_queue(
                bound_name(partition), global_concurrency=concurrency, on_conflict="always_update"
            )

    def settle(self) -> int:
        """Let held jobs enter their lanes where there is room; return how many changed their place."""
        return self._table.settle(_DOORS)

    def claimants(self) -> Collection[WorkerId]:
        """Return the workers that run jobs, whether they live or not."""
        return [WorkerId(name) for name in self.claimed_by()]

    def take_back(self, gone: Collection[WorkerId]) -> int:
        """Make every job that these workers run wait again; return how many there were."""
        with self._database.guarded(), _guarded_queue():
            running = self._client.list_workflows(
                executor_id=list(gone), status=RUNNING, name=WORKFLOW, load_input=False, load_output=False
            )
            orphans: dict[str, list[str]] = {}
            for one in running:
                if one.queue_name is not None:
                    orphans.setdefault(one.queue_name, []).append(one.workflow_id)
            for name, ids in orphans.items():
                # Without the name they would go to DBOS's own queue, which knows no limit.
                self._client.resume_workflows(ids, queue_name=name)
        return sum(len(ids) for ids in orphans.values())

    def close(self) -> None:
        """Give back the connections."""
        self._client.destroy()


class DbosRuntime:
    """DBOS in this process: makes its schema, and claims jobs once it is told to. One a process."""

    def __init__(self, url: str, worker: Worker, terms: QueueTerms) -> None:
        self._terms = terms
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": _for_dbos(url),
            "run_migrations": False,
            "serializer": DBOSPortableJSONSerializer(),
            "application_version": VERSION,
            "executor_id": worker.id,
            "log_level": "WARNING",
            "enable_otlp": False,
            "sys_db_pool_size": 10,
            # Cut off with the worker's other sessions: one that stands still may hold rows that others wait for.
            "db_engine_kwargs": {"connect_args": {"application_name": session_name(worker.id)}},
        }
        DBOS.destroy(destroy_registry=True)  # what an earlier runtime of this process left
        DBOS(config=config)
        DBOS.listen_queues([queue_name(lane) for lane in worker.lanes])

    def launch(self, worker: JobWorker) -> None:
        """Begin to claim jobs of the lanes. The worker's lease has to be there before."""

        def carry_out(written: dict[str, Json]) -> dict[str, Json]:
            attempt = worker.attempt(_read(written))
            return {"outcome": attempt.outcome.value, "error": attempt.error}

        DBOS.workflow(name=WORKFLOW)(carry_out)
        DBOS.launch()
        self.register()

    def register(self) -> None:
        """Make the queues there are not yet; those there are keep their limits."""
        for lane in Lane:
            stated = self._terms.worker_concurrency
            in_force = DBOS.register_queue(
                queue_name(lane),
                global_concurrency=self._terms.concurrency[lane],
                worker_concurrency=stated,
                polling_interval_sec=POLLING_SECONDS,
                on_conflict="never_update",
            ).worker_concurrency
            if stated is not None and in_force != stated:
                facts = {"lane": lane.value, "stated": stated, "kept": in_force}
                logger.warning(
                    "Concurrency of each worker is another than stated",
                    extra={"action": "worker_concurrency_kept", **facts},
                )
        for partition, concurrency in self._terms.partitions.items():
            kept = DBOS.register_queue(
                bound_name(partition), global_concurrency=concurrency, on_conflict="never_update"
            ).global_concurrency
            if kept != concurrency:
                facts = {"partition": partition, "stated": concurrency, "kept": kept}
                logger.warning("Bound was changed meanwhile", extra={"action": "bound_kept", **facts})

    def close(self, longest_seconds: float = 0.0) -> None:
        """Claim nothing more, wait so long for the attempts to end, and end."""
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=math.ceil(longest_seconds))


@contextmanager
def _guarded_queue() -> Iterator[None]:
    """Turn what DBOS itself raises into `StoreError`: a job that went away meanwhile is looked for again."""
    try:
        yield
    except DBOSException as error:
        raise StoreError(f"wanted: to change jobs of the queue; found: {error}; possible: it is tried again") from error


def _for_dbos(url: str) -> str:
    """Return the address without the driver's name, which DBOS chooses itself."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _written(job: Job) -> dict[str, Json]:
    return {
        "id": job.id,
        "tenant": str(job.tenant),
        "subject": str(job.subject),
        "lane": job.lane.value,
        "priority": job.priority.value,
        "partitions": list(job.partitions),
        "number": job.number,
        "attempt": job.attempt,
    }


def _read(written: Mapping[str, Json]) -> Job:
    partitions = written.get("partitions")  # absent in what the release before handed in
    return Job(
        id=JobId(str(written["id"])),
        tenant=TenantId(UUID(str(written["tenant"]))),
        subject=UUID(str(written["subject"])),
        lane=Lane(str(written["lane"])),
        priority=Priority(str(written["priority"])),
        partitions=tuple(str(one) for one in partitions) if isinstance(partitions, list) else (),
        number=int(str(written["number"])),
        attempt=int(str(written["attempt"])),
    )
