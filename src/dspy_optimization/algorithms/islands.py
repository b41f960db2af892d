"""Populations of candidates nobody has run: they live on what a model expects of them, and cost no calls.

Each island believes one draw from the model's posterior. So islands disagree as much as is left open, and their
champions are worth running: each is the best there is if its island is right (Thompson sampling).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dspy_optimization.algorithms.genome import GenePool
from dspy_optimization.compute.hypervolume import hypervolume
from dspy_optimization.compute.niching import directions
from dspy_optimization.compute.nsga import Generation, Scores, evolve
from dspy_optimization.compute.ranking import Floats, best_first, fronts
from dspy_optimization.compute.variation import Codes, Population, VariationTerms

_DIVISIONS = {3: 12, 4: 6}
"""Of the reference directions, by how many goals there are; with more goals 4."""
_WORST = 1.1
"""Reference of the hypervolume: every loss is between 0 and 1."""
_LOOKED_AT = 64
"""So many of a front are asked how much hypervolume they would add."""


class Belief(Protocol):
    """What is expected of candidates in one goal."""

    @property
    def members(self) -> int:
        """How many draws of it there are."""
        ...

    def means(self, features: Floats, member: int) -> Floats:
        """Return what one draw expects of rows, (n,), each in [0, 1]."""
        ...


class Fence(Protocol):
    """What is expected of candidates in one guardrail."""

    @property
    def members(self) -> int:
        """How many draws of it there are."""
        ...

    def excess(self, features: Floats, member: int) -> Floats:
        """Return how much one draw expects rows to go beyond the margin, (n,); 0: not at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What is expected of candidates nobody ran."""

    beliefs: Sequence[Belief]
    """One a goal."""
    guards: Sequence[Fence] = ()
    """Guardrails; who breaks one stands behind all who do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IslandTerms:
    """How islands live."""

    islands: int = 4
    size: int = 256
    """Candidates on each."""
    generations: int = 20
    """Lived between two fits of the model."""
    migrants: int = 8
    """The best of each that also go to the next island, once a round."""
    age_limit: int = 6
    """Rounds after which a candidate that was never run makes room."""


