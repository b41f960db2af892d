"""Handing optimizations in, finding them, steering them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from dspy_optimization.adapters.postgres.overview_store import Overview, Place, PostgresOverview, Wanted
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.steering import Asked, Steering
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, Running, check_priority, operates, serving_of, without_addresses
from dspy_optimization.web.bodies import KeyFirst, TakesExamples
from dspy_optimization.web.etags import UNCHANGED, Tagged, tag_of_content
from dspy_optimization.web.handing_in import Prepared, hand_in, prepare
from dspy_optimization.web.paging import cursor_of, place_of, unknown_cursor
from dspy_optimization.web.picking_in import hand_in_pick, looked_at
from dspy_optimization.web.routes.parameters import Cursor, Id, Limit, check_kept, found, is_kept, refusals
from dspy_optimization.web.schemas import OptimizeIn, PickIn
from dspy_optimization.web.status_board import StatusBoard

router = APIRouter(prefix="/api/v1", tags=["optimizations"], route_class=KeyFirst)
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
        ("pick", "optimizations_pick"),
        ("candidates", "evidence_candidates"),
        ("curve", "evidence_curve"),
        ("front", "evidence_front"),
        ("diff", "evidence_diff"),
        ("lineage", "evidence_lineage"),
        ("examples", "evidence_examples"),
        ("log", "evidence_log"),
        ("report", "evidence_report_page"),
        ("artifact", "evidence_artifact"),
    )
}
_MOST_LOOKS = 5
"""Readings of the list that one page may take, where what is read is left out."""
StatusName = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]


@router.post(
    "/optimize",
    status_code=202,
    dependencies=[TakesExamples],
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
    check_priority(request, body.constraints.priority)
    serving = serving_of(request)
    accepted = hand_in(serving, engine, body, idempotency_key)
    overview = PostgresOverview(serving.foundation.database, engine.steering.tenant)
    answer = views.accepted(accepted, overview.moment(accepted.request.id).accepted)
    response.headers["Location"] = answer.links["self"]
    return answer


@router.post(
    "/estimate", dependencies=[TakesExamples], response_model=answers.EstimateOut, responses=refusals(404, 413, 507)
)
def estimate(request: Request, engine: Running, body: OptimizeIn) -> answers.EstimateOut:
    """Say what an optimization takes at most, before anything is spent. Nothing is kept."""
    check_priority(request, body.constraints.priority)
    return _estimate(prepare(serving_of(request), engine, body), shows=operates(request))


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
    """List optimizations, the newest first; those that are not shown any longer (410) are left out.

    Where many in a row are left out a page may hold fewer than asked for: it is the last one without a `next_cursor`.
    """
    serving = serving_of(request)
    overview = PostgresOverview(serving.foundation.database, engine.steering.tenant)
    wanted = Wanted(
        statuses=[OptimizationStatus(one) for one in status or ()],
        target=target,
        algorithm=algorithm,
        newest_first=sort == "-created_at",
        after=None if cursor is None else _place(place_of(cursor)),
        limit=limit + 1,
    )
    shown: list[Overview] = []
    for _ in range(_MOST_LOOKS):
        rows = overview.page(wanted)
        for number, seen in enumerate(rows[:limit], start=1):
            last = seen.optimization.request
            wanted = replace(wanted, after=Place(created_at=last.created_at, optimization_id=last.id))
            if is_kept(serving, seen.optimization):
                shown.append(seen)
            if len(shown) == limit:
                return _page(shown, wanted.after if number < len(rows) else None)
        if len(rows) <= limit:
            return _page(shown, None)
    return _page(shown, wanted.after)


@router.get(
    "/optimizations/{optimization_id}",
    response_model=answers.Detail,
    responses={**UNCHANGED, **refusals(404, 410)},
)
def optimization(request: Request, engine: Reading, known: Tagged, optimization_id: Id) -> answers.Detail | Response:
    """Show an optimization with what was asked for."""
    serving = serving_of(request)
    overview = PostgresOverview(serving.foundation.database, engine.steering.tenant)
    moment = overview.moment(OptimizationId(optimization_id))
    check_kept(serving, moment.overview.optimization)
    detail = views.detail(moment)
    return known.unchanged(tag_of_content(detail)) or detail


@router.get("/optimizations/{optimization_id}/status", response_model=answers.StatusOut, responses=refusals(404, 410))
async def status_of(request: Request, engine: Reading, optimization_id: Id) -> Response:
    """Say where an optimization stands, and what it came to."""
    board: StatusBoard = request.app.state.board
    moment = await board.moment(engine.steering.tenant, OptimizationId(optimization_id))
    check_kept(serving_of(request), moment.overview.optimization)
    # Written at once: it is asked for more often than anything else, and is what its schema says by construction.
    body = views.status(moment, datetime.now(UTC)).model_dump_json()
    return Response(body, media_type="application/json")


def _step(name: str, does: str, take: Callable[[Steering, OptimizationId], Asked]) -> None:
    """Add the route of a step that a person asks of an optimization."""

    def ask(request: Request, engine: Running, optimization_id: Id) -> answers.Asked:
        asked = take(engine.steering, found(request, engine, optimization_id).request.id)
        return answers.Asked(
            optimization_id=optimization_id, status=asked.optimization.status.value, is_done=asked.is_done
        )

    router.add_api_route(
        f"/optimizations/{{optimization_id}}/{name}",
        ask,
        name=name,
        description=does,
        methods=["POST"],
        status_code=202,
        response_model=answers.Asked,
        responses=refusals(404, 409, 410),
    )


@router.get(
    "/optimizations/{optimization_id}/pick",
    name="pick_preview",
    response_model=answers.PickPreview,
    responses=refusals(404, 409, 410, 507),
)
def pick_preview(
    request: Request,
    engine: Running,
    optimization_id: Id,
    candidate: Annotated[str, Query(min_length=1, max_length=64, description="Its fingerprint, or a beginning.")],
) -> answers.PickPreview:
    """Say which use of the test split a pick would be, at which level, and what it takes; or why it cannot be."""
    serving = serving_of(request)
    return looked_at(serving, engine, found(request, engine, optimization_id), candidate)


@router.post(
    "/optimizations/{optimization_id}/pick",
    status_code=202,
    response_model=answers.PickAccepted,
    responses={202: {"description": "It waits for a worker", "links": LINKS}, **refusals(404, 409, 410, 507)},
)
def pick(
    request: Request,
    response: Response,
    engine: Running,
    optimization_id: Id,
    body: PickIn,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> answers.PickAccepted:
    """Take another candidate of an ended optimization to the gate: a new optimization, and the next use of test.

    With an `Idempotency-Key` the same request again makes nothing new.
    """
    serving = serving_of(request)
    made = hand_in_pick(serving, engine, found(request, engine, optimization_id), body.candidate, idempotency_key)
    overview = PostgresOverview(serving.foundation.database, engine.steering.tenant)
    answer = views.pick_accepted(made, overview.moment(made.request.id).accepted)
    response.headers["Location"] = answer.links["self"]
    return answer


def _resumed(steering: Steering, optimization_id: OptimizationId) -> Asked:
    return Asked(optimization=steering.resume(optimization_id), is_done=True)


_step("pause", "Ask a running optimization to pause; it does so after the calls in flight.", Steering.pause)
_step("cancel", "End an optimization for good; the best so far is kept.", Steering.cancel)
_step("resume", "Go on with one that is paused or failed; what was answered is not paid again.", _resumed)
_step("retry", "The same as resume, for one that failed: it goes on where it stopped.", _resumed)


def _page(shown: Sequence[Overview], after: Place | None) -> answers.Page[answers.Summary]:
    more = None if after is None else cursor_of([after.created_at.isoformat(), str(after.optimization_id)])
    return answers.Page(items=[views.summary(one) for one in shown], next_cursor=more)


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


def _estimate(prepared: Prepared, *, shows: bool) -> answers.EstimateOut:
    cost = prepared.estimate.cost
    return answers.EstimateOut(
        calls=cost.calls,
        calls_by_role={"task": cost.task_calls, "reflection": cost.reflection_calls, "judge": cost.judge_calls},
        calls_by_phase=dict(cost.by_phase),
        search_calls=cost.search_calls,
        tokens=cost.tokens,
        cost_usd=cost.cost_usd,
        minutes=cost.minutes,
        seconds_a_call=cost.seconds_a_call,
        algorithms=[choice.name for choice in prepared.checked.algorithms],
        reason=prepared.checked.reason,
        models={
            role.value: identity if shows else without_addresses(identity)
            for role, identity in prepared.estimate.models.items()
        },
        dataset=prepared.checked.report.sentence,
        estimated_seconds=prepared.estimated_seconds,
    )
