"""Candidates measured on all of val, as whoever chooses among them sees them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.compute.ranking import fronts
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.optimization.search import Scoreboard, size_of

DIGITS = 12
"""Means that agree so far, as a share of the largest one, are equal: the same scores added in another order differ."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A candidate with what it is worth on all of val: optimistic, for the search looked at the same examples."""

    candidate: Candidate
    algorithm: str
    """Who measured it first."""
    results: tuple[ExampleResult, ...]
    """In the order of the example ids."""
    utility: float
    """Mean weighted utility, higher is better."""
    guardrails_hold: bool
    is_baseline: bool

    @property
    def fingerprint(self) -> Fingerprint:
        """The candidate's."""
        return self.candidate.fingerprint

    @cached_property
    def means(self) -> Mapping[str, float]:
        """Metric → mean on val, in the unit of the metric."""
        metrics = self.results[0].scores
        return {one: math.fsum(result.scores[one].value for result in self.results) / self.n for one in metrics}

    @property
    def n(self) -> int:
        """Examples it was measured on."""
        return len(self.results)

    @cached_property
    def tie(self) -> tuple[int, Fingerprint]:
        """What decides between two that are equally good: the shorter one, then the smaller fingerprint."""
        return size_of(self.candidate), self.fingerprint


def contenders(scoreboard: Scoreboard, baseline: Candidate) -> tuple[Contender, ...]:
    """Return every candidate measured on all of val, by fingerprint: the order in which they came decides nothing."""
    val = scoreboard.val
    found = [
        Contender(
            candidate=one.candidate,
            algorithm=one.algorithm,
            results=tuple(one.results[example_id] for example_id in val),
            utility=scoreboard.score(one),
            guardrails_hold=one.candidate == baseline or scoreboard.guardrails_hold(one),
            is_baseline=one.candidate == baseline,
        )
        for one in scoreboard.complete()
    ]
    return tuple(sorted(found, key=lambda one: one.fingerprint))


def goals_of(objectives: Objectives) -> tuple[Objective, ...]:
    """Return the objectives that are to be improved: those that are no guardrails, in their order."""
    return tuple(item for item in objectives.items if not item.guardrail)


def losses(some: Sequence[Contender], goals: Sequence[Objective]) -> Floats:
    """Return the means as shares of the largest one of each goal, (n, n_goals), smaller is better."""
    signs = np.array([-1.0 if goal.direction is Direction.MAXIMIZE else 1.0 for goal in goals])
    means = np.array([[one.means[goal.metric] for goal in goals] for one in some])
    return rounded(means.reshape(len(some), len(goals)) * signs)


def rounded(values: Floats, digits: int = DIGITS) -> Floats:
    """Return columns as shares of their largest entry, equal where they differ by rounding alone.

    Args:
        values: (…, n, n_goals).
        digits: after the point, of the shares.
    """
    if not values.size:
        return values
    largest = np.abs(values).max(axis=-2, keepdims=True)
    return np.asarray(np.round(values / np.where(largest > 0.0, largest, 1.0), digits) + 0.0, np.float64)


def undominated(some: Sequence[Contender], goals: Sequence[Objective]) -> tuple[Contender, ...]:
    """Return those that no other one is at least as good as in every goal and better than in one, in their order."""
    if not some:
        return ()
    front = fronts(losses(some, goals))
    return tuple(one for one, place in zip(some, front, strict=True) if place == 0)


def as_good(one: Contender, other: Contender, goals: Sequence[Objective]) -> bool:
    """Say whether one is at least as good as the other in every goal."""
    mine, its = losses((one, other), goals)
    return bool(np.all(mine <= its))