@dataclass(slots=True, kw_only=True)
class Islands:
    """All of them, over the rounds of one search."""

    pool: GenePool
    terms: IslandTerms
    goals: int
    """How many goals there are."""
    _people: list[Codes] = field(default_factory=list)
    _born: dict[int, int] = field(default_factory=dict)
    """Key of a candidate → the round it was met first."""

    @property
    def alive(self) -> int:
        """How many candidates live on all islands."""
        return sum(len(one) for one in self._people)

    def live(self, foreseen: Foreseen, measured: Codes, iteration: int, rng: np.random.Generator) -> None:
        """Let a round pass.

        Args:
            foreseen: what is expected.
            measured: rows that were run, the best first; they are on every island again.
            iteration: of the round.
            rng: of everything random.
        """
        halves = (self.terms.generations - self.terms.generations // 2, self.terms.generations // 2)
        people = [self._settled(island, measured, iteration, rng) for island in range(self.terms.islands)]
        generations = [
            self._lived(self._scored(one, foreseen, island), foreseen, island, halves[0], rng)
            for island, one in enumerate(people)
        ]
        leaving = [one.points.codes[: self.terms.migrants] for one in generations]
        self._people = []
        for island, generation in enumerate(generations):
            arrived = leaving[island - 1] if len(leaving) > 1 else leaving[island][:0]
            there = self._different(np.concatenate([generation.points.codes, arrived]))
            generation = self._lived(self._scored(there, foreseen, island), foreseen, island, halves[1], rng)
            self._people.append(self._different(generation.points.codes))
        self._remember(iteration)

    def champions(
        self, foreseen: Foreseen, known: Codes, expected: Sequence[Floats], count: int
    ) -> list[tuple[Codes, int]]:
        """Return (row, island) of who is worth running, (count) at most: one an island in turn, nobody twice.

        Args:
            foreseen: what is expected.
            known: rows that were run; none of them is returned.
            expected: per goal what each island's draw says of the known rows, (members, n).
            count: how many at most.
        """
        taken = set(self._keys(known))
        found: list[tuple[Codes, int]] = []
        waiting = [self._ranked(island, foreseen, expected) for island in range(len(self._people))]
        while len(found) < count and any(len(one) for one in waiting):
            for island, codes in enumerate(waiting):
                place = next((at for at, key in enumerate(self._keys(codes)) if key not in taken), None)
                waiting[island] = codes[:0] if place is None else codes[place + 1 :]
                if place is not None and len(found) < count:
                    taken.add(self._keys(codes[place : place + 1])[0])
                    found.append((codes[place], island))
        return found

    def _ranked(self, island: int, foreseen: Foreseen, expected: Sequence[Floats]) -> Codes:
        """Return an island's candidates, most worth running first."""
        codes = self._people[island]
        scores = self._scores(codes, foreseen, island)
        losses, excess = scores.values, scores.violations
        if excess is None:
            excess = np.zeros(len(codes))
        if self.goals == 1:
            return codes[np.lexsort((*codes.T[::-1], losses[:, 0], excess))]
        corner = np.full(self.goals, _WORST)
        there = np.column_stack([1.0 - one[island % len(one)] for one in expected])
        before = hypervolume(there, corner) if len(there) else 0.0
        order = best_first(losses, excess)[:_LOOKED_AT]
        first = order[fronts(losses[order], excess[order]) == 0]
        added = np.array([hypervolume(np.vstack([there, losses[place]]), corner) - before for place in first])
        ranked: Codes = codes[first[np.argsort(-added, kind="stable")]]
        return ranked

    def _settled(self, island: int, measured: Codes, iteration: int, rng: np.random.Generator) -> Codes:
        """Return who begins the round: who was run, who lived here and is not too old, and strangers to fill up."""
        size = self.terms.size
        groups = [measured[: size // 2]]
        if island < len(self._people):
            there = self._people[island]
            age = np.array([iteration - self._born.get(key, iteration) for key in self._keys(there)])
            groups.append(there[age < self.terms.age_limit])
        people = self._different(np.concatenate(groups))
        missing = size - len(people)
        if missing > 0:
            people = self._different(np.concatenate([people, self.pool.drawn(missing, rng).codes]))
        return people

    def _different(self, codes: Codes) -> Codes:
        """Return each candidate where it stands first, tidied: many rows may stand for the same one."""
        tidied = self.pool.tidied(codes)
        _, first = np.unique(tidied, axis=0, return_index=True)
        return tidied[np.sort(first)]

    def _lived(
        self, begin: Generation, foreseen: Foreseen, island: int, generations: int, rng: np.random.Generator
    ) -> Generation:
        return evolve(
            self.pool.space,
            lambda points: self._scores(points.codes, foreseen, island),
            size=self.terms.size,
            generations=generations,
            rng=rng,
            along=None if self.goals < 3 else directions(self.goals, _DIVISIONS.get(self.goals, 4)),
            terms=VariationTerms(mutation=1.5 / self.pool.genes),
            start=begin,
        )

    def _scored(self, codes: Codes, foreseen: Foreseen, island: int) -> Generation:
        scores = self._scores(codes, foreseen, island)
        order = best_first(scores.values, scores.violations)[: self.terms.size]
        violations = None if scores.violations is None else scores.violations[order]
        return Generation(
            points=_points(codes[order]), scores=Scores(values=scores.values[order], violations=violations)
        )

    def _scores(self, codes: Codes, foreseen: Foreseen, island: int) -> Scores:
        features = self.pool.features(self.pool.tidied(codes))
        losses = [1.0 - one.means(features, island % one.members) for one in foreseen.beliefs]
        excess = [one.excess(features, island % one.members) for one in foreseen.guards]
        return Scores(values=np.column_stack(losses), violations=sum(excess, np.zeros(len(codes))) if excess else None)

    def _remember(self, iteration: int) -> None:
        alive = {key for codes in self._people for key in self._keys(codes)}
        self._born = {key: self._born.get(key, iteration) for key in sorted(alive)}

    def _keys(self, codes: Codes) -> list[int]:
        keys = _points(codes).keys()
        return [int(key) for key in keys]


def _points(codes: Codes) -> Population:
    return Population(codes=codes, numbers=np.zeros((len(codes), 0)))
