"""Searches with DSPy's optimizers where the truth is known: a simulated agent, a real ledger, the engine's own run.

Prompts are worth the rules in them, and demos help or hurt, so there are many candidates and none is perfect. The same
ledger can be searched on again, as after a stop.
"""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from benchmarks.simulated_agent import AGENT, SimulatedModel, World

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.algorithms.problem import Algorithm, Problem, Progress
from dspy_optimization.errors import CancelRequested, StopSearch
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.optimization.search import Scoreboard, Search, SearchContext
from dspy_optimization.testing.memory_ledger import MemoryLedger

OBJECTIVES = Objectives(items=(Objective(metric="exact_match"),), ceilings={"exact_match": 1.0})


@dataclass(frozen=True, kw_only=True)
class Course:
    """A search and what came of it."""

    trials: tuple[Trial, ...]
    submitted: tuple[Candidate, ...]
    reports: tuple[Progress, ...]
    ended: StopSearch | None
    """What it raised."""
    paid: int
    """Calls that the model answered."""
    world: World
    baseline: Candidate

    @property
    def content(self) -> tuple[object, ...]:
        """What it did: trials in their order, results, and everything it told."""
        trials = tuple(
            (
                one.candidate.fingerprint,
                one.split.value,
                one.iteration,
                tuple((result.example_id, result.scores["exact_match"].value) for result in one.results),
            )
            for one in self.trials
        )
        told = tuple((one.phase, one.iteration, one.score, tuple(sorted(one.data.items()))) for one in self.reports)
        return trials, tuple(one.fingerprint for one in self.submitted), str(told)

    def told(self, phase: str) -> list[Progress]:
        return [one for one in self.reports if one.phase == phase]


class Stopping:
    """A model that counts its answers and ends the search with one of them."""

    price = None

    def __init__(self, world: World, stop: StopSignal, at: int | None) -> None:
        self._model = SimulatedModel(world)
        self._stop, self._at = stop, at
        self._lock = threading.Lock()
        self.identity = self._model.identity
        self.answered = 0

    def complete(self, request: ModelRequest) -> ModelResponse:
        with self._lock:
            self.answered += 1
            if self.answered == self._at:
                self._stop.stop(CancelRequested(f"stopped at call {self._at}"))
        return self._model.complete(request)

    def close(self) -> None:
        self._model.close()


class Trials:
    """Where trials are kept."""

    def __init__(self) -> None:
        self.kept: list[Trial] = []

    def record(self, _optimization_id: OptimizationId, trial: Trial) -> bool:
        self.kept.append(trial)
        return True


class Telling(Search):
    """Remembers what it was told."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)
        self.reports: list[Progress] = []

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)
        super().report(progress)


def searched(
    algorithm: Algorithm,
    options: object,
    *,
    world: World | None = None,
    n_train: int = 16,
    n_val: int = 24,
    seed: int = 7,
    calls: int | None = None,
    concurrency: int = 4,
    ledger: MemoryLedger | None = None,
    stop_at_answer: int | None = None,
) -> Course:
    """Search, and return what came of it; what ended it before its time is in there too."""
    world = world if world is not None else World(seed=3)
    runnable = DspyAgents(Parts(allowed=AllowList())).build(AGENT)
    metrics = [metrics_from_specs([{"type": "exact_match"}], allowed=AllowList())["exact_match"]]
    stop, trials, ended = StopSignal(), Trials(), None
    model = Stopping(world, stop, stop_at_answer)
    val = world.val[:n_val]
    with (
        LedgerSession.open(
            ledger if ledger is not None else MemoryLedger(),
            OptimizationId(UUID(int=1)),
            models={Role.TASK: model, Role.REFLECTION: model},
            limits=Limits(),
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            warn=lambda _warning: None,
        ) as session,
        Evaluator(runnable, metrics, OBJECTIVES, concurrency=concurrency) as evaluator,
    ):
        context = SearchContext(
            optimization_id=OptimizationId(UUID(int=1)),
            evaluator=evaluator,
            scoreboard=Scoreboard(OBJECTIVES, val),
            trials=trials,
            emit=lambda _event: None,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            paid_calls=lambda: 0,
            settle=lambda: None,
            after_trial=lambda _trial: None,
            standing=dict,
            reported=lambda: None,
        )
        run = Telling(context, algorithm.name, session.scope(algorithm.name, stop, calls), stop)
        problem = Problem(
            agent=AGENT,
            runnable=runnable,
            baseline=runnable.baseline,
            frozen=runnable.frozen,
            train=world.train[:n_train],
            val=val,
            objectives=OBJECTIVES,
            seed=seed,
            concurrency=concurrency,
            options=options,
        )
        try:
            algorithm.search(problem, run)
        except StopSearch as reason:
            ended = reason
    return Course(
        trials=tuple(trials.kept),
        submitted=tuple(run.submitted),
        reports=tuple(run.reports),
        ended=ended,
        paid=model.answered,
        world=world,
        baseline=runnable.baseline,
    )
