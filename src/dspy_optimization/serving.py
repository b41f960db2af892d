"""The engine as a process that goes on: takes requests in, serves jobs, keeps its lease, and goes in good order."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import version

from dspy_optimization.adapters.child_process import ChildProcesses
from dspy_optimization.adapters.dbos import DbosQueue, DbosRuntime, QueueTerms, migrate_queue
from dspy_optimization.adapters.deliverer import Deliverer
from dspy_optimization.adapters.egress import Egress, GuardedTransport
from dspy_optimization.adapters.gpu import gpus
from dspy_optimization.adapters.interpreter import share_interpreter
from dspy_optimization.adapters.mlflow_tracking import load_mlflow
from dspy_optimization.adapters.postgres import PostgresKeys, PostgresLeases
from dspy_optimization.adapters.postgres.experiment_store import tenants_with_experiments
from dspy_optimization.adapters.postgres.outbox_store import PostgresOutbox
from dspy_optimization.adapters.postgres.stranded_store import stranded
from dspy_optimization.adapters.sealing import SETTING, SecretBox, key_in, key_of_text
from dspy_optimization.adapters.webhooks import Poster
from dspy_optimization.bootstrap import Foundation, new_id, now, open_foundation
from dspy_optimization.engine import Engine
from dspy_optimization.experiments.looker import Looker
from dspy_optimization.isolated import MODULE
from dspy_optimization.jobs.job import Lane
from dspy_optimization.jobs.lease import LeaseKeeper, Worker, WorkerId
from dspy_optimization.jobs.partitions import Doorkeeper
from dspy_optimization.jobs.worker import JobWorker
from dspy_optimization.optimization.handling import OptimizationHandler
from dspy_optimization.optimization.stranded import Sweep
from dspy_optimization.settings import ServiceSettings, Settings, settings_to_json
from dspy_optimization.tenancy import TenantId

_LONGEST_END_SECONDS = 30.0
"""How long a process that lost its lease may take to end by itself."""
DRAIN_SECONDS = 20.0
"""How long attempts get to end when the process has to go; orchestrators kill after 30 s."""
LEASE_SECONDS = 15.0
"""How long a worker may be silent before its jobs are given to others."""


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
    egress: Egress
    """Where requests to addresses that users name may go."""
    sealing: SecretBox | None
    """Keeps secrets of webhooks; None: there is no key, so none can be added."""
    deliverer: Deliverer | None
    """Delivers to webhooks; None: this process does not."""

    def engine(self, tenant: TenantId) -> Engine:
        """Return the engine of a tenant; what is handed in there waits for a worker."""
        return self.foundation.engine(tenant, self.queue)


@contextmanager
def open_serving(
    settings: Settings,
    role: ServiceRole = ServiceRole.ALL,
    *,
    lanes: Sequence[Lane] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Iterator[Serving]:
    """Open everything, begin to claim jobs when the role is to, and yield; then drain and close.

    Args:
        settings: read by `read_settings`.
        role: what this process is for.
        lanes: which jobs it serves; None: those this machine can.
        lease_seconds: how long it may be silent before its jobs are given to others.
    Raises:
        InvalidRequestError: a setting cannot be used.
        StoreError: the database does not start or does not answer.
    """
    worker = _worker(role, lanes)
    limit = settings.service.max_concurrent
    terms = QueueTerms(
        bound=settings.service.queue_size,
        concurrency=dict.fromkeys(Lane, limit),
        worker_concurrency=settings.service.max_concurrent_per_worker,
        partitions=settings.service.algorithm_limits,
    )
    with ExitStack() as opened:
        foundation = opened.enter_context(open_foundation(settings, worker=worker.id))
        leases = PostgresLeases(foundation.database)
        migrate_queue(foundation.url)
        queue = DbosQueue(foundation.url, foundation.database, terms)
        opened.callback(queue.close)
        jobs = JobWorker(
            OptimizationHandler(
                optimizer=lambda tenant: foundation.engine(tenant, queue).optimizer,
                isolated=ChildProcesses(
                    module=MODULE,
                    # Without what only this process needs: the secret of its webhooks is none of an agent's business.
                    settings=settings_to_json(
                        replace(settings, database_url=foundation.url, service=ServiceSettings())
                    ),
                    worker=worker.id,
                    withheld=frozenset({SETTING, "DATABASE_URL"}),
                ),
                queue=queue,
                now=now,
            ),
            share_interpreter,
        )

        def lost() -> None:
            # Others were given its jobs: a process under another id has to take its place.
            jobs.abandon()
            end = threading.Timer(_LONGEST_END_SECONDS, os._exit, [1])
            end.daemon = True
            end.start()
            os.kill(os.getpid(), signal.SIGTERM)

        keeper = LeaseKeeper(leases, queue, worker, lost=lost, seconds=time.monotonic, lease_seconds=lease_seconds)
        keeper.start()
        opened.callback(keeper.stop)
        egress = Egress(settings.allow.http_hosts)
        sealing = _sealing(settings)
        deliverer: Deliverer | None = None
        if role is not ServiceRole.API:
            # Ends after the jobs: what they tell at the end may still go out.
            outbox = PostgresOutbox(foundation.database, sealing)
            outbox.seal_clear()
            # Of its own: slow names that people add webhooks with do not take up its lookups.
            transport = GuardedTransport(Egress(settings.allow.http_hosts))
            deliverer = Deliverer(outbox, Poster(transport, now=now).post)
            deliverer.start()
            opened.callback(deliverer.stop)
        runtime = DbosRuntime(foundation.url, worker, terms)
        opened.callback(_drain, jobs, runtime)
        if worker.lanes:
            load_mlflow()
        runtime.launch(jobs)
        if worker.lanes:
            doorkeeper = Doorkeeper(queue.settle)
            doorkeeper.start()
            opened.callback(doorkeeper.stop)
            Sweep(
                stranded=lambda: stranded(foundation.database),
                optimizations=lambda tenant: foundation.engine(tenant, queue).stores.optimizations,
                now=now,
            ).step()
        if role is not ServiceRole.WORKER:
            # Where traffic comes in, so that none is served unwatched.
            looker = Looker(
                lambda: tenants_with_experiments(foundation.database),
                lambda tenant: foundation.engine(tenant, queue).conductor,
            )
            looker.start()
            opened.callback(looker.stop)
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
            egress=egress,
            sealing=sealing,
            deliverer=deliverer,
        )


def _sealing(settings: Settings) -> SecretBox | None:
    """Return what keeps secrets: under the key that is set, or one of the data folder where nobody else has a part."""
    stated = settings.service.secret_key
    if stated is not None:
        return SecretBox(key_of_text(stated))
    return SecretBox(key_in(settings.data_directory)) if settings.database_url is None else None


def _drain(jobs: JobWorker, runtime: DbosRuntime) -> None:
    """End every attempt and claim nothing more; what does not end in time is left to others."""
    jobs.interrupt()
    runtime.close(DRAIN_SECONDS if jobs.running else 0.0)
    jobs.abandon()


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
