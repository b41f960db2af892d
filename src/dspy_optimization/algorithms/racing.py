"""Finds the best of many candidates for few calls: they meet the same examples, and losers drop out early.

The pool is what is given, what the algorithms before found, and sets of demos and instructions that are drawn from the
train split. Who meets what is decided by `compute.racing`; what is reported and chosen is measured, never predicted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, TypeAlias, cast

import numpy as np

from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.algorithms.beliefs import PlainBeliefs, expected
from dspy_optimization.algorithms.genome import Gene, GenePool
from dspy_optimization.algorithms.given import MOST_CANDIDATES, candidate_from_json
from dspy_optimization.algorithms.measuring import Measurements
from dspy_optimization.algorithms.option_checks import above, at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.algorithms.seeding import SeedTerms, first_candidates, seed_pool
from dspy_optimization.compute.race import RaceTerms, Standing
from dspy_optimization.compute.racing import halving, paired_race, surrogate_race
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.compute.variation import Codes
from dspy_optimization.errors import AlgorithmError, InvalidRequestError, StopSearch
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json

_EVALUATIONS = 1_000
"""Where neither the options nor a cap on calls say how many."""

Method: TypeAlias = Literal["surrogate", "halving", "paired"]
Features: TypeAlias = Callable[[Sequence[Candidate]], Floats]
"""Candidates to what a response model sees of them, (candidates, d); NaN: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RacePlan:
    """How candidates race on val, and for how much."""

    method: Method = "surrogate"
    """As `RacingOptions.method`."""
    evaluations: int | None = None
    """Runs of the agent to pay for at most; None: as the cap on calls allows, 1,000 without one."""
    block: int = 10
    """Examples asked at a time, at least 1."""
    alpha: float = 0.02
    """As `RacingOptions.alpha`."""
    runs_each: int | None = None
    """The last candidates are left out where less than so many runs could be paid for each; None: all race."""
    iteration: int = 1
    """Of the trials that are recorded."""
    known: Mapping[Fingerprint, Sequence[ExampleResult]] = field(default_factory=dict)
    """Results on val that were paid for and recorded before; the race begins with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raced:
    """A race that is over; rows of both are the candidates that ran, each once, in the order they were given."""

    table: Measurements
    standing: Standing

    @property
    def best(self) -> Candidate:
        """The first in the order of the race that hurts no guardrail; the first of all where everybody does."""
        excess = self.table.excess()
        row = next((int(row) for row in self.standing.order if excess[row] <= 0.0), self.standing.best)
        return self.table.candidates[row]


@dataclass(frozen=True, slots=True, kw_only=True)
class RacingOptions:
    """Who runs, and how losers are found."""

    method: Method = "surrogate"
    """surrogate: halving, then a response model says whom to ask what; halving: the worse half drops out at each
    stage; paired: whoever is worse than the leader by a paired test drops out."""
    evaluations: int | None = None
    """Runs of the agent on val examples at most, at least 10. Null: as the cap on calls allows, 1,000 without one."""
    pool: int = 40
    """Candidates drawn from demos and instructions, beside those given and found before; at least 0."""
    earlier: bool = True
    """Whether candidates that algorithms before this one found run too."""
    candidates: tuple[Mapping[str, Json], ...] = ()
    """More candidates: {components: {name: {instructions, demos, settings}}}; what is left out is as in the agent."""
    demos: int = 4
    """Demos a component of a drawn candidate may show, at least 0."""
    demo_pool: int = 16
    """Demos there are to choose from for a component, at least 0."""
    bootstrap_examples: int = 16
    """Train examples the baseline is run on for demos of its own; 0: labelled examples alone."""
    instructions: int = 4
    """Instructions a component that the reflection model writes, at least 0."""
    proposal_temperature: float = 1.0
    """Of the model that proposes, above 0."""
    vary: tuple[Gene, ...] = ("instructions", "demos")
    """What drawn candidates differ in: instructions, demos, kind, model, tools, temperature."""
    block: int = 10
    """Examples asked at a time, at least 1."""
    alpha: float = 0.02
    """Chance of a paired test to drop a candidate as good as the leader; above 0, at most 0.5."""

    def __post_init__(self) -> None:
        for name, lowest in (
            ("pool", 0),
            ("demos", 0),
            ("demo_pool", 0),
            ("bootstrap_examples", 0),
            ("instructions", 0),
            ("block", 1),
        ):
            at_least(name, getattr(self, name), lowest)
        if self.evaluations is not None:
            at_least("evaluations", self.evaluations, 10)
        above("proposal_temperature", self.proposal_temperature, 0)
        if not 0.0 < self.alpha <= 0.5:
            raise InvalidRequestError(f"alpha: wanted: above 0, at most 0.5; found: {self.alpha:g}; possible: 0.02")
        if len(self.candidates) > MOST_CANDIDATES:
            raise InvalidRequestError(
                f"candidates: wanted: at most {MOST_CANDIDATES}; found: {len(self.candidates)}; possible: the best ones"
            )
        if not (self.pool or self.candidates or self.earlier):
            raise InvalidRequestError(
                "pool: wanted: somebody to race; found: pool 0, no candidates, and earlier ones not wanted; possible: "
                "pool: 40, or candidates"
            )


class Racing:
    """Successive halving, paired races, and races that a response model steers."""

    name: ClassVar[str] = "racing"
    description: ClassVar[str] = (
        "finds the best of a pool of candidates for few calls: shared examples, losers drop out"
    )
    options: ClassVar[type] = RacingOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("RacingOptions", options)
        evaluations = _EVALUATIONS if chosen.evaluations is None else chosen.evaluations
        drawn = chosen.pool > 0
        bootstraps = min(chosen.bootstrap_examples, shape.n_train) if drawn and "demos" in chosen.vary else 0
        proposals = 2 * chosen.instructions * shape.n_components if drawn else 0
        return Forecast(runs=evaluations + bootstraps + shape.n_val, proposals=proposals)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a candidate and block, and submit the winner."""
        options = cast("RacingOptions", problem.options)
        run.report(Progress(phase="pool", iteration=0))
        named = _named(problem, options)
        pool = GenePool(
            problem.baseline,
            problem.frozen,
            problem.runnable.choices,
            slots=options.demos,
            vary=options.vary,
        )
        candidates = (*named, *_drawn(problem, run, options, pool))
        plan = RacePlan(
            method=options.method, evaluations=options.evaluations, block=options.block, alpha=options.alpha
        )
        found = race_on_val(problem, run, candidates, plan, features=partial(gene_features, pool))
        run.report(
            Progress(
                phase="raced",
                iteration=2,
                candidate=found.best,
                data={
                    "candidates": len(found.table),
                    "evaluations": found.table.cells,
                    "still_in": int(found.standing.alive.sum()),
                    "surrogate_doubt": found.standing.model if options.method == "surrogate" else None,
                },
            )
        )


