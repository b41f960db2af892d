"""Experiments: two versions of an agent on live traffic, side by side."""

import logging
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.agents.untrusted import checked_json
from dspy_optimization.engine import Engine
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.forecast import checked_traffic, forecast, forecast_of
from dspy_optimization.experiments.plan import PrimaryMetric
from dspy_optimization.experiments.proposal import USUAL_MDE, ExperimentProposal
from dspy_optimization.experiments.split import Variant, experiment_split
from dspy_optimization.web.access import Reading, Running, principal_of, serving_of
from dspy_optimization.web.answers import Page
from dspy_optimization.web.bodies import KeyFirst, TakesAgent
from dspy_optimization.web.experiment_schemas import (
    PATH,
    ExperimentDetail,
    ExperimentIn,
    ExperimentOut,
    ExperimentStarted,
    ExtendIn,
    LogOut,
    PlanIn,
    PlannedOut,
    SplitIn,
    StopIn,
    experiment_detail,
    experiment_out,
    experiment_started,
    forecast_out,
    metric_of,
    plan_out,
    proposal_of,
    terms_of,
    window_of,
)
from dspy_optimization.web.paging import cursor_of, number_of
from dspy_optimization.web.routes.parameters import Cursor, Limit, found, refusals
from dspy_optimization.web.schemas import JsonObject

router = APIRouter(prefix=PATH, tags=["experiments"], route_class=KeyFirst)
logger = logging.getLogger(__name__)
Id = Annotated[UUID, Path(description="The id of an experiment.")]
# Where a program goes from an experiment that was started.
LINKS = {
    name: {"operationId": f"experiments_{operation}", "parameters": {"experiment_id": "$response.body#/experiment_id"}}
    for name, operation in (
        ("experiment", "experiment"),
        ("log", "log"),
        ("extend", "extend"),
        ("split", "raise_split"),
        ("stop", "stop"),
    )
}


@router.post(
    "",
    status_code=201,
    dependencies=[TakesAgent],
    response_model=ExperimentStarted,
    responses={201: {"description": "It takes units in from now on", "links": LINKS}, **refusals(404, 409, 410, 413)},
)
def start(request: Request, response: Response, engine: Running, body: ExperimentIn) -> ExperimentStarted:
    """Start an experiment on the result of an optimization whose verdict is `improved`; one an agent at a time."""
    if body.units_per_day is not None:
        checked_traffic(body.units_per_day)
    made = engine.conductor.start(_proposal(request, engine, body, body.optimization_id))
    predicted = forecast_of(made.plan, units_per_day=body.units_per_day)
    _note(request, "Experiment started", "experiment_started", made.plan.experiment_id)
    response.headers["Location"] = f"{PATH}/{made.plan.experiment_id}"
    return experiment_started(made, predicted)


@router.post("/plan", dependencies=[TakesAgent], response_model=PlannedOut, responses=refusals(404, 410, 413))
def plan(request: Request, engine: Running, body: PlanIn) -> PlannedOut:
    """Say what an experiment could find: units needed, differences seen in seven days. Nothing is started."""
    if body.optimization_id is not None:
        planned = engine.conductor.planned(_proposal(request, engine, body, body.optimization_id))
        return PlannedOut(
            plan=plan_out(planned), forecast=forecast_out(forecast_of(planned, units_per_day=body.units_per_day))
        )
    given = metric_of(body.primary)
    primary = PrimaryMetric(
        metric="score" if given.metric is None else given.metric,
        mde=USUAL_MDE if given.mde is None else given.mde,
        expected=0.5 if given.expected is None else given.expected,
        unit_rule=given.unit_rule,
        missing=given.missing,
    )
    terms = terms_of(body.terms, serving_of(request).settings.significance_threshold)
    reckoned = forecast(
        primary,
        experiment_split(body.traffic_split),
        terms.alpha,
        window=window_of(body.window),
        units_per_day=body.units_per_day,
    )
    return PlannedOut(plan=None, forecast=forecast_out(reckoned))


