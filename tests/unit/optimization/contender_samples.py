"""Candidates with scores that a test says."""

from collections.abc import Mapping, Sequence

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.example import Example, ExampleId
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.optimization.contender import Contender

QUALITY = Objective(metric="quality")
COST = Objective(metric="cost_usd", direction=Direction.MINIMIZE)
BOTH = Objectives(items=(QUALITY, COST))


def candidate(name: str) -> Candidate:
    """Return a candidate of that text."""
    return Candidate(components={ComponentName("self"): ComponentValue(instructions=name)}, origin="test")


def contender(
    name: str,
    scores: Mapping[str, Sequence[float]],
    objectives: Objectives = BOTH,
    *,
    guardrails_hold: bool = True,
) -> Contender:
    """Return a candidate with metric → one score an example; `baseline` is the baseline."""
    n = len(next(iter(scores.values())))
    results = tuple(
        ExampleResult(
            example_id=ExampleId(f"e{number:03}"),
            scores={metric: Score(value=float(values[number])) for metric, values in scores.items()},
            outputs={},
        )
        for number in range(n)
    )
    return Contender(
        candidate=candidate(name),
        algorithm="baseline" if name == "baseline" else "test",
        results=results,
        utility=sum(objectives.scalar(one.scores) for one in results) / n,
        guardrails_hold=guardrails_hold,
        is_baseline=name == "baseline",
    )


def flat(name: str, objectives: Objectives = BOTH, *, guardrails_hold: bool = True, **means: float) -> Contender:
    """Return a candidate whose scores are the same on every example."""
    return contender(
        name, {metric: (mean,) * 4 for metric, mean in means.items()}, objectives, guardrails_hold=guardrails_hold
    )


def examples(n: int, clusters: Sequence[str] | None = None) -> list[Example]:
    """Return the examples that `contender` has results on."""
    return [
        Example(
            id=ExampleId(f"e{number:03}"),
            inputs={"q": str(number)},
            expected={},
            cluster=None if clusters is None else clusters[number],
        )
        for number in range(n)
    ]
