"""`mlflow`: the tracked runs in MLflow's own user interface."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, distribution, version

import typer

from dspy_optimization.adapters.mlflow_tracking import DATABASE
from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.adapters.postgres.neighbour import database_beside
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.settings import read_settings

_BACKEND = "MLFLOW_BACKEND_STORE_URI"


def view(port: int, wait: Callable[[], None]) -> int:
    """Serve MLflow's interface until Ctrl-C and return its exit code.

    The embedded database runs only while somebody uses it, so it is held meanwhile. Without the full `mlflow` package
    the database is held for an MLflow that is installed elsewhere.

    Args:
        port: of the interface.
        wait: returns, or is interrupted, when the database need not be held any more.
    """
    settings = read_settings()
    if settings.mlflow_tracking_uri is not None:
        raise InvalidRequestError(
            "wanted: runs in the engine's own database; found: MLFLOW_TRACKING_URI is set, so the runs are there; "
            "possible: open that server in a browser"
        )
    with ExitStack() as held:
        url = settings.database_url
        if url is None:
            url = held.enter_context(EmbeddedPostgres.open(settings.data_directory / "postgres")).url
        backend = database_beside(url, DATABASE).replace("postgresql://", "postgresql+psycopg://", 1)
        if _has_interface():
            return _serve(backend, port)
        with suppress(KeyboardInterrupt):
            typer.echo("The full mlflow package, which has the user interface, is not installed here. Elsewhere:")
            typer.echo(f"\n  {_elsewhere(backend, port, shown=settings.database_url is None)}\n")
            typer.echo("The database is held open for it. Ctrl-C ends.")
            wait()
        return 0


def _has_interface() -> bool:
    """Return whether the full package is installed; by itself the small one starts a server that never answers."""
    try:
        distribution("mlflow")
    except PackageNotFoundError:
        return False
    return True


def _serve(backend: str, port: int) -> int:
    """Run MLflow; the address goes by environment, for it may hold a password."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    with suppress(KeyboardInterrupt):
        served = subprocess.run(command, env={**os.environ, _BACKEND: backend}, check=False)  # noqa: S603 - our words
        return served.returncode
    return 0


def _elsewhere(backend: str, port: int, *, shown: bool) -> str:
    """Return the command for an MLflow from elsewhere; an address that may hold a password is not shown."""
    address = shlex.quote(backend) if shown else '"$DATABASE_URL of the database mlflow"'
    package = f"mlflow=={version('mlflow-skinny')}"
    return f"uvx --with 'psycopg[binary]' --from {package} mlflow ui --port {port} --backend-store-uri {address}"
