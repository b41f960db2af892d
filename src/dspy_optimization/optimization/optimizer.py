"""Carries optimizations out: takes one over, works on it, and leaves it in a state that says what happened."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.devices import Device, numpy_device
from dspy_optimization.compute.metering import GpuMeter, GpuUse
from dspy_optimization.errors import (
    BudgetSpent,
    CancelRequested,
    EngineError,
    InfrastructureError,
    InfrastructureFailed,
    InvalidRequestError,
    ModelAuthError,
    ModelError,
    PauseRequested,
    RequestFailed,
    StoreError,
    TrackingError,
)
from dspy_optimization.evaluation.agent import AgentBuilder, RunnableAgent
from dspy_optimization.evaluation.budget import BudgetWarning, Cap
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.judge import ModelMetric
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.collaborators import AlgorithmRegistry, Models, Tracker
from dspy_optimization.optimization.course import Course, Outcome
from dspy_optimization.optimization.policy_reading import policy_from_json
from dspy_optimization.optimization.pulse import Pulse
from dspy_optimization.optimization.request import AWAITED, Optimization, OptimizationRequest, OptimizationStatus
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.optimization.store import Stores, TrialStore
from dspy_optimization.optimization.workplace import Portfolio, Workplace

Done = TypeVar("Done")

_PATIENCE_SECONDS = 60.0
"""How long the database may be away before the work pauses; the ledger waits as long."""


def _keep_nothing(_optimization_id: OptimizationId, _uses: Sequence[GpuUse]) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """Runs optimizations that were accepted before. Thread-safe: one optimization a call."""

    stores: Stores
    builder: AgentBuilder
    models: Models
    algorithms: AlgorithmRegistry
    metrics: Callable[[OptimizationRequest], Mapping[str, Metric | ModelMetric]]
    tracker: Tracker
    alpha: float
    """Two-sided level of every claim, in (0, 1)."""
    now: Callable[[], datetime]
    seconds: Callable[[], float] = time.monotonic
    pulse: Pulse = field(default_factory=Pulse)
    """Shared by all optimizers of a process."""
    device: Callable[[], Device] = numpy_device
    """Where response models are fitted; asked when an optimization begins."""
    keep_gpu_use: Callable[[OptimizationId, Sequence[GpuUse]], None] = _keep_nothing
    """Adds up what optimizations took of GPUs."""

    def run(self, optimization_id: OptimizationId, stop: StopSignal) -> Optimization:
        """Work on it until it ends or pauses, and return where it stands then.

        Resuming is running again: what the ledger knows is not paid again. A failure is written into the
        optimization and not raised.

        Args:
            optimization_id: queued, paused, failed, or running in a process that died.
            stop: ended from outside with `PauseRequested` or `CancelRequested`.
        Raises:
            ConflictError: it has ended, or another living process works on it.
            StoreError: the database is away, so nothing can be written.
        """
        with self.stores.optimizations.owning(optimization_id):
            before = self.stores.optimizations.get(optimization_id)
            resumed = before.status is not OptimizationStatus.QUEUED or before.elapsed_seconds > 0.0
            kind = EventType.OPTIMIZATION_RESUMED if resumed else EventType.OPTIMIZATION_STARTED
            begun = self.stores.optimizations.update(
                optimization_id,
                lambda now: replace(
                    now,
                    updated_at=self.now(),
                    status=OptimizationStatus.RUNNING,
                    error=None,
                    # What was asked of one that stood still is done; what is asked of one about to begin is not.
                    wish=now.wish if now.status in AWAITED else None,
                ),
                [self._event(optimization_id, kind, _described(before.request))],
            )
            clock = _WorkClock(begun.elapsed_seconds, self.seconds)
            try:
                return self._work(begun, stop, clock)
            except InvalidRequestError as error:
                return self._failed(optimization_id, error, clock)
            except InfrastructureError as error:
                return self._failed(optimization_id, error, clock)

    def _work(self, begun: Optimization, stop: StopSignal, clock: "_WorkClock") -> Optimization:
        request = begun.request
        with self.pulse.watching(self.stores.optimizations, request.id, stop, clock.elapsed_seconds):
            try:
                return self._carry_out(request, stop, clock)
            except PauseRequested:
                return self._ended(request.id, OptimizationStatus.PAUSED, EventType.OPTIMIZATION_PAUSED, clock)
            except CancelRequested:
                return self._ended(request.id, OptimizationStatus.CANCELLED, EventType.OPTIMIZATION_CANCELLED, clock)
            except (InfrastructureFailed, RequestFailed) as failed:
                return self._failed(request.id, failed.error, clock)

    def _carry_out(self, request: OptimizationRequest, stop: StopSignal, clock: "_WorkClock") -> Optimization:
        config = self.stores.agents.get(request.target.version)
        dataset = self.stores.datasets.get(request.dataset)
        metrics = self.metrics(request)
        waits = StopSignal(stop)
        models = self.models.open(config, waits, self._fallback_teller(request.id))
        named = self.models.named(waits, self._fallback_teller(request.id))
        limits = request.constraints.limits
        # A dollar cap can only be kept where prices are known: no candidate may choose another model.
        unpriced = named if limits.max_cost_usd is not None else ()
        agent = self.builder.build(
            config, without_models=frozenset(name for name in unpriced if named[name].price is None)
        )
        computing = self._computing(request.id)
        try:
            with (
                _ending(waits, request.constraints.limits.max_seconds, clock),
                LedgerSession.open(
                    self.stores.ledger,
                    request.id,
                    models=models,
                    named=named,
                    limits=limits,
                    now=self.now,
                    elapsed_seconds=clock.elapsed_seconds(),
                    seconds=self.seconds,
                    warn=self._warning_teller(request.id),
                    max_in_flight=request.constraints.concurrency,
                ) as session,
                Evaluator(
                    agent,
                    list(metrics.values()),
                    Objectives(items=request.objectives),
                    concurrency=request.constraints.concurrency,
                ) as evaluator,
            ):
                place = self._workplace(request, dataset, agent, metrics, evaluator, session, computing, stop, clock)
                outcome = Course(place).carry_out()
                session.flush()
                return self._complete(request, config, outcome, session, clock)
        finally:
            for model in {id(model): model for model in models.values()}.values():
                model.close()
            used = computing.meter.taken()
            if used:
                self._patiently(lambda: self.keep_gpu_use(request.id, used))

    def _complete(
        self,
        request: OptimizationRequest,
        config: AgentConfig,
        outcome: Outcome,
        session: LedgerSession,
        clock: "_WorkClock",
    ) -> Optimization:
        optimized = config.with_candidate(outcome.chosen)
        version = self.stores.agents.add(optimized, parent=request.target.version)
        result = OptimizationResult(
            optimization_id=request.id,
            baseline=outcome.baseline,
            optimized=outcome.chosen,
            validated=outcome.validated,
            algorithm_used=outcome.algorithm,
            key_improvements=outcome.improvements,
            iterations=outcome.iterations,
            trials=outcome.trials,
            front=outcome.front,
            pick=outcome.pick,
            # Not what this session counted: a process that was taken for dead may have paid for calls meanwhile.
            bill=replace(
                self._patiently(lambda: self.stores.ledger.bill(request.id)),
                answered_from_ledger=session.bill().answered_from_ledger,
            ),
            artifact=Artifact(agent_version=version, checksum=version),
            ended_because=outcome.ended_because,
            parameters={choice.name: dict(choice.options) for choice in request.algorithms},
            completed_at=self.now(),
        )
        standing = self.stores.optimizations.get(request.id)
        run_id = self._tracked(request.id, lambda: self.tracker.completed(standing, result, optimized))
        kept = replace(result, artifact=replace(result.artifact, mlflow_run_id=run_id))
        cancelled = outcome.ended_because == "cancelled"
        status = OptimizationStatus.CANCELLED if cancelled else OptimizationStatus.COMPLETED
        kind = EventType.OPTIMIZATION_CANCELLED if cancelled else EventType.OPTIMIZATION_COMPLETED
        self.stores.optimizations.update(
            request.id,
            lambda now: replace(now, updated_at=self.now(), elapsed_seconds=clock.elapsed_seconds(), progress=1.0),
        )
        ended = [self._event(request.id, kind, _told(kept))]
        self._patiently(lambda: self.stores.results.save(kept, status, ended))
        return self.stores.optimizations.get(request.id)

    def track(self, optimization_id: OptimizationId) -> str | None:
        """Tell the tracker of one that has ended, again if need be; return the id it has there.

        Makes up for a tracker that was away at the end. None: nothing is tracked, or it has not ended.

        Raises:
            NotFoundError: there is no such optimization.
            TrackingError: the tracker is still away.
        """
        optimization = self.stores.optimizations.get(optimization_id)
        result = self.stores.results.result(optimization_id)
        if result is not None:
            agent = self.stores.agents.get(result.artifact.agent_version)
            run_id = self.tracker.completed(optimization, result, agent)
        elif optimization.status in {OptimizationStatus.FAILED, OptimizationStatus.CANCELLED}:
            run_id = self.tracker.ended(optimization)
        else:
            return None
        if run_id is not None and (result is None or result.artifact.mlflow_run_id is None):
            told = self._event(optimization_id, EventType.TRACKING_RECORDED, {"run_id": run_id})
            self.stores.events.emit(replace(told, key=f"tracking/{run_id}"))
        return run_id

    def _tracked(self, optimization_id: OptimizationId, tell: Callable[[], str | None]) -> str | None:
        """Return the tracker's id; None, and a fact for users, when it is away: a result never waits for it."""
        try:
            return tell()
        except TrackingError as error:
            self.stores.events.emit(self._event(optimization_id, EventType.TRACKING_FAILED, {"error": str(error)}))
            return None

    def _workplace(
        self,
        request: OptimizationRequest,
        dataset: Dataset,
        agent: RunnableAgent,
        metrics: Mapping[str, Metric | ModelMetric],
        evaluator: Evaluator,
        session: LedgerSession,
        computing: Computing,
        stop: StopSignal,
        clock: "_WorkClock",
    ) -> Workplace:
        names = [choice.name for choice in request.algorithms]
        return Workplace(
            request=request,
            dataset=dataset,
            agent=agent,
            objectives=Objectives(items=request.objectives),
            metrics=metrics,
            policy=policy_from_json(request.policy, request.objectives),
            evaluator=evaluator,
            session=session,
            computing=computing,
            portfolio=Portfolio(
                choices=request.algorithms,
                algorithms={name: self.algorithms.get(name) for name in names},
                options={
                    choice.name: self.algorithms.options(choice.name, choice.options) for choice in request.algorithms
                },
            ),
            stop=stop,
            trials=_PatientTrials(trials=self.stores.trials, patiently=self._patiently),
            completed=lambda: self._patiently(
                lambda: self.stores.trials.completed(request.id, len(dataset[Split.VAL]))
            ),
            open_test_split=lambda: self._patiently(
                lambda: self.stores.results.open_test_split(dataset.version, request.id)
            ),
            alpha=self.alpha,
            elapsed_seconds=clock.elapsed_seconds,
            now=self.now,
            emit=lambda event: self._patiently(lambda: self.stores.events.emit(event)),
            advance=lambda progress: self._patiently(lambda: self._advance(request.id, progress, clock)),
        )

    def _computing(self, optimization_id: OptimizationId) -> Computing:
        device = self.device()

        def warn(sentence: str) -> None:
            self._mention(
                Event(
                    type=EventType.DEVICE_FALLBACK,
                    optimization_id=optimization_id,
                    at=self.now(),
                    data={"device": device.name, "reason": sentence},
                    key=f"device/{device.name}",
                )
            )

        return Computing(device=device, meter=GpuMeter(self.seconds), warn=warn)

    def _patiently(self, action: Callable[[], Done]) -> Done:
        """Do it, again while the database is away for a moment. Raises `StoreError` when it stays away."""
        return Patience(_PATIENCE_SECONDS, self.seconds).run(action, time.sleep)

    def _mention(self, event: Event) -> None:
        """Tell of something from inside a call. Never fails, for the call's answer is paid by then.

        When the database stays away the ledger, which cannot go on without it, ends the work and says so.
        """
        with suppress(StoreError):
            self._patiently(lambda: self.stores.events.emit(event))

    def _advance(self, optimization_id: OptimizationId, progress: float, clock: "_WorkClock") -> None:
        self.stores.optimizations.update(
            optimization_id,
            lambda now: replace(
                now,
                updated_at=self.now(),
                progress=max(now.progress, progress),
                elapsed_seconds=clock.elapsed_seconds(),
            ),
        )

    def _ended(
        self, optimization_id: OptimizationId, status: OptimizationStatus, kind: EventType, clock: "_WorkClock"
    ) -> Optimization:
        ended = self.stores.optimizations.update(
            optimization_id,
            lambda now: replace(
                now,
                updated_at=self.now(),
                status=status,
                wish=now.wish if status is OptimizationStatus.PAUSED else None,
                elapsed_seconds=clock.elapsed_seconds(),
            ),
            [self._event(optimization_id, kind, {})],
        )
        if status is OptimizationStatus.CANCELLED:
            self._tracked(optimization_id, lambda: self.tracker.ended(ended))
        return ended

    def _failed(self, optimization_id: OptimizationId, error: EngineError, clock: "_WorkClock") -> Optimization:
        """Pause for what may pass by itself, fail for what a person has to mend; both can be resumed."""
        passing = isinstance(error, (ModelError, StoreError)) and not isinstance(error, ModelAuthError)
        status = OptimizationStatus.PAUSED if passing else OptimizationStatus.FAILED
        kind = EventType.OPTIMIZATION_PAUSED if passing else EventType.OPTIMIZATION_FAILED
        ended = self.stores.optimizations.update(
            optimization_id,
            lambda now: replace(
                now,
                updated_at=self.now(),
                status=status,
                error=str(error),
                wish=now.wish if passing else None,
                elapsed_seconds=clock.elapsed_seconds(),
            ),
            [self._event(optimization_id, kind, {"error": str(error), "error_type": type(error).__name__})],
        )
        if not passing:
            self._tracked(optimization_id, lambda: self.tracker.ended(ended))
        return ended

    def _event(self, optimization_id: OptimizationId, kind: EventType, data: Mapping[str, Json]) -> Event:
        return Event(type=kind, optimization_id=optimization_id, at=self.now(), data=data)

    def _warning_teller(self, optimization_id: OptimizationId) -> Callable[[BudgetWarning], None]:
        def tell(warning: BudgetWarning) -> None:
            self._mention(warning.event(optimization_id, self.now()))

        return tell

    def _fallback_teller(self, optimization_id: OptimizationId) -> Callable[[Role, str, str, str], None]:
        def tell(role: Role, wanted: str, used: str, reason: str) -> None:
            self._mention(
                Event(
                    type=EventType.MODEL_FALLBACK,
                    optimization_id=optimization_id,
                    at=self.now(),
                    data={"role": role.value, "wanted": wanted, "used": used, "reason": reason},
                    key=f"fallback/{role.value}/{used}",
                )
            )

        return tell


