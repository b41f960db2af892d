"""What an optimization found: candidates, texts, curves, examples, lineage, events, report, files."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from dspy_optimization.adapters.export import no_result, zipped
from dspy_optimization.adapters.report import html
from dspy_optimization.adapters.report.facts import Material, Report, collect, report
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.engine import Engine
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, serving_of
from dspy_optimization.web.paging import page_of
from dspy_optimization.web.routes.parameters import Cursor, Id, Limit, found, refusals

router = APIRouter(prefix="/api/v1/optimizations/{optimization_id}", tags=["evidence"])
_SHOWN = 5


def _material(request: Request, engine: Engine, optimization_id: UUID) -> Material:
    found(request, engine, optimization_id)
    return collect(engine.stores, OptimizationId(optimization_id))


def _report(request: Request, engine: Engine, optimization_id: UUID) -> Report:
    return report(_material(request, engine, optimization_id), datetime.now(UTC))


@router.get("/candidates", response_model=answers.Page[answers.CandidateOut], responses=refusals(404, 410))
def candidates(
    request: Request, engine: Reading, optimization_id: Id, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.CandidateOut]:
    """List what was measured, in the order it was."""
    material = _material(request, engine, optimization_id)
    made = report(material, datetime.now(UTC))
    page = page_of(material.trials, limit, cursor)
    return answers.Page(items=[views.candidate(trial, made) for trial in page.items], next_cursor=page.next_cursor)


@router.get("/candidates/{fingerprint}", response_model=answers.CandidateDetail, responses=refusals(404, 410))
def candidate(request: Request, engine: Reading, optimization_id: Id, fingerprint: str) -> answers.CandidateDetail:
    """Show the texts of a candidate; the beginning of its fingerprint is enough."""
    known = _candidates(_material(request, engine, optimization_id))
    return views.candidate_detail(_named(known, fingerprint))


@router.get("/diff", response_model=answers.Diff, responses=refusals(404, 410))
def diff(
    request: Request,
    engine: Reading,
    optimization_id: Id,
    from_: Annotated[str | None, Query(alias="from", description="The baseline if not given.")] = None,
    to: Annotated[str | None, Query(description="The chosen candidate if not given.")] = None,
) -> answers.Diff:
    """Show word by word what differs between two candidates."""
    material = _material(request, engine, optimization_id)
    made = report(material, datetime.now(UTC))
    known = _candidates(material)
    before = made.baseline if from_ is None else _named(known, from_)
    after = made.chosen if to is None else _named(known, to)
    if before is None or after is None:
        raise NotFoundError(
            f"wanted: two candidates; found: {len(known)} measured so far; possible: wait for the baseline"
        )
    return views.diff(before, after)


@router.get("/curve", response_model=answers.Curve, responses=refusals(404, 410))
def curve(
    request: Request,
    engine: Reading,
    optimization_id: Id,
    points: Annotated[int, Query(ge=10, le=20_000, description="How many points at most.")] = 2_000,
) -> answers.Curve:
    """Show how the score on val rose while calls were paid."""
    return views.curve(_report(request, engine, optimization_id).curves, points)


@router.get("/examples", response_model=answers.Page[answers.ExampleOut], responses=refusals(404, 410))
def examples(
    request: Request, engine: Reading, optimization_id: Id, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.ExampleOut]:
    """List val examples that got worse, then those that got better. The test split stays sealed."""
    changes = _report(request, engine, optimization_id).examples
    if changes is None:
        return answers.Page(items=[])
    page = page_of([*changes.worse, *changes.better], limit, cursor)
    return answers.Page(items=[views.example(one, changes.metric) for one in page.items], next_cursor=page.next_cursor)


@router.get("/lineage", response_model=answers.Lineage, responses=refusals(404, 410))
def lineage(request: Request, engine: Reading, optimization_id: Id) -> answers.Lineage:
    """Show which candidate came from which."""
    made = _report(request, engine, optimization_id)
    return views.lineage(made.family, None if made.baseline is None else made.baseline.fingerprint)


@router.get("/log", response_model=answers.Page[answers.EventOut], responses=refusals(404, 410))
def log(
    request: Request,
    engine: Reading,
    optimization_id: Id,
    after: Annotated[int, Query(ge=0, description="Events with a greater id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> answers.Page[answers.EventOut]:
    """List what happened, in order; go on with `after` = the last id."""
    found(request, engine, optimization_id)
    recorded = engine.stores.events.events(OptimizationId(optimization_id), after, limit)
    return answers.Page(
        items=[
            answers.EventOut(id=one.id, type=one.event.type.value, at=one.event.at, data=dict(one.event.data))
            for one in recorded
        ],
        next_cursor=None,
    )


@router.get("/report", response_class=HTMLResponse, responses=refusals(404, 410))
def report_page(request: Request, engine: Reading, optimization_id: Id) -> HTMLResponse:
    """Return the report: one page that needs nothing else and runs nothing."""
    made = _report(request, engine, optimization_id)
    return HTMLResponse(html.render(made), headers={"Content-Security-Policy": "sandbox"})


@router.get(
    "/artifact",
    response_class=Response,
    responses={
        200: {"description": "A zip archive", "content": {"application/zip": {}}},
        **refusals(404, 410),
    },
)
def artifact(request: Request, engine: Reading, optimization_id: Id) -> Response:
    """Download the optimized agent (without pickle), the evidence and the report."""
    material = _material(request, engine, optimization_id)
    if material.result is None:
        raise no_result(material.optimization)
    name = f"{material.optimization.request.target.id}-{str(optimization_id)[:8]}.zip"
    safe = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "_" for sign in name)
    builder = serving_of(request).foundation.builder
    return Response(
        zipped(material, builder, material.result.completed_at),
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{safe}"',
            "ETag": f'"{material.result.artifact.checksum}"',
        },
    )


def _candidates(material: Material) -> Sequence[Candidate]:
    known = {trial.candidate.fingerprint: trial.candidate for trial in material.trials}
    if material.result is not None:
        for one in (material.result.baseline, material.result.optimized):
            known.setdefault(one.fingerprint, one)
    return list(known.values())


def _named(known: Sequence[Candidate], fingerprint: str) -> Candidate:
    matching = [one for one in known if fingerprint and one.fingerprint.startswith(fingerprint)]
    if len(matching) != 1:
        possible = ", ".join(one.fingerprint[:12] for one in known[:_SHOWN]) or "none yet"
        raise NotFoundError(
            f"wanted: a candidate whose fingerprint begins with {fingerprint!r}; found: {len(matching)}; possible: "
            f"{possible}"
        )
    return matching[0]
