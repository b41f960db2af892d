"""For operators: queue, workers, who asks, health, GPUs, metrics."""

import logging
import socket
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median
from typing import Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dspy_optimization.adapters.gpu import gpus
from dspy_optimization.adapters.models import EMBEDDED
from dspy_optimization.adapters.postgres.overview_store import Past, PostgresOverview
from dspy_optimization.errors import InfrastructureError
from dspy_optimization.jobs.job import Lane
from dspy_optimization.serving import Serving
from dspy_optimization.tenancy import PERMISSIONS
from dspy_optimization.web import answers
from dspy_optimization.web.access import (
    COOKIE,
    Administering,
    Anybody,
    Reading,
    is_operator,
    operates,
    principal_of,
    serving_of,
    unknown_key,
)
from dspy_optimization.web.metrics import exposition
from dspy_optimization.web.routes.parameters import refusals
from dspy_optimization.web.schemas import LaneIn, LoginIn, PartitionIn

logger = logging.getLogger(__name__)
router = APIRouter(tags=["system"])
_OK = "ok"
_COOKIE_SECONDS = 30 * 86400
_CONNECT_SECONDS = 1.0


@router.get("/health", response_model=answers.Health, dependencies=[Anybody])
async def health(request: Request) -> answers.Health:
    """Say that the process lives; asks nobody else."""
    return answers.Health(status="ok", role=serving_of(request).role.value, version=version("dspy-optimization"))


@router.get("/ready", response_model=answers.Ready, dependencies=[Anybody], responses={503: {"model": answers.Ready}})
def ready(request: Request) -> Response:
    """Say whether the process can do its work: database, migrations, lease, queue, models.

    What is not ok says what is the matter; where the database is, only to who may administer.
    """
    serving = serving_of(request)
    shows = is_operator(request)
    checks = {
        "database": _database(serving, shows),
        "migrations": _migrations(serving, shows),
        "lease": _lease(serving),
        "queue": _queue(serving, shows),
        "models": _models(serving),
    }
    good = all(one == _OK for one in checks.values())
    answer = answers.Ready(ready=good, checks=checks)
    return JSONResponse(answer.model_dump(), status_code=200 if good else 503)


@router.get("/gpu-status", response_model=answers.GpuStatus, dependencies=[Anybody])
def gpu_status() -> answers.GpuStatus:
    """Say which GPUs this machine has and how busy they are; having none is no error."""
    found = gpus()
    return answers.GpuStatus(
        available=found.available,
        devices=[
            answers.GpuOut(
                index=one.index,
                name=one.name,
                memory_total_bytes=one.memory_total_bytes,
                memory_used_bytes=one.memory_used_bytes,
                utilization=one.utilization,
                temperature_celsius=one.temperature_celsius,
            )
            for one in found.devices
        ],
        reason=found.reason,
    )


