"""Prints what there is: agents, datasets, metrics."""

import json
from collections.abc import Sequence

import typer

from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_to_json
from dspy_optimization.agents.metrics import METRIC_TYPES
from dspy_optimization.agents.untrusted import closest
from dspy_optimization.cli.house import House
from dspy_optimization.errors import NotFoundError
from dspy_optimization.events import Json

_SHORT = 12
_SHOWN = 20


def agent_of(house: House, text: str) -> AgentConfig:
    """Return the newest version of that name, or the one version that begins so.

    Raises:
        NotFoundError: none or several; names some that exist.
    """
    versions = house.engine.stores.agents.versions()
    named = [version for name, version in versions if name == text]
    matching = named[:1] or [version for _, version in versions if text and version.startswith(text)]
    if len(matching) == 1:
        return house.engine.stores.agents.get(matching[0])
    names = list(dict.fromkeys(name for name, _ in versions))
    found = f"{len(matching)} versions that begin so" if matching else "none"
    raise NotFoundError(
        f"wanted: an agent or version {text}; found: {found}{closest(text, names)}; possible: "
        f"{', '.join(names[:_SHOWN]) or 'none yet: dspy-opt optimize keeps the agents it works on'}"
    )


def tell_agents(house: House, *, as_json: bool) -> None:
    """Print every version of every agent."""
    _tell_versions(house.engine.stores.agents.versions(), "agents", as_json=as_json)


def tell_datasets(house: House, *, as_json: bool) -> None:
    """Print every dataset."""
    _tell_versions(house.engine.stores.datasets.versions(), "datasets", as_json=as_json)


def tell_agent(config: AgentConfig) -> None:
    """Print the configuration."""
    typer.echo(json.dumps(agent_to_json(config), indent=2, ensure_ascii=True))


def tell_metrics(*, as_json: bool) -> None:
    """Print the metric types."""
    if as_json:
        told: list[Json] = [
            {"name": one.name, "description": one.description, "options": list(one.options)}
            for one in METRIC_TYPES.values()
        ]
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for one in METRIC_TYPES.values():
        options = f"  options: {', '.join(one.options)}" if one.options else ""
        typer.echo(f"{one.name}: {one.description}{options}")


def _tell_versions(versions: Sequence[tuple[str, str]], noun: str, *, as_json: bool) -> None:
    if as_json:
        for name, version in versions:
            typer.echo(json.dumps({"name": name, "version": version}, ensure_ascii=False))
        return
    for name, version in versions:
        typer.echo(f"{version[:_SHORT]}  {visible(name)}")
    if not versions:
        typer.echo(f"No {noun} yet: dspy-opt optimize keeps the ones it works on.")
