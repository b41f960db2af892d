"""Reads the environment and the configuration file, and says everything that is wrong with them at once.

    DATABASE_URL                          PostgreSQL of one's own; without it an embedded one is started
    DSPY_OPT_DATA_DIR                     where that one keeps its data
    DSPY_CONFIG_PATH                      the configuration file (`config_file.py` shows one)
    MLFLOW_TRACKING_URI                   an MLflow server; without it runs are tracked in the database
    STATISTICAL_SIGNIFICANCE_THRESHOLD    0.05: the chance of calling a candidate better that is not
    GPU_MEMORY_FRACTION                   0.8: share of a GPU's memory that a process takes at most
    PYTORCH_CUDA_ALLOC_CONF               how torch manages a GPU's memory; it reads this itself

and for the service

    OPTIMIZATION_QUEUE_SIZE               100: how many may wait; more are refused with 503
    MAX_CONCURRENT_OPTIMIZATIONS          10: how many run at once, over all workers
    MAX_CONCURRENT_PER_WORKER             how many of them run at once in each worker; without it any number
    DSPY_OPT_REQUIRE_KEYS                 whether every request needs an API key; no: whoever reaches it is local
    DSPY_OPT_RETENTION_DAYS               how long ended optimizations are shown; without it for ever
    DSPY_OPT_ALLOWED_HOSTS                names the service answers to, with commas; without it this machine's own
    DSPY_OPT_SECRET_KEY                   keeps the secrets of webhooks, 32 bytes as base64, the same for all processes;
                                          without it one in the data directory, with the embedded database only

Variables that are set to nothing count as not set.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dspy_optimization.adapters.models.spec import ModelSpec
from dspy_optimization.adapters.sealing import SETTING, key_of_text
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.compute.devices import DEFAULT_FRACTION
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Role
from dspy_optimization.settings.config_file import ConfigFile, read_document
from dspy_optimization.settings.naming import ModelNames
from dspy_optimization.settings.problems import sentences

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
_TRACKING = ("http", "https", "file", "sqlite", "postgresql", "postgresql+psycopg", "mysql", "mssql", "databricks")
_ROOT_HOME = Path("/root")


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(case_sensitive=True, env_ignore_empty=True, extra="ignore")

    database_url: Annotated[SecretStr | None, Field(validation_alias="DATABASE_URL")] = None
    data_directory: Annotated[Path | None, Field(validation_alias="DSPY_OPT_DATA_DIR")] = None
    config_path: Annotated[Path | None, Field(validation_alias="DSPY_CONFIG_PATH")] = None
    mlflow_tracking_uri: Annotated[SecretStr | None, Field(validation_alias="MLFLOW_TRACKING_URI")] = None
    significance_threshold: Annotated[
        float, Field(gt=0, lt=0.5, allow_inf_nan=False, validation_alias="STATISTICAL_SIGNIFICANCE_THRESHOLD")
    ] = 0.05
    gpu_memory_fraction: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False, validation_alias="GPU_MEMORY_FRACTION")
    ] = DEFAULT_FRACTION

    queue_size: Annotated[int, Field(ge=1, le=1_000_000, validation_alias="OPTIMIZATION_QUEUE_SIZE")] = 100
    max_concurrent: Annotated[int, Field(ge=1, le=10_000, validation_alias="MAX_CONCURRENT_OPTIMIZATIONS")] = 10
    max_concurrent_per_worker: Annotated[
        int | None, Field(ge=1, le=10_000, validation_alias="MAX_CONCURRENT_PER_WORKER")
    ] = None
    require_keys: Annotated[bool, Field(validation_alias="DSPY_OPT_REQUIRE_KEYS")] = False
    retention_days: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, validation_alias="DSPY_OPT_RETENTION_DAYS")
    ] = None
    allowed_hosts: Annotated[str, Field(validation_alias="DSPY_OPT_ALLOWED_HOSTS")] = "localhost,127.0.0.1,[::1]"
    secret_key: Annotated[SecretStr | None, Field(validation_alias=SETTING)] = None

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        return _with_scheme(value, _POSTGRESQL, example="postgresql://user:password@host:5432/name")

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _is_tracking(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value() == "databricks":
            return value
        return _with_scheme(value, _TRACKING, example="http://mlflow.example.org:5000")

    @field_validator("max_concurrent_per_worker")
    @classmethod
    def _is_a_part(cls, value: int | None, others: ValidationInfo) -> int | None:
        together: int | None = others.data.get("max_concurrent")  # None: it is wrong itself
        if value is not None and together is not None and value > together:
            raise ValueError(f"wanted at most MAX_CONCURRENT_OPTIMIZATIONS, which is {together}, found {value}")
        return value

    @field_validator("secret_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key_of_text(value.get_secret_value())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _names_somebody(cls, value: str) -> str:
        if not _names(value):
            raise ValueError(f"wanted at least one name such as localhost, found {value!r}")
        return value

    @field_validator("data_directory")
    @classmethod
    def _is_a_place(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        place = value.expanduser().absolute()
        if place.exists() and not place.is_dir():
            raise ValueError(f"wanted a directory, found a file at {place}")
        if place.resolve().is_relative_to(_ROOT_HOME):
            raise ValueError(
                f"wanted a directory the database's own user can reach, found {place}; "
                "possible: one outside /root, such as /var/lib/dspy-opt"
            )
        return place


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _with_scheme(value: SecretStr | None, schemes: tuple[str, ...], *, example: str) -> SecretStr | None:
    """Return the address, or refuse it without repeating it: it may hold a password."""
    if value is None:
        return None
    try:
        scheme = urlsplit(value.get_secret_value()).scheme
    except ValueError:
        scheme = ""
    if scheme not in schemes:
        found = f"{scheme}://…" if scheme else "something without ://"
        raise ValueError(f"wanted an address such as {example} ({', '.join(schemes)}), found {found}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What only the service needs."""

    queue_size: int = 100
    """Optimizations that may wait, over all tenants."""
    max_concurrent: int = 10
    """Optimizations that run at once, over all workers."""
    max_concurrent_per_worker: int | None = None
    """Optimizations that run at once in each worker, at most `max_concurrent`; None: any number."""
    require_keys: bool = False
    """False: whoever reaches the service is the local administrator."""
    retention_days: float | None = None
    """How long ended optimizations are shown; None: for ever."""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Names in the Host header that are answered."""
    algorithm_limits: Mapping[str, int] = field(default_factory=dict)
    """Algorithm → how many optimizations that name it run at once, over all lanes and workers."""
    secret_key: str | None = field(default=None, repr=False)
    """Base64 of the key that secrets are kept under; None: that of the data folder, with the embedded database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything somebody set, checked. Holds keys and passwords; its representation does not show them."""

    database_url: str | None = field(repr=False)
    """None: the embedded PostgreSQL."""
    data_directory: Path
    """Absolute; not made yet."""
    config_path: Path | None
    mlflow_tracking_uri: str | None = field(repr=False)
    """None: tracked in the database."""
    significance_threshold: float
    """In (0, 0.5)."""
    models: Mapping[Role, ModelSpec]
    """Every role has one."""
    named_models: Mapping[str, ModelSpec]
    allow: AllowList
    service: ServiceSettings = field(default_factory=ServiceSettings)
    gpu_memory_fraction: float = DEFAULT_FRACTION
    """Above 0 and up to 1: of a GPU's memory that a process takes at most."""