@contextmanager
def _ending(waits: StopSignal, max_seconds: float | None, clock: "_WorkClock") -> Iterator[None]:
    """End what waits inside a model (its queue, its pauses) when the time is up; what the ledger knows goes on."""
    if max_seconds is None:
        yield
        return
    left = min(max(max_seconds - clock.elapsed_seconds(), 0.0), threading.TIMEOUT_MAX)
    timer = threading.Timer(left, waits.stop, [BudgetSpent(Cap.SECONDS.value, max_seconds)])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class _PatientTrials:
    """Keeps trials, and waits for a database that is away for a moment."""

    trials: TrialStore
    patiently: Callable[[Callable[[], bool]], bool]

    def record(self, optimization_id: OptimizationId, trial: Trial) -> bool:
        return self.patiently(lambda: self.trials.record(optimization_id, trial))


class _WorkClock:
    """Time worked on one optimization, over all resumes."""

    def __init__(self, before: float, seconds: Callable[[], float]) -> None:
        self._before = before
        self._seconds = seconds
        self._began = seconds()

    def elapsed_seconds(self) -> float:
        return self._before + self._seconds() - self._began


def _described(request: OptimizationRequest) -> dict[str, Json]:
    return {
        "target": request.target.id,
        "algorithms": [choice.name for choice in request.algorithms],
        "objectives": [objective.metric for objective in request.objectives],
        "seed": request.constraints.seed,
    }


def _told(result: OptimizationResult) -> dict[str, Json]:
    """Return the fields of the `optimization.completed` event."""
    validated = result.validated
    primary = validated.objectives[validated.primary] if validated is not None else None
    return {
        "improvement_percentage": primary.improvement_percentage if primary is not None else None,
        "algorithm_used": result.algorithm_used,
        "statistical_significance": primary.p_value if primary is not None else None,
        "verdict": validated.verdict.value if validated is not None else None,
        "ended_because": result.ended_because,
        "lm_calls": result.bill.total.calls,
        "cost_usd": result.bill.total.cost_usd,
    }
