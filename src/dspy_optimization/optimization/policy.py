"""Which of the candidates measured on val goes to the gate.

A policy never decides alone. Whoever it takes

    1. hurts no guardrail and is admitted by the policy (a cap on cost, say),
    2. is beaten by nobody of those: no other one is as good in every goal and better in one,
    3. stands before the baseline by the policy's own order, by more than rounding,
    4. is better than the baseline in something: in a goal, or in what the policy bounds.

Where nobody is left the baseline stays. So nothing that is worse than the baseline in everything ever opens the test
split. What the algorithms climb while they search stays the weighted utility, whatever the policy is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.compute.hypervolume import hypervolume
from dspy_optimization.compute.ranking import fronts
from dspy_optimization.events import Json
from dspy_optimization.optimization.contender import Contender, as_good, goals_of, losses, undominated

TIE = 1e-9
"""Means of the same scores added in another order differ by less, as a share of what they are."""
BEYOND = 0.1
"""How far behind the worst of a front its reference point lies, as a share of what the front spans."""


class Policy(Protocol):
    """Says who of the candidates that nobody beats is taken. Bound to the objectives of one request."""

    type: ClassVar[str]

    @property
    def objectives(self) -> Objectives:
        """The goals and guardrails of the request."""
        ...

    @property
    def bounded(self) -> tuple[str, ...]:
        """Metrics that it bounds, beside the goals."""
        ...

    @property
    def ends_at_targets(self) -> bool:
        """Whether a candidate that reaches every target is good enough to end the search."""
        ...

    def admits(self, one: Contender) -> bool:
        """Say whether it may be taken at all."""
        ...

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:
        """Return whom it takes.

        Args:
            pool: admitted, beaten by nobody; the baseline is among them where it is admitted. Not empty.
            baseline: also where it is not admitted.
        """
        ...

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:
        """Return in words what made it take this one, out of itself and so many others."""
        ...

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Who goes to the gate, and why."""

    policy: str
    candidate: Fingerprint
    """The baseline's, when nothing is better than it."""
    reason: str
    """A sentence; the numbers in it are of val."""
    eligible: int
    """Candidates whose guardrails hold and that the policy admits, the baseline too."""


def pick(policy: Policy, some: Sequence[Contender]) -> Pick:
    """Return who goes to the gate; the order of the candidates decides nothing.

    Args:
        policy: of the request.
        some: every candidate measured on all of val; the baseline is one of them.
    """
    baseline = next(one for one in some if one.is_baseline)
    goals = goals_of(policy.objectives)
    eligible = [one for one in some if one.guardrails_hold and policy.admits(one)]
    pool = list(undominated(eligible, goals))
    if baseline in eligible and baseline not in pool:
        pool.append(baseline)
    taken = policy.best(pool, baseline) if pool else baseline
    compared = (*goals, *(item for item in policy.objectives.items if item.guardrail and item.metric in policy.bounded))
    if as_good(baseline, taken, compared):
        taken = baseline
    if taken is baseline:
        reason = f"the baseline stays: {_stays(policy, baseline, len(eligible))}"
    else:
        reason = policy.why(taken, baseline, len(eligible) - 1)
    return Pick(policy=policy.type, candidate=taken.fingerprint, reason=reason, eligible=len(eligible))


def _stays(policy: Policy, baseline: Contender, eligible: int) -> str:
    others = eligible - (1 if policy.admits(baseline) else 0)
    if not others:
        return f"no other candidate that was measured on all of val may be taken under the policy {policy.type}"
    return f"none of {others} other candidates is better on val under the policy {policy.type}"


