"""What a person looks at during and after an optimization, gathered from what was kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.adapters.report.curves import Curves, on_val, scaled, score_curves
from dspy_optimization.adapters.report.lineage import Ancestor, lineage
from dspy_optimization.adapters.report.pareto import Pareto, pareto
from dspy_optimization.adapters.report.reproduce import Reproduction, reproduction
from dspy_optimization.adapters.report.search_rounds import SearchRounds, search_rounds
from dspy_optimization.adapters.report.val_examples import (
    AnswerCost,
    ExampleChanges,
    SealedCounts,
    answer_cost,
    example_changes,
    sealed_counts,
)
from dspy_optimization.adapters.report.word_changes import ComponentChange, component_changes
from dspy_optimization.adapters.report.wording import Scale, Statement, statement
from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.evaluation.gate import ValidatedResult
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import EventType, RecordedEvent
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.store import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Everything a report is made of."""

    optimization: Optimization
    result: OptimizationResult | None
    """None while there is none."""
    trials: Sequence[Trial]
    """In the order they were recorded."""
    events: Sequence[RecordedEvent]
    agent: AgentConfig
    """The agent version the optimization began with."""
    dataset: Dataset
    bill: Bill
    models: Mapping[Role, str] = field(default_factory=dict)
    """Role → identity of its model, as far as the caller knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is shown; HTML and terminal draw the same one."""

    optimization: Optimization
    result: OptimizationResult | None
    agent: AgentConfig
    dataset: Dataset
    bill: Bill
    scale: Scale
    statement: Statement
    curves: Curves
    baseline: Candidate | None
    """None before the baseline was measured."""
    chosen: Candidate | None
    """The result's candidate; the best so far while there is no result."""
    changes: tuple[ComponentChange, ...]
    examples: ExampleChanges | None
    sealed: SealedCounts | None
    answer_before: AnswerCost | None
    answer_after: AnswerCost | None
    family: tuple[Ancestor, ...]
    pareto: Pareto | None
    """With two or more goals the front on val; None with one, and while there is no front."""
    rounds: tuple[SearchRounds, ...]
    """Of every algorithm that told of rounds."""
    notices: tuple[str, ...]
    """What a reader must know to judge the rest: caps, fallbacks, what did not work."""
    reproduction: Reproduction
    made_at: datetime

    @property
    def validated(self) -> ValidatedResult | None:
        """The evidence of the sealed split; None when it was not opened."""
        return self.result.validated if self.result is not None else None

    @property
    def is_running(self) -> bool:
        """Whether more is to come without anybody doing anything."""
        return self.result is None and self.optimization.status in {
            OptimizationStatus.RUNNING,
            OptimizationStatus.QUEUED,
        }

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The goals, as they were asked for."""
        return self.optimization.request.objectives


def collect(stores: Stores, optimization_id: OptimizationId, models: Mapping[Role, str] | None = None) -> Material:
    """Read what is kept of an optimization. Raises `NotFoundError` when there is none of that id.

    Args:
        stores: of the tenant.
        optimization_id: in any state.
        models: role → identity of its model, for the reproduce block.
    """
    optimization = stores.optimizations.get(optimization_id)
    return gathered(stores, optimization, stores.results.result(optimization_id), models)


def gathered(
    stores: Stores,
    optimization: Optimization,
    result: OptimizationResult | None,
    models: Mapping[Role, str] | None = None,
) -> Material:
    """Return what `collect` does, for an optimization and a result that are at hand."""
    optimization_id = optimization.request.id
    return Material(
        optimization=optimization,
        result=result,
        trials=stores.trials.trials(optimization_id),
        events=stores.events.events(optimization_id),
        agent=stores.agents.get(optimization.request.target.version),
        dataset=stores.datasets.get(optimization.request.dataset),
        bill=result.bill if result is not None else stores.ledger.bill(optimization_id),
        models=models if models is not None else {},
    )


def report(material: Material, made_at: datetime) -> Report:
    """Return what is to be shown of it."""
    request, result = material.optimization.request, material.result
    objectives = Objectives(items=request.objectives)
    val = material.dataset[Split.VAL]
    curves = score_curves(scaled(objectives, material.trials), val, material.trials)
    baseline = result.baseline if result is not None else curves.baseline.candidate if curves.baseline else None
    chosen = result.optimized if result is not None else curves.leader.candidate if curves.leader else None
    scale = Scale(
        objective=objectives.primary,
        right_or_wrong=_right_or_wrong(objectives.primary, material.trials, result),
    )
    both = baseline is not None and chosen is not None and baseline != chosen
    return Report(
        optimization=material.optimization,
        result=result,
        agent=material.agent,
        dataset=material.dataset,
        bill=material.bill,
        scale=scale,
        statement=statement(material.optimization, result, scale),
        curves=curves,
        baseline=baseline,
        chosen=chosen,
        changes=component_changes(baseline, chosen, _frozen(material.agent))
        if baseline is not None and chosen is not None
        else (),
        examples=example_changes(val, material.trials, baseline, chosen, objectives.primary)
        if both and baseline is not None and chosen is not None
        else None,
        sealed=sealed_counts(result.validated, objectives.primary)
        if result is not None and result.validated is not None
        else None,
        answer_before=answer_cost(on_val(material.trials, baseline)) if baseline is not None else None,
        answer_after=answer_cost(on_val(material.trials, chosen)) if both and chosen is not None else None,
        family=lineage(material.trials, curves, chosen),
        pareto=pareto(request.objectives, result, material.trials, curves),
        rounds=search_rounds(material.events),
        notices=tuple(_notices(material.events)),
        reproduction=reproduction(request, material.dataset, material.models),
        made_at=made_at,
    )


def _right_or_wrong(objective: Objective, trials: Sequence[Trial], result: OptimizationResult | None) -> bool:
    """Say whether scores are 0 or 1, as the trials and the test of the gate show."""
    if objective.direction is not Direction.MAXIMIZE:
        return False
    scores = {one.scores[objective.metric].value for trial in trials for one in trial.results}
    if scores:
        return scores <= {0.0, 1.0}
    validated = result.validated if result is not None else None
    return validated is not None and validated.objectives[objective.metric].test.startswith("mcnemar")


def _frozen(agent: AgentConfig) -> frozenset[ComponentName]:
    return frozenset(name for name, component in agent.components.items() if component.frozen)


def _notices(events: Sequence[RecordedEvent]) -> list[str]:
    """Return what a reader must know, each once, in the order it happened."""
    found: list[str] = []
    for recorded in events:
        data = recorded.event.data
        match recorded.event.type:
            case EventType.BUDGET_WARNING:
                found.append(
                    f"{data.get('share', 0):.0%} of the cap {data.get('cap')} = {data.get('limit')} were used."
                )
            case EventType.MODEL_FALLBACK:
                found.append(
                    f"For the role {data.get('role')}, {data.get('used')} answered instead of {data.get('wanted')}: "
                    f"{data.get('reason')}."
                )
            case EventType.DEVICE_FALLBACK:
                found.append(f"{data.get('reason')}.")
            case EventType.ALGORITHM_ENDED if data.get("error") is not None:
                found.append(f"The algorithm {data.get('algorithm')} broke and was left out: {data.get('error')}")
            case EventType.OPTIMIZATION_RESUMED:
                found.append("It was interrupted and resumed; what had been answered before was not paid again.")
            case EventType.TRACKING_FAILED:
                found.append(f"MLflow did not take it: {data.get('error')}")
            case _:
                pass
    return list(dict.fromkeys(found))
