"""What `doctor` looks at. Every finding that is not good says its fix."""

import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from packaging.requirements import Requirement

from dspy_optimization.adapters.models import EMBEDDED, Models, ModelSpec, price_of
from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.errors import EngineError
from dspy_optimization.evaluation.model import ModelRequest, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.settings import Settings

DISTRIBUTION = "dspy-optimization"
NEEDED_BYTES = 1 << 30
"""A fresh embedded database takes about 50 MB; the rest is answers, events and MLflow's files."""
_REACH_SECONDS = 5.0
_QUESTION = "Say yes."


class State(StrEnum):
    """How one finding is."""

    OK = "ok"
    WARNING = "warning"  # works, but somebody should know
    FAILED = "failed"  # something will not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding."""

    name: str
    state: State
    found: str
    fix: str = ""
    """What to do; empty where nothing is to be done."""


def examine_installation(wanted: Sequence[str], algorithms: AlgorithmRegistry) -> Iterator[Row]:
    """Look at Python and the packages.

    Args:
        wanted: requirements, as `importlib.metadata.requires` gives them.
        algorithms: installed ones.
    """
    yield _good("python", f"{platform.python_version()} at {sys.executable}")
    wrong = list(_wrong_packages(wanted))
    if wrong:
        yield _failed("packages", "; ".join(wrong), "make setup, or pip install the project again")
    else:
        yield _good("packages", f"{DISTRIBUTION} {version(DISTRIBUTION)} and everything it needs")
    for one in algorithms.broken:
        yield _failed(f"algorithm {one.name}", f"{one.reason} ({one.source})", "mend or remove that package")
    yield _good("algorithms", ", ".join(algorithms.names))


def examine_places(settings: Settings, *, needed_bytes: int = NEEDED_BYTES) -> Iterator[Row]:
    """Look at the data directory, the disk (for so much free room) and the database."""
    place = settings.data_directory
    known = _nearest(place)
    try:
        with tempfile.TemporaryFile(dir=known):
            pass
        yield _good("data directory", str(place))
    except OSError as error:
        fix = "set DSPY_OPT_DATA_DIR to a directory that you can write"
        yield _failed("data directory", f"{place}: {error.strerror or error}", fix)
    free = shutil.disk_usage(known).free
    if free >= needed_bytes:
        yield _good("disk", f"{free / (1 << 30):.1f} GB free at {known}")
    else:
        yield _failed("disk", f"{free / (1 << 20):.0f} MB free at {known}", "free 1 GB, or set DSPY_OPT_DATA_DIR")
    yield _database(settings)


def examine_models(settings: Settings, *, call: bool) -> Iterator[Row]:
    """Look at the model of every role; the local one is asked, others only with `call`."""
    models = Models(settings.models, named=settings.named_models)
    try:
        specs: dict[ModelSpec, list[str]] = {}
        for role, spec in settings.models.items():
            specs.setdefault(spec, []).append(role.value)
        for name, spec in settings.named_models.items():
            specs.setdefault(spec, []).append(name)
        for spec, users in specs.items():
            name = f"model {', '.join(users)}"
            local = spec.base_url is None and spec.model == EMBEDDED
            row = _asked(models, spec, name) if call or local else _reached(spec, name)
            yield row
            if row.state is State.OK and price_of(spec) is None:
                yield _warning(
                    f"price of {spec.model}",
                    "not known, so --max-usd is refused",
                    "state price in the configuration file",
                )
        if settings.models[Role.REFLECTION].model == EMBEDDED:
            yield _warning(
                "reflection",
                "the local model is too small to write instructions; auto searches over demos only",
                "name a larger model under models.reflection in the file of DSPY_CONFIG_PATH",
            )
    finally:
        models.close()


