"""MLflow: one run an optimization, one registered version an optimized agent.

Only `MlflowClient` is used, never the fluent interface or autologging: those are global to the process. MLflow is
imported, and its schema made, when the first optimization has ended, for both take seconds; processes that work on
several at once call `load_mlflow` before.
"""

import hashlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dspy_optimization.adapters.mlflow_run import RunFacts, facts_of, write_artifacts
from dspy_optimization.adapters.postgres.failures import Address
from dspy_optimization.adapters.postgres.neighbour import alone, database_beside
from dspy_optimization.adapters.report.facts import Material, report
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.errors import InvalidRequestError, StoreError, TrackingError
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.store import Stores
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

DATABASE = "mlflow"
SCHEMA_LOCK = 0x6D6C_666C_6F77
"""MLflow makes its schema without locking it: two first optimizations at once would break it."""
ID_TAG = "dspy_optimization.id"
COMPLETED_TAG = "dspy_optimization.completed_at"
_MANNERS: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it reports its use to its makers
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # it tells of its schema on stderr
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it draws over what the command line shows
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints into a stdout that may be JSON lines
}
"""Read by MLflow from the environment, most of it when it is imported; what a person has set stays."""
CANDIDATE, CHAMPION = "candidate", "champion"
AGENT_FOLDER = "agent"
_REACH_SECONDS = 5.0
_LONGEST_LOCATION = 200
"""Characters of a run's artifact address in MLflow's schema: the folder, the run's id and `artifacts`."""
_ENTITIES_A_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingPlace:
    """Where runs, registry and artifacts are."""

    database_url: str
    """Of the engine: the database `mlflow` on the same server is used, and made when it is missing."""
    artifacts: Path
    """Folder of artifacts, when `tracking_uri` is not given; a server decides for itself."""
    tracking_uri: str | None = None
    """`MLFLOW_TRACKING_URI`, when it is set: a server or another store instead of the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowTracker:
    """The `Tracker` that writes to MLflow. Telling it the same again changes nothing. Thread-safe."""

    place: TrackingPlace
    stores: Stores
    """Where trials, events and dataset of an optimization are read."""
    tenant: TenantId
    now: Callable[[], datetime]
    program_state: Callable[[AgentConfig, Candidate], Mapping[str, Json]] | None = None
    """Returns DSPy's own state of a program, for `program.json`; None: no such file."""
    models: Mapping[Role, str] | None = None

    def completed(self, optimization: Optimization, result: OptimizationResult, agent: AgentConfig) -> str | None:
        """Record a result; return the id of its run.

        Raises:
            TrackingError: MLflow is away or refuses; nothing is lost, the same call makes up for it.
        """
        status = OptimizationStatus.CANCELLED if result.ended_because == "cancelled" else OptimizationStatus.COMPLETED
        return self._record(replace(optimization, status=status), result, agent)

    def ended(self, optimization: Optimization) -> str | None:
        """Record one that failed, or was cancelled before there was a result; return the id of its run.

        Raises:
            TrackingError: as `completed`.
        """
        return self._record(optimization, None, None)

    def open_client(self) -> "MlflowClient":
        """Return a client for this place; the first one makes MLflow's schema, which takes seconds.

        Raises:
            TrackingError: the place cannot be reached.
        """
        _teach_manners()
        uri = self.place.tracking_uri
        if uri is None:
            try:
                uri = database_beside(self.place.database_url, DATABASE)
            except (InvalidRequestError, StoreError) as error:
                raise TrackingError(f"MLflow: {error}; or set MLFLOW_TRACKING_URI to a server of your own") from error
            with self._guarded(), alone(uri, SCHEMA_LOCK):
                return _client(uri, registry_uri=uri)
        _check_reachable(uri)
        with self._guarded():
            return _client(uri, registry_uri=None)

    def _record(self, optimization: Optimization, result: OptimizationResult | None, agent: AgentConfig | None) -> str:
        request = optimization.request
        material = Material(
            optimization=optimization,
            result=result,
            trials=self.stores.trials.trials(request.id),
            events=self.stores.events.events(request.id),
            agent=self.stores.agents.get(request.target.version),
            dataset=self.stores.datasets.get(request.dataset),
            bill=result.bill if result is not None else self.stores.ledger.bill(request.id),
            models=self.models if self.models is not None else {},
        )
        shown = report(material, self.now())
        facts = facts_of(shown, material, self.tenant)
        client = self.open_client()
        with self._guarded(), tempfile.TemporaryDirectory(prefix="dspy-opt-mlflow-") as folder:
            run = self._run(client, optimization, material.agent, facts)
            _log(client, run, facts)
            state = self._state(client, run, agent, result)
            write_artifacts(Path(folder), shown, material, agent, state, run.info.run_id)
            client.log_artifacts(run.info.run_id, folder)
            if agent is not None and result is not None and result.optimized != result.baseline:
                self._register(client, run, agent, result, facts)
            client.set_terminated(run.info.run_id, status=facts.status, end_time=facts.ended_at)
        return str(run.info.run_id)

    def _state(
        self, client: "MlflowClient", run: "Run", agent: AgentConfig | None, result: OptimizationResult | None
    ) -> Mapping[str, Json] | None:
        """Return the program's state; None, and a tag that says why, for an agent that is no DSPy program here."""
        if self.program_state is None or agent is None or result is None:
            return None
        try:
            return self.program_state(agent, result.optimized)
        except InvalidRequestError as error:
            client.set_tag(run.info.run_id, "dspy_optimization.no_program", str(error)[:500])
            return None

    def _run(self, client: "MlflowClient", optimization: Optimization, agent: AgentConfig, facts: RunFacts) -> "Run":
        """Return the run of the optimization: the one there is, else a new one."""
        experiment = self._experiment(client, agent)
        query = f"tags.`{ID_TAG}` = '{optimization.request.id}'"
        found = client.search_runs([experiment], filter_string=query, order_by=["attributes.start_time ASC"])
        if found:
            return found[0]
        return client.create_run(
            experiment,
            start_time=facts.started_at,
            run_name=facts.name,
            tags={ID_TAG: str(optimization.request.id), "mlflow.source.name": "dspy-opt"},
        )

    def _experiment(self, client: "MlflowClient", agent: AgentConfig) -> str:
        """Return MLflow's experiment (a folder of runs) of the agent."""
        from mlflow.exceptions import MlflowException

        name = f"dspy-optimization/{_within(self.tenant)}{agent.name}"
        known = client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._artifact_location(name)))
            except MlflowException as error:
                # Another process was faster.
                known = client.get_experiment_by_name(name)
                if known is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        if known.lifecycle_stage == "deleted":
            client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)

    def _artifact_location(self, name: str) -> str | None:
        """Return the experiment's folder; None where a server keeps artifacts."""
        if self.place.tracking_uri is not None:
            return None
        folder = self.place.artifacts.expanduser().absolute() / hashlib.sha256(name.encode()).hexdigest()[:12]
        location = folder.as_uri()
        longest = _LONGEST_LOCATION - len("/artifacts/") - 32
        if len(location) > longest:
            raise TrackingError(
                f"wanted: a folder for MLflow's artifacts of at most {longest} characters, for MLflow keeps no longer "
                f"one; found: {location} with {len(location)}; possible: a data folder with a shorter path"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return location

    def _register(
        self, client: "MlflowClient", run: "Run", agent: AgentConfig, result: OptimizationResult, facts: RunFacts
    ) -> None:
        """Make a version of the optimized agent, once, and give it its aliases."""
        name = f"{_within(self.tenant, '.')}{agent.name}"
        version = _version_of(client, name, run)
        if version is None:
            version = client.create_model_version(
                name=name,
                source=f"{run.info.artifact_uri}/{AGENT_FOLDER}",
                run_id=run.info.run_id,
                description=facts.tags["mlflow.note.content"],
                tags={
                    ID_TAG: str(result.optimization_id),
                    "dspy_optimization.agent_version": result.artifact.agent_version,
                    "dspy_optimization.verdict": facts.tags["dspy_optimization.verdict"],
                    COMPLETED_TAG: result.completed_at.isoformat(),
                },
            )
        _point(client, CANDIDATE, version, result.completed_at)
        if result.validated is not None and result.validated.verdict is Verdict.IMPROVED:
            _point(client, CHAMPION, version, result.completed_at)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn what MLflow, its database and its artifact store raise into `TrackingError`."""
        where = _shown(self.place.tracking_uri) if self.place.tracking_uri is not None else "the database mlflow"
        try:
            with Address(shown=where, secrets=()).guard():
                yield
        except _failures() as error:
            said = " ".join(str(error).partition("[SQL:")[0].split())[:600]
            raise TrackingError(
                f"wanted: a run in MLflow at {where}; found: {said}; possible: bring it back, then record it again "
                "with `dspy-opt runs report`"
            ) from error


def _failures() -> tuple[type[Exception], ...]:
    """Return what MLflow and what is below it raise; asked for only when something was raised.

    Imported any sooner, MLflow would be imported outside the lock that lets one thread at a time do it first.
    """
    from mlflow.exceptions import MlflowException

    return MlflowException, StoreError, OSError


def _log(client: "MlflowClient", run: "Run", facts: RunFacts) -> None:
    """Write what the run does not have yet: params cannot change, metrics would stand there twice."""
    from mlflow.entities import Metric, Param, RunTag

    run_id = run.info.run_id
    known = {
        (key, past.step, past.timestamp)
        for key in sorted({point.key for point in facts.points} & set(run.data.metrics))
        for past in client.get_metric_history(run_id, key)
    }
    metrics = [
        Metric(key=point.key, value=point.value, timestamp=point.at, step=point.step)
        for point in facts.points
        if (point.key, point.step, point.at) not in known
    ]
    params = [Param(key, value) for key, value in facts.params.items() if key not in run.data.params]
    tags = [RunTag(key, value) for key, value in facts.tags.items() if run.data.tags.get(key) != value]
    for start in range(0, max(len(params), len(tags)), _ENTITIES_A_BATCH):
        part = slice(start, start + _ENTITIES_A_BATCH)
        client.log_batch(run_id, params=params[part], tags=tags[part])
    for start in range(0, len(metrics), 10 * _ENTITIES_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + 10 * _ENTITIES_A_BATCH])


def _version_of(client: "MlflowClient", name: str, run: "Run") -> "ModelVersion | None":
    """Return the version that came from the run, making the registered model when it is new."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="An agent, optimized and versioned by dspy-opt.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    return found[0] if found else None


def _point(client: "MlflowClient", alias: str, version: "ModelVersion", completed_at: datetime) -> None:
    """Let the alias point at the version, unless it points at one that was completed later."""
    from mlflow.exceptions import MlflowException

    try:
        present = client.get_model_version_by_alias(version.name, alias)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
    else:
        stated = present.tags.get(COMPLETED_TAG)
        if present.version == version.version or (stated and datetime.fromisoformat(stated) > completed_at):
            return
    client.set_registered_model_alias(version.name, alias, str(version.version))


def _within(tenant: TenantId, separator: str = "/") -> str:
    return "" if tenant == LOCAL_TENANT else f"{tenant}{separator}"


def _check_reachable(uri: str) -> None:
    """Raise `TrackingError` when nobody listens: MLflow itself would try for minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        return
    port = parts.port if parts.port is not None else 443 if parts.scheme == "https" else 80
    try:
        socket.create_connection((parts.hostname, port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise TrackingError(
            f"wanted: the MLflow server at {_shown(uri)}; found: {error}; possible: start it, or unset "
            "MLFLOW_TRACKING_URI for the built-in store, then record it again with `dspy-opt runs report`"
        ) from error


def _shown(uri: str) -> str:
    """Return the address without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def load_mlflow() -> None:
    """Import MLflow now: where several threads are the first to import it at once, one finds it half made."""
    _teach_manners()
    import_module("mlflow.tracking")


def _teach_manners() -> None:
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)


def _client(uri: str, registry_uri: str | None) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=registry_uri)
