"""Populations that improve in several objectives at once, generation by generation: NSGA-II, and NSGA-III's niches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.niching import niched
from dspy_optimization.compute.ranking import Floats, Integers, best_first
from dspy_optimization.compute.variation import (
    Population,
    Space,
    VariationTerms,
    offspring,
    random_population,
    tournament,
)
from dspy_optimization.errors import InvalidRequestError

_TRIES = 4
"""Rounds of mating before a generation has fewer children than wanted: a small space runs out of new points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What is known of points."""

    values: Floats
    """(n, m), smaller is better; NaN: not known, behind all that are."""
    violations: Floats | None = None
    """(n,), how much each violates its constraints; 0 or less: not at all."""


Score = Callable[[Population], Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Points that survived, by front, and within one by room where that decided."""

    points: Population
    scores: Scores


def first_generation(space: Space, score: Score, size: int, rng: np.random.Generator) -> Generation:
    """Return random points, different as far as the space allows, with their scores. `InvalidRequestError` below 2."""
    if size < 2:
        raise InvalidRequestError(f"population: wanted: at least 2; found: {size}; possible: 100")
    points = random_population(space, size, rng)
    points = points[_first_of_each(points.keys())]
    scores = score(points)
    order = best_first(scores.values, scores.violations)
    return Generation(points=points[order], scores=_of(scores, order))


def next_generation(
    space: Space,
    before: Generation,
    score: Score,
    size: int,
    rng: np.random.Generator,
    *,
    along: npt.ArrayLike | None = None,
    terms: VariationTerms | None = None,
) -> Generation:
    """Return who survives of a generation and as many children; whoever is there already is not born again.

    Args:
        space: what points are made of.
        before: survivors, the best first.
        score: asked once, for all children.
        size: how many survive.
        rng: of everything random; the same generator in the same state gives the same generation.
        along: (k, m), directions of NSGA-III; None: NSGA-II, survival by room.
        terms: of variation.
    """
    children = _children(space, before, size, rng, terms)
    known = before.scores
    found = score(children)
    both = before.points.with_more(children)
    scores = Scores(values=np.concatenate([known.values, found.values]), violations=_violations(known, found))
    if along is None:
        stay = best_first(scores.values, scores.violations)[:size]
    else:
        count = min(size, len(both))
        stay = niched(scores.values, count, along, rng, violations=scores.violations)
    return Generation(points=both[stay], scores=_of(scores, stay))


def evolve(
    space: Space,
    score: Score,
    *,
    size: int,
    generations: int,
    rng: np.random.Generator,
    along: npt.ArrayLike | None = None,
    terms: VariationTerms | None = None,
    start: Generation | None = None,
) -> Generation:
    """Return the last of so many generations. Arguments as `next_generation`; `start` None: random points."""
    found = first_generation(space, score, size, rng) if start is None else start
    for _ in range(generations):
        found = next_generation(space, found, score, size, rng, along=along, terms=terms)
    return found


def _children(
    space: Space, before: Generation, size: int, rng: np.random.Generator, terms: VariationTerms | None
) -> Population:
    born, known = before.points[:0], before.points.keys()
    for _ in range(_TRIES):
        parents = tournament(np.arange(len(before.points)), 2 * -(-(size - len(born)) // 2), rng)
        mothers, fathers = before.points[parents[::2]], before.points[parents[1::2]]
        born = born.with_more(offspring(space, mothers, fathers, rng, terms))
        everybody = np.concatenate([known, born.keys()])
        first = _first_of_each(everybody)
        born = born[first[first >= len(known)] - len(known)][:size]
        if len(born) == size:
            break
    return born


def _first_of_each(keys: npt.NDArray[np.uint64]) -> Integers:
    """Return where each key stands for the first time, in their order."""
    return np.sort(np.unique(keys, return_index=True)[1]).astype(np.int64)


def _violations(one: Scores, other: Scores) -> Floats | None:
    if one.violations is None and other.violations is None:
        return None
    known = [np.zeros(len(of.values)) if of.violations is None else of.violations for of in (one, other)]
    return np.concatenate(known)


def _of(scores: Scores, places: Integers) -> Scores:
    return Scores(
        values=scores.values[places], violations=None if scores.violations is None else scores.violations[places]
    )
