"""`serve` and `keys`: the engine as a service, and who may use it."""

from typing import Annotated

import typer

Tenant = Annotated[str, typer.Option(metavar="NAME", help="Whose data; `local` is the one without keys.")]


def add_serve(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(
        epilog="Examples: `dspy-opt serve` (everything in one process) · `DATABASE_URL=… dspy-opt serve --role worker`."
    )(serve)
    keys = typer.Typer(no_args_is_help=True, help="API keys: who may use the service.")
    keys.command(epilog="Example: `dspy-opt keys create --tenant acme --role researcher --name ci`.")(create)
    keys.command("ls", epilog="Example: `dspy-opt keys ls`.")(list_keys)
    keys.command(epilog="Example: `dspy-opt keys revoke 0123456789ab`.")(revoke)
    app.add_typer(keys, name="keys")


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where it listens.")] = "127.0.0.1",
    port: Annotated[str, typer.Option(metavar="N", help="0: any that is free.")] = "8004",
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="all, api (requests only) or worker (optimizations only).")
    ] = "all",
    log: Annotated[
        str | None, typer.Option(metavar="FORM", help="json or text; text on a terminal if not given.")
    ] = None,
) -> None:
    """Run the service: REST, WebSocket, dashboard and durable jobs."""
    from dspy_optimization.cli.amounts import whole_number_of
    from dspy_optimization.cli.service import log_to, run_service

    log_to(log)
    run_service(host, whole_number_of(port, "--port", low=0, high=65_535), role)


def create(
    tenant: Tenant = "local",
    role: Annotated[str, typer.Option(metavar="ROLE", help="viewer, researcher or administrator.")] = "researcher",
    name: Annotated[str, typer.Option(metavar="TEXT", help="For people: what it is for.")] = "key",
    days: Annotated[str | None, typer.Option(metavar="N", help="How long it is valid; for ever if not given.")] = None,
) -> None:
    """Make a key and print it, once: nobody can be shown it again."""
    from dspy_optimization.cli.amounts import number_of
    from dspy_optimization.cli.service import create_key

    typer.echo(create_key(tenant, role, name, None if days is None else number_of(days, "--days", above=0.0)))


def list_keys(as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False) -> None:
    """List keys; not the keys themselves, which nobody knows."""
    from dspy_optimization.cli.service import tell_keys

    tell_keys(as_json=as_json)


def revoke(key: Annotated[str, typer.Argument(help="The id that `keys ls` shows.", show_default=False)]) -> None:
    """End a key at once."""
    from dspy_optimization.cli.service import revoke_key

    revoke_key(key)
    typer.echo(f"{key} is revoked.")
