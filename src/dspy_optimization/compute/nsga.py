"""Populations that improve in several objectives at once, generation by generation: NSGA-II, and NSGA-III's niches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.niching import niched
from dspy_optimization.compute.ranking import Floats, Integers, best_first
from dspy_optimization.compute.variation import (
    Keys,
    Population,
    Space,
    VariationTerms,
    random_population,
    tournament,
    vary,
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
    keys: Keys | None = None
    """(n,), of the points; None: to be worked out."""


def first_generation(space: Space, score: Score, size: int, rng: np.random.Generator) -> Generation:
    """Return random points, different as far as the space allows, with their scores. `InvalidRequestError` below 2."""
    if size < 2:
        raise InvalidRequestError(f"population: wanted: at least 2; found: {size}; possible: 100")
    points = random_population(space, size, rng)
    keys = points.keys()
    first = _new(keys[:0], keys)
    points = points[first]
    scores = score(points)
    order = best_first(scores.values, scores.violations)
    return Generation(points=points[order], scores=_of(scores, order), keys=keys[first][order])


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
    found = score(children.points)
    scores = Scores(values=np.concatenate([known.values, found.values]), violations=_violations(known, found))
    if along is None:
        stay = best_first(scores.values, scores.violations, count=size)
    else:
        count = min(size, len(scores.values))
        stay = niched(scores.values, count, along, rng, violations=scores.violations)
    return Generation(
        points=before.points.with_more(children.points)[stay],
        scores=_of(scores, stay),
        keys=np.concatenate([_keys(before), children.keys])[stay],
    )


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


class _Children(NamedTuple):
    points: Population
    keys: Keys


def _children(
    space: Space, before: Generation, size: int, rng: np.random.Generator, terms: VariationTerms | None
) -> _Children:
    """Return new points, (size) as far as the space has so many, all different."""
    known = _keys(before)
    born = _Children(before.points[:0], known[:0])
    for _ in range(_TRIES):
        missing = size - len(born.keys)
        pairs = -(-(missing + _spare(missing, space, terms)) // 2)
        parents = tournament(np.arange(len(before.points)), 2 * pairs, rng)
        points = before.points[np.concatenate([parents[::2], parents[1::2]])]
        vary(space, points, rng, terms)
        keys = points.keys()
        new = _new(np.concatenate([known, born.keys]), keys)[:missing]
        born = _Children(born.points.with_more(points[new]), np.concatenate([born.keys, keys[new]]))
        if len(born.keys) == size:
            break
    return born


def _keys(of: Generation) -> Keys:
    return of.points.keys() if of.keys is None else of.keys


def _spare(missing: int, space: Space, terms: VariationTerms | None) -> int:
    """Return how many more children than are missing it takes, most times, because some are copies of a parent."""
    terms = VariationTerms() if terms is None else terms
    chance = 1.0 / space.genes if terms.mutation is None else terms.mutation
    copies = missing * (1.0 - terms.crossover) * (1.0 - chance) ** space.genes
    return min(math.ceil(copies + 3.0 * math.sqrt(copies)), missing)


def _new(known: Keys, keys: Keys) -> Integers:
    """Return where keys stand for the first time that are not known, in their order."""
    both = np.concatenate([known, keys])
    order = np.argsort(both)
    ordered = both[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(both)])
    is_new = np.zeros(len(both), dtype=bool)
    is_new[np.minimum.reduceat(order, begins) if len(both) else order] = True
    return np.flatnonzero(is_new[len(known) :])


def _violations(one: Scores, other: Scores) -> Floats | None:
    if one.violations is None and other.violations is None:
        return None
    known = [np.zeros(len(of.values)) if of.violations is None else of.violations for of in (one, other)]
    return np.concatenate(known)


def _of(scores: Scores, places: Integers) -> Scores:
    return Scores(
        values=scores.values[places], violations=None if scores.violations is None else scores.violations[places]
    )
