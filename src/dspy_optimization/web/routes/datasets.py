"""Datasets: kept once, split once, the test split sealed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from dspy_optimization.adapters.postgres.register_store import DatasetEntry, PostgresRegister
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.agents.objective_loading import objectives_from_json
from dspy_optimization.agents.untrusted import checked_json
from dspy_optimization.engine import Engine
from dspy_optimization.errors import NotFoundError
from dspy_optimization.optimization.proposing import with_implied
from dspy_optimization.web import answers
from dspy_optimization.web.access import Reading, Running, serving_of
from dspy_optimization.web.bodies import KeyFirst, TakesExamples
from dspy_optimization.web.etags import UNCHANGED, Tagged, tag_of_content
from dspy_optimization.web.handing_in import agent_of, dataset_of, kept_agent
from dspy_optimization.web.paging import cursor_of, number_of, page_of
from dspy_optimization.web.routes.parameters import Cursor, Limit, Name, refusals
from dspy_optimization.web.schemas import DatasetCheck, DatasetNew

router = APIRouter(prefix="/api/v1/datasets", tags=["datasets"], route_class=KeyFirst)


@router.get("", response_model=answers.Page[answers.DatasetOut], responses=refusals())
def datasets(
    request: Request, engine: Reading, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.DatasetOut]:
    """List datasets, the newest first."""
    before = None if cursor is None else number_of(cursor)
    found = _register(request, engine).datasets(before=before, limit=limit + 1)
    return answers.Page(
        items=[_told(one) for one in found[:limit]],
        next_cursor=cursor_of(found[limit - 1].position) if len(found) > limit else None,
    )


@router.post(
    "", status_code=201, dependencies=[TakesExamples], response_model=answers.DatasetOut, responses=refusals(404, 413)
)
def add(request: Request, engine: Running, body: DatasetNew) -> answers.DatasetOut:
    """Keep a dataset, split by cluster and seed; the same content again is the same dataset."""
    version = engine.stores.datasets.add(dataset_of(engine, body, _agent(engine, body)))
    return _kept(request, engine, version)


@router.post("/check", dependencies=[TakesExamples], response_model=answers.ReportOut, responses=refusals(404, 413))
def check(engine: Running, body: DatasetCheck) -> answers.ReportOut:
    """Say what a dataset can prove for an agent: leaks, sizes, the smallest gain it would show. Nothing is kept.

    Of a dataset that is kept no example in test is quoted: it is named by its id.
    """
    agent = agent_of(engine, body.target)
    dataset = dataset_of(engine, body.dataset, agent)
    wanted = [one.model_dump(exclude_none=True) for one in body.objectives]
    metrics = engine.intake.metrics(with_implied((), wanted))
    found = engine.intake.report(
        dataset, agent, objectives_from_json(wanted, metrics), sealed=body.dataset.id is not None
    )
    return answers.ReportOut(
        usable=found.usable,
        sentence=found.sentence,
        findings=[
            answers.FindingOut(
                severity=one.severity.value, code=one.code, message=one.message, examples=list(one.examples)
            )
            for one in found.findings
        ],
        n_train=found.n_train,
        n_val=found.n_val,
        n_test=found.n_test,
        detectable_gain=found.detectable_gain,
    )


@router.get("/{dataset_id}", response_model=answers.DatasetOut, responses={**UNCHANGED, **refusals(404)})
def dataset(request: Request, engine: Reading, known: Tagged, dataset_id: Name) -> answers.DatasetOut | Response:
    """Show a dataset."""
    found = _kept(request, engine, DatasetVersion(dataset_id))
    return known.unchanged(tag_of_content(found)) or found


@router.get("/{dataset_id}/examples", response_model=answers.Page[answers.DatasetExample], responses=refusals(404))
def examples(
    engine: Reading,
    dataset_id: Name,
    split: Annotated[Literal["train", "val"], Query(description="The test split is sealed.")] = "train",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> answers.Page[answers.DatasetExample]:
    """List the examples of a split; those of test are shown to nobody."""
    found = engine.stores.datasets.get(DatasetVersion(dataset_id))[Split(split)]
    items = [
        answers.DatasetExample(
            id=one.id, split=split, inputs=dict(one.inputs), expected=dict(one.expected), cluster=one.cluster
        )
        for one in found
    ]
    return page_of(items, limit, cursor)


def _agent(engine: Engine, body: DatasetNew) -> AgentConfig | None:
    if body.agent is None:
        return None
    if isinstance(body.agent, str):
        return kept_agent(engine, body.agent, None)
    return agent_from_json(checked_json(body.agent, "agent"), allowed=engine.allowed)


def _register(request: Request, engine: Engine) -> PostgresRegister:
    return PostgresRegister(serving_of(request).foundation.database, engine.steering.tenant)


def _kept(request: Request, engine: Engine, version: DatasetVersion) -> answers.DatasetOut:
    found = _register(request, engine).dataset(version)
    if found is None:
        engine.stores.datasets.get(version)  # says which ones there are
        raise NotFoundError(f"wanted: dataset version {version}; found: no such version; possible: ask again")
    return _told(found)


def _told(entry: DatasetEntry) -> answers.DatasetOut:
    return answers.DatasetOut(
        id=entry.version,
        name=entry.name,
        seed=entry.seed,
        n_train=entry.sizes[Split.TRAIN],
        n_val=entry.sizes[Split.VAL],
        n_test=entry.sizes[Split.TEST],
        created_at=entry.created_at,
    )
