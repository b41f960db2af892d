"""What became better and worse, example by example: on val alone, for the test split stays sealed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.adapters.report.curves import on_val
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.objective import Objective
from dspy_optimization.evaluation.gate import ValidatedResult
from dspy_optimization.evaluation.trial import ExampleResult, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleChange:
    """One val example under both candidates."""

    example: Example
    baseline: ExampleResult
    optimized: ExampleResult
    change: float
    """In the primary metric, turned so that above 0 is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleChanges:
    """All val examples that both candidates were measured on."""

    metric: str
    better: tuple[ExampleChange, ...]
    """The greatest change first."""
    worse: tuple[ExampleChange, ...]
    same: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCounts:
    """What may be said of single test examples: how many, never which."""

    n: int
    differ: int
    better: int | None
    """None where the scores are no right or wrong: only the number that differ is known."""
    worse: int | None
    clustered: bool
    """True: `differ` counts clusters of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCost:
    """What one answer takes, mean over val, as if nothing came from the ledger."""

    lm_calls: float
    prompt_tokens: float
    completion_tokens: float
    cost_usd: float
    latency_seconds: float


def example_changes(
    val: Sequence[Example], trials: Sequence[Trial], baseline: Candidate, optimized: Candidate, objective: Objective
) -> ExampleChanges:
    """Return what changed on val in one objective."""
    before, after = on_val(trials, baseline), on_val(trials, optimized)
    changes = [
        ExampleChange(
            example=example,
            baseline=before[example.id],
            optimized=after[example.id],
            change=_change(before[example.id], after[example.id], objective),
        )
        for example in val
        if example.id in before and example.id in after
    ]
    moved = sorted(changes, key=lambda one: (-abs(one.change), one.example.id))
    better = tuple(one for one in moved if one.change > 0)
    worse = tuple(one for one in moved if one.change < 0)
    return ExampleChanges(
        metric=objective.metric,
        better=better,
        worse=worse,
        same=len(changes) - len(better) - len(worse),
        n=len(changes),
    )


def sealed_counts(validated: ValidatedResult, objective: Objective) -> SealedCounts | None:
    """Return how many test examples differ; None when nothing was compared there."""
    result = validated.objectives[objective.metric]
    if result.p_value is None or result.discordant is None:
        return None
    won = None
    if result.test.startswith("mcnemar"):
        gained = round(objective.oriented(result.difference.value) * validated.n_examples)
        won = (result.discordant + gained) // 2
    return SealedCounts(
        n=validated.n_examples,
        differ=result.discordant,
        better=won,
        worse=result.discordant - won if won is not None else None,
        clustered=result.test.startswith("cluster"),
    )


def answer_cost(results: Mapping[str, ExampleResult]) -> AnswerCost | None:
    """Return what one answer takes; None without results or when no run was measured."""
    usages = [result.usage for result in results.values()]
    if not any(usage.lm_calls for usage in usages):
        return None
    n = len(usages)
    return AnswerCost(
        lm_calls=sum(usage.lm_calls for usage in usages) / n,
        prompt_tokens=sum(usage.prompt_tokens for usage in usages) / n,
        completion_tokens=sum(usage.completion_tokens for usage in usages) / n,
        cost_usd=sum(usage.cost_usd for usage in usages) / n,
        latency_seconds=sum(usage.latency_seconds for usage in usages) / n,
    )


def _change(before: ExampleResult, after: ExampleResult, objective: Objective) -> float:
    metric = objective.metric
    return objective.oriented(after.scores[metric].value) - objective.oriented(before.scores[metric].value)
