"""`algorithms`: which there are, registering one's own, comparing them."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
_LIST = "ls"


class ListsByItself(TyperGroup):
    """A group whose `ls` may be left out: `algorithms gepa` is `algorithms ls gepa`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the words with `ls` before those that begin with no command."""
        first = next((word for word in args if not word.startswith("-")), None)
        asks_help = any(word in {"--help", "-h"} for word in args)
        if first not in self.commands and not (first is None and asks_help):
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


def add_algorithms(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        cls=ListsByItself,
        help="Look at the algorithms, register your own, compare them. Without a command: ls.",
        epilog="Examples: `dspy-opt algorithms` · `dspy-opt algorithms add my_search:Mine`.",
    )
    group.command(_LIST, epilog="Examples: `dspy-opt algorithms` · `dspy-opt algorithms gepa`.")(list_algorithms)
    group.command("add", epilog="Example: `dspy-opt algorithms add my_search:Mine`.")(add)
    group.command("rm", epilog="Example: `dspy-opt algorithms rm mine`.")(remove)
    group.command("check", epilog="Example: `dspy-opt algorithms check my_search:Mine`.")(check)
    group.command(
        "compare",
        epilog="Example: `dspy-opt algorithms compare miprov2 mine --tasks agent.yaml --max-calls 500`.",
    )(compare)
    app.add_typer(group, name="algorithms")


def list_algorithms(
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None, as_json: AsJson = False
) -> None:
    """List the algorithms with their options, those you have registered among them."""
    from dspy_optimization.cli.algorithms import tell_algorithms

    tell_algorithms(name, as_json=as_json)


def add(
    entrypoint: Annotated[str, typer.Argument(help="`module:Class`, on the list `allow: algorithms`.")],
    name: Annotated[str | None, typer.Option(help="How to call it; what it calls itself if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check an algorithm in a process of its own and register it. Exit code 2 when it breaks a rule."""
    from dspy_optimization.cli.algorithms import register

    register(entrypoint, name, as_json=as_json)


def remove(name: Annotated[str, typer.Argument(help="Of a registered algorithm.")]) -> None:
    """Forget a registered algorithm."""
    from dspy_optimization.cli.algorithms import forget

    forget(name)


def check(
    entrypoint: Annotated[str, typer.Argument(help="`module:Class`, installed here.")], as_json: AsJson = False
) -> None:
    """Check an algorithm in a process of its own and keep nothing. Exit code 2 when it breaks a rule."""
    from dspy_optimization.cli.algorithms import check_only

    raise typer.Exit(check_only(entrypoint, as_json=as_json))


def compare(
    algorithms: Annotated[list[str], typer.Argument(help="Two or more; the others are compared with the first.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", help="Agent files with their data, one each; if none: `demo`."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Searches of every algorithm on every task.")] = 3,
    max_calls: Annotated[int, typer.Option(min=1, help="Different calls each search may ask for.")] = 300,
    directory: Annotated[
        Path | None, typer.Option(help="Where the comparison keeps its database; a new one, deleted, if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare algorithms on equal terms: same tasks, data, models and calls, proven on sealed examples.

    It has a database of its own: your test splits are not used up, and no algorithm profits from another's answers.
    """
    from dspy_optimization.cli.comparing import compare_algorithms

    compare_algorithms(algorithms, tasks or ["demo"], seeds, max_calls, directory, as_json=as_json)
