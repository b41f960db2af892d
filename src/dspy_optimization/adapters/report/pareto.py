"""Several goals at once, as a report shows them: the front on val beside everybody else who was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dspy_optimization.adapters.report.curves import Curves
from dspy_optimization.adapters.report.numbers import number, percent
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.agents.operational_metrics import Quantity
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.optimization.front import Front, FrontPoint
from dspy_optimization.optimization.policy import Pick
from dspy_optimization.optimization.result import OptimizationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One objective that is to be improved, and how its values are written."""

    objective: Objective
    is_share: bool
    """Every score is 0 or 1, so that a mean is a share of the examples."""

    @property
    def name(self) -> str:
        """The metric's."""
        return self.objective.metric

    @property
    def is_up(self) -> bool:
        """Whether more is better."""
        return self.objective.direction is Direction.MAXIMIZE

    @property
    def wish(self) -> str:
        """Which way is better, in words."""
        return "more is better" if self.is_up else "less is better"

    def text(self, value: float) -> str:
        """Return a value in the unit of the metric."""
        if self.is_share:
            return percent(value)
        if self.name == Quantity.COST_USD:
            return f"${_without_exponent(value)}"
        return f"{number(value)} s" if self.name == Quantity.LATENCY_SECONDS else number(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A candidate of the front, the baseline or the chosen one, under the name by which pictures and table call it."""

    name: str
    point: FrontPoint

    @property
    def is_plain(self) -> bool:
        """On the front, and neither the baseline nor the chosen one."""
        return not self.point.is_baseline and not self.point.is_chosen

    @property
    def words(self) -> str:
        """What it is, for who cannot see its mark."""
        told = [self.name, f"candidate {self.point.candidate[:7]}" if self.is_plain else ""]
        told += ["" if self.point.on_front else "not on the front"]
        told += ["" if self.point.guardrails_hold else "hurts a guardrail"]
        return ", ".join(one for one in told if one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A candidate measured on all of val that is dominated."""

    candidate: Fingerprint
    algorithm: str
    means: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pareto:
    """What a report tells of two or more goals; all of it is of val."""

    goals: tuple[Goal, ...]
    """The primary one first."""
    guardrails: tuple[Goal, ...]
    front: Front
    pick: Pick | None
    listed: tuple[Listed, ...]
    """The front, the best in the primary goal first; then the baseline and the chosen one where they are not on it."""
    others: tuple[Other, ...]
    paid_calls: int
    """When the last candidate was measured."""

    def names(self, some: Sequence[Fingerprint]) -> tuple[str, ...]:
        """Return what pictures and table call these candidates, in the order of the table."""
        return tuple(one.name for one in self.listed if one.point.candidate in set(some))

    def dominators(self, one: Listed) -> tuple[str, ...]:
        """Return who dominates it how often, the surest first."""
        called = {other.point.candidate: other.name for other in self.listed}
        ordered = sorted(one.point.dominated_by.items(), key=lambda item: (-item[1], called.get(item[0], "")))
        return tuple(f"{called[name]} in {share:.0%}" for name, share in ordered if name in called)

    @property
    def pairs(self) -> tuple[tuple[Goal, Goal], ...]:
        """Goals that are drawn against each other, the one across first: all of three, else the primary one's."""
        first = self.goals[0]
        pairs = [(other, first) for other in self.goals[1:]]
        if len(self.goals) == 3:
            pairs.append((self.goals[2], self.goals[1]))
        return tuple(pairs)


def pareto(
    objectives: Sequence[Objective], result: OptimizationResult | None, trials: Sequence[Trial], curves: Curves
) -> Pareto | None:
    """Return it; None with one goal, or while there is no front."""
    front = None if result is None else result.front
    if result is None or front is None or len(front.goals) < 2:
        return None
    shares = _shares(objectives, trials)
    by_name = {one.metric: Goal(objective=one, is_share=one.metric in shares) for one in objectives}
    listed = _listed(front)
    known = {one.point.candidate for one in listed} | {name for one in listed for name in one.point.equal}
    return Pareto(
        goals=tuple(by_name[name] for name in front.goals),
        guardrails=tuple(one for one in by_name.values() if one.objective.guardrail),
        front=front,
        pick=result.pick,
        listed=listed,
        others=_others(front, trials, curves, known),
        paid_calls=max((point.paid_calls for point in curves.points), default=0),
    )


def _without_exponent(value: float) -> str:
    """Return an amount of dollars, of which one answer takes little."""
    small = 0.0 < abs(value) < 1e-4
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}" if small else number(value)


def _listed(front: Front) -> tuple[Listed, ...]:
    found = list(front.points)
    for one in (front.baseline, front.chosen):
        if all(one.candidate != point.candidate for point in found):
            found.append(one)
    return tuple(Listed(name=_name(place, point), point=point) for place, point in enumerate(found, start=1))


def _name(place: int, point: FrontPoint) -> str:
    if point.is_baseline:
        return "baseline"
    return "chosen" if point.is_chosen else str(place)


def _others(front: Front, trials: Sequence[Trial], curves: Curves, known: set[Fingerprint]) -> tuple[Other, ...]:
    whole = {point.candidate: point for point in curves.points if point.complete and point.candidate not in known}
    results: dict[Fingerprint, dict[ExampleId, ExampleResult]] = {name: {} for name in whole}
    for trial in trials:
        mine = results.get(trial.candidate.fingerprint)
        if mine is not None and trial.split is Split.VAL:
            for result in trial.results:
                mine[result.example_id] = result  # the newest one counts, as for the optimizer
    return tuple(
        Other(
            candidate=name,
            algorithm=point.algorithm,
            means={goal: fmean(result.scores[goal].value for result in results[name].values()) for goal in front.goals},
        )
        for name, point in whole.items()
    )


def _shares(objectives: Sequence[Objective], trials: Sequence[Trial]) -> frozenset[str]:
    seen: dict[str, set[float]] = {one.metric: set() for one in objectives if one.direction is Direction.MAXIMIZE}
    for trial in trials:
        for result in trial.results:
            for metric, values in seen.items():
                if len(values) < 3:
                    values.add(result.scores[metric].value)
    return frozenset(metric for metric, values in seen.items() if values and values <= {0.0, 1.0})
