"""The composition root: the one place that knows every part and puts them together."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar
from uuid import UUID

from dspy_optimization.adapters.algorithm_checks import AlgorithmChecks
from dspy_optimization.adapters.dspy.artifact import program_state
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents, Surroundings
from dspy_optimization.adapters.gpu import gpus
from dspy_optimization.adapters.mlflow_tracking import MlflowTracker, TrackingPlace
from dspy_optimization.adapters.models import EMBEDDED, Models, ModelSpec, price_of
from dspy_optimization.adapters.postgres import (
    Database,
    EmbeddedPostgres,
    PostgresAgents,
    PostgresDatasets,
    PostgresEvents,
    PostgresGpuUse,
    PostgresLedger,
    PostgresOptimizations,
    PostgresResults,
    PostgresTrials,
)
from dspy_optimization.adapters.postgres.algorithm_store import PostgresAlgorithms
from dspy_optimization.adapters.postgres.analysis_store import PostgresAnalyses
from dspy_optimization.adapters.postgres.experience_store import PostgresExperience
from dspy_optimization.adapters.postgres.experiment_row_store import PostgresExperimentRows
from dspy_optimization.adapters.postgres.experiment_store import PostgresExperiments
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.metric_functions import FunctionMetric
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.algorithms.custom import RegisteredCode, Registrar, TenantAlgorithms
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.compute.devices import Device, best_device, numpy_device
from dspy_optimization.engine import Engine
from dspy_optimization.errors import BudgetUnknownError, NotFoundError
from dspy_optimization.evaluation.judge import ModelMetric, judge_from_json
from dspy_optimization.evaluation.model import LanguageModel, Price, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.experiments.conducting import Conductor
from dspy_optimization.experiments.store import ExperimentStores
from dspy_optimization.jobs.queue import JobQueue
from dspy_optimization.optimization.intake import Intake
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.optimization.pulse import Pulse
from dspy_optimization.optimization.request import Constraints, Optimization
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.steering import Steering
from dspy_optimization.optimization.store import Stores
from dspy_optimization.settings import Settings
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

Chosen = TypeVar("Chosen", Role, str)
"""How a model is chosen: by role or by name."""

LIVE_METRIC = "live"
"""The metric type that stands for a function only this process has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCode:
    """Python objects that configurations of this process may name, as `live:<name>`."""

    programs: Mapping[str, object] = field(default_factory=dict)
    """Entrypoint → `dspy.Module`."""
    metrics: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    """Name → a metric function of DSPy's 2-, 3- or 5-argument form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LentModels:
    """The models of the settings, lent to each optimization."""

    models: Models

    def open(
        self, agent: AgentConfig, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]
    ) -> Mapping[Role, LanguageModel]:
        """Return the model of every role; the agent's own choice answers its tasks."""
        lent = self.models.for_work(stop.wait, on_fallback=fell_back)
        if agent.model.name is None:
            lent[Role.TASK] = lent[Role(agent.model.role)]
        else:
            lent[Role.TASK] = self.models.named(
                agent.model.name,
                stop.wait,
                on_fallback=lambda wanted, used, reason: fell_back(Role.TASK, wanted, used, reason),
            )
        return lent

    def named(self, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]) -> Mapping[str, LanguageModel]:
        """Return the named models; what one answers is on the account of the tasks, so are its fallbacks."""
        return _NamedModels(
            names=self.models.names,
            open=cache(
                lambda name: self.models.named(
                    name,
                    stop.wait,
                    on_fallback=lambda wanted, used, reason: fell_back(Role.TASK, wanted, used, reason),
                )
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _NamedModels(Mapping[str, LanguageModel]):
    """Name → model, opened when it is first looked up: most optimizations ask none of them."""

    names: tuple[str, ...]
    open: Callable[[str], LanguageModel]

    def __getitem__(self, name: str) -> LanguageModel:
        if name not in self.names:
            raise KeyError(name)
        return self.open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@contextmanager
def open_engine(
    settings: Settings, *, live: LiveCode | None = None, tenant: TenantId = LOCAL_TENANT, track: bool = True
) -> Iterator[Engine]:
    """Open everything, yield the engine, close everything.

    Args:
        settings: read by `read_settings`.
        live: objects of this process that agents and metrics may name.
        tenant: whose data it sees.
        track: False: no MLflow run is written; `Optimizer.track` makes up for it from an engine that does.
    Raises:
        InvalidRequestError: a setting cannot be used.
        StoreError: the database does not start or does not answer.
    """
    with open_foundation(settings, live=live, track=track) as foundation:
        yield foundation.engine(tenant)


@contextmanager
def open_foundation(
    settings: Settings, *, live: LiveCode | None = None, track: bool = True, worker: str | None = None
) -> Iterator["Foundation"]:
    """Open what the engines of all tenants stand on, yield it, close it. As `open_engine`.

    Args:
        settings: read by `read_settings`.
        live: objects of this process that agents and metrics may name.
        track: as for `open_engine`.
        worker: id of this process among the workers; None: it is none.
    """
    live = LiveCode() if live is None else live
    allowed = replace(settings.allow, entrypoints=settings.allow.entrypoints | frozenset(live.programs))
    with ExitStack() as open_parts:
        url = settings.database_url
        if url is None:
            url = open_parts.enter_context(EmbeddedPostgres.open(settings.data_directory / "postgres")).url
        database = open_parts.enter_context(Database.open(url, worker=worker))
        models = Models(settings.models, named=settings.named_models)
        open_parts.callback(models.close)
        yield Foundation(
            settings=settings,
            url=url,
            database=database,
            allowed=allowed,
            live=live,
            models=models,
            builder=DspyAgents(
                Parts(allowed=allowed, programs=dict(live.programs)),
                Surroundings(
                    prices=_prices(settings.models),
                    named_prices=_prices(settings.named_models),
                    models=frozenset(settings.named_models),
                ),
            ),
            algorithms=AlgorithmRegistry.of_environment(),
            registered=RegisteredCode(allowed),
            track=track,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What the engines of all tenants share: one database, one set of models with their limits."""

    settings: Settings
    url: str = field(repr=False)
    """Of the database."""
    database: Database
    allowed: AllowList
    live: LiveCode
    models: Models
    builder: DspyAgents
    algorithms: AlgorithmRegistry
    """What is installed; `algorithms_of` adds what a tenant has registered."""
    registered: RegisteredCode
    track: bool
    pulse: Pulse = field(default_factory=Pulse)
    """Of every optimization this process works on."""
    checks: AlgorithmChecks = field(default_factory=AlgorithmChecks)

    def algorithms_of(self, tenant: TenantId) -> TenantAlgorithms:
        """Return every algorithm a tenant may use."""
        return TenantAlgorithms(self.algorithms, PostgresAlgorithms(self.database, tenant), self.registered)

    def registrar(self, tenant: TenantId) -> Registrar:
        """Return what registers algorithms of a tenant."""
        return Registrar(algorithms=self.algorithms_of(tenant), checker=self.checks)

    def experiment_stores(self, tenant: TenantId) -> ExperimentStores:
        """Return what is kept of a tenant's experiments."""
        return ExperimentStores(
            experiments=PostgresExperiments(self.database, tenant),
            rows=PostgresExperimentRows(self.database, tenant, now),
            analyses=PostgresAnalyses(self.database, tenant),
        )

    def device(self) -> Device:
        """Return where response models are fitted: a GPU where there is one; torch is loaded only then."""
        if sys.platform == "darwin" or gpus().available:
            return best_device(fraction=self.settings.gpu_memory_fraction)
        return numpy_device("there is no GPU: NumPy on the processor")

    def engine(self, tenant: TenantId, queue: JobQueue | None = None) -> Engine:
        """Return the engine of one tenant: cheap, and closed with the foundation.

        Args:
            tenant: whose data it sees.
            queue: where what is handed in waits for workers; None: whoever hands in carries out.
        """
        settings = self.settings
        stores = _stores(self.database, tenant, self.allowed)
        experiment_stores = self.experiment_stores(tenant)
        lent = LentModels(models=self.models)
        algorithms = self.algorithms_of(tenant)
        tracker = _tracker(settings, self.url, stores, self.builder, tenant) if self.track else _Untracked()
        return Engine(
            allowed=self.allowed,
            stores=stores,
            experiment_stores=experiment_stores,
            builder=self.builder,
            algorithms=algorithms,
            models=lent,
            intake=Intake(
                stores=stores,
                builder=self.builder,
                algorithms=algorithms,
                metrics=self._metrics,
                check_prices=lambda agent, constraints: _check_prices(settings, agent, constraints),
                can_propose=lambda: settings.models[Role.REFLECTION].model != EMBEDDED,
                lessons=PostgresExperience(self.database, tenant).lessons,
                alpha=settings.significance_threshold,
                now=now,
                new_id=new_id,
            ),
            optimizer=Optimizer(
                stores=stores,
                builder=self.builder,
                models=lent,
                algorithms=algorithms,
                metrics=lambda request: self._metrics(request.metrics),
                tracker=tracker,
                alpha=settings.significance_threshold,
                now=now,
                pulse=self.pulse,
                device=self.device,
                keep_gpu_use=PostgresGpuUse(self.database, tenant).add,
            ),
            steering=Steering(tenant=tenant, optimizations=stores.optimizations, queue=queue, now=now, new_id=new_id),
            conductor=Conductor(tenant=tenant, kept=experiment_stores, stores=stores, now=now, new_id=new_id),
        )

    def _metrics(self, specifications: Sequence[Mapping[str, Json]]) -> Mapping[str, Metric | ModelMetric]:
        return _metrics(specifications, self.allowed, self.live)


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): sorts by the millisecond it was made in."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(milliseconds.to_bytes(6, "big") + os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def _stores(database: Database, tenant: TenantId, allowed: AllowList) -> Stores:
    return Stores(
        optimizations=PostgresOptimizations(database, tenant),
        trials=PostgresTrials(database, tenant),
        results=PostgresResults(database, tenant),
        events=PostgresEvents(database, tenant),
        agents=PostgresAgents(database, tenant, allowed),
        datasets=PostgresDatasets(database, tenant),
        ledger=PostgresLedger(database, tenant),
    )


def _metrics(
    specifications: Sequence[Mapping[str, Json]], allowed: AllowList, live: LiveCode
) -> Mapping[str, Metric | ModelMetric]:
    """Return the metrics of a request; those of type `live` are functions of this process."""
    own = [one for one in specifications if one.get("type") == LIVE_METRIC]
    found: dict[str, Metric | ModelMetric] = {}
    for specification in own:
        name = str(specification.get("name"))
        if name not in live.metrics:
            raise NotFoundError(
                f"metric {name}: wanted: the Python function it was; found: {', '.join(live.metrics) or 'none here'}; "
                "possible: run or resume it from the Python program that has the function"
            )
        found[name] = FunctionMetric(name=name, function=live.metrics[name])
    others = [one for one in specifications if one.get("type") != LIVE_METRIC]
    return {**metrics_from_specs(others, allowed=allowed, judge=judge_from_json), **found}


def _prices(models: Mapping[Chosen, ModelSpec]) -> dict[Chosen, Price]:
    prices = {chosen: price_of(spec) for chosen, spec in models.items()}
    return {chosen: price for chosen, price in prices.items() if price is not None}


def _check_prices(settings: Settings, agent: AgentConfig, constraints: Constraints) -> None:
    """Refuse a dollar cap on a model whose price nobody knows."""
    if constraints.limits.max_cost_usd is None:
        return
    specs = {role.value: spec for role, spec in settings.models.items()}
    if agent.model.name is not None and agent.model.name in settings.named_models:
        specs[Role.TASK.value] = settings.named_models[agent.model.name]
    specs |= {name: settings.named_models[name] for name in agent.named_models if name in settings.named_models}
    specs |= {f"{role} fallback": fallback for role, spec in list(specs.items()) for fallback in spec.fallbacks}
    for role, spec in specs.items():
        if price_of(spec) is None:
            raise BudgetUnknownError(
                f"max_cost_usd: wanted: a price for every model; found: none for the {role} model {spec.model}; "
                "possible: state price in the configuration file, or cap calls or tokens"
            )


class _Untracked:
    """Tells nobody."""

    def completed(self, _optimization: Optimization, _result: OptimizationResult, _agent: AgentConfig) -> str | None:
        """Track nothing."""
        return None

    def ended(self, _optimization: Optimization) -> str | None:
        """Track nothing."""
        return None


def _tracker(settings: Settings, url: str, stores: Stores, builder: DspyAgents, tenant: TenantId) -> MlflowTracker:
    def state(agent: AgentConfig, candidate: Candidate) -> Mapping[str, Json]:
        return program_state(builder.elsewhere().build(agent.with_candidate(candidate)).module().program)

    return MlflowTracker(
        place=TrackingPlace(
            database_url=url,
            artifacts=settings.data_directory / "mlflow",
            tracking_uri=settings.mlflow_tracking_uri,
        ),
        stores=stores,
        tenant=tenant,
        now=now,
        program_state=state,
        models={role: spec.model for role, spec in settings.models.items()},
    )
