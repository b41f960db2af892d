"""Looking at optimizations: lists, following, differences."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.text import Text

from dspy_optimization.adapters.export import no_result
from dspy_optimization.adapters.report.numbers import count, duration, signed
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.adapters.report.word_changes import ComponentChange, Edit, component_changes
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.cli.displays import DisplayKind, open_display
from dspy_optimization.cli.ending import Wishes, conclude
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.cli.following import LOOK_SECONDS, Follower
from dspy_optimization.cli.house import House, short_id
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import AWAITED, Optimization
from dspy_optimization.optimization.steering import Asked

_COLUMNS = ("id", "agent", "status", "verdict", "gain", "calls", "time", "started")
_TO_THE_RIGHT = {"gain", "calls", "time"}
_STYLES = {Edit.ADDED: "green", Edit.REMOVED: "red strike", Edit.KEPT: ""}


def list_runs(house: House, most: int, *, as_json: bool) -> None:
    """Print the newest optimizations."""
    newest = house.engine.stores.optimizations.newest(most)
    if as_json:
        for one in newest:
            typer.echo(json.dumps(_row(house, one), ensure_ascii=False))
        return
    if not newest:
        typer.echo("No optimizations yet. Start one: dspy-opt optimize agent.yaml")
        return
    rows = [_COLUMNS, *(_cells(house, one) for one in newest)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    for row in rows:
        cells = (
            cell.rjust(width) if name in _TO_THE_RIGHT else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        )
        typer.echo("  ".join(cells).rstrip())


def watch_run(house: House, optimization: Optimization, kind: DisplayKind | None, *, as_json: bool) -> ExitCode:
    """Show what happens until it ends or pauses, then conclude."""
    display = open_display(kind, as_json=as_json)
    follower = Follower(house.engine.stores, optimization.request.id, display, lambda: datetime.now(UTC))
    try:
        while True:
            view = follower.look()
            if view is not None and view.optimization.status not in AWAITED:
                break
            time.sleep(LOOK_SECONDS)
    finally:
        display.end()
    return conclude(house, view.optimization, Wishes(as_json=as_json))


def show_changes(house: House, run: Optimization, other: Optimization | None) -> None:
    """Print what changed, word by word and demo by demo."""
    before, after = (
        (_baseline(house, run), _result(house, run))
        if other is None
        else (
            _result(house, run),
            _result(house, other),
        )
    )
    changes = [one for one in component_changes(before, after, frozenset()) if one.changed]
    if not changes:
        typer.echo("Nothing differs.")
        return
    console = Console()
    for change in changes:
        for line in _change_lines(change):
            console.print(line, highlight=False, soft_wrap=True)


def tell_asked(asked: Asked, verb: str) -> None:
    """Print what became of asking an optimization to pause or to end."""
    optimization = asked.optimization
    if asked.is_done:
        typer.echo(f"{optimization.request.id} is {optimization.status.value}; no process was working on it.")
    else:
        typer.echo(f"Asked {optimization.request.id} to {verb}; it does so after the calls in flight.")


def _cells(house: House, optimization: Optimization) -> tuple[str, ...]:
    row = _row(house, optimization)
    difference, status = row["difference"], optimization.status
    return (
        short_id(house.engine.stores.optimizations, optimization.request.id),
        visible(optimization.request.target.id),
        f"{status.value} {optimization.progress:.0%}" if status in AWAITED else status.value,
        str(row["verdict"] or "–"),
        signed(difference) if isinstance(difference, float) else "–",
        f"{row['lm_calls']:,}",
        duration(optimization.elapsed_seconds),
        f"{optimization.request.created_at.astimezone():%Y-%m-%d %H:%M}",
    )


def _row(house: House, optimization: Optimization) -> dict[str, Json]:
    result = house.engine.stores.results.result(optimization.request.id)
    validated = result.validated if result is not None else None
    primary = validated.objectives[validated.primary] if validated is not None else None
    bill = result.bill if result is not None else house.engine.stores.ledger.bill(optimization.request.id)
    return {
        "optimization_id": str(optimization.request.id),
        "agent": optimization.request.target.id,
        "status": optimization.status.value,
        "progress": optimization.progress,
        "verdict": validated.verdict.value if validated is not None else None,
        "difference": primary.difference.value if primary is not None else None,
        "lm_calls": bill.total.calls,
        "cost_usd": bill.total.cost_usd,
        "elapsed_seconds": optimization.elapsed_seconds,
        "created_at": optimization.request.created_at.isoformat(),
        "error": optimization.error,
    }


def _baseline(house: House, run: Optimization) -> Candidate:
    result = house.engine.stores.results.result(run.request.id)
    return result.baseline if result is not None else _result(house, run)


def _result(house: House, run: Optimization) -> Candidate:
    result = house.engine.stores.results.result(run.request.id)
    if result is None:
        raise no_result(run)
    return result.optimized


def _change_lines(change: ComponentChange) -> Sequence[Text]:
    lines = [Text(f"── {visible(change.component)} ──", style="bold")]
    if change.instructions_changed:
        words = Text()
        for piece in change.words:
            said = visible(piece.text)
            # Marked by signs too: colours do not survive a pipe, and not everybody sees them.
            marked = {Edit.ADDED: f"{{+{said}+}}", Edit.REMOVED: f"[-{said}-]", Edit.KEPT: said}[piece.edit]
            words.append(marked, style=_STYLES[piece.edit])
        lines.append(words)
    for sign, demos, style in (("+", change.demos_added, "green"), ("-", change.demos_removed, "red")):
        for demo in demos:
            said = " · ".join(f"{visible(key)}: {visible(str(value))}" for key, value in demo.items())
            lines.append(Text(f"{sign} demo  {said}", style=style))
    if change.demos_kept:
        lines.append(Text(f"  {count(change.demos_kept, 'demo')} kept", style="dim"))
    if change.demos_reordered:
        lines.append(Text("  the same demos in another order", style="dim"))
    lines += [Text(f"~ {visible(setting.words)}") for setting in change.settings]
    return lines
