"""The commands, put together. What a command needs is imported when it runs: `--help` must not wait for DSPy."""

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dspy_optimization.adapters.interpreter import SHORT_SECONDS
from dspy_optimization.cli.catalog_commands import add_catalog
from dspy_optimization.cli.exits import EXPLAINED, exit_code_of
from dspy_optimization.cli.experiment_commands import experiments_group
from dspy_optimization.cli.optimize_commands import add_optimize
from dspy_optimization.cli.runs_commands import runs_group
from dspy_optimization.cli.serve_commands import add_serve
from dspy_optimization.cli.setup_commands import add_setup
from dspy_optimization.errors import EngineError

_DEBUG = "--debug"


class Commands(TyperGroup):
    """The root command: every error of the engine becomes one message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; `--debug` counts wherever it stands."""
        words = list(sys.argv[1:] if args is None else args)
        if _DEBUG in words:
            words = [_DEBUG, *(word for word in words if word != _DEBUG)]
        try:
            return super().main(
                words, prog_name, complete_var, standalone_mode, windows_expand_args=windows_expand_args, **extra
            )
        except EngineError as error:
            if _DEBUG in words:
                traceback.print_exception(error, file=sys.stderr)
            typer.echo(f"error: {error}", err=True)
            sys.exit(exit_code_of(error))


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("dspy-optimization"))
        raise typer.Exit


def build_app() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        help=(
            "Makes LLM agents measurably better, and proves it on data nobody optimized on.\n\n"
            "The golden path: `dspy-opt init`, look at agent.yaml, `dspy-opt estimate agent.yaml`, "
            "`dspy-opt optimize agent.yaml`, `dspy-opt runs show`. To watch it work first: `dspy-opt demo`."
        ),
        epilog=EXPLAINED,
    )

    @app.callback()
    def _settings(
        debug: Annotated[bool, typer.Option(_DEBUG, help="Show every log line, and where an error came from.")] = False,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the engine logs.")] = False,
        _version: Annotated[
            bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and stop.")
        ] = False,
    ) -> None:
        import logging

        from dspy_optimization.cli.logs import configure_logs

        configure_logs(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)

    add_setup(app)
    add_optimize(app)
    app.add_typer(runs_group(), name="runs")
    app.add_typer(experiments_group(), name="experiments")
    add_catalog(app)
    add_serve(app)
    return app


def main() -> None:
    """Run the command line of this process."""
    if not sys.warnoptions and _DEBUG not in sys.argv:
        # Deprecations inside libraries are nothing a person at a terminal can mend.
        warnings.simplefilter("ignore")
    sys.setswitchinterval(SHORT_SECONDS)
    build_app()()