def race_on_val(
    problem: Problem,
    run: SearchRun,
    candidates: Sequence[Candidate],
    plan: RacePlan,
    *,
    features: Features | None = None,
) -> Raced:
    """Race candidates on val: record a trial a candidate and block, and submit the winner.

    When the search has to end, whoever is best by what was measured until then is submitted before that passes through.

    Args:
        problem: whose val, objectives and seed count; its options do not.
        run: pays.
        candidates: at least two different ones; the first is run on a block before all others, to see what a run takes.
        plan: of the race.
        features: what is known of candidates without running them, for the method surrogate.

    Raises:
        AlgorithmError: less than two candidates, or a budget for less than two runs each.
    """
    table = Measurements(problem, run)
    try:
        standing = _race(problem, run, candidates, plan, table, features)
    except StopSearch:
        if len(table):
            # What was measured until then says who is best.
            run.submit(table.candidates[_leader(problem, table)])
        raise
    found = Raced(table=table, standing=standing)
    run.submit(found.best)
    return found


def gene_features(pool: GenePool, candidates: Sequence[Candidate]) -> Floats:
    """Return what a response model sees of candidates by their genes; nothing (NaN) of those that no genes describe."""
    rows: list[Codes | None] = []
    for candidate in candidates:
        try:
            rows.append(pool.encode(candidate))
        except AlgorithmError:
            rows.append(None)
    known = [row for row in rows if row is not None]
    seen = pool.features(pool.points(known).codes)
    features = np.full((len(rows), seen.shape[1]), np.nan)
    features[[place for place, row in enumerate(rows) if row is not None]] = seen
    return features


