"""Evolves agents: instructions, demos and settings as genes, most of the population on a model, the best on the agent.

One round:

    1  a response model is fitted to everything that was paid for
    2  islands of candidates nobody has run live some generations on it, at no cost
    3  newcomers are chosen: champions of the islands, instructions that answer to failures or cross two parents,
       children of the best that were run, strangers; by what each way has earned for its calls so far
    4  newcomers meet the same few examples, half of them those that tell good ones apart
    5  two candidates that may be the best are measured further
    6  when nothing better has come for a while, or little of the budget is left: the finals

In the finals the best are halved on shared examples until all of val is measured for those that are left. The search
is a function of problem, seed and answers, so running it again on the same ledger is resuming it; the population is
in the trials. What the model expects is never a score.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import numpy as np

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.algorithms.beliefs import expected
from dspy_optimization.algorithms.breeding import WATCHED, Breeding
from dspy_optimization.algorithms.genetic_options import GeneticOptions
from dspy_optimization.algorithms.genome import GenePool
from dspy_optimization.algorithms.islands import Islands, IslandTerms
from dspy_optimization.algorithms.measuring import Measurements
from dspy_optimization.algorithms.objective_use import ObjectiveUse
from dspy_optimization.algorithms.operators import OperatorBook
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.algorithms.seeding import SeedTerms, first_candidates, seed_pool
from dspy_optimization.algorithms.stock import Standing, Stock
from dspy_optimization.compute.ranking import Integers, fronts
from dspy_optimization.errors import AlgorithmError, StopSearch

_PROMOTED = 2
"""Candidates measured further a round."""
_STEP = 0.004
"""A gain in expected utility that counts as progress."""
_EVALUATIONS = 1_000
"""Where neither the options nor a cap on calls say how many."""
_LEAST_BLOCKS = 3
"""Blocks of examples without which there is no search."""


class Genetic:
    """Surrogate-assisted evolution of agents."""

    name: ClassVar[str] = "genetic"
    description: ClassVar[str] = "evolves instructions, demos and settings; a response model picks who is worth running"
    options: ClassVar[type] = GeneticOptions
    objectives: ClassVar[ObjectiveUse] = ObjectiveUse.FRONT

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("GeneticOptions", options)
        demos = "demos" in chosen.vary
        evaluations = _EVALUATIONS if chosen.evaluations is None else chosen.evaluations
        proposals = chosen.texts_at_most(evaluations)
        watched = proposals * min(WATCHED, shape.n_train)
        bootstraps = min(chosen.bootstrap_examples, shape.n_train) if demos else 0
        completed = shape.n_val
        return Forecast(runs=evaluations + bootstraps + watched + completed, proposals=proposals)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a measured candidate and block, and submit the best."""
        _Evolution(problem, run, cast("GeneticOptions", problem.options)).search()


