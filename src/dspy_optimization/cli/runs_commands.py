"""`runs`: looking at optimizations, and steering them."""

from pathlib import Path
from typing import Annotated

import typer

from dspy_optimization.cli.exits import EXPLAINED

Id = Annotated[str, typer.Argument(help="The id or its beginning; `last` is the newest.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
DisplayName = Annotated[str | None, typer.Option("--display", help="live, plain or none.")]


def runs_group() -> typer.Typer:
    """Return the group."""
    runs = typer.Typer(no_args_is_help=True, help="Look at optimizations, and steer them.")
    runs.command("ls", epilog="Example: `dspy-opt runs ls --count 50`.")(ls)
    runs.command(epilog="Examples: `dspy-opt runs show` (the newest) · `dspy-opt runs show 0199ab --json`.")(show)
    runs.command(epilog="Example: `dspy-opt runs watch last`. Ctrl-C stops watching, not the work.")(watch)
    runs.command(epilog="Example: `dspy-opt runs resume last`. " + EXPLAINED)(resume)
    runs.command(epilog="Example: `dspy-opt runs pause 0199ab`, from any terminal.")(pause)
    runs.command(epilog="Example: `dspy-opt runs cancel 0199ab`, from any terminal.")(cancel)
    runs.command(
        epilog="Example: `dspy-opt runs pick last 3f9a1c`; `runs show` lists who is on the front. " + EXPLAINED
    )(pick)
    runs.command(epilog="Examples: `dspy-opt runs diff last` · `dspy-opt runs diff 0199ab 0199ac`.")(diff)
    runs.command(epilog="Example: `dspy-opt runs export last --to exported/`.")(export)
    runs.command(epilog="Example: `dspy-opt runs report last --path report.html`.")(report)
    return runs


def ls(
    count: Annotated[str, typer.Option(metavar="N", help="How many, newest first.")] = "20",
    as_json: AsJson = False,
) -> None:
    """List the newest optimizations."""
    from dspy_optimization.cli.amounts import whole_number_of
    from dspy_optimization.cli.house import opened
    from dspy_optimization.cli.looking import list_runs

    most = whole_number_of(count, "--count", low=1, high=10_000)
    with opened() as house:
        list_runs(house, most, as_json=as_json)


def show(run: Id = "last", as_json: AsJson = False) -> None:
    """Show where an optimization stands, or what it came to."""
    from dspy_optimization.cli.ending import Wishes, conclude
    from dspy_optimization.cli.house import found, opened

    with opened() as house:
        conclude(house, found(house.engine.stores.optimizations, run), Wishes(as_json=as_json))


def watch(run: Id = "last", as_json: AsJson = False, display: DisplayName = None) -> None:
    """Follow an optimization that another process carries out, until it ends or pauses."""
    from dspy_optimization.cli.house import found, opened
    from dspy_optimization.cli.looking import watch_run
    from dspy_optimization.cli.optimizing import checked_display

    kind = checked_display(display)
    with opened() as house:
        raise typer.Exit(watch_run(house, found(house.engine.stores.optimizations, run), kind, as_json=as_json))


def resume(
    run: Id = "last",
    fail_under: Annotated[str | None, typer.Option(metavar="X", help="As for `optimize`.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the HTML report there.")] = None,
    as_json: AsJson = False,
    display: DisplayName = None,
) -> None:
    """Go on with an optimization that was paused, failed, or whose process died. Nothing is paid twice."""
    from dspy_optimization.cli.house import found, opened
    from dspy_optimization.cli.optimizing import checked_display, checked_wishes, go_on

    kind = checked_display(display)
    wishes = checked_wishes(fail_under, report, as_json=as_json)
    with opened() as house:
        raise typer.Exit(go_on(house, found(house.engine.stores.optimizations, run), kind, wishes))


def pick(
    run: Id,
    candidate: Annotated[str, typer.Argument(help="Its fingerprint, or the beginning of it.", show_default=False)],
    fail_under: Annotated[str | None, typer.Option(metavar="X", help="As for `optimize`.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the HTML report there.")] = None,
    as_json: AsJson = False,
    display: DisplayName = None,
) -> None:
    """Take another candidate of an ended optimization to the gate: the next use of the test split."""
    from dspy_optimization.cli.house import found, opened
    from dspy_optimization.cli.optimizing import checked_display, checked_wishes
    from dspy_optimization.cli.picking import start_pick

    kind = checked_display(display)
    wishes = checked_wishes(fail_under, report, as_json=as_json)
    with opened() as house:
        raise typer.Exit(start_pick(house, found(house.engine.stores.optimizations, run), candidate, kind, wishes))


def pause(run: Id) -> None:
    """Ask the process that works on it to pause; `runs resume` goes on."""
    from dspy_optimization.cli.house import found, opened
    from dspy_optimization.cli.looking import tell_asked

    with opened() as house:
        tell_asked(house.engine.steering.pause(found(house.engine.stores.optimizations, run).request.id), "pause")


def cancel(run: Id) -> None:
    """End it for good; the best so far is kept where a process works on it."""
    from dspy_optimization.cli.house import found, opened
    from dspy_optimization.cli.looking import tell_asked

    with opened() as house:
        tell_asked(house.engine.steering.cancel(found(house.engine.stores.optimizations, run).request.id), "cancel")


def diff(
    run: Id = "last",
    other: Annotated[str | None, typer.Argument(help="Another one: compare the two results.")] = None,
) -> None:
    """Show word by word what changed: from the baseline to the result, or from one result to another."""
    from dspy_optimization.cli.house import found, opened
    from dspy_optimization.cli.looking import show_changes

    with opened() as house:
        store = house.engine.stores.optimizations
        show_changes(house, found(store, run), None if other is None else found(store, other))


def export(
    run: Id = "last",
    to: Annotated[Path | None, typer.Option(help="A new folder; named after agent and id if not given.")] = None,
) -> None:
    """Write the result into a folder: how to use it, the agent (also as DSPy state, no pickle), evidence, report."""
    from dspy_optimization.cli.exporting import export_run
    from dspy_optimization.cli.house import found, opened

    with opened() as house:
        folder = export_run(house, found(house.engine.stores.optimizations, run), to)
        typer.echo(f"Written: {folder}\nHow to use it, with and without the engine: {folder / 'README.md'}")


def report(
    run: Id = "last",
    path: Annotated[Path | None, typer.Option(help="The file; named after agent and id if not given.")] = None,
) -> None:
    """Write the HTML report: one file that needs nothing else."""
    from dspy_optimization.cli.exporting import write_report
    from dspy_optimization.cli.house import found, opened

    with opened() as house:
        typer.echo(f"Written: {write_report(house, found(house.engine.stores.optimizations, run), path)}")