def _named(problem: Problem, options: RacingOptions) -> list[Candidate]:
    """Return the baseline, those given and those found before, each once."""
    given = [
        candidate_from_json(one, problem.baseline, problem.frozen, where=f"candidates[{place}]")
        for place, one in enumerate(options.candidates)
    ]
    earlier = sorted(problem.known, key=lambda one: one.fingerprint) if options.earlier else []
    return _once((problem.baseline, *given, *earlier))


def _once(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates in their order; of equal ones the first."""
    found: dict[Fingerprint, Candidate] = {}
    for one in candidates:
        found.setdefault(one.fingerprint, one)
    return list(found.values())


def _drawn(problem: Problem, run: SearchRun, options: RacingOptions, pool: GenePool) -> list[Candidate]:
    """Return candidates of demos and instructions drawn from the train split."""
    if not options.pool:
        return []
    writes = options.instructions if "instructions" in options.vary else 0
    proposals = Proposals(
        agent=problem.agent,
        calls=run,
        algorithm=Racing.name,
        temperature=options.proposal_temperature,
        most=2 * writes * len(pool.components),
    )
    terms = SeedTerms(demo_pool=options.demo_pool, bootstrap_examples=options.bootstrap_examples, instructions=writes)
    seed_pool(problem, run, pool, proposals, terms)
    return first_candidates(problem, pool, options.pool + 1, _rng(problem, "pool"))


def _race(
    problem: Problem,
    run: SearchRun,
    candidates: Sequence[Candidate],
    plan: RacePlan,
    table: Measurements,
    features: Features | None,
) -> Standing:
    unique = _once(candidates)
    if len(unique) < 2:
        raise AlgorithmError(
            "racing: wanted: at least one candidate beside the baseline; found: none; possible: pool: 40, candidates, "
            "or an algorithm before this one that finds some"
        )
    first = _rng(problem, "first").permutation(table.columns)[: plan.block]
    table.know(unique[0], plan.known.get(unique[0].fingerprint, ()))
    table.measure({0: first}, plan.iteration)
    budget = _budget(run, plan, table)
    if plan.runs_each is not None:
        unique = unique[: max(2, budget // plan.runs_each)]
    given = sum(len(plan.known.get(one.fingerprint, ())) for one in unique)
    if budget + given < 2 * len(unique):
        raise AlgorithmError(
            f"racing: wanted: a budget for {2 * len(unique)} runs on val at least, two for each of {len(unique)} "
            f"candidates; found: room for {max(budget, 0)}; possible: more calls, or a smaller pool"
        )
    for candidate in unique[1:]:
        table.know(candidate, plan.known.get(candidate.fingerprint, ()))
    terms = RaceTerms(budget=max(budget, 0), block=min(plan.block, table.columns), alpha=plan.alpha)

    def ask(rows: Integers, asked: Integers) -> Floats:
        wanted = {int(row): asked[rows == row] for row in np.unique(rows)}
        table.measure(wanted, plan.iteration)
        return np.asarray(table.utilities()[rows, asked])

    seed = int(_rng(problem, "race").integers(1 << 31))
    known = table.utilities()
    if plan.method == "halving":
        return halving(len(table), table.columns, ask, terms, seed=seed, start=known)
    if plan.method == "paired":
        return paired_race(len(table), table.columns, ask, terms, seed=seed, start=known)
    seen = None if features is None else features(table.candidates)
    return surrogate_race(len(table), table.columns, ask, terms, seed=seed, start=known, features=seen)


def _budget(run: SearchRun, plan: RacePlan, table: Measurements) -> int:
    """Return how many runs may still be paid for, once it was measured what one takes."""
    budget = _EVALUATIONS if plan.evaluations is None else plan.evaluations
    if run.calls_left is not None:
        room = int(run.calls_left / table.calls_a_run) + table.cells
        budget = room if plan.evaluations is None else min(budget, room)
    return budget - table.cells


def _leader(problem: Problem, table: Measurements) -> int:
    """Return the row that is best by plain means, evened out for how hard the examples were; guardrails first."""
    rng = _rng(problem, "end")
    beliefs = [PlainBeliefs.of(table.utilities(goal), rng) for goal in table.goals]
    weights = np.array([goal.weight for goal in table.goals])
    return int(np.lexsort((-(expected(beliefs) @ (weights / weights.sum())), table.excess()))[0])


def _rng(problem: Problem, step: str) -> np.random.Generator:
    return np.random.default_rng(problem.rng(f"racing/{step}").getrandbits(64))