@dataclass(slots=True)
class _Evolution:
    """One search under way."""

    problem: Problem
    run: SearchRun
    options: GeneticOptions
    stock: Stock = field(init=False)
    breeding: Breeding = field(init=False)
    book: OperatorBook = field(default_factory=OperatorBook)
    iteration: int = 0
    budget: int = 0
    """Runs on val that may be made."""
    _best: float = -np.inf
    _idle: int = 0
    """Rounds since the best that is expected became better."""

    def __post_init__(self) -> None:
        problem, options = self.problem, self.options
        pool = GenePool(
            problem.baseline,
            problem.frozen,
            problem.runnable.choices,
            slots=options.demos,
            vary=options.vary,
        )
        table = Measurements(problem, self.run)
        self.stock = Stock(
            pool=pool, table=table, seed=problem.seed, surrogate=options.surrogate, computing=problem.computing
        )
        self.breeding = Breeding(
            problem=problem,
            run=self.run,
            stock=self.stock,
            islands=Islands(
                pool=pool,
                terms=IslandTerms(
                    islands=options.islands,
                    size=options.population // options.islands,
                    generations=options.generations,
                    age_limit=options.age_limit,
                ),
                goals=len(table.goals),
            ),
            proposals=Proposals(
                agent=problem.agent,
                calls=self.run,
                algorithm=Genetic.name,
                temperature=options.proposal_temperature,
                most=0,
            ),
            book=self.book,
            drafts=options.drafts,
            block=self.block,
        )

    @property
    def block(self) -> int:
        """Examples that a newcomer meets."""
        return min(self.options.block, self.stock.table.columns)

    def search(self) -> None:
        """Search to the end; who is expected to be best is submitted also where it ends before."""
        try:
            self._begin()
            while self._goes_on():
                self._round()
            self._finals()
        except StopSearch:
            self._submit()
            raise
        self._submit()

    def _left(self) -> int:
        """Return how many runs on val may still be made."""
        table, calls = self.stock.table, self.run.calls_left
        own = self.budget - table.cells
        return own if calls is None else min(own, int(calls / table.calls_a_run))

    def _begin(self) -> None:
        options, problem, table = self.options, self.problem, self.stock.table
        bounded = self.run.calls_left is not None
        wanted = options.evaluations if options.evaluations is not None else _EVALUATIONS
        self.budget = sys.maxsize if bounded and options.evaluations is None else wanted
        self.run.report(Progress(phase="seeding", iteration=0))
        base = self.stock.enter(problem.baseline)
        columns = self._rng("first columns").permutation(table.columns)
        table.measure({base: columns[: self.block]}, 0)
        self.budget = table.cells + self._left()
        self.breeding.proposals.most = options.texts_at_most(self.budget)
        seed_pool(
            problem,
            self.run,
            self.stock.pool,
            self.breeding.proposals,
            SeedTerms(
                demo_pool=options.demo_pool,
                bootstrap_examples=options.bootstrap_examples,
                instructions=options.instructions,
            ),
        )
        self.budget = table.cells + self._left()
        if self.budget < _LEAST_BLOCKS * self.block:
            raise AlgorithmError(
                f"genetic: wanted: a budget for {_LEAST_BLOCKS} candidates on {self.block} examples at least, "
                f"{_LEAST_BLOCKS * self.block} runs; found: {self.budget}; possible: more calls, a smaller block, or "
                "bootstrap_fewshot"
            )
        count = max(2, min(options.initial, self._explored() // (4 * self.block)))
        first = first_candidates(problem, self.stock.pool, count, self._rng("first"))
        for candidate in [*first, *self._earlier(count)]:
            self.stock.enter(candidate)
        if len(table) < 2 and not (self.breeding.proposals.left and problem.train):
            raise AlgorithmError(
                "genetic: wanted: a candidate beside the baseline; found: no demos, texts or settings to make one of; "
                "possible: train examples, proposals, or other genes in vary"
            )
        table.measure(dict.fromkeys(range(len(table)), columns[: self.block]), 1)

    def _earlier(self, most: int) -> list[Candidate]:
        """Return what other algorithms of this optimization found, as far as these genes can say it."""
        if not self.options.earlier:
            return []
        found = sorted(self.problem.known, key=lambda one: one.fingerprint)
        return [one for one in found if self.stock.pool.can_say(one)][:most]

    def _explored(self) -> int:
        """Return the part of the budget that is not kept for the finals."""
        return self.budget - self._reserve()

    def _reserve(self) -> int:
        """Return what the finals need: two candidates complete at least, where there is room for that."""
        share = int(self.budget * self.options.final_share)
        return max(share, min(2 * (self.stock.table.columns - self.block), self.budget // 3))

    def _goes_on(self) -> bool:
        return self._left() - self._reserve() >= self.block and self._idle < self.options.patience

    def _round(self) -> None:
        self.iteration += 1
        table = self.stock.table
        standing = self.stock.believe(self._rng("members"))
        best = float(standing.worth[standing.best])
        self._idle = 0 if best > self._best + _STEP else self._idle + 1
        self._best = max(self._best, best)
        room = (self._left() - self._reserve()) // self.block
        count = max(1, min(self.options.newcomers, room - _PROMOTED))
        newcomers = self.breeding.newcomers(standing, count, self.iteration)
        columns = self._columns(standing)
        rows = [self.stock.enter(one.candidate) for one in newcomers]
        table.measure(dict.fromkeys(rows, columns), self.iteration + 1)
        after = self.stock.believe(self._rng("members after"))
        for one, row in zip(newcomers, rows, strict=True):
            self.book.count(one.operator, after.better(row, best), 1.0 + one.calls / self.block)
        if room > count:
            table.measure(self._promotions(after), self.iteration + 1)
        self._tell(after, len(newcomers))

    def _columns(self, standing: Standing) -> Integers:
        """Return the examples newcomers meet, half of them those that tell good candidates apart, half at random."""
        rng = self._rng("columns")
        information = np.mean([one.information for one in standing.beliefs], axis=0)
        order = np.lexsort((rng.permutation(len(information)), -information))
        telling = order[: self.block // 2]
        others = rng.permutation(np.setdiff1d(np.arange(len(information)), telling))
        return np.concatenate([telling, others[: self.block - len(telling)]])

    def _promotions(self, standing: Standing) -> dict[int, Integers]:
        """Return who is measured further and on what: whoever is the best of those not complete, in one draw each."""
        rng, table = self._rng("promotions"), self.stock.table
        found: dict[int, Integers] = {}
        information = np.mean([one.information for one in standing.beliefs], axis=0)
        for _ in range(_PROMOTED):
            order = standing.drawn_order(rng)
            row = next((int(one) for one in order if int(one) not in found and table.missing(int(one)).size), None)
            if row is not None:
                missing = table.missing(row)
                telling = missing[np.lexsort((missing, -information[missing]))][: self.block // 2]
                others = rng.permutation(np.setdiff1d(missing, telling))[: self.block - len(telling)]
                found[row] = np.concatenate([telling, others])
        return found

    def _finals(self) -> None:
        """Halve the best on shared examples until those that are left are complete, or nothing is left to pay."""
        table = self.stock.table
        order = self._rng("finals").permutation(table.columns)
        standing = self.stock.believe(self._rng("members before the finals"))
        ranked = [int(row) for row in standing.best_first]
        # Where there is not enough to complete two, the best two are measured as far as it goes.
        stages = max(self._stages(ranked), 1)
        finalists = ranked[: 2**stages]
        for stage in range(stages):
            todo = self._stage(finalists, order, stages - stage)
            table.measure(todo, self.iteration + 2 + stage)
            standing = self.stock.believe(self._rng(f"members in final {stage}"))
            left = [int(row) for row in standing.best_first if int(row) in set(finalists)]
            finalists = left[: max(2, len(finalists) // 2)]
            self.run.report(
                Progress(phase="finals", iteration=self.iteration + 2 + stage, data={"finalists": len(finalists)})
            )

    def _stages(self, ranked: Sequence[int]) -> int:
        """Return how often the finalists can be halved so that the last two are complete within what is left."""
        table, left, stages = self.stock.table, self._left(), 0
        while 2 ** (stages + 1) <= min(self.options.finalists, len(table)):
            wide = ranked[: 2 ** (stages + 1)]
            open_ones, cost = max(int(table.missing(row).size) for row in wide), 0
            for more in range(stages + 1, 0, -1):
                step = -(-open_ones // more)
                cost, open_ones = cost + 2**more * step, open_ones - step
            if cost > left:
                break
            stages += 1
        return stages

    def _stage(self, finalists: Sequence[int], order: Integers, stages: int) -> dict[int, Integers]:
        """Return what the finalists meet next: a part of what each has open, the same where that can be."""
        found: dict[int, Integers] = {}
        most = self._left() // len(finalists)
        for row in finalists:
            open_ones = order[np.isin(order, self.stock.table.missing(row))]
            found[row] = open_ones[: min(-(-len(open_ones) // stages), most)]
        return found

    def _submit(self) -> None:
        """Name who is expected to be best, complete or not; with several goals also the front of those complete."""
        table = self.stock.table
        if not len(table):
            return
        standing = self.stock.believe(self._rng("members at the end"))
        self.run.submit(table.candidates[standing.best])
        complete = np.array([row for row in range(len(table)) if not table.missing(row).size], dtype=np.int64)
        if len(standing.beliefs) > 1 and len(complete):
            losses = 1.0 - expected(standing.beliefs)[complete]
            for row in complete[fronts(losses, standing.excess[complete]) == 0]:
                self.run.submit(table.candidates[int(row)])

    def _tell(self, standing: Standing, newcomers: int) -> None:
        table = self.stock.table
        best = standing.best
        self.run.report(
            Progress(
                phase="round",
                iteration=self.iteration,
                candidate=table.candidates[best],
                data={
                    "candidates": len(table),
                    "newcomers": newcomers,
                    "evaluations": table.cells,
                    "evaluations_at_most": self.budget,
                    "population": self.breeding.islands.alive,
                    "instructions": sum(len(self.stock.pool.instructions(one)) for one in self.stock.pool.components),
                    "surrogate_trust": round(standing.trust, 3),
                    "surrogate_doubt": standing.reason or None,
                    "operators": self.book.to_json(),
                    "unreadable_proposals": self.breeding.proposals.unreadable,
                    "refused_proposals": self.breeding.proposals.refused,
                    "last_failure": self.breeding.proposals.last_failure,
                },
            )
        )

    def _rng(self, step: str) -> np.random.Generator:
        return np.random.default_rng(self.problem.rng(f"genetic/{self.iteration}/{step}").getrandbits(64))
