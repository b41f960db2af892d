"""The engine as a process that goes on: takes requests in, serves jobs, keeps its lease, and goes in good order."""

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version

from dspy_optimization.adapters.dbos import DbosClaims, DbosQueue, DbosRuntime, QueueTerms, migrate_queue
from dspy_optimization.adapters.gpu import gpus
from dspy_optimization.adapters.postgres import PostgresKeys, PostgresLeases
from dspy_optimization.bootstrap import Foundation, new_id, now, open_foundation
from dspy_optimization.engine import Engine
from dspy_optimization.jobs.job import Lane
from dspy_optimization.jobs.lease import LeaseKeeper, Worker, WorkerId
from dspy_optimization.jobs.worker import JobWorker
from dspy_optimization.optimization.handling import OptimizationHandler
from dspy_optimization.settings import Settings
from dspy_optimization.tenancy import TenantId

DRAIN_SECONDS = 25.0
"""How long attempts get to end when the process has to go; orchestrators kill after 30 s."""


class ServiceRole(StrEnum):
    """What a process is for; the code is the same."""

    ALL = "all"  # requests and jobs
    API = "api"  # requests only
    WORKER = "worker"  # jobs, and the routes that operators need


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Everything the web layer needs."""

    settings: Settings
    role: ServiceRole
    foundation: Foundation
    queue: DbosQueue
    leases: PostgresLeases
    keys: PostgresKeys
    worker: Worker
    jobs: JobWorker
    keeper: LeaseKeeper

    def engine(self, tenant: TenantId) -> Engine:
        """Return the engine of a tenant; what is handed in there waits for a worker."""
        return self.foundation.engine(tenant, self.queue)


@contextmanager
def open_serving(
    settings: Settings, role: ServiceRole = ServiceRole.ALL, *, lanes: Sequence[Lane] | None = None
) -> Iterator[Serving]:
    """Open everything, begin to claim jobs when the role is to, and yield; then drain and close.

    Args:
        settings: read by `read_settings`.
        role: what this process is for.
        lanes: which jobs it serves; None: those this machine can.
    Raises:
        InvalidRequestError: a setting cannot be used.
        StoreError: the database does not start or does not answer.
    """
    worker = _worker(role, lanes)
    limit = settings.service.max_concurrent
    terms = QueueTerms(bound=settings.service.queue_size, concurrency=dict.fromkeys(Lane, limit))
    with ExitStack() as opened:
        foundation = opened.enter_context(open_foundation(settings, worker=worker.id))
        leases = PostgresLeases(foundation.database)
        migrate_queue(foundation.url)
        queue = DbosQueue(foundation.url, foundation.database, terms)
        opened.callback(queue.close)
        jobs = JobWorker(
            OptimizationHandler(
                optimizer=lambda tenant: foundation.engine(tenant, queue).optimizer, queue=queue, now=now
            )
        )

        def lost() -> None:
            # Others were given its jobs: a process under another id has to take its place.
            jobs.abandon()
            os.kill(os.getpid(), signal.SIGTERM)

        keeper = LeaseKeeper(leases, DbosClaims(), worker, lost=lost, seconds=time.monotonic)
        keeper.start()
        opened.callback(keeper.stop)
        runtime = DbosRuntime(foundation.url, worker, terms)
        opened.callback(runtime.close)
        runtime.launch(jobs)
        opened.callback(jobs.drain, DRAIN_SECONDS)
        yield Serving(
            settings=settings,
            role=role,
            foundation=foundation,
            queue=queue,
            leases=leases,
            keys=PostgresKeys(foundation.database),
            worker=worker,
            jobs=jobs,
            keeper=keeper,
        )


def _worker(role: ServiceRole, lanes: Sequence[Lane] | None) -> Worker:
    here = (Lane.CPU, Lane.GPU) if gpus().available else (Lane.CPU,)
    served = () if role is ServiceRole.API else here if lanes is None else tuple(lanes)
    return Worker(
        id=WorkerId(str(new_id())),
        host=socket.gethostname(),
        process_id=os.getpid(),
        lanes=served,
        version=version("dspy-optimization"),
        started_at=now(),
    )