@router.get(
    "/metrics",
    dependencies=[Anybody],
    response_class=Response,
    responses={200: {"description": "Prometheus text", "content": {"text/plain": {}}}, **refusals()},
)
def metrics(request: Request) -> Response:
    """Return what Prometheus scrapes: queue, workers, requests. No tenant's data."""
    return Response(exposition(serving_of(request)), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/v1/system", response_model=answers.SystemOut, responses=refusals())
def system(request: Request, engine: Reading) -> answers.SystemOut:
    """Show queue, workers with their leases, and how good estimates are; hosts to who may administer."""
    serving = serving_of(request)
    shows = operates(request)
    claimed = serving.queue.claimed_by()
    past = PostgresOverview(serving.foundation.database, engine.steering.tenant).past()
    return answers.SystemOut(
        queue=answers.QueueOut(
            lanes=[
                answers.LaneOut(
                    lane=lane.value, waiting=load.waiting, running=load.running, concurrency=load.concurrency
                )
                for lane, load in serving.queue.load().items()
            ],
            partitions=[
                answers.PartitionOut(
                    partition=name, waiting=load.waiting, running=load.running, concurrency=load.concurrency
                )
                for name, load in serving.queue.partitions().items()
            ],
            bound=serving.settings.service.queue_size,
        ),
        workers=[
            answers.WorkerOut(
                id=lease.worker.id,
                host=lease.worker.host if shows else None,
                process_id=lease.worker.process_id if shows else None,
                lanes=[lane.value for lane in lease.worker.lanes],
                running=claimed.get(lease.worker.id, 0),
                version=lease.worker.version,
                started_at=lease.worker.started_at,
                expires_at=lease.expires_at,
                is_alive=lease.is_alive,
                is_this=lease.worker.id == serving.worker.id,
            )
            for lease in serving.leases.leases()
        ],
        calibration=_calibration(past),
    )


@router.patch("/api/v1/system/lanes/{lane}", response_model=answers.LaneOut, responses=refusals())
def change_lane(request: Request, _engine: Administering, lane: Literal["cpu", "gpu"], body: LaneIn) -> answers.LaneOut:
    """Let so many optimizations of a lane run at once from now on; what runs goes on."""
    queue = serving_of(request).queue
    queue.set_concurrency(Lane(lane), body.concurrency)
    load = queue.load()[Lane(lane)]
    return answers.LaneOut(lane=lane, waiting=load.waiting, running=load.running, concurrency=load.concurrency)


@router.patch("/api/v1/system/partitions/{algorithm}", response_model=answers.PartitionOut, responses=refusals(404))
def change_partition(
    request: Request, engine: Administering, algorithm: str, body: PartitionIn
) -> answers.PartitionOut:
    """Let so many optimizations that name an algorithm run at once from now on, over all lanes; what runs goes on."""
    engine.algorithms.get(algorithm)
    queue = serving_of(request).queue
    queue.set_bound(algorithm, body.concurrency)
    load = queue.partitions().get(algorithm)
    if load is None:
        return answers.PartitionOut(partition=algorithm, waiting=0, running=0, concurrency=None)
    return answers.PartitionOut(
        partition=algorithm, waiting=load.waiting, running=load.running, concurrency=load.concurrency
    )


@router.get("/api/v1/me", response_model=answers.Me, responses=refusals())
def me(request: Request, _engine: Reading) -> answers.Me:
    """Say who asks."""
    serving = serving_of(request)
    principal = principal_of(request)
    return answers.Me(
        name=principal.name,
        role=principal.role.value,
        permissions=sorted(one.value for one in PERMISSIONS[principal.role]),
        tenant=principal.tenant,
        requires_key=serving.settings.service.require_keys,
    )


@router.post("/api/v1/login", status_code=204, dependencies=[Anybody], responses=refusals())
def login(request: Request, body: LoginIn) -> Response:
    """Let the browser keep a key as a cookie that no script can read."""
    if serving_of(request).keys.principal(body.key) is None:
        raise unknown_key()
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        body.key,
        max_age=_COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.delete("/api/v1/login", status_code=204, dependencies=[Anybody], responses=refusals())
def logout() -> Response:
    """Let the browser forget the key."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE)
    return response


def _database(serving: Serving, shows: bool) -> str:
    try:
        with serving.foundation.database.shared():
            return _OK
    except InfrastructureError as error:
        return _away(error, shows)


def _migrations(serving: Serving, shows: bool) -> str:
    try:
        schema = serving.foundation.database.schema()
    except InfrastructureError as error:
        return _away(error, shows)
    if schema.found == schema.newest:
        return _OK
    return (
        f"wanted: schema {schema.newest}, the newest this process knows; found: {schema.found or 'none'}; possible: "
        "start it again, which brings an older schema there, or start the newer engine that made a newer one"
    )


def _lease(serving: Serving) -> str:
    return _OK if serving.keeper.is_fresh else "the lease was not extended in time"


def _queue(serving: Serving, shows: bool) -> str:
    if serving.jobs.is_draining:
        return "this process drains: it takes nothing new"
    try:
        serving.queue.claimed_by()
    except InfrastructureError as error:
        return _away(error, shows)
    return _OK


def _away(error: InfrastructureError, shows: bool) -> str:
    logger.warning("Not ready", extra={"action": "not_ready", "error": str(error)})
    return str(error) if shows else "the database is away, or refuses; the log says more"


def _models(serving: Serving) -> str:
    """Say whether the servers of the models take connections; those of providers are not asked."""
    roles: dict[tuple[str, int], list[str]] = {}
    for role, spec in serving.settings.models.items():
        parts = urlsplit(spec.base_url or "")
        if spec.model != EMBEDDED and parts.hostname is not None:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            roles.setdefault((parts.hostname, port), []).append(role.value)
    silent = []
    for place, asking in roles.items():
        try:
            socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            silent.append(f"{' and '.join(asking)} ({error.strerror or error})")
    return f"the server takes no connection, of the model for {', for '.join(silent)}" if silent else _OK


def _calibration(past: Sequence[Past]) -> answers.CalibrationOut:
    known = [one for one in past if one.estimated_seconds > 0.0]
    errors = [abs(one.elapsed_seconds - one.estimated_seconds) / one.estimated_seconds for one in known]
    within = [0.5 <= one.elapsed_seconds / one.estimated_seconds <= 2.0 for one in known]
    return answers.CalibrationOut(
        n=len(known),
        median_absolute_percentage_error=100.0 * median(errors) if errors else None,
        share_within_half=sum(within) / len(within) if within else None,
    )
