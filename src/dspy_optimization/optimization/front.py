"""The Pareto front of an optimization: who is beaten by nobody on val, and how sure that is.

Everything here is of val, on which the candidates were searched and chosen: optimistic, and no claim. Scores of a few
dozen examples make it nearly chance who dominates whom, so each point says how often it is on the front when the
examples are drawn anew, and whom it cannot be told apart from.

    interval of a mean            `statistics.mean_interval`, 95 %, by clusters where there are some; names its method
    on the front, dominated by    bootstrap samples of the val examples (whole clusters), the same for all candidates
    told apart                    in some goal one is better in at least 97.5 % of those samples; not corrected for the
                                  number of pairs
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.compute.hypervolume import hypervolume
from dspy_optimization.compute.ranking import best_first, fronts
from dspy_optimization.evaluation.gate import clusters_of
from dspy_optimization.optimization.contender import Contender, Floats, goals_of, losses, rounded
from dspy_optimization.statistics import mean_interval, resampled_means

RESAMPLES = 2_000
"""Bootstrap samples; a probability of 0.5 is known to 0.02 then."""
LEVEL = 0.95
MOST_POINTS = 50
"""Points that are kept; of more, those with the most room around them."""
_SEEN = 0.05
"""Dominance less probable than this is not mentioned."""
_BEHIND = 0.1
"""How far behind the worst candidate the reference point of the hypervolume lies, as a share of what all span."""
_RESAMPLED_DIGITS = 9
_CELLS = 4_000_000


class Completed(NamedTuple):
    """A candidate whose results on val became complete."""

    candidate: Fingerprint
    paid_calls: int
    """Calls the optimization had paid by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValMean:
    """A mean on val with its interval, in the unit of the metric."""

    value: float
    low: float | None
    """None: the sample cannot tell (one example, or amounts that never vary)."""
    high: float | None
    n: int
    level: float = LEVEL
    method: str | None = None
    """How the interval was computed, by the name of `statistics.IntervalMethod`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One candidate on the front, or beside it: the baseline and the chosen one are always told of."""

    candidate: Fingerprint
    algorithm: str
    origin: str
    means: Mapping[str, ValMean]
    """Objective → mean on val, guardrails too."""
    guardrails_hold: bool
    """Whether none is hurt by more than its margin, as far as val can tell."""
    on_front: bool
    """No candidate whose guardrails hold dominates it; one whose guardrails do not hold is beaten by none at all."""
    is_baseline: bool
    is_chosen: bool
    probability_on_front: float
    """Share of bootstrap samples of the val examples in which it is on the front, 0 to 1."""
    dominated_by: Mapping[Fingerprint, float] = field(default_factory=dict)
    """Other point → share of samples in which it dominates this one; those of at least 0.05."""
    alike: tuple[Fingerprint, ...] = ()
    """Other points that it cannot be told apart from in any goal."""
    equal: tuple[Fingerprint, ...] = ()
    """Candidates with the same mean in every goal that this point stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStep:
    """From so many paid calls on the front dominated this much."""

    paid_calls: int
    volume: float
    """Share of the box between the best of every goal and the reference, 0 to 1; never falls."""
    candidate: Fingerprint
    """Whose measurement made it rise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The front on val, with the baseline and the chosen candidate."""

    goals: tuple[str, ...]
    """The objectives that make it: those that are no guardrails; the first one is the primary one."""
    points: tuple[FrontPoint, ...]
    """On the front, the best in the primary objective first."""
    baseline: FrontPoint
    chosen: FrontPoint
    size: int
    """How many points the front has; `points` holds at most `MOST_POINTS` of them."""
    candidates: int
    """Measured on all of val."""
    n: int
    """Val examples."""
    clusters: int | None
    """How many clusters they make; None: every example is one of its own."""
    resamples: int = RESAMPLES
    reference: Mapping[str, float] = field(default_factory=dict)
    """Goal → where the reference point of the hypervolume lies, in the unit of the metric."""
    course: tuple[VolumeStep, ...] = ()
    """How the hypervolume rose, of candidates whose guardrails hold."""


def front_of(
    some: Sequence[Contender],
    objectives: Objectives,
    val: Sequence[Example],
    chosen: Fingerprint,
    *,
    completed: Sequence[Completed] = (),
    unbounded: frozenset[str] = frozenset(),
    seed: int,
) -> Front:
    """Return the front; the order of candidates and examples decides nothing.

    Args:
        some: every candidate measured on all of val, the baseline among them.
        objectives: of the request.
        val: the examples they were measured on.
        chosen: who went to the gate; one of `some`.
        completed: when each of them was complete, in that order; those left out are in no step of the course.
        unbounded: metrics without a best value: that all amounts are the same says nothing about their spread.
        seed: of the bootstrap.
    """
    goals = goals_of(objectives)
    everybody = sorted(some, key=lambda one: one.fingerprint)
    clusters = clusters_of(sorted(val, key=lambda example: example.id))
    places = _front_places(everybody, goals, chosen)
    shown = sorted(
        {*places.kept, *(place for place, one in enumerate(everybody) if one.is_baseline or one.fingerprint == chosen)}
    )
    chances = _chances(everybody, shown, goals, clusters, seed)
    terms = _Terms(objectives=objectives, clusters=clusters, unbounded=unbounded, seed=seed)
    points = {place: _point(everybody, place, chosen, places, chances, terms) for place in shown}
    primary = objectives.primary
    listed = sorted(
        (points[place] for place in places.kept),
        key=lambda point: (-primary.oriented(point.means[primary.metric].value), point.candidate),
    )
    course, reference = _course(everybody, goals, completed)
    return Front(
        goals=tuple(goal.metric for goal in goals),
        points=tuple(listed),
        baseline=next(point for point in points.values() if point.is_baseline),
        chosen=next(point for point in points.values() if point.is_chosen),
        size=places.size,
        candidates=len(everybody),
        n=len(val),
        clusters=None if clusters is None else len(set(clusters)),
        reference=reference,
        course=course,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Who is on the front, by place among all candidates."""

    kept: tuple[int, ...]
    size: int
    equal: Mapping[int, tuple[int, ...]]
    """Place on the front → places it stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chances:
    """What resampling says of the points that are shown."""

    on_front: Mapping[int, float]
    dominated: Mapping[int, Mapping[int, float]]
    """Place → other place → how often that one dominates it."""
    alike: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    objectives: Objectives
    clusters: tuple[str, ...] | None
    unbounded: frozenset[str]
    seed: int


def _front_places(everybody: Sequence[Contender], goals: Sequence[Objective], chosen: Fingerprint) -> _Places:
    """Return the front: of those whose guardrails hold, and of the others whom nobody at all beats.

    With the latter nothing is hidden: a person sees what the guardrails cost. They push nobody off the front.
    """
    points = losses(everybody, goals)
    holds = np.array([one.guardrails_hold for one in everybody])
    on_front = np.zeros(len(everybody), dtype=bool)
    on_front[holds] = fronts(points[holds]) == 0
    on_front |= ~holds & (fronts(points) == 0)
    groups: dict[tuple[bool, tuple[float, ...]], list[int]] = {}
    for place in np.flatnonzero(on_front):
        groups.setdefault((bool(holds[place]), tuple(points[place])), []).append(int(place))

    def rank(place: int) -> tuple[object, ...]:
        one = everybody[place]
        return (not one.is_baseline, one.fingerprint != chosen, one.tie)

    firsts = {min(group, key=rank): tuple(group) for group in groups.values()}
    equal = {first: tuple(place for place in group if place != first) for first, group in firsts.items()}
    ordered = sorted(equal)
    kept = [ordered[place] for place in best_first(points[ordered])[:MOST_POINTS]]
    return _Places(kept=tuple(sorted(kept)), size=len(ordered), equal=equal)


def _chances(
    everybody: Sequence[Contender],
    shown: Sequence[int],
    goals: Sequence[Objective],
    clusters: tuple[str, ...] | None,
    seed: int,
) -> _Chances:
    signs = [-1.0 if goal.direction is Direction.MAXIMIZE else 1.0 for goal in goals]
    scores = np.array(
        [
            [[sign * result.scores[goal.metric].value for result in one.results] for one in everybody]
            for goal, sign in zip(goals, signs, strict=True)
        ]
    )
    count, places = len(everybody), np.array(shown)
    columns = scores.reshape(len(goals) * count, -1).T
    holds = np.array([one.guardrails_hold for one in everybody])
    among = np.flatnonzero(holds)
    hits = np.zeros(count)
    dominates = np.zeros((len(shown), len(shown)))
    better = np.zeros((len(goals), len(shown), len(shown)))
    rng = np.random.default_rng(random.Random(f"{seed}/front").getrandbits(64))
    rows = max(1, _CELLS // max(columns.shape[1], len(shown) ** 2))
    for means in resampled_means(columns, clusters=clusters, rng=rng, resamples=RESAMPLES, rows=rows):
        points = rounded(means.reshape(len(means), len(goals), count).transpose(0, 2, 1), _RESAMPLED_DIGITS)
        hits[among] += _is_first(points[:, among]).sum(axis=0)
        if not holds[places].all():
            hits[~holds] += _is_first(points)[:, ~holds].sum(axis=0)
        mine = points[:, places]
        less: npt.NDArray[np.bool_] = np.asarray(mine[:, :, None, :] < mine[:, None, :, :])
        ahead_somewhere: npt.NDArray[np.bool_] = np.asarray(less.any(axis=3))
        dominates += (~ahead_somewhere.transpose(0, 2, 1) & ahead_somewhere).sum(axis=0)
        better += np.asarray(less.sum(axis=0), dtype=np.int64).transpose(2, 0, 1)
    ahead: npt.NDArray[np.bool_] = np.asarray((better / RESAMPLES >= 1.0 - (1.0 - LEVEL) / 2.0).any(axis=0))
    told_apart = ahead | ahead.T
    return _Chances(
        on_front={place: float(hits[place] / RESAMPLES) for place in shown},
        dominated={
            place: {
                other: float(dominates[column, row] / RESAMPLES)
                for column, other in enumerate(shown)
                if dominates[column, row] / RESAMPLES >= _SEEN
            }
            for row, place in enumerate(shown)
        },
        alike={
            place: tuple(other for column, other in enumerate(shown) if other != place and not told_apart[row, column])
            for row, place in enumerate(shown)
        },
    )


def _is_first(samples: Floats) -> npt.NDArray[np.bool_]:
    """Return of every sample who is on its front, (n_samples, n), from (n_samples, n, n_goals)."""
    if samples.shape[2] == 1 and samples.shape[1]:
        return np.asarray(samples[:, :, 0] == samples[:, :, 0].min(axis=1, keepdims=True))
    return np.array([fronts(points) == 0 for points in samples])


def _point(
    everybody: Sequence[Contender],
    place: int,
    chosen: Fingerprint,
    places: _Places,
    chances: _Chances,
    terms: _Terms,
) -> FrontPoint:
    one = everybody[place]

    def named(some: Sequence[int]) -> tuple[Fingerprint, ...]:
        return tuple(everybody[other].fingerprint for other in some)

    return FrontPoint(
        candidate=one.fingerprint,
        algorithm=one.algorithm,
        origin=one.candidate.origin,
        means={item.metric: _mean(one, item.metric, terms) for item in terms.objectives.items},
        guardrails_hold=one.guardrails_hold,
        on_front=place in places.equal or any(place in others for others in places.equal.values()),
        is_baseline=one.is_baseline,
        is_chosen=one.fingerprint == chosen,
        probability_on_front=chances.on_front[place],
        dominated_by={everybody[other].fingerprint: share for other, share in chances.dominated[place].items()},
        alike=named(chances.alike[place]),
        equal=named(places.equal.get(place, ())),
    )


def _mean(one: Contender, metric: str, terms: _Terms) -> ValMean:
    values = [result.scores[metric].value for result in one.results]
    plain = ValMean(value=one.means[metric], low=None, high=None, n=len(values))
    if metric in terms.unbounded and min(values) == max(values):
        return plain
    rng = np.random.default_rng(random.Random(f"{terms.seed}/front/{metric}/{one.fingerprint}").getrandbits(64))
    found = mean_interval(values, clusters=terms.clusters, level=LEVEL, rng=rng)
    return plain if found is None else replace(plain, low=found.lower, high=found.upper, method=found.method.value)


def _course(
    everybody: Sequence[Contender], goals: Sequence[Objective], completed: Sequence[Completed]
) -> tuple[tuple[VolumeStep, ...], Mapping[str, float]]:
    """Return how the hypervolume rose, and its reference in the units of the goals."""
    able = [one for one in everybody if one.guardrails_hold]
    signs = np.array([-1.0 if goal.direction is Direction.MAXIMIZE else 1.0 for goal in goals])
    points = np.array([[one.means[goal.metric] for goal in goals] for one in able]) * signs
    low = points.min(axis=0)
    span = points.max(axis=0) - low
    span = np.where(span > 0.0, span, 1.0)
    corner: Floats = np.full(len(goals), 1.0 + _BEHIND)
    stretched = dict(zip((one.fingerprint for one in able), (points - low) / span, strict=True))
    steps: list[VolumeStep] = []
    front: npt.NDArray[np.float64] = np.empty((0, len(goals)))
    for moment in completed:
        point = stretched.pop(moment.candidate, None)
        if point is None:
            continue
        front = np.vstack([front, point])
        front = front[fronts(front) == 0]
        volume = min(hypervolume(front, corner) / float(np.prod(corner)), 1.0)
        if not steps or volume > steps[-1].volume + 1e-12:
            steps.append(VolumeStep(paid_calls=moment.paid_calls, volume=volume, candidate=moment.candidate))
    reference = (low + corner * span) * signs
    return tuple(steps), {goal.metric: float(at) for goal, at in zip(goals, reference, strict=True)}
