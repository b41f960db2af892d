"""A conductor on stores in memory and a clock that is told, with an optimization that has ended."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from experiment_world import BASELINE, OPTIMIZATION, OPTIMIZED, START

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.evaluation.gate import Estimate, ObjectiveResult, ValidatedResult, restored
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId
from dspy_optimization.experiments.conducting import Conductor, Told
from dspy_optimization.experiments.decision import Alert
from dspy_optimization.experiments.experiment import Conclusion, Experiment, ExperimentStatus
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.log import ExperimentLog, LogCounts
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import Terms, Window
from dspy_optimization.experiments.proposal import ExperimentProposal
from dspy_optimization.experiments.result import ExperimentResult
from dspy_optimization.experiments.store import ExperimentStores
from dspy_optimization.experiments.unit import Place
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Target,
)
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT

NAME = "support"
SOLVED = Objective(metric="solved")


@dataclass
class MemoryExperiments:
    """`ExperimentStore`; what a conclusion tells is written down."""

    kept: dict[ExperimentId, Experiment] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    results: list[ExperimentResult] = field(default_factory=list)
    changes: int = 0

    def add(self, experiment: Experiment) -> None:
        if self.running(experiment.plan.agent):
            raise ConflictError(f"{experiment.plan.agent} has one that has not ended")
        self.kept[experiment.plan.experiment_id] = experiment

    def get(self, experiment_id: ExperimentId) -> Experiment:
        if experiment_id not in self.kept:
            raise NotFoundError(f"no experiment {experiment_id}")
        return self.kept[experiment_id]

    def newest(self, count: int) -> Sequence[Experiment]:
        return list(reversed(self.kept.values()))[:count]

    def running(self, agent: str | None = None) -> Sequence[Experiment]:
        return [
            one
            for one in self.kept.values()
            if one.status is ExperimentStatus.RUNNING and agent in {None, one.plan.agent}
        ]

    def change(
        self, experiment_id: ExperimentId, change: Callable[[Experiment], Experiment | Conclusion]
    ) -> Experiment:
        changed = change(self.get(experiment_id))
        self.changes += 1
        if isinstance(changed, Conclusion):
            self.alerts += [] if changed.alert is None else [changed.alert]
            self.results += [] if changed.result is None else [changed.result]
            changed = changed.experiment
        self.kept[experiment_id] = changed
        return changed


@dataclass
class MemoryRows:
    """`RowStore`."""

    now: Callable[[], datetime]
    exposures: list[Exposure] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        self.exposures += exposures

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes

    def first_exposures(self, exposure_ids: Sequence[ExposureId]) -> Sequence[Exposure]:
        firsts = []
        for one in exposure_ids:
            rows = sorted((row for row in self.exposures if row.id == one), key=lambda row: row.order)
            firsts += rows[:1]
        return firsts

    def log(self, experiment: Experiment, as_of: datetime, after: Place | None) -> ExperimentLog:
        log = ExperimentLog(experiment.plan)
        for row in self.exposures:
            if row.experiment_id == experiment.plan.experiment_id and row.received_at <= as_of:
                log.add_exposure(row)
        for told in self.outcomes:
            if told.experiment_id == experiment.plan.experiment_id and told.received_at <= as_of:
                log.add_outcome(told)
        return log

    def settled_until(self) -> datetime:
        return self.now()


@dataclass
class MemoryAnalyses:
    """`AnalysisStore`; `overtaken` lets somebody else be faster."""

    rows: MemoryRows
    kept: dict[ExperimentId, Analysis] = field(default_factory=dict)
    overtaken: bool = False

    def analysis(self, experiment_id: ExperimentId) -> Analysis | None:
        return self.kept.get(experiment_id)

    def counts(self, experiment_id: ExperimentId) -> LogCounts:
        raise NotImplementedError

    def save(self, experiment_id: ExperimentId, before: Analysis | None, after: Analysis) -> bool:
        if self.overtaken or self.kept.get(experiment_id) != before:
            return False
        self.kept[experiment_id] = after
        return True


@dataclass
class House:
    """Everything, to be looked into."""

    conductor: Conductor
    experiments: MemoryExperiments
    rows: MemoryRows
    analyses: MemoryAnalyses
    time: list[datetime]

    def pass_hours(self, hours: float) -> None:
        self.time[0] += timedelta(hours=hours)

    def serve(self, unit: str, agent: str = NAME, **more: Any) -> Any:
        return self.conductor.assign(agent, unit, live=lambda _: BASELINE, **more)

    def live_through(self, units: int, baseline: Callable[[int], bool], optimized: Callable[[int], bool]) -> None:
        """Serve so many units a second apart; each is solved as its version solves the n-th of its units."""
        counts = {"baseline": itertools.count(), "optimized": itertools.count()}
        for number in range(units):
            self.time[0] += timedelta(seconds=1)
            served = self.serve(f"user-{number}")
            solved = {"baseline": baseline, "optimized": optimized}[served.assignment.variant.value]
            score = float(solved(next(counts[served.assignment.variant.value])))
            told = Told(event_id=f"e{number}", exposure_id=served.assignment.exposure_id, score=score)
            assert () == self.conductor.report([told])


def estimate(value: float) -> Estimate:
    """A mean of 100 examples."""
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=100)


def measured(metric: str, baseline: float, optimized: float) -> ObjectiveResult:
    """What the sealed split showed of one objective."""
    return ObjectiveResult(
        metric=metric,
        baseline=estimate(baseline),
        optimized=estimate(optimized),
        difference=estimate(optimized - baseline),
        improvement_percentage=None,
        improvement_interval=None,
        p_value=0.01,
        test="mcnemar",
        mde=0.05,
        discordant=20,
        verdict=Verdict.IMPROVED,
        reason="better",
    )


def validated(*objectives: ObjectiveResult, verdict: Verdict = Verdict.IMPROVED) -> ValidatedResult:
    """What the gate found; the first objective is the primary one."""
    return restored(
        dataset=DatasetVersion("d" * 64),
        baseline=Fingerprint("1" * 64),
        optimized=Fingerprint("2" * 64),
        n_examples=100,
        alpha=0.05,
        test_split_use=1,
        objectives={one.metric: one for one in objectives},
        primary=objectives[0].metric,
        verdict=verdict,
        reason="better",
    )


def optimization(*objectives: Objective, status: OptimizationStatus = OptimizationStatus.COMPLETED) -> Optimization:
    """An optimization of the agent, by its objectives."""
    request = OptimizationRequest(
        id=OPTIMIZATION,
        target=Target(id=NAME, version=BASELINE),
        dataset=DatasetVersion("d" * 64),
        objectives=objectives or (SOLVED,),
        algorithms=(AlgorithmChoice(name="gepa"),),
        constraints=Constraints(),
        created_at=START,
    )
    return Optimization(request=request, status=status, updated_at=START)


def result(proof: ValidatedResult | None) -> OptimizationResult:
    """What it ended with."""
    candidate = Candidate(components={ComponentName("self"): ComponentValue(instructions="Solve it.")})
    return OptimizationResult(
        optimization_id=OPTIMIZATION,
        baseline=candidate,
        optimized=candidate,
        validated=proof,
        algorithm_used="gepa",
        bill=Bill(),
        artifact=Artifact(agent_version=OPTIMIZED, checksum=OPTIMIZED),
        ended_because="finished",
        completed_at=START,
    )


def house(ended: Optimization | None = None, proof: ValidatedResult | None = None, *, without: bool = False) -> House:
    """A conductor whose tenant has one optimization.

    Args:
        ended: the optimization; None: a good one.
        proof: its evidence; None: of a gain from .6 to .8.
        without: it has no result.
    """
    time = [START]
    found = optimization() if ended is None else ended
    proven = result(validated(measured("solved", 0.6, 0.8)) if proof is None else proof)
    rows = MemoryRows(now=lambda: time[0])
    experiments, analyses = MemoryExperiments(), MemoryAnalyses(rows=rows)
    numbers = itertools.count(1)

    def get(optimization_id: OptimizationId) -> Optimization:
        if optimization_id != OPTIMIZATION:
            raise NotFoundError(f"no optimization {optimization_id}")
        return found

    conductor = Conductor(
        tenant=LOCAL_TENANT,
        kept=ExperimentStores(experiments=experiments, rows=rows, analyses=analyses),
        stores=SimpleNamespace(
            optimizations=SimpleNamespace(get=get),
            results=SimpleNamespace(result=lambda _: None if without else proven),
            agents=SimpleNamespace(get=lambda _: SimpleNamespace(name=NAME)),
        ),
        now=lambda: time[0],
        new_id=lambda: UUID(int=next(numbers)),
    )
    return House(conductor=conductor, experiments=experiments, rows=rows, analyses=analyses, time=time)


def proposal(**changed: Any) -> ExperimentProposal:
    """Half of the traffic, an hour of window, a winner after two hours."""
    fields: dict[str, Any] = {
        "optimization_id": OPTIMIZATION,
        "traffic_split": 0.5,
        "window": Window(seconds=3_600.0, grace_seconds=60.0),
        "terms": Terms(minimum_hours=2.0),
    }
    return replace(ExperimentProposal(**fields), **changed)
