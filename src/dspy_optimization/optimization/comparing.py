"""Algorithms against each other on equal terms: what each came to on sealed examples, and whether it differs.

Every search is an optimization of its own: the same agent, data, models and cap, another seed for every repetition,
and a ledger of its own, so that none profits from what another one asked. What counts is the agent it ends with (the
agent as it was, where it found nothing better) on the test split, example by example.

The unit is the example: its difference is averaged over the seeds, so that three searches do not count as three times
as many examples. What the interval tells is how sure the difference between these searches is on other examples of the
same kind; how much searches with other seeds differ is told by the range over seeds beside it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.statistics import PairedSample, Verdict, compare
from dspy_optimization.statistics.multiplicity import holm


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchScores:
    """What one search came to."""

    algorithm: str
    task: str
    seed: int
    scores: Mapping[ExampleId, float]
    """Test example → the primary objective of the agent it ended with, higher is better."""
    paid_calls: int
    """Of the optimization: baseline, search and proof."""
    search_calls: int
    """Of the search alone."""
    is_changed: bool
    """Whether it ended with another agent than it began with."""
    error: str | None = None
    """Why it found nothing, where it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One algorithm beside the first."""

    algorithm: str
    score: float
    """Mean over tasks, examples and seeds; tasks count by their examples."""
    searches: int
    failed: int
    paid_calls: float
    """A search, mean."""
    search_calls: float
    difference: float | None
    """To the first, mean; None for the first itself."""
    low: float | None
    high: float | None
    """95 % interval of the difference over examples; None where the sample cannot tell."""
    p_value: float | None
    """Two-sided, Holm's over all algorithms that are compared with the first."""
    lowest_of_seeds: float | None
    highest_of_seeds: float | None
    """The mean difference of the single seeds lies between these."""
    sentence: str


def sealed_scores(optimizer: Optimizer, optimization_id: OptimizationId) -> tuple[Mapping[ExampleId, float], bool]:
    """Return test example → primary objective of the agent an optimization ended with, and whether it was changed.

    Answers the gate has asked for already are not asked again. Where there was no result, it is the agent as it was.

    Raises:
        StopSearch: a model or the database failed for good.
    """
    request = optimizer.stores.optimizations.get(optimization_id).request
    result = optimizer.stores.results.result(optimization_id)
    config = optimizer.stores.agents.get(request.target.version)
    agent = optimizer.builder.build(config)
    candidate = agent.baseline if result is None else result.optimized
    objectives = Objectives(items=request.objectives)
    examples = optimizer.stores.datasets.get(request.dataset)[Split.TEST]
    stop = StopSignal()
    models = optimizer.models.open(config, stop, lambda *_: None)
    named = optimizer.models.named(stop, lambda *_: None)
    try:
        with (
            LedgerSession.open(
                optimizer.stores.ledger,
                optimization_id,
                models=models,
                named=named,
                limits=Limits(),
                now=optimizer.now,
                warn=lambda _: None,
                max_in_flight=request.constraints.concurrency,
            ) as session,
            Evaluator(
                agent,
                list(optimizer.metrics(request).values()),
                objectives,
                concurrency=request.constraints.concurrency,
            ) as evaluator,
        ):
            results = evaluator.evaluate(candidate, examples, session.scope("comparison", stop), stop)
    finally:
        for model in {id(model): model for model in models.values()}.values():
            model.close()
    primary = objectives.primary
    scores = {one.example_id: primary.oriented(one.scores[primary.metric].value) for one in results}
    return scores, candidate.fingerprint != agent.baseline.fingerprint