class _Usual:
    """What most policies do."""

    __slots__ = ()

    @property
    def bounded(self) -> tuple[str, ...]:
        return ()

    @property
    def ends_at_targets(self) -> bool:
        return True

    def admits(self, one: Contender) -> bool:  # noqa: ARG002 - part of the protocol
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights(_Usual):
    """The best weighted utility: what the algorithms climb."""

    type: ClassVar[str] = "weights"
    objectives: Objectives

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:
        """Return the one of the best utility."""
        taken = min(pool, key=_by_utility)
        return taken if taken.utility > baseline.utility + TIE else baseline

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:
        """Return the two utilities."""
        return (
            f"the best weighted utility on val, {taken.utility:.3g} against {baseline.utility:.3g} of the baseline, "
            f"of {others + 1} candidates whose guardrails hold"
        )

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        return {"type": self.type}


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetValues(_Usual):
    """Who reaches every target with least of something; while nobody does, who is nearest."""

    type: ClassVar[str] = "target_values"
    objectives: Objectives
    least: str | None = None
    """A goal to be minimized; None: of those that reach every target the best utility."""

    @property
    def ends_at_targets(self) -> bool:
        """Not while something cheaper may reach them too."""
        return self.least is None

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:
        """Return the nearest; of those that are there the one with least."""

        def order(one: Contender) -> tuple[float, float, float]:
            missing = self.missing(one, baseline)
            amount = one.means[self.least] if self.least is not None and missing == 0.0 else 0.0
            return round(missing, 9), amount, -round(one.utility, 9)

        taken = min(pool, key=lambda one: (order(one), one.tie))
        return taken if order(taken) < order(baseline) else baseline

    def missing(self, one: Contender, baseline: Contender) -> float:
        """Return how far it is from the targets, 0 when it reaches all.

        Euclidean; each goal in units of what separates the baseline from its target, and of the target itself where
        the baseline is there.
        """
        total = 0.0
        for item in _with_target(self.objectives):
            target = _target(item)
            unit = abs(target - baseline.means[item.metric])
            if item.oriented(baseline.means[item.metric]) >= item.oriented(target):
                unit = abs(target) if target else 1.0
            short = max(item.oriented(target) - item.oriented(one.means[item.metric]), 0.0) / unit
            total += short**2 if short > TIE else 0.0
        return math.sqrt(total)

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:
        """Return whether the targets are reached."""
        listed = ", ".join(
            f"{item.metric} {taken.means[item.metric]:.3g} (target {item.target_value:g})"
            for item in _with_target(self.objectives)
        )
        if self.missing(taken, baseline) > 0.0:
            return f"no candidate reaches every target on val; of {others + 1} this one is nearest: {listed}"
        least = "" if self.least is None else f" with the least {self.least}, {taken.means[self.least]:.3g}"
        return f"reaches every target on val{least}: {listed}"

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        return {"type": self.type, **({} if self.least is None else {"least": self.least})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicographic(_Usual):
    """The best in the first goal; of those that are nearly as good the best in the second one, and so on."""

    type: ClassVar[str] = "lexicographic"
    objectives: Objectives
    order: tuple[str, ...]
    """Goals, the first one first; those that are not named follow in the order of the request."""
    tolerance: float = 0.02
    """What counts as nearly as good: so much less, as a share of the baseline's mean."""

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:
        """Return the last one left; the baseline where it is among those that cannot be told apart."""
        left = list(pool)
        for item in self._ordered():
            best = max(item.oriented(one.means[item.metric]) for one in left)
            allowed = self.tolerance * abs(baseline.means[item.metric]) + TIE * abs(best)
            left = [one for one in left if item.oriented(one.means[item.metric]) >= best - allowed]
        if any(one.is_baseline for one in left):
            return baseline

        def rank(one: Contender) -> tuple[float, ...]:
            return tuple(-item.oriented(one.means[item.metric]) for item in self._ordered())

        return min(left, key=lambda one: (rank(one), one.tie))

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:
        """Return the goals in their order."""
        listed = ", then ".join(
            f"{item.metric} {taken.means[item.metric]:.3g} (baseline {baseline.means[item.metric]:.3g})"
            for item in self._ordered()
        )
        return f"by priority on val, {self.tolerance:.0%} of the baseline apart, of {others + 1} candidates: {listed}"

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        return {"type": self.type, "order": list(self.order), "tolerance": self.tolerance}

    def _ordered(self) -> tuple[Objective, ...]:
        goals = {item.metric: item for item in goals_of(self.objectives)}
        return (*(goals[name] for name in self.order), *(one for name, one in goals.items() if name not in self.order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee(_Usual):
    """The point of the front at which giving up a little of one goal stops paying in the others.

    Each goal is stretched so that the front spans 0 to 1, and the reference point lies `BEYOND` behind the worst of
    every goal. The knee is the point that dominates the largest hypervolume by itself.

    Source: the optimal distribution of one point (Auger, Bader, Brockhoff and Zitzler 2009, Theory of the hypervolume
    indicator), which Emmerich, Deutz and Beume observe to lie at knees; as a product of gains it is Nash's bargaining
    solution. The reference behind the worst of each goal is ours: without it both points of a front of two are worth 0.
    """

    type: ClassVar[str] = "knee"
    objectives: Objectives

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:
        """Return the one that dominates most."""
        sizes = knee_volumes(pool, goals_of(self.objectives))
        volumes = {one.fingerprint: size for one, size in zip(pool, sizes, strict=True)}
        taken = min(pool, key=lambda one: (-round(volumes[one.fingerprint], 9), *_by_utility(one)))
        own = volumes.get(baseline.fingerprint)
        return baseline if own is not None and own >= volumes[taken.fingerprint] - TIE else taken

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:
        """Return where the knee lies."""
        listed = ", ".join(
            f"{item.metric} {taken.means[item.metric]:.3g} (baseline {baseline.means[item.metric]:.3g})"
            for item in goals_of(self.objectives)
        )
        return f"the knee of the front on val, of {others + 1} candidates: {listed}"

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        return {"type": self.type}


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxCost(_Usual):
    """The best in the primary objective among those that take at most so much."""

    type: ClassVar[str] = "max_cost"
    objectives: Objectives
    metric: str
    """An objective to be minimized; it may be a guardrail."""
    at_most: float
    """Mean on val, in the unit of the metric."""

    @property
    def bounded(self) -> tuple[str, ...]:
        """The metric that has the cap."""
        return (self.metric,)

    def admits(self, one: Contender) -> bool:
        """Say whether it takes at most so much."""
        return one.means[self.metric] <= self.at_most + TIE * abs(self.at_most)

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:
        """Return the best in the primary objective; of equal ones the one that takes least."""
        primary = self.objectives.primary
        largest = max(abs(one.means[primary.metric]) for one in (*pool, baseline)) or 1.0

        def order(one: Contender) -> tuple[float, float]:
            return -round(primary.oriented(one.means[primary.metric]) / largest, 9), one.means[self.metric]

        taken = min(pool, key=lambda one: (order(one), *_by_utility(one)))
        return baseline if self.admits(baseline) and order(baseline) <= order(taken) else taken

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:
        """Return what it takes and what it is worth."""
        primary = self.objectives.primary.metric
        return (
            f"the best {primary} on val, {taken.means[primary]:.3g} (baseline {baseline.means[primary]:.3g}), of "
            f"{others + 1} candidates with {self.metric} at most {self.at_most:g}; it takes "
            f"{taken.means[self.metric]:.3g}"
        )

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        return {"type": self.type, "metric": self.metric, "at_most": self.at_most}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked(_Usual):
    """The candidate that a person picked from an earlier optimization, unless it is worse than the baseline."""

    type: ClassVar[str] = "picked"
    objectives: Objectives
    candidate: Fingerprint
    optimization: str | None = None
    """The one it was picked from."""

    @property
    def ends_at_targets(self) -> bool:
        """There is one candidate to look at, and it is looked at."""
        return False

    def admits(self, one: Contender) -> bool:
        """Say whether it is the one."""
        return one.fingerprint == self.candidate

    def best(self, pool: Sequence[Contender], baseline: Contender) -> Contender:  # noqa: ARG002 - as the protocol has it
        """Return it."""
        return pool[0]

    def why(self, taken: Contender, baseline: Contender, others: int) -> str:  # noqa: ARG002 - as the protocol has it
        """Return that a person did."""
        origin = "" if self.optimization is None else f" from optimization {self.optimization}"
        return f"a person picked it{origin}"

    def to_json(self) -> dict[str, Json]:
        """Return it as a request names it."""
        origin: dict[str, Json] = {} if self.optimization is None else {"optimization": self.optimization}
        return {"type": self.type, "candidate": self.candidate, **origin}


def knee_volumes(pool: Sequence[Contender], goals: Sequence[Objective]) -> list[float]:
    """Return the hypervolume that each dominates by itself, where the front of the pool spans 0 to 1 in every goal."""
    points = losses(pool, goals)
    front = points[fronts(points) == 0]
    low = front.min(axis=0)
    span = front.max(axis=0) - low
    stretched = (points - low) / np.where(span > 0.0, span, 1.0)
    return [hypervolume([point], [1.0 + BEYOND] * len(goals)) for point in stretched]


def _by_utility(one: Contender) -> tuple[float, tuple[int, Fingerprint]]:
    return -round(one.utility, 12), one.tie


def _with_target(objectives: Objectives) -> tuple[Objective, ...]:
    return tuple(item for item in goals_of(objectives) if item.target_value is not None)


def _target(item: Objective) -> float:
    return item.target_value if item.target_value is not None else 0.0
