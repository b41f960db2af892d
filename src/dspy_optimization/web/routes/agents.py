"""Agents and their versions."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_from_json, agent_to_json
from dspy_optimization.agents.untrusted import checked_json
from dspy_optimization.engine import Engine
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, Running
from dspy_optimization.web.handing_in import kept_agent
from dspy_optimization.web.paging import page_of
from dspy_optimization.web.routes.parameters import Cursor, Limit, Name, refusals

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])
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
def agents(engine: Reading, limit: Limit = 50, cursor: Cursor = None) -> answers.Page[answers.AgentVersion]:
    """List agents with their newest versions."""
    newest = dict(reversed(engine.stores.agents.versions()))
    items = [answers.AgentVersion(name=name, version=version) for name, version in sorted(newest.items())]
    return page_of(items, limit, cursor)


@router.post("", status_code=201, response_model=answers.AgentVersion, responses=refusals(413))
def add(
    engine: Running, config: Annotated[dict[str, Any], Body(openapi_examples={"a predictor": {"value": _EXAMPLE}})]
) -> answers.AgentVersion:
    """Keep an agent; the same content again is the same version."""
    made = agent_from_json(checked_json(config, "agent"), allowed=engine.allowed)
    engine.builder.build(made)
    return answers.AgentVersion(name=made.name, version=engine.stores.agents.add(made))


@router.get("/{name}/versions", response_model=answers.Page[answers.AgentVersion], responses=refusals(404))
def versions(
    engine: Reading, name: Name, limit: Limit = 50, cursor: Cursor = None
) -> answers.Page[answers.AgentVersion]:
    """List the versions of an agent, the newest first."""
    kept_agent(engine, name, None)
    items = [answers.AgentVersion(name=one, version=version) for one, version in engine.stores.agents.versions(name)]
    return page_of(items, limit, cursor)


@router.get("/{name}/versions/{version}", response_model=answers.AgentOut, responses=refusals(404))
def version(engine: Reading, name: Name, version: Name) -> answers.AgentOut:
    """Show a version of an agent; `latest` is the newest."""
    config = kept_agent(engine, name, None if version == "latest" else version)
    return answers.AgentOut(name=config.name, version=config.version, config=agent_to_json(config))


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
