"""Handing optimizations in, finding them, steering them."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from dspy_optimization.adapters.postgres.overview_store import Place, PostgresOverview, Wanted
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.steering import Asked
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, Running, serving_of
from dspy_optimization.web.handing_in import Prepared, completion, hand_in, prepare
from dspy_optimization.web.paging import cursor_of, place_of, unknown_cursor
from dspy_optimization.web.routes.parameters import Cursor, Id, Limit, check_kept, found, refusals
from dspy_optimization.web.schemas import OptimizeIn

router = APIRouter(prefix="/api/v1", tags=["optimizations"])
# Where a program goes from an accepted optimization.
LINKS = {
    name: {"operationId": operation, "parameters": {"optimization_id": "$response.body#/optimization_id"}}
    for name, operation in (
        ("status", "optimizations_status_of"),
        ("detail", "optimizations_optimization"),
        ("pause", "optimizations_pause"),
        ("cancel", "optimizations_cancel"),
        ("resume", "optimizations_resume"),
        ("retry", "optimizations_retry"),
        ("candidates", "evidence_candidates"),
        ("curve", "evidence_curve"),
        ("diff", "evidence_diff"),
        ("lineage", "evidence_lineage"),
        ("examples", "evidence_examples"),
        ("log", "evidence_log"),
        ("report", "evidence_report_page"),
        ("artifact", "evidence_artifact"),
    )
}
StatusName = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]


@router.post(
    "/optimize",
    status_code=202,
    response_model=answers.Accepted,
    responses={202: {"description": "It waits for a worker", "links": LINKS}, **refusals(404, 409, 413, 507)},
)
def optimize(
    request: Request,
    response: Response,
    engine: Running,
    body: OptimizeIn,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> answers.Accepted:
    """Hand an optimization in. With an `Idempotency-Key` the same request again makes nothing new."""
    serving = serving_of(request)
    accepted = hand_in(serving, engine, body, idempotency_key)
    overview = PostgresOverview(serving.foundation.database, engine.steering.tenant)
    told = overview.moment(accepted.request.id).accepted
    seconds, cost = told.get("estimated_seconds"), told.get("estimated_cost_usd")
    links = views.links_of(accepted.request)
    response.headers["Location"] = links["self"]
    return answers.Accepted(
        optimization_id=accepted.request.id,
        status=accepted.status.value,
        estimated_completion=completion(accepted.request.created_at, float(seconds))
        if isinstance(seconds, int | float)
        else None,
        estimated_cost_usd=float(cost) if isinstance(cost, int | float) else None,
        links=links,
    )


@router.post("/estimate", response_model=answers.EstimateOut, responses=refusals(404, 413, 507))
def estimate(request: Request, engine: Running, body: OptimizeIn) -> answers.EstimateOut:
    """Say what an optimization takes at most, before anything is spent. Nothing is kept."""
    return _estimate(prepare(serving_of(request), engine, body))


@router.get("/optimizations", response_model=answers.Page[answers.Summary], responses=refusals())
def optimizations(
    request: Request,
    engine: Reading,
    status: Annotated[list[StatusName] | None, Query()] = None,
    target: Annotated[str | None, Query(max_length=200)] = None,
    algorithm: Annotated[str | None, Query(max_length=200)] = None,
    sort: Literal["-created_at", "created_at"] = "-created_at",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> answers.Page[answers.Summary]:
    """List optimizations, the newest first."""
    overview = PostgresOverview(serving_of(request).foundation.database, engine.steering.tenant)
    wanted = Wanted(
        statuses=[OptimizationStatus(one) for one in status or ()],
        target=target,
        algorithm=algorithm,
        newest_first=sort == "-created_at",
        after=None if cursor is None else _place(place_of(cursor)),
        limit=limit + 1,
    )
    rows = overview.page(wanted)
    shown = rows[:limit]
    more: str | None = None
    if len(rows) > limit:
        last = shown[-1].optimization.request
        more = cursor_of([last.created_at.isoformat(), str(last.id)])
    return answers.Page(items=[views.summary(one) for one in shown], next_cursor=more)


@router.get("/optimizations/{optimization_id}", response_model=answers.Detail, responses=refusals(404, 410))
def optimization(request: Request, engine: Reading, optimization_id: Id) -> answers.Detail:
    """Show an optimization with what was asked for."""
    serving = serving_of(request)
    overview = PostgresOverview(serving.foundation.database, engine.steering.tenant)
    seen = overview.moment(OptimizationId(optimization_id)).overview
    check_kept(serving, seen.optimization)
    return views.detail(seen)


@router.get("/optimizations/{optimization_id}/status", response_model=answers.StatusOut, responses=refusals(404, 410))
def status_of(request: Request, engine: Reading, optimization_id: Id) -> answers.StatusOut:
    """Say where an optimization stands, and what it came to."""
    serving = serving_of(request)
    moment = PostgresOverview(serving.foundation.database, engine.steering.tenant).moment(
        OptimizationId(optimization_id)
    )
    check_kept(serving, moment.overview.optimization)
    has_result = moment.overview.result is not None
    result = engine.stores.results.result(OptimizationId(optimization_id)) if has_result else None
    return views.status(moment, result, datetime.now(UTC))


@router.post(
    "/optimizations/{optimization_id}/pause",
    status_code=202,
    response_model=answers.Asked,
    responses=refusals(404, 409, 410),
)
def pause(request: Request, engine: Running, optimization_id: Id) -> answers.Asked:
    """Ask a running optimization to pause; it does so after the calls in flight."""
    found(request, engine, optimization_id)
    return _asked(engine.steering.pause(OptimizationId(optimization_id)))


@router.post(
    "/optimizations/{optimization_id}/cancel",
    status_code=202,
    response_model=answers.Asked,
    responses=refusals(404, 409, 410),
)
def cancel(request: Request, engine: Running, optimization_id: Id) -> answers.Asked:
    """End an optimization for good; the best so far is kept."""
    found(request, engine, optimization_id)
    return _asked(engine.steering.cancel(OptimizationId(optimization_id)))


@router.post(
    "/optimizations/{optimization_id}/resume",
    status_code=202,
    response_model=answers.Asked,
    responses=refusals(404, 409, 410),
)
def resume(request: Request, engine: Running, optimization_id: Id) -> answers.Asked:
    """Go on with one that is paused or failed; what was answered is not paid again."""
    found(request, engine, optimization_id)
    queued = engine.steering.resume(OptimizationId(optimization_id))
    return answers.Asked(optimization_id=optimization_id, status=queued.status.value, is_done=True)


@router.post(
    "/optimizations/{optimization_id}/retry",
    status_code=202,
    response_model=answers.Asked,
    responses=refusals(404, 409, 410),
)
def retry(request: Request, engine: Running, optimization_id: Id) -> answers.Asked:
    """The same as resume, for one that failed: it goes on where it stopped."""
    return resume(request, engine, optimization_id)


def _asked(asked: Asked) -> answers.Asked:
    return answers.Asked(
        optimization_id=asked.optimization.request.id,
        status=asked.optimization.status.value,
        is_done=asked.is_done,
    )


def _place(place: Json) -> Place:
    if not isinstance(place, list) or len(place) != 2 or not all(isinstance(one, str) for one in place):
        raise unknown_cursor()
    try:
        created_at, last = datetime.fromisoformat(str(place[0])), UUID(str(place[1]))
    except ValueError as error:
        raise unknown_cursor() from error
    if created_at.tzinfo is None:
        raise unknown_cursor()
    return Place(created_at=created_at, optimization_id=OptimizationId(last))


def _estimate(prepared: Prepared) -> answers.EstimateOut:
    cost = prepared.estimate.cost
    return answers.EstimateOut(
        calls=cost.calls,
        calls_by_role={"task": cost.task_calls, "reflection": cost.reflection_calls, "judge": cost.judge_calls},
        calls_by_phase=dict(cost.by_phase),
        tokens=cost.tokens,
        cost_usd=cost.cost_usd,
        minutes=cost.minutes,
        seconds_a_call=cost.seconds_a_call,
        algorithms=[choice.name for choice in prepared.checked.algorithms],
        reason=prepared.checked.reason,
        models={role.value: identity for role, identity in prepared.estimate.models.items()},
        dataset=prepared.checked.report.sentence,
        estimated_seconds=prepared.estimated_seconds,
    )
