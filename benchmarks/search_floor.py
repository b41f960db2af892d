"""An algorithm searching with nothing around it: a ledger in memory, a cap on calls, no database, no gate."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from benchmarks.bare import hushed
from benchmarks.capo import Capo, CapoOptions
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.algorithms.option_fields import options_from_json
from dspy_optimization.algorithms.problem import Algorithm, Problem
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.errors import TurnOver
from dspy_optimization.evaluation.agent import AgentBuilder
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import Json
from dspy_optimization.optimization.search import Scoreboard, Search, SearchContext
from dspy_optimization.testing.memory_ledger import MemoryLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to."""

    best: Candidate
    """On val, among what was measured on all of it and what the algorithm named."""
    val_score: float
    paid: int
    """Calls, of the search alone."""
    trials: int
    stopped: bool
    """Whether it would have gone on."""


class _Trials:
    def __init__(self) -> None:
        self.kept: list[Trial] = []

    def record(self, _optimization_id: OptimizationId, trial: Trial) -> bool:
        self.kept.append(trial)
        return True


def search(
    name: str,
    options: Mapping[str, Json],
    *,
    agent: AgentConfig,
    builder: AgentBuilder,
    model: LanguageModel,
    train: Sequence[Example],
    val: Sequence[Example],
    objectives: Objectives,
    metrics: Sequence[Metric],
    calls: int,
    seed: int,
    concurrency: int = 8,
) -> Found:
    """Let an algorithm search with so many calls, complete what it named, and return the best on val."""
    algorithm, chosen = _algorithm(name, options)
    runnable = builder.build(agent)
    board, trials = Scoreboard(objectives, val), _Trials()
    identity = OptimizationId(uuid4())
    stop = StopSignal()
    ledger = MemoryLedger()
    with (
        hushed(),
        closing(
            LedgerSession.open(
                ledger,
                identity,
                models={Role.TASK: model, Role.REFLECTION: model},
                limits=Limits(),
                now=lambda: datetime.now(UTC),
                warn=lambda _warning: None,
            )
        ) as session,
        Evaluator(runnable, metrics, objectives, concurrency=concurrency) as evaluator,
    ):
        context = SearchContext(
            optimization_id=identity,
            evaluator=evaluator,
            scoreboard=board,
            trials=trials,
            emit=lambda _event: None,
            now=lambda: datetime.now(UTC),
            paid_calls=lambda: session.paid_calls,
            settle=lambda: None,
            after_trial=lambda _trial: None,
            standing=dict,
            reported=lambda: None,
        )
        first = Search(context, "baseline", session.scope("baseline", stop), stop)
        results = first.evaluate(runnable.baseline, val)
        first.record(runnable.baseline, Split.VAL, results, 0)
        before = session.paid_calls
        own = StopSignal(stop)
        run = Search(context, name, session.scope(name, own, calls), own)
        problem = Problem(
            agent=agent,
            runnable=runnable,
            baseline=runnable.baseline,
            frozen=runnable.frozen,
            train=tuple(train),
            val=tuple(val),
            objectives=objectives,
            seed=seed,
            concurrency=concurrency,
            options=chosen,
        )
        stopped = False
        try:
            algorithm.search(problem, run)
        except TurnOver:
            stopped = True
        paid = session.paid_calls - before
        last = Search(context, name, session.scope(name, stop), stop)
        for candidate in run.submitted:
            if board.on_val(candidate) is None:
                last.record(candidate, Split.VAL, last.evaluate(candidate, val), 0)
        best = board.best()
        if best is None:
            raise RuntimeError("wanted: a baseline on val; found: none")
        return Found(
            best=best.candidate,
            val_score=board.score(best),
            paid=paid,
            trials=len(trials.kept),
            stopped=stopped,
        )


def _algorithm(name: str, options: Mapping[str, Json]) -> tuple[Algorithm, object]:
    if name == Capo.name:
        return Capo(), options_from_json(name, CapoOptions, options)
    registry = AlgorithmRegistry.of_environment()
    return registry.get(name), registry.options(name, options)