@router.get("", response_model=Page[ExperimentOut], responses=refusals())
def experiments(engine: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[ExperimentOut]:
    """List experiments, the newest first."""
    begin = min(number_of(cursor), _MOST_LISTED)
    kept = engine.conductor.kept.experiments.newest(begin + limit + 1)[begin:]
    return Page(
        items=[experiment_out(one) for one in kept[:limit]],
        next_cursor=cursor_of(begin + limit) if len(kept) > limit else None,
    )


# No other text: `/plan` is an address of its own, and takes no GET.
@router.get("/{experiment_id:uuid}", response_model=ExperimentDetail, responses=refusals(404))
def experiment(engine: Reading, experiment_id: Id) -> ExperimentDetail:
    """Show an experiment with the evidence of its newest look."""
    return experiment_detail(engine.conductor.shown(ExperimentId(experiment_id)))


@router.get("/{experiment_id}/log", response_model=LogOut, responses=refusals(404))
def log(engine: Reading, experiment_id: Id) -> LogOut:
    """Count what was recorded, and what of it does not count; reads all of it."""
    kept = engine.conductor.kept
    one = kept.experiments.get(ExperimentId(experiment_id))
    return LogOut.model_validate(kept.analyses.counts(one.plan.experiment_id).to_json())


@router.post("/{experiment_id}/stop", response_model=ExperimentOut, responses=refusals(404, 409))
def stop(request: Request, engine: Running, experiment_id: Id, body: StopIn) -> ExperimentOut:
    """End it: everybody gets the baseline, its newest decision is its last, its result is published."""
    ended = engine.conductor.stop(ExperimentId(experiment_id), f"{principal_of(request).name}: {body.because}"[:1_000])
    _note(request, "Experiment stopped", "experiment_stopped", ended.plan.experiment_id)
    return experiment_out(ended)


@router.post("/{experiment_id}/extend", response_model=ExperimentOut, responses=refusals(404, 409))
def extend(request: Request, engine: Running, experiment_id: Id, body: ExtendIn) -> ExperimentOut:
    """Give it more time, within the longest time of its plan; free of statistical cost."""
    extended = engine.conductor.extend(ExperimentId(experiment_id), body.until_hours)
    _note(request, "Experiment extended", "experiment_extended", extended.plan.experiment_id)
    return experiment_out(extended)


@router.post("/{experiment_id}/split", response_model=ExperimentOut, responses=refusals(404, 409))
def raise_split(request: Request, engine: Running, experiment_id: Id, body: SplitIn) -> ExperimentOut:
    """Give the optimized version more traffic; units that were served keep what they had."""
    raised = engine.conductor.raise_split(ExperimentId(experiment_id), body.traffic_split)
    _note(request, "Split raised", "experiment_split_raised", raised.plan.experiment_id)
    return experiment_out(raised)


_MOST_LISTED = 1_000_000
"""A cursor that no answer gave must not ask for more."""


def _proposal(request: Request, engine: Engine, body: PlanIn, optimization_id: UUID) -> ExperimentProposal:
    optimization = found(request, engine, optimization_id)
    given = {Variant.BASELINE: body.baseline_config, Variant.OPTIMIZED: body.optimized_config}
    configured = {variant: config for variant, config in given.items() if config is not None}
    versions: dict[Variant, Fingerprint] = {}
    if configured:
        agent = engine.stores.agents.get(optimization.request.target.version).name
        versions = {variant: _version(engine, agent, variant, config) for variant, config in configured.items()}
    return proposal_of(body, optimization.request.id, versions, serving_of(request).settings.significance_threshold)


def _version(engine: Engine, agent: str, variant: Variant, given: str | JsonObject) -> Fingerprint:
    """Return the version that a configuration is; one that names no agent is of this one."""
    if isinstance(given, str):
        return Fingerprint(given)
    where = f"{variant.value}_config"
    plain = checked_json(given, where)
    named = {"name": agent, **plain} if isinstance(plain, dict) else plain
    return agent_from_json(named, allowed=engine.allowed, where=where).version


def _note(request: Request, what: str, action: str, experiment_id: ExperimentId) -> None:
    facts = {"experiment": str(experiment_id), "by": principal_of(request).name}
    logger.info(what, extra={"action": action, **facts})
