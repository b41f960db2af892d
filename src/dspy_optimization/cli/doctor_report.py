"""`doctor`: the findings, printed as they come."""

import json
from collections.abc import Iterator
from importlib.metadata import requires

import typer

from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.cli.examination import (
    DISTRIBUTION,
    Row,
    State,
    examine_installation,
    examine_models,
    examine_places,
    examine_tracking,
)
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.settings import read_settings

_SIGNS = {State.OK: "✓", State.WARNING: "!", State.FAILED: "✗"}


def tell(*, call: bool, as_json: bool) -> ExitCode:
    """Print every finding and return 1 when one failed."""
    failed = 0
    for row in findings(call=call):
        failed += row.state is State.FAILED
        if as_json:
            told = {"name": row.name, "state": row.state.value, "found": row.found, "fix": row.fix}
            typer.echo(json.dumps(told, ensure_ascii=False))
            continue
        typer.echo(f"{_SIGNS[row.state]} {row.name:<24} {visible(row.found)}")
        if row.fix:
            typer.echo(f"  {'':<24} fix: {row.fix}")
    if not as_json:
        typer.echo("\nEverything works." if not failed else f"\n{failed} failed; the fixes stand beside them.")
    return ExitCode.ERROR if failed else ExitCode.OK


def findings(*, call: bool) -> Iterator[Row]:
    """Look at everything, in the order in which one thing needs the other."""
    yield from examine_installation(requires(DISTRIBUTION) or (), AlgorithmRegistry.of_environment())
    try:
        settings = read_settings()
    except InvalidRequestError as error:
        fix = "mend the environment or the file of DSPY_CONFIG_PATH; the rest was not looked at"
        yield Row(name="settings", state=State.FAILED, found=str(error), fix=fix)
        return
    origin = "the environment" if settings.config_path is None else f"the environment and {settings.config_path}"
    yield Row(name="settings", state=State.OK, found=f"read from {origin}")
    yield from examine_places(settings)
    yield from examine_models(settings, call=call)
    yield examine_tracking(settings)
