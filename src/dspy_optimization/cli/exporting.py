"""Results as files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import typer

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.export import in_new_folder, result_of, write_files
from dspy_optimization.adapters.report import html
from dspy_optimization.adapters.report.facts import collect
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_to_json
from dspy_optimization.cli.ending import report_of
from dspy_optimization.cli.house import House, short_id
from dspy_optimization.cli.optimizing import check_file
from dspy_optimization.errors import ConflictError, InvalidRequestError, TrackingError
from dspy_optimization.optimization.request import Optimization


def export_run(house: House, run: Optimization, to: Path | None) -> Path:
    """Write agent, evidence and report of a result into a new folder, all or nothing; return it.

    Raises:
        ConflictError: the folder is there and holds something.
        InvalidRequestError: there is no result yet, or the place cannot be written.
    """
    material = collect(house.engine.stores, run.request.id)
    result_of(material)
    folder = (Path(_named(house, run)) if to is None else to.expanduser()).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(f"wanted: a new or empty folder; found: {folder} holds something; possible: --to another")
    builder = DspyAgents(Parts(allowed=house.engine.allowed))
    try:
        in_new_folder(folder, lambda partial: write_files(partial, material, builder, datetime.now(UTC)))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def write_report(house: House, run: Optimization, path: Path | None) -> Path:
    """Write the HTML report and return where it is; tell MLflow what it did not take at the end."""
    place = Path(f"{_named(house, run)}.html") if path is None else path.expanduser()
    check_file(place, "--path")
    written = html.write(report_of(house, run.request.id), place.absolute())
    result = house.engine.stores.results.result(run.request.id)
    if result is not None and result.artifact.mlflow_run_id is None:
        try:
            house.engine.optimizer.track(run.request.id)
        except TrackingError as error:
            typer.echo(f"warning: {error}", err=True)
    return written


def write_agent(config: AgentConfig, path: Path) -> Path:
    """Write the configuration as a file that `optimize` reads, never over another one."""
    check_file(path, "--to")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_pretty(agent_to_json(config)))
    except FileExistsError as error:
        raise ConflictError(f"wanted: a new file; found: {path} exists; possible: --to another") from error
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _named(house: House, run: Optimization) -> str:
    return f"{run.request.target.id}-{short_id(house.engine.stores.optimizations, run.request.id)}"


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _unwritable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(
        f"wanted: a place that can be written; found: {path}: {error.strerror or error}; possible: another place"
    )
