"""What an optimization found: candidates, texts, curves, examples, lineage, events, report, files.

Every page reads what it shows and no more: rows of trials, and the documents of the few whose answers are shown. Only
the report and the archive are made of everything.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from dspy_optimization.adapters.export import no_result, zipped
from dspy_optimization.adapters.postgres.evidence_store import PostgresEvidence
from dspy_optimization.adapters.report import html
from dspy_optimization.adapters.report.curves import BASELINE
from dspy_optimization.adapters.report.facts import gathered, report
from dspy_optimization.adapters.report.lineage import family
from dspy_optimization.adapters.report.row_curves import RowCurves, completions, row_curves
from dspy_optimization.adapters.report.val_examples import example_changes
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.engine import Engine
from dspy_optimization.errors import NotFoundError
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import Optimization
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.steering import FINAL
from dspy_optimization.optimization.store import ResultStore
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, serving_of
from dspy_optimization.web.etags import UNCHANGED, Known, Tagged, headers_of, tag_of
from dspy_optimization.web.paging import cursor_of, number_of, page_of
from dspy_optimization.web.routes.parameters import GREATEST_ID, Cursor, Id, Limit, found, refusals

router = APIRouter(prefix="/api/v1/optimizations/{optimization_id}", tags=["evidence"])
_SHOWN = 5
_MOST_MEANS = 2_000


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """One optimization, and how to read of it."""

    optimization: Optimization
    results: ResultStore
    store: PostgresEvidence

    @cached_property
    def result(self) -> OptimizationResult | None:
        """What it came to; None while there is none."""
        return self.results.result(self.optimization.request.id)

    def rows_curves(self) -> RowCurves:
        """Return the curves of everything measured so far."""
        request = self.optimization.request
        n_val = self.store.sizes(request.dataset)[Split.VAL]
        return row_curves(Objectives(items=request.objectives), n_val, self.store.rows(request.id), self.store)

    def ends(self) -> tuple[Candidate | None, Candidate | None]:
        """Return the baseline and the chosen candidate: of the result, or the best so far."""
        if self.result is not None:
            return self.result.baseline, self.result.optimized
        curves = self.rows_curves()
        trials = [one.trial for one in (curves.baseline, curves.leader) if one is not None]
        texts = self.store.candidates(trials)
        first, last = (None if one is None else texts[one.trial] for one in (curves.baseline, curves.leader))
        return first, last

    def names(self) -> tuple[Fingerprint | None, Fingerprint | None]:
        """Return the fingerprints of `ends`."""
        first, last = self.ends()
        return None if first is None else first.fingerprint, None if last is None else last.fingerprint

    def tag(self, request: Request) -> str | None:
        """Return the tag of this page; None while the optimization may still change it."""
        if self.optimization.status not in FINAL:
            return None
        asked: list[Json] = [f"{name}={value}" for name, value in sorted(request.query_params.multi_items())]
        return tag_of(
            request.url.path,
            asked,
            self.optimization.updated_at.isoformat(),
            self.store.last_event(self.optimization.request.id),
        )


def _opened(request: Request, engine: Engine, optimization_id: Id) -> _Evidence:
    return _Evidence(
        optimization=found(request, engine, optimization_id),
        results=engine.stores.results,
        store=PostgresEvidence(serving_of(request).foundation.database, engine.steering.tenant),
    )


def _unchanged(request: Request, evidence: _Evidence, known: Known) -> Response | None:
    tag = evidence.tag(request)
    return None if tag is None else known.unchanged(tag)


@router.get(
    "/candidates", response_model=answers.Page[answers.CandidateOut], responses={**UNCHANGED, **refusals(404, 410)}
)
def candidates(
    request: Request, engine: Reading, known: Tagged, optimization_id: Id, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.CandidateOut] | Response:
    """List what was measured, in the order it was."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    if same is not None:
        return same
    asked = evidence.optimization.request
    rows = evidence.store.rows(asked.id, after=number_of(cursor), limit=limit + 1)
    sizes = evidence.store.sizes(asked.dataset)
    baseline, chosen = evidence.names()
    shown = rows[:limit]
    return answers.Page(
        items=[views.candidate(row, sizes, baseline, chosen) for row in shown],
        next_cursor=cursor_of(shown[-1].id) if len(rows) > limit else None,
    )


