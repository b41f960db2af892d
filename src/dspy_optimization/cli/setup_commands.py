"""`init`, `doctor` and `demo`: the first ten minutes."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


def add_setup(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Examples: `dspy-opt init` · `dspy-opt init my-agent`.")(init)
    app.command(epilog="Examples: `dspy-opt doctor` · `dspy-opt doctor --call` (asks every model once).")(doctor)
    app.command(epilog="Example: `dspy-opt demo`. Needs no key and no server; a few minutes on two cores.")(demo)
    app.command(epilog="Example: `dspy-opt mlflow --port 5000`. Ctrl-C ends.")(mlflow)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made when missing.")] = Path(),
) -> None:
    """Write agent.yaml and examples.jsonl to begin with; they work at once, with the local model."""
    from dspy_optimization.cli.starter import write_starter

    for line in write_starter(folder):
        typer.echo(line)


def doctor(
    call: Annotated[bool, typer.Option("--call", help="Ask every model of the settings one short question.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether everything works here, and say the fix for what does not. Exit code 1 when something fails."""
    from dspy_optimization.cli.doctor_report import tell

    raise typer.Exit(tell(call=call, as_json=as_json))


def demo(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where database and report go; a place of its own if not given.")
    ] = None,
    as_json: AsJson = False,
    display: Annotated[str | None, typer.Option("--display", help="live, plain or none.")] = None,
) -> None:
    """Optimize a real agent with the local model and show the proof. Any honest verdict ends with exit code 0."""
    from dspy_optimization.cli.demonstration import demo_settings, demonstrate
    from dspy_optimization.cli.optimizing import checked_display

    kind = checked_display(display)
    raise typer.Exit(demonstrate(demo_settings(data_dir), kind, as_json=as_json))


def mlflow(port: Annotated[str, typer.Option(metavar="N", help="Where it listens.")] = "5000") -> None:
    """Look at the tracked runs in MLflow's own user interface."""
    from signal import pause

    from dspy_optimization.cli.amounts import whole_number_of
    from dspy_optimization.cli.mlflow_view import view

    raise typer.Exit(view(whole_number_of(port, "--port", low=1, high=65535), pause))
