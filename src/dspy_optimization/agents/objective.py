"""Objectives: metrics with a direction, a weight, a target or a guardrail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dspy_optimization.agents.metric import Score


class Direction(StrEnum):
    """Which way is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One metric as a goal."""

    metric: str
    direction: Direction = Direction.MAXIMIZE
    weight: float = 1.0
    """Share in the scalar that single-objective algorithms climb; above 0."""
    target_value: float | None = None
    """Good enough: the search stops once val reaches it."""
    guardrail: bool = False
    """True: not to be improved, only not to be hurt."""
    margin: float = 0.1
    """How much worse a guardrail may become, as a share of the baseline."""

    def oriented(self, value: float) -> float:
        """Return the value so that higher is better."""
        return value if self.direction is Direction.MAXIMIZE else -value

    def holds(self, mean: float, baseline: float) -> bool:
        """Say whether a mean is worse than the baseline's by no more than the margin of a guardrail."""
        return self.oriented(mean) >= self.oriented(baseline) - self.margin * abs(baseline) - 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """All goals of one optimization; the first that is no guardrail is the primary one."""

    items: tuple[Objective, ...]
    scales: Mapping[str, float] = field(default_factory=dict)
    """Metric → the baseline's mean, for metrics to minimize: the baseline is worth 0.5 there."""
    ceilings: Mapping[str, float] = field(default_factory=dict)
    """Metric → its best value, for metrics to maximize; 1 where none is given."""

    @property
    def primary(self) -> Objective:
        """The objective that decides."""
        return next(item for item in self.items if not item.guardrail)

    def with_scales(self, scales: Mapping[str, float]) -> "Objectives":
        """Return the same goals, measured against these baseline means."""
        return replace(self, scales=dict(scales))

    def scalar(self, scores: Mapping[str, Score]) -> float:
        """Return the weighted mean utility, higher is better: what single-objective algorithms climb.

        A metric to maximize counts as it is; one to minimize as 1 / (1 + value / baseline mean), so that
        dollars and seconds can stand beside accuracies.
        """
        goals = [item for item in self.items if not item.guardrail]
        total = sum(item.weight for item in goals)
        return sum(item.weight * self.utility(item, scores) for item in goals) / total

    def full_marks(self, scores: Mapping[str, Score]) -> bool:
        """Say whether an answer could not be better: every metric to maximize is at its best value.

        Metrics to minimize have no best value and do not count; guardrails do not count either.
        """
        goals = [item for item in self.items if not item.guardrail and item.direction is Direction.MAXIMIZE]
        return bool(goals) and all(
            scores[item.metric].failure is None
            and scores[item.metric].value >= self.ceilings.get(item.metric, 1.0) - 1e-9
            for item in goals
        )

    def utility(self, objective: Objective, scores: Mapping[str, Score]) -> float:
        """Return what one goal is worth, higher is better; see `scalar`."""
        value = scores[objective.metric].value
        if objective.direction is Direction.MAXIMIZE:
            return value
        scale = self.scales.get(objective.metric, 1.0)
        return 1.0 / (1.0 + max(value, 0.0) / scale) if scale > 0 else 1.0 / (1.0 + max(value, 0.0))


def mean_scalar(objectives: Objectives, scores: Sequence[Mapping[str, Score]]) -> float:
    """Return the mean utility over examples; `scores` holds metric → score, one mapping an example."""
    return sum(objectives.scalar(one) for one in scores) / len(scores)