@router.get(
    "/candidates/{fingerprint}",
    response_model=answers.CandidateDetail,
    responses={**UNCHANGED, **refusals(404, 410)},
)
def candidate(
    request: Request, engine: Reading, known: Tagged, optimization_id: Id, fingerprint: str
) -> answers.CandidateDetail | Response:
    """Show the texts of a candidate; the beginning of its fingerprint is enough."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    return views.candidate_detail(_named(evidence, fingerprint)) if same is None else same


@router.get("/diff", response_model=answers.Diff, responses={**UNCHANGED, **refusals(404, 410)})
def diff(
    request: Request,
    engine: Reading,
    known: Tagged,
    optimization_id: Id,
    from_: Annotated[str | None, Query(alias="from", description="The baseline if not given.")] = None,
    to: Annotated[str | None, Query(description="The chosen candidate if not given.")] = None,
) -> answers.Diff | Response:
    """Show word by word what differs between two candidates."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    if same is not None:
        return same
    baseline, chosen = evidence.ends() if from_ is None or to is None else (None, None)
    before = baseline if from_ is None else _named(evidence, from_)
    after = chosen if to is None else _named(evidence, to)
    if before is None or after is None:
        raise NotFoundError(
            "wanted: two candidates measured on all of val; found: none, or one, so far; possible: wait for the "
            "baseline"
        )
    return views.diff(before, after)


@router.get("/curve", response_model=answers.Curve, responses={**UNCHANGED, **refusals(404, 410)})
def curve(
    request: Request,
    engine: Reading,
    known: Tagged,
    optimization_id: Id,
    points: Annotated[int, Query(ge=10, le=20_000, description="How many points at most.")] = 2_000,
) -> answers.Curve | Response:
    """Show how the score on val rose while calls were paid."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    return views.curve(evidence.rows_curves(), points) if same is None else same


@router.get("/front", response_model=answers.FrontOut, responses={**UNCHANGED, **refusals(404, 410)})
def front(request: Request, engine: Reading, known: Tagged, optimization_id: Id) -> answers.FrontOut | Response:
    """Show who is beaten by nobody on val, how sure that is, and who of them went to the gate."""
    evidence = _opened(request, engine, optimization_id)
    if evidence.result is None:
        raise no_result(evidence.optimization)
    if evidence.result.front is None:
        raise NotFoundError(
            "wanted: the front of an optimization; found: none, it ended before its baseline was measured or an older "
            "engine carried it out; possible: a new optimization"
        )
    same = _unchanged(request, evidence, known)
    return views.front(evidence.result, evidence.result.front) if same is None else same


@router.get("/means", response_model=answers.MeansOut, responses={**UNCHANGED, **refusals(404, 410)})
def means(request: Request, engine: Reading, known: Tagged, optimization_id: Id) -> answers.MeansOut | Response:
    """List everybody measured on all of val with the mean of every objective, also while it runs."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    if same is not None:
        return same
    asked = evidence.optimization.request
    n_val = evidence.store.sizes(asked.dataset)[Split.VAL]
    whole = completions(evidence.store.rows(asked.id), n_val)
    first = next((one.candidate for one in whole if one.algorithm == BASELINE), None)
    shown = [one for one in whole[:-_MOST_MEANS] if one.candidate == first] + list(whole[-_MOST_MEANS:])
    found_means = evidence.store.means(asked.id, [one.candidate for one in shown], n_val)
    return views.means(Objectives(items=asked.objectives), n_val, whole, shown, found_means)