def read_settings() -> Settings:
    """Return the settings of this process's environment.

    Raises:
        InvalidRequestError: lists everything that is wrong, each with its name, what was wanted and what was
            found; keys and passwords are not repeated.
    """
    problems: list[str] = []
    environment: _Environment | None = None
    try:
        environment = _Environment()
    except ValidationError as error:
        problems += sentences(error, _Environment)
    path = os.environ.get("DSPY_CONFIG_PATH")
    file = _config(Path(path), problems) if path else ConfigFile()
    names = ModelNames(file, os.environ)
    models, named = names.roles(), names.named()
    problems += dict.fromkeys(names.problems)
    if environment is None or problems:
        raise _refused(problems)
    return _settings(environment, file, models, named)


def _config(path: Path, problems: list[str]) -> ConfigFile:
    """Return the file; an empty one, and problems, when it cannot be used."""
    try:
        return ConfigFile.model_validate(read_document(path.expanduser()))
    except ValidationError as error:
        problems += [f"{path}: {sentence}" for sentence in sentences(error, ConfigFile)]
    except InvalidRequestError as error:
        problems.append(str(error))
    return ConfigFile()


def _settings(
    environment: _Environment, file: ConfigFile, models: Mapping[Role, ModelSpec], named: Mapping[str, ModelSpec]
) -> Settings:
    directory, allow = environment.data_directory, file.allow
    return Settings(
        database_url=_revealed(environment.database_url),
        data_directory=default_data_directory() if directory is None else directory,
        config_path=environment.config_path,
        mlflow_tracking_uri=_revealed(environment.mlflow_tracking_uri),
        significance_threshold=environment.significance_threshold,
        gpu_memory_fraction=environment.gpu_memory_fraction,
        models=models,
        named_models=named,
        allow=AllowList(
            tools=frozenset(allow.tools),
            entrypoints=frozenset(allow.entrypoints),
            metrics=frozenset(allow.metrics),
            algorithms=frozenset(allow.algorithms),
            http_hosts=frozenset(allow.http_hosts),
        ),
        service=ServiceSettings(
            queue_size=environment.queue_size,
            max_concurrent=environment.max_concurrent,
            max_concurrent_per_worker=environment.max_concurrent_per_worker,
            require_keys=environment.require_keys,
            retention_days=environment.retention_days,
            allowed_hosts=_names(environment.allowed_hosts),
            algorithm_limits=dict(file.service.algorithm_limits),
            secret_key=_revealed(environment.secret_key),
        ),
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _refused(problems: list[str]) -> InvalidRequestError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return InvalidRequestError(f"the settings have {count}:\n{listed}")


def default_data_directory(
    *,
    platform: str = sys.platform,
    user_id: int | None = None,
    environment: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> Path:
    """Return where data goes when nobody said: the user's own data directory, for root a system one.

    Root's home is closed to everybody else, and PostgreSQL refuses to run as root, so its data cannot lie there.
    Source: XDG Base Directory Specification 0.8; Filesystem Hierarchy Standard 3.0, /var/lib.
    """
    environment = os.environ if environment is None else environment
    home = Path.home() if home is None else home
    if user_id is None:
        user_id = os.getuid() if hasattr(os, "getuid") else 1
    if user_id == 0:
        return Path("/var/lib/dspy-opt")
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "dspy-opt"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "dspy-opt"
    stated = environment.get("XDG_DATA_HOME", "")
    return (Path(stated) if Path(stated).is_absolute() else home / ".local" / "share") / "dspy-opt"
