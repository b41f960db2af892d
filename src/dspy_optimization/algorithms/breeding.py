"""Newcomers: candidates that were never run, made in several ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.algorithms.islands import Foreseen, Islands
from dspy_optimization.algorithms.operators import Operator, OperatorBook
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.algorithms.stock import Standing, Stock
from dspy_optimization.algorithms.watching import Watched, watch
from dspy_optimization.compute.variation import VariationTerms, offspring

WATCHED = 3
"""Train examples on which an instruction is mended."""
_TRIES = 3
"""Draws for one child or stranger before there is none: a small space runs out of new ones."""

_HOW = {Operator.MUTATED: "mended", Operator.CROSSED: "crossed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """A candidate that was never run."""

    candidate: Candidate
    operator: Operator
    calls: int = 0
    """What its making took, in calls and runs."""


@dataclass(slots=True, kw_only=True)
class Breeding:
    """Makes newcomers for one search."""

    problem: Problem
    run: SearchRun
    stock: Stock
    islands: Islands
    proposals: Proposals
    book: OperatorBook
    drafts: int
    """Texts that are written for one newcomer; the one that is expected to be best is run."""
    block: int
    """Examples a newcomer meets: what making one costs is counted in these."""

    def newcomers(self, standing: Standing, count: int, iteration: int) -> list[Newcomer]:
        """Return so many newcomers, all different and none of them run before; fewer where there are no more.

        Args:
            standing: what is expected of those that were run.
            count: how many.
            iteration: of the round; everything random depends on it.
        """

        def rng(step: str) -> np.random.Generator:
            return np.random.default_rng(self.problem.rng(f"genetic/{iteration}/{step}").getrandbits(64))

        writes = self.proposals.left > 0 and bool(self.problem.train)
        weights = {
            Operator.CHAMPION: 4.0 * standing.trust if standing.models else 0.0,
            Operator.CHILD: 1.25 - standing.trust,
            Operator.MUTATED: 1.0 if writes else 0.0,
            Operator.CROSSED: 0.5 if writes and self._texts() > 1 else 0.0,
            Operator.STRANGER: 0.2,
        }
        shares = self.book.shares(weights, count, rng("operators"))
        made = self._champions(standing, shares[Operator.CHAMPION], iteration, rng("islands"))
        for number in range(shares[Operator.MUTATED]):
            made += self._mutated(standing, f"{iteration}/{number}", rng(f"mutated/{number}"), iteration)
        for number in range(shares[Operator.CROSSED]):
            made += self._crossed(standing, f"{iteration}/{number}", rng(f"crossed/{number}"))
        found = self._new(made, count)
        # Whatever could not be made is replaced by children, and these by strangers.
        strangers = shares[Operator.STRANGER]
        children, drawn = rng("children"), rng("strangers")
        found = self._filled(found, count - strangers, lambda: self._child(standing, children))
        return self._filled(found, count, lambda: self._stranger(drawn))

    def _new(self, made: Sequence[Newcomer], count: int) -> list[Newcomer]:
        found: dict[str, Newcomer] = {}
        for one in made:
            if not self.stock.table.knows(one.candidate):
                found.setdefault(one.candidate.fingerprint, one)
        return list(found.values())[:count]

    def _filled(self, found: list[Newcomer], count: int, make: Callable[[], Newcomer]) -> list[Newcomer]:
        for _ in range(_TRIES * max(count - len(found), 0)):
            if len(found) >= count:
                break
            found = self._new([*found, make()], count)
        return found

    def _texts(self) -> int:
        pool = self.stock.pool
        return max(len(pool.instructions(component)) for component in pool.components)

    def _champions(self, standing: Standing, count: int, iteration: int, rng: np.random.Generator) -> list[Newcomer]:
        if not count or not standing.models:
            return []
        codes = self.stock.codes
        foreseen = Foreseen(beliefs=standing.models, guards=standing.guards)
        self.islands.live(foreseen, codes[standing.best_first], iteration, rng)
        return [
            Newcomer(
                candidate=self.stock.pool.decode(row, origin=f"champion of island {island + 1}"),
                operator=Operator.CHAMPION,
            )
            for row, island in self.islands.champions(foreseen, codes, standing.draws, count)
        ]

    def _child(self, standing: Standing, rng: np.random.Generator) -> Newcomer:
        """Return a child of two that one draw each has among the best."""
        pool, codes = self.stock.pool, self.stock.codes
        best = max(2, len(codes) // 5)
        parents = [int(standing.drawn_order(rng)[int(rng.integers(min(best, len(codes))))]) for _ in range(2)]
        pair = [pool.points([codes[parent]]) for parent in parents]
        terms = VariationTerms(crossover=1.0, mutation=1.5 / pool.genes)
        row = pool.tidied(offspring(pool.space, pair[0], pair[1], rng, terms).codes[:1])[0]
        names = dict.fromkeys(self.stock.table.candidates[parent].fingerprint for parent in parents)
        return Newcomer(
            candidate=pool.decode(row, origin="child of two", parents=tuple(names)), operator=Operator.CHILD
        )

    def _stranger(self, rng: np.random.Generator) -> Newcomer:
        row = self.stock.pool.drawn(1, rng).codes[0]
        return Newcomer(candidate=self.stock.pool.decode(row, origin="random genes"), operator=Operator.STRANGER)

    def _mutated(self, standing: Standing, draw: str, rng: np.random.Generator, iteration: int) -> list[Newcomer]:
        """Return a candidate with one instruction that answers to its parent's failures; none where no call is left."""
        if not self.proposals.left:
            return []
        parent = self.stock.table.candidates[self._parent(standing, rng)]
        component = self._component(rng)
        runs = self._watched(parent, self._train(rng), iteration)
        utility = self.problem.objectives.scalar
        worst_first = sorted(runs, key=lambda one: (utility(one.result.scores), one.example.id))
        current = parent.components[component].instructions
        texts = self._drafts(
            component,
            lambda number, known: self.proposals.mutated(component, current, worst_first, number, known),
            draw,
        )
        return self._best_of(standing, component, texts, (parent,), Operator.MUTATED, len(runs), rng)

    def _crossed(self, standing: Standing, draw: str, rng: np.random.Generator) -> list[Newcomer]:
        """Return a candidate with an instruction made of two."""
        component = self._component(rng)
        candidates = self.stock.table.candidates
        first = self._parent(standing, rng)
        text = candidates[first].components[component].instructions
        others = [
            int(row)
            for row in standing.drawn_order(rng)
            if candidates[int(row)].components[component].instructions != text
        ]
        if not others:
            return []
        second = others[0]
        parents = (text, candidates[second].components[component].instructions)
        worth = (float(standing.worth[first]), float(standing.worth[second]))
        texts = self._drafts(
            component, lambda number, known: self.proposals.crossed(component, parents, worth, number, known), draw
        )
        both = (candidates[first], candidates[second])
        return self._best_of(standing, component, texts, both, Operator.CROSSED, 0, rng)

    def _drafts(
        self, component: ComponentName, write: Callable[[str, Sequence[str]], str | None], draw: str
    ) -> list[str]:
        """Return some new texts; each is a gene from now on, run or not."""
        found: list[str] = []
        for number in range(self.drafts):
            text = write(f"{draw}/{number}", self.stock.pool.instructions(component))
            if text is not None:
                self.stock.pool.add_instruction(component, text)
                found.append(text)
        return found

    def _best_of(
        self,
        standing: Standing,
        component: ComponentName,
        texts: Sequence[str],
        parents: tuple[Candidate, ...],
        operator: Operator,
        runs: int,
        rng: np.random.Generator,
    ) -> list[Newcomer]:
        """Return the first parent with the text that one draw of the models expects most of; none without a text."""
        calls = runs + self.drafts
        if not texts:
            self.book.count(operator, 0.0, 1.0 + calls / self.block)
            return []
        value = parents[0].components[component]
        made = [
            Candidate(
                components={**parents[0].components, component: replace(value, instructions=text)},
                origin=f"{_HOW[operator]}: {component}",
                parents=tuple(parent.fingerprint for parent in parents),
            )
            for text in texts
        ]
        best = self._foreseen(standing, made, rng)
        return [Newcomer(candidate=made[best], operator=operator, calls=calls)]

    def _foreseen(self, standing: Standing, made: Sequence[Candidate], rng: np.random.Generator) -> int:
        """Return which of these is the best by one draw of the models; the first where there are none."""
        if not standing.models or len(made) == 1:
            return 0
        pool = self.stock.pool
        # Genes that came since the models were fitted have the last columns, of which they know nothing.
        features = pool.features(pool.points([pool.encode(one) for one in made]).codes)[:, : standing.features]
        member = int(rng.integers(standing.models[0].members))
        worth = np.column_stack([model.means(features, member) for model in standing.models]) @ standing.weights
        return int(np.argmax(worth))

    def _parent(self, standing: Standing, rng: np.random.Generator) -> int:
        """Return a row that is the best on some examples, the likelier the more they are.

        Source: Agrawal et al. (2025), GEPA: parents from the instance-wise Pareto front keep what only some can do.
        """
        scores = self.stock.table.utilities()
        enough = (~np.isnan(scores)).sum(axis=1) >= min(10, self.stock.table.columns)
        scores[~enough] = np.nan
        scores[standing.excess > 0.0] = np.nan
        known = ~np.isnan(scores)
        if not known.any():
            return standing.best
        top = np.nanmax(np.where(known, scores, -np.inf), axis=0)
        holds = known & (scores >= top - 1e-9) & (known.sum(axis=0) > 1)
        shares = (holds / np.maximum(holds.sum(axis=0), 1)).sum(axis=1)
        # Who was measured more often stands on more examples: a row counts by what it holds of what it met.
        shares = shares / np.maximum(known.sum(axis=1), 1) * np.exp(8.0 * (standing.worth - standing.worth.max()))
        if shares.sum() <= 0.0:
            return standing.best
        return int(rng.choice(len(shares), p=shares / shares.sum()))

    def _component(self, rng: np.random.Generator) -> ComponentName:
        components = self.stock.pool.components
        return components[int(rng.integers(len(components)))]

    def _train(self, rng: np.random.Generator) -> list[Example]:
        train = sorted(self.problem.train, key=lambda example: example.id)
        return [train[int(place)] for place in rng.choice(len(train), min(WATCHED, len(train)), replace=False)]

    def _watched(self, parent: Candidate, examples: Sequence[Example], iteration: int) -> tuple[Watched, ...]:
        runs = watch(self.problem, self.run, parent, examples)
        self.run.record(parent, Split.TRAIN, [one.result for one in runs], iteration + 1)
        return runs