@router.get("/examples", response_model=answers.Page[answers.ExampleOut], responses={**UNCHANGED, **refusals(404, 410)})
def examples(
    request: Request, engine: Reading, known: Tagged, optimization_id: Id, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.ExampleOut] | Response:
    """List val examples that got worse, then those that got better. The test split stays sealed."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    if same is not None:
        return same
    asked = evidence.optimization.request
    baseline, chosen = evidence.ends()
    if baseline is None or chosen is None or baseline == chosen:
        return page_of(list[answers.ExampleOut](), limit, cursor)
    trials = evidence.store.trials_of(asked.id, (baseline.fingerprint, chosen.fingerprint), Split.VAL)
    val = evidence.store.examples(asked.dataset, Split.VAL)
    changes = example_changes(val, trials, baseline, chosen, Objectives(items=asked.objectives).primary)
    page = page_of([*changes.worse, *changes.better], limit, cursor)
    return answers.Page(items=[views.example(one, changes.metric) for one in page.items], next_cursor=page.next_cursor)


@router.get("/lineage", response_model=answers.Lineage, responses={**UNCHANGED, **refusals(404, 410)})
def lineage(request: Request, engine: Reading, known: Tagged, optimization_id: Id) -> answers.Lineage | Response:
    """Show which candidate came from which."""
    evidence = _opened(request, engine, optimization_id)
    same = _unchanged(request, evidence, known)
    if same is not None:
        return same
    asked, result = evidence.optimization.request, evidence.result
    rows = evidence.store.rows(asked.id)
    n_val = evidence.store.sizes(asked.dataset)[Split.VAL]
    curves = row_curves(Objectives(items=asked.objectives), n_val, rows, evidence.store)
    if result is not None:
        baseline, chosen = result.baseline.fingerprint, result.optimized.fingerprint
        return views.lineage(family(rows, curves.scores, chosen), baseline)
    first, leader = (None if one is None else one.candidate for one in (curves.baseline, curves.leader))
    return views.lineage(family(rows, curves.scores, leader), first)


@router.get("/log", response_model=answers.Page[answers.EventOut], responses=refusals(404, 410))
def log(
    request: Request,
    engine: Reading,
    optimization_id: Id,
    after: Annotated[int, Query(ge=0, le=GREATEST_ID, description="Events with a greater id.")] = 0,
    before: Annotated[int | None, Query(ge=0, le=GREATEST_ID, description="Events with a smaller id.")] = None,
    sort: Annotated[Literal["id", "-id"], Query(description="-id: the newest first.")] = "id",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> answers.Page[answers.EventOut]:
    """List what happened, in order; go on with `after` = the last id, or backwards with `before` = the last id."""
    evidence = _opened(request, engine, optimization_id)
    recorded = evidence.store.events(
        evidence.optimization.request.id, after=after, before=before, newest_first=sort == "-id", limit=limit
    )
    return answers.Page(
        items=[
            answers.EventOut(id=one.id, type=one.event.type.value, at=one.event.at, data=dict(one.event.data))
            for one in recorded
        ],
        next_cursor=None,
    )


@router.get("/report", response_class=HTMLResponse, responses={**UNCHANGED, **refusals(404, 410)})
def report_page(request: Request, engine: Reading, known: Tagged, optimization_id: Id) -> Response:
    """Return the report: one page that needs nothing else and runs nothing."""
    evidence = _opened(request, engine, optimization_id)
    tag = evidence.tag(request)
    same = None if tag is None else known.unchanged(tag)
    if same is not None:
        return same
    # What stands still is dated when it came to stand still, so that the same report is the same page.
    made_at = datetime.now(UTC) if tag is None else evidence.optimization.updated_at
    page = html.render(report(gathered(engine.stores, evidence.optimization, evidence.result), made_at))
    tagged = {} if tag is None else headers_of(tag)
    return HTMLResponse(page, headers={"Content-Security-Policy": "sandbox", **tagged})


@router.get(
    "/artifact",
    response_class=Response,
    responses={
        **UNCHANGED,
        200: {**UNCHANGED[200], "description": "A zip archive", "content": {"application/zip": {}}},
        **refusals(404, 410),
    },
)
def artifact(request: Request, engine: Reading, known: Tagged, optimization_id: Id) -> Response:
    """Download the optimized agent (without pickle), the evidence and the report."""
    evidence = _opened(request, engine, optimization_id)
    if evidence.result is None:
        raise no_result(evidence.optimization)
    tag = evidence.tag(request)
    same = None if tag is None else known.unchanged(tag)
    if same is not None:
        return same
    name = f"{evidence.optimization.request.target.id}-{str(optimization_id)[:8]}.zip"
    safe = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "_" for sign in name)
    material = gathered(engine.stores, evidence.optimization, evidence.result)
    return Response(
        zipped(material, serving_of(request).foundation.builder, evidence.result.completed_at),
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{safe}"',
            **({} if tag is None else headers_of(tag)),
        },
    )


def _named(evidence: _Evidence, beginning: str) -> Candidate:
    """Return the one candidate, measured or of the result, whose fingerprint begins so. Raises `NotFoundError`."""
    optimization_id, result = evidence.optimization.request.id, evidence.result
    measured = dict(evidence.store.beginning_with(optimization_id, beginning, 2)) if beginning else {}
    ends = () if result is None or not beginning else (result.baseline, result.optimized)
    named = {one.fingerprint: one for one in ends if one.fingerprint.startswith(beginning)}
    matching = measured.keys() | named.keys()
    if len(matching) != 1:
        some = [name for name, _ in evidence.store.beginning_with(optimization_id, "", _SHOWN)]
        raise NotFoundError(
            f"wanted: a candidate whose fingerprint begins with {beginning!r}; found: "
            f"{'several' if matching else 'none'}; possible: "
            f"{', '.join(name[:12] for name in some) or 'none yet'}"
        )
    (name,) = matching
    if name in named:
        return named[name]
    return evidence.store.candidates([measured[name]])[measured[name]]