def examine_tracking(settings: Settings) -> Row:
    """Look at where runs are tracked."""
    found = f"mlflow-skinny {version('mlflow-skinny')}"
    uri = settings.mlflow_tracking_uri
    if uri is None:
        return _good("mlflow", f"{found}, tracked in the database; dspy-opt mlflow shows it")
    url = urlsplit(uri)
    where = f"{url.scheme}://{url.hostname or ''}{f':{url.port}' if url.port else ''}"
    if url.scheme not in ("http", "https"):
        return _good("mlflow", f"{found}, tracked at {where}")
    problem = _problem_reaching(f"{uri.rstrip('/')}/health", None)
    if problem is None:
        return _good("mlflow", f"{found}, server {where} answers")
    return _failed("mlflow", f"{where}: {problem}", "start that server, or unset MLFLOW_TRACKING_URI")


def _wrong_packages(wanted_texts: Sequence[str]) -> Iterator[str]:
    for text in wanted_texts:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} is missing"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} {found} does not fit {wanted.specifier}"


def _database(settings: Settings) -> Row:
    try:
        if settings.database_url is not None:
            Database.open(settings.database_url, pool_size=1).close()
            return _good("database", "PostgreSQL of DATABASE_URL answers and is migrated")
        with EmbeddedPostgres.open(settings.data_directory / "postgres") as server:
            Database.open(server.url, pool_size=1).close()
        return _good("database", "the embedded PostgreSQL starts and is migrated")
    except EngineError as error:
        fix = "bring it back, or mend DATABASE_URL" if settings.database_url is not None else "do what the message says"
        return _failed("database", str(error), f"{fix}; with DATABASE_URL a server of your own is used")


def _asked(models: Models, spec: ModelSpec, name: str) -> Row:
    """Ask one short question."""
    stop = StopSignal()
    request = ModelRequest(body={"messages": [{"role": "user", "content": _QUESTION}], "max_tokens": 16})
    try:
        answer = models.open(spec, stop.wait).complete(request)
    except EngineError as error:
        return _failed(name, str(error), _fix(spec))
    return _good(name, f"{_shown(spec)} answers in {answer.latency_seconds:.1f} s")


def _reached(spec: ModelSpec, name: str) -> Row:
    """Look whether its server can be reached, or its key is there; costs nothing."""
    if spec.base_url is not None:
        problem = _problem_reaching(f"{spec.base_url.rstrip('/')}/models", spec.api_key)
        if problem is None:
            return _good(name, f"{_shown(spec)} can be reached; --call asks it")
        return _failed(name, f"{_shown(spec)}: {problem}", _fix(spec))
    if spec.api_key is not None:
        return _good(name, f"{_shown(spec)}, its key is set; --call asks it")
    return _warning(
        name, f"{_shown(spec)} has no api_key_env of its own", "name api_key_env, or see with --call that it answers"
    )


def _problem_reaching(address: str, key: str | None) -> str | None:
    """Return why nobody useful answers there; None when somebody does."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        reply = httpx.get(address, headers=headers, timeout=_REACH_SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        return f"no answer ({type(error).__name__})"
    if reply.status_code in (401, 403):
        return f"it refuses the key ({reply.status_code})"
    return f"it answers {reply.status_code}" if reply.status_code >= 500 else None


def _fix(spec: ModelSpec) -> str:
    if spec.base_url is None and spec.model == EMBEDDED:
        return "do what the message says, or name another model in the file of DSPY_CONFIG_PATH"
    if spec.base_url is not None:
        return "start that server, or mend base_url and api_key_env in the file of DSPY_CONFIG_PATH"
    return "mend model and api_key_env in the file of DSPY_CONFIG_PATH"


def _shown(spec: ModelSpec) -> str:
    return spec.model if spec.base_url is None else f"{spec.model} at {urlsplit(spec.base_url).netloc}"


def _nearest(place: Path) -> Path:
    """Return the place, or what exists of the way to it."""
    while not place.exists():
        place = place.parent
    return place


def _good(name: str, found: str) -> Row:
    return Row(name=name, state=State.OK, found=found)


def _warning(name: str, found: str, fix: str) -> Row:
    return Row(name=name, state=State.WARNING, found=found, fix=fix)


def _failed(name: str, found: str, fix: str) -> Row:
    return Row(name=name, state=State.FAILED, found=found, fix=fix)
