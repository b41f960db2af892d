import subprocess
import sys

import pytest

from cli_world import CliWorld, said
from dspy_optimization.cli.exits import ExitCode, exit_code_of
from dspy_optimization.errors import (
    ConflictError,
    EngineError,
    InvalidRequestError,
    ModelAuthError,
    NotFoundError,
    StoreError,
)

HEAVY = ("dspy", "litellm", "mlflow", "scipy", "numpy", "sqlalchemy", "pandas", "gepa", "jinja2")
COMMANDS = (
    (), ("init",), ("doctor",), ("demo",), ("mlflow",), ("optimize",), ("estimate",), ("algorithms",),
    *(("algorithms", one) for one in ("ls", "add", "rm", "check", "compare")), ("metrics",),
    ("runs",), ("runs", "ls"), ("runs", "show"), ("runs", "watch"), ("runs", "resume"), ("runs", "pause"),
    ("runs", "cancel"), ("runs", "diff"), ("runs", "export"), ("runs", "report"), ("agents",), ("agents", "ls"),
    ("agents", "show"), ("agents", "export"), ("datasets",), ("datasets", "check"), ("datasets", "ls"),
)  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    """`--help` answers at once: what a command needs is imported when it runs."""
    script = (
        "import sys\n"
        "from dspy_optimization.cli.command_line import build_app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(build_app(), ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(build_app(), ['optimize', '--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "[]" == found.stdout.strip(), found.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(world: CliWorld, words: tuple[str, ...]) -> None:
    """Every command has a help text, and every leaf an example."""
    result = world.run(*words, "--help")

    assert 0 == result.exit_code
    leaf = words not in ((), ("runs",), ("agents",), ("datasets",))
    assert leaf == ("Example" in result.stdout)


def test_the_version_is_said_without_a_command(world: CliWorld) -> None:
    """`--version` is a line for scripts."""
    result = world.run("--version")

    assert (0, 1) == (result.exit_code, len(result.stdout.splitlines()))


def test_an_error_is_a_message_and_with_debug_a_place(world: CliWorld) -> None:
    """`--debug` counts wherever it stands."""
    plain = world.run("optimize", "missing.yaml")
    debug = world.run("optimize", "missing.yaml", "--debug")

    assert (2, "error: missing.yaml: a readable file is wanted") == (plain.exit_code, plain.stderr[:46])
    assert "Traceback" not in plain.output
    assert (2, True) == (debug.exit_code, "Traceback" in debug.stderr)


def test_a_misspelt_command_is_guessed(world: CliWorld) -> None:
    """Usage errors are code 2."""
    result = world.run("optimise")

    assert (2, True) == (result.exit_code, "Did you mean 'optimize'" in said(result)), said(result)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequestError("x"), ExitCode.WRONG_INPUT),
        (NotFoundError("x"), ExitCode.WRONG_INPUT),
        (ConflictError("x"), ExitCode.ERROR),
        (StoreError("x"), ExitCode.ERROR),
        (ModelAuthError("x"), ExitCode.REFUSED_KEY),
        (EngineError("x"), ExitCode.ERROR),
    ],
)
def test_what_the_caller_can_mend_is_code_2(error: EngineError, code: ExitCode) -> None:
    """Everything else is 1, a refused key 5."""
    assert code is exit_code_of(error)
