"""For operators: queue, workers, who asks, health, GPUs, metrics."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from statistics import median
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dspy_optimization.adapters.gpu import gpus
from dspy_optimization.adapters.postgres.overview_store import Past, PostgresOverview
from dspy_optimization.compute.devices import allocator_configuration, devices, load_torch
from dspy_optimization.jobs.job import Lane
from dspy_optimization.jobs.queue import LaneLoad
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
from dspy_optimization.web.bodies import KeyFirst
from dspy_optimization.web.metrics import exposition
from dspy_optimization.web.readiness import Readiness
from dspy_optimization.web.routes.parameters import refusals
from dspy_optimization.web.schemas import LaneIn, LoginIn, PartitionIn

router = APIRouter(tags=["system"], route_class=KeyFirst)
_COOKIE_SECONDS = 30 * 86400


@router.get("/health", response_model=answers.Health, dependencies=[Anybody])
async def health(request: Request) -> answers.Health:
    """Say that the process lives; asks nobody else."""
    return answers.Health(status="ok", role=serving_of(request).role.value, version=version("dspy-optimization"))


@router.get("/ready", response_model=answers.Ready, dependencies=[Anybody], responses={503: {"model": answers.Ready}})
async def ready(request: Request) -> Response:
    """Say whether the process can do its work: database, migrations, lease, queue, webhooks, models.

    What is not ok says what is the matter; where the database is, only to who may administer. It is looked at once for
    everybody who asks within two seconds.
    """
    readiness: Readiness = request.app.state.readiness
    checks = await readiness.checks()
    good = all(one.is_ok for one in checks.values())
    shows = not good and await is_operator(request)
    answer = answers.Ready(ready=good, checks={name: one.sentence(shows) for name, one in checks.items()})
    return JSONResponse(answer.model_dump(), status_code=200 if good else 503)


@router.get("/gpu-status", response_model=answers.GpuStatus, dependencies=[Anybody])
def gpu_status(request: Request) -> answers.GpuStatus:
    """Say which GPUs this machine has, how busy they are, and what this process works with; no GPU is no error."""
    found = gpus()
    library, fraction = load_torch(), serving_of(request).settings.gpu_memory_fraction
    first = devices(fraction=fraction, library=library)[0]
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
        compute=answers.ComputeOut(
            device=first.kind.value,
            library="torch" if first.has_torch else "numpy",
            torch_version=library.version,
            reason=first.reason,
            memory_fraction=fraction,
            allocator_configuration=allocator_configuration(),
        ),
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
            lanes=[_lane(lane, load) for lane, load in serving.queue.load().items()],
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


@router.patch("/api/v1/system/lanes/{lane}", response_model=answers.LaneOut, responses=refusals(413))
def change_lane(request: Request, _engine: Administering, lane: Literal["cpu", "gpu"], body: LaneIn) -> answers.LaneOut:
    """Let so many optimizations of a lane run at once from now on, in all and in each worker; what runs goes on.

    A number that is not given stays as it is. All that is given comes into force, or with 422 nothing.
    """
    queue = serving_of(request).queue
    given = body.model_dump(exclude_unset=True)
    queue.change_terms(Lane(lane), lambda in_force: replace(in_force, **given))
    return _lane(Lane(lane), queue.load()[Lane(lane)])


@router.patch(
    "/api/v1/system/partitions/{algorithm}", response_model=answers.PartitionOut, responses=refusals(404, 413)
)
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


@router.post("/api/v1/login", status_code=204, dependencies=[Anybody], responses=refusals(413))
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


def _lane(lane: Lane, load: LaneLoad) -> answers.LaneOut:
    return answers.LaneOut(
        lane=lane.value,
        waiting=load.waiting,
        running=load.running,
        concurrency=load.concurrency,
        worker_concurrency=load.worker_concurrency,
    )


def _calibration(past: Sequence[Past]) -> answers.CalibrationOut:
    known = [one for one in past if one.estimated_seconds > 0.0]
    errors = [abs(one.elapsed_seconds - one.estimated_seconds) / one.estimated_seconds for one in known]
    within = [0.5 <= one.elapsed_seconds / one.estimated_seconds <= 2.0 for one in known]
    return answers.CalibrationOut(
        n=len(known),
        median_absolute_percentage_error=100.0 * median(errors) if errors else None,
        share_within_half=sum(within) / len(within) if within else None,
    )