def standings(
    searches: Sequence[SearchScores], datasets: Mapping[str, Dataset], *, alpha: float = 0.05, seed: int = 0
) -> tuple[Standing, ...]:
    """Return how the algorithms stand, in the order they are met; the others are compared with the first.

    Args:
        searches: of every algorithm on every task with the same seeds.
        datasets: task → its data; examples of a cluster count as one.
        alpha: two-sided level over all comparisons together.
        seed: of bootstrap and random tests.
    Raises:
        InvalidRequestError: an algorithm lacks a search that the first one has.
    """
    names = list(dict.fromkeys(one.algorithm for one in searches))
    of = {name: [one for one in searches if one.algorithm == name] for name in names}
    samples = {name: _sample(of[names[0]], of[name], datasets) for name in names[1:]}
    found = {
        name: compare(
            sample,
            alpha=alpha,
            minimum_effect=0.0,
            rng=np.random.default_rng(random.Random(f"{seed}/{name}").getrandbits(64)),
        )
        for name, sample in samples.items()
    }
    adjusted = dict(zip(found, holm([one.test.p_value for one in found.values()]), strict=True)) if found else {}
    told = []
    for name in names:
        mine = of[name]
        by_seed = _by_seed(of[names[0]], mine) if name in found else []
        comparison = found.get(name)
        told.append(
            Standing(
                algorithm=name,
                score=_mean([value for one in mine for value in one.scores.values()]),
                searches=len(mine),
                failed=sum(one.error is not None for one in mine),
                paid_calls=_mean([one.paid_calls for one in mine]),
                search_calls=_mean([one.search_calls for one in mine]),
                difference=None if comparison is None else comparison.difference,
                low=None if comparison is None or comparison.interval is None else comparison.interval.lower,
                high=None if comparison is None or comparison.interval is None else comparison.interval.upper,
                p_value=adjusted.get(name),
                lowest_of_seeds=min(by_seed, default=None),
                highest_of_seeds=max(by_seed, default=None),
                sentence="the one the others are compared with"
                if comparison is None
                else _sentence(comparison.verdict, comparison.difference, adjusted[name], alpha, comparison.mde),
            )
        )
    return tuple(told)


def _sentence(verdict: Verdict, difference: float, p_value: float, alpha: float, mde: float | None) -> str:
    if verdict is Verdict.INSUFFICIENT_DATA:
        return "no difference can be seen: too few examples differ to tell"
    if p_value >= alpha:
        seen = "" if mde is None else f" (one of {mde:.3g} would be, four times in five)"
        return f"no difference can be seen{seen}"
    return "better than the first" if difference > 0 else "worse than the first"


def _sample(
    first: Sequence[SearchScores], other: Sequence[SearchScores], datasets: Mapping[str, Dataset]
) -> PairedSample:
    one, two = _by_example(first), _by_example(other)
    if one.keys() != two.keys() or {(s.task, s.seed) for s in first} != {(s.task, s.seed) for s in other}:
        raise InvalidRequestError(
            f"wanted: the same tasks and seeds for every algorithm; found: others for {other[0].algorithm}; possible: "
            "compare those that all have"
        )
    clusters = {
        (task, example.id): f"{task}/{example.cluster if example.cluster is not None else example.id}"
        for task, dataset in datasets.items()
        for example in dataset[Split.TEST]
    }
    keys = sorted(one)
    return PairedSample(
        baseline=tuple(one[key] for key in keys),
        candidate=tuple(two[key] for key in keys),
        clusters=tuple(clusters[key] for key in keys),
    )


def _by_example(searches: Sequence[SearchScores]) -> Mapping[tuple[str, ExampleId], float]:
    """Return (task, example) → mean over the seeds."""
    values: dict[tuple[str, ExampleId], list[float]] = {}
    for search in sorted(searches, key=lambda one: (one.task, one.seed)):
        for example, score in search.scores.items():
            values.setdefault((search.task, example), []).append(score)
    return {key: _mean(scores) for key, scores in values.items()}


def _by_seed(first: Sequence[SearchScores], other: Sequence[SearchScores]) -> list[float]:
    """Return the mean difference of every seed, over tasks and examples."""
    seeds = sorted({one.seed for one in first})
    return [
        _mean([value for one in other if one.seed == seed for value in one.scores.values()])
        - _mean([value for one in first if one.seed == seed for value in one.scores.values()])
        for seed in seeds
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
