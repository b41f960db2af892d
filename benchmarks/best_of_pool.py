"""Finding the best of 200 candidates on 300 examples: how often a race ends within 1 % of it, for how many calls.

What counts is a candidate's mean over all 300 examples, which costs 60,000 calls to know for all. A race has found the
best when the one it names is at most 0.01 below it.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.finding import Finding, Table
from benchmarks.score_pools import CANDIDATES, EXAMPLES, POOLS, Pool
from dspy_optimization.compute.race import RaceTerms
from dspy_optimization.compute.racing import halving, paired_race, surrogate_race, uniform
from dspy_optimization.statistics import wilson_interval

TITLE = "the best of 200 candidates on 300 examples: shared examples, halving, paired races, a response model"

FULL = CANDIDATES * EXAMPLES
BUDGETS = (3_000, 6_000, 8_600, 12_000, 20_000)
"""A twentieth to a third of all."""
WORLDS = 24
TUNING_SEEDS, REPORTED_SEEDS = range(1_000, 5_000), range(10_000, 10_000 + WORLDS)
"""Terms were chosen on worlds of the first, figures are of the second."""
TOLERANCE = 0.01
ENOUGH = 0.95
_PROCESSES = 2

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Payer:
    """Answers from a pool and counts."""

    pool: Pool
    paid: int = 0

    def __call__(self, rows: Integers, columns: Integers) -> Floats:
        self.paid += len(rows)
        return self.pool.scores[rows, columns]


Way = Callable[[Pool, Payer, int, int], int]
"""Pool, who pays, budget and seed to the row it takes for the best."""


def _alone(_pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    """Ask each candidate about examples of its own, as random minibatches do."""
    rng, each = np.random.default_rng(seed), budget // CANDIDATES
    columns = np.array([rng.permutation(EXAMPLES)[:each] for _ in range(CANDIDATES)])
    scores = ask(np.repeat(np.arange(CANDIDATES), each), columns.ravel())
    return int(scores.reshape(CANDIDATES, each).mean(axis=1).argmax())


def _shared(_pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    return uniform(CANDIDATES, EXAMPLES, ask, RaceTerms(budget=budget), seed=seed).best


def _halving(_pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    terms = RaceTerms(budget=budget, keep=0.5, slowing=1.0)
    return halving(CANDIDATES, EXAMPLES, ask, terms, seed=seed).best


def _thirds(_pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    return halving(CANDIDATES, EXAMPLES, ask, RaceTerms(budget=budget), seed=seed).best


def _paired(_pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    return paired_race(CANDIDATES, EXAMPLES, ask, RaceTerms(budget=budget), seed=seed).best


def _model(_pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    return surrogate_race(CANDIDATES, EXAMPLES, ask, RaceTerms(budget=budget), seed=seed).best


def _featured(pool: Pool, ask: Payer, budget: int, seed: int) -> int:
    terms = RaceTerms(budget=budget)
    return surrogate_race(CANDIDATES, EXAMPLES, ask, terms, seed=seed, features=pool.features).best


WAYS: Mapping[str, Way] = {
    "uniform, own examples": _alone,
    "uniform, shared": _shared,
    "halving, by halves": _halving,
    "halving, by thirds": _thirds,
    "paired race": _paired,
    "model": _model,
    "model, features": _featured,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One race."""

    pool: str
    way: str
    budget: int
    seed: int
    paid: int
    regret: float
    """How much worse than the best the one found is."""

    @property
    def found(self) -> bool:
        return self.regret <= TOLERANCE + 1e-9


def measure() -> Finding:
    """Return how often each way finds the best, by pool and budget."""
    tasks = [(name, seed) for name in POOLS for seed in REPORTED_SEEDS]
    with multiprocessing.get_context("spawn").Pool(_PROCESSES, initializer=_one_thread) as processes:
        outcomes = [one for many in processes.imap(_raced, tasks, chunksize=2) for one in many]
    return Finding(
        tables=(*(_table(name, outcomes) for name in POOLS), _needed(outcomes)),
        notes=_NOTES,
        data={
            "outcomes": [
                {
                    "pool": one.pool,
                    "way": one.way,
                    "budget": one.budget,
                    "seed": one.seed,
                    "paid": one.paid,
                    "regret": one.regret,
                }
                for one in outcomes
            ]
        },
    )


_NOTES = (
    (
        f"{WORLDS} worlds a figure, drawn anew; Wilson intervals, 95 %. All ways meet the same worlds. Terms were "
        "chosen on other worlds."
    ),
    (
        "wide, narrow: an item-response model, true accuracies vary by 0.07 and 0.037. family: four correlated skills. "
        "misspec: clusters of examples that candidates like or not, floors and ceilings, a clipped line, copied "
        "answers. In these, 24 binary genes explain 60 % of the variance of ability. scrambled: wide, with the genes "
        "of other candidates."
    ),
    (
        "letters, survey: real scores. letters: 200 predictors of the next letter of a story of 1889 (contexts of 1 to "
        "6 letters, other text, smoothing), right or wrong at 300 places. survey: 200 classifiers (nearest neighbours, "
        "naive Bayes, ridge regression; random questions, samples, settings) of 300 answers to the survey of Fair "
        "1978. They are no language models: simple methods on real data, which no model of ours made."
    ),
    "Calls are the mean of what was paid; a race may end before its budget.",
)


def _one_thread() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _raced(task: tuple[str, int]) -> list[Outcome]:
    name, seed = task
    pool = POOLS[name](seed)
    means = pool.scores.mean(axis=1)
    found = []
    for budget in BUDGETS:
        for way, run in WAYS.items():
            payer = Payer(pool)
            best = run(pool, payer, budget, seed)
            regret = float(means.max() - means[best])
            found.append(Outcome(pool=name, way=way, budget=budget, seed=seed, paid=payer.paid, regret=regret))
    return found


def _table(name: str, outcomes: list[Outcome]) -> Table:
    rows = []
    for way in WAYS:
        cells = [way]
        for budget in BUDGETS:
            mine = [one for one in outcomes if (one.pool, one.way, one.budget) == (name, way, budget)]
            hits = sum(one.found for one in mine)
            interval = wilson_interval(hits, len(mine))
            paid = np.mean([one.paid for one in mine])
            regret = 100.0 * float(np.mean([one.regret for one in mine]))
            cells.append(
                f"{hits / len(mine):.2f} ({interval.lower:.2f} to {interval.upper:.2f}), -{regret:.1f}, {paid:,.0f}"
            )
        rows.append(tuple(cells))
    return Table(
        title=f"{name}: share of worlds with the best found (interval), points lost on average, calls paid",
        columns=("way", *(f"{budget:,}" for budget in BUDGETS)),
        rows=tuple(rows),
    )


def _needed(outcomes: list[Outcome]) -> Table:
    """Return the calls from which on a way finds the best often enough, and what that is of a full evaluation."""
    rows = []
    for way in WAYS:
        cells = [way]
        for name in POOLS:
            needed = None
            for budget in reversed(BUDGETS):
                mine = [one for one in outcomes if (one.pool, one.way, one.budget) == (name, way, budget)]
                if np.mean([one.found for one in mine]) < ENOUGH:
                    break
                needed = float(np.mean([one.paid for one in mine]))
            cells.append("more" if needed is None else f"{needed:,.0f} (1/{FULL / needed:.1f})")
        rows.append(tuple(cells))
    return Table(
        title=f"Calls to find the best in {ENOUGH:.0%} of worlds, and as a share of the {FULL:,} of a full evaluation",
        columns=("way", *POOLS),
        rows=tuple(rows),
    )
