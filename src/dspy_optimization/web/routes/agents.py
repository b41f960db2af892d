"""Agents and their versions."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response

from dspy_optimization.adapters.postgres.register_store import AgentEntry, PostgresRegister
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_from_json, agent_to_json
from dspy_optimization.agents.untrusted import checked_json
from dspy_optimization.engine import Engine
from dspy_optimization.errors import NotFoundError
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, Running, serving_of
from dspy_optimization.web.bodies import KeyFirst, TakesAgent
from dspy_optimization.web.etags import UNCHANGED, Tagged, tag_of_content
from dspy_optimization.web.handing_in import kept_agent
from dspy_optimization.web.paging import cursor_of, number_of, place_of, unknown_cursor
from dspy_optimization.web.routes.parameters import Cursor, Limit, Name, refusals

router = APIRouter(prefix="/api/v1/agents", tags=["agents"], route_class=KeyFirst)
_EXAMPLE = {
    "name": "orders",
    "kind": "predict",
    "signature": {
        "instructions": "Which order is the message about?",
        "inputs": [{"name": "message"}],
        "outputs": [{"name": "order"}],
    },
}


@router.get("", response_model=answers.Page[answers.AgentVersion], responses=refusals())
def agents(
    request: Request, engine: Reading, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.AgentVersion]:
    """List agents with their newest versions."""
    after = "" if cursor is None else place_of(cursor)
    if not isinstance(after, str):
        raise unknown_cursor()
    found = _register(request, engine).agents(after=after, limit=limit + 1)
    return answers.Page(
        items=[_told(one) for one in found[:limit]],
        next_cursor=cursor_of(found[limit - 1].name) if len(found) > limit else None,
    )


@router.post(
    "", status_code=201, dependencies=[TakesAgent], response_model=answers.AgentVersion, responses=refusals(413)
)
def add(
    request: Request,
    engine: Running,
    config: Annotated[dict[str, Any], Body(openapi_examples={"a predictor": {"value": _EXAMPLE}})],
) -> answers.AgentVersion:
    """Keep an agent; the same content again is the same version."""
    made = agent_from_json(checked_json(config, "agent"), allowed=engine.allowed)
    engine.builder.build(made)
    return _told(_entry(request, engine, engine.stores.agents.add(made)))


@router.get("/{name}/versions", response_model=answers.Page[answers.AgentVersion], responses=refusals(404))
def versions(
    request: Request, engine: Reading, name: Name, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.AgentVersion]:
    """List the versions of an agent, the newest first."""
    before = None if cursor is None else number_of(cursor)
    found = _register(request, engine).versions(name, before=before, limit=limit + 1)
    if not found:
        kept_agent(engine, name, None)  # says which ones there are
    return answers.Page(
        items=[_told(one) for one in found[:limit]],
        next_cursor=cursor_of(found[limit - 1].position) if len(found) > limit else None,
    )


@router.get("/{name}/versions/{version}", response_model=answers.AgentOut, responses={**UNCHANGED, **refusals(404)})
def version(request: Request, engine: Reading, known: Tagged, name: Name, version: Name) -> answers.AgentOut | Response:
    """Show a version of an agent; `latest` is the newest."""
    config = kept_agent(engine, name, None if version == "latest" else version)
    entry = _entry(request, engine, config.version)
    found = answers.AgentOut(**_told(entry).model_dump(), config=agent_to_json(config))
    return known.unchanged(tag_of_content(found)) or found


@router.get("/{name}/diff", response_model=answers.Diff, responses=refusals(404))
def diff(
    engine: Reading,
    name: Name,
    from_: Annotated[str, Query(alias="from", max_length=200)],
    to: Annotated[str | None, Query(max_length=200, description="The newest version if not given.")] = None,
) -> answers.Diff:
    """Show word by word what differs between two versions of an agent."""
    before, after = kept_agent(engine, name, from_), kept_agent(engine, name, to)
    return views.diff(_candidate(engine, before), _candidate(engine, after))


def _candidate(engine: Engine, config: AgentConfig) -> Candidate:
    return engine.builder.build(config).baseline


def _register(request: Request, engine: Engine) -> PostgresRegister:
    return PostgresRegister(serving_of(request).foundation.database, engine.steering.tenant)


def _entry(request: Request, engine: Engine, version: Fingerprint) -> AgentEntry:
    found = _register(request, engine).agent(version)
    if found is None:
        raise NotFoundError(f"wanted: agent version {version}; found: no such version; possible: ask again")
    return found


def _told(entry: AgentEntry) -> answers.AgentVersion:
    return answers.AgentVersion(name=entry.name, version=entry.version, created_at=entry.created_at)
