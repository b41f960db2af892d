"""The gate: baseline and candidate on the sealed split, paired, once. Only it makes a `ValidatedResult`."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.statistics import (
    Comparison,
    Interval,
    PairedSample,
    Verdict,
    adjust_for_objectives,
    compare,
    mean_interval,
    reuse_level,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its interval."""

    value: float
    low: float | None
    """None: the sample cannot tell (one example, or scores that never vary)."""
    high: float | None
    n: int
    level: float = 0.95
    """Confidence level of the interval, in (0, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveResult:
    """One objective on the sealed split."""

    metric: str
    baseline: Estimate
    optimized: Estimate
    difference: Estimate
    """Optimized minus baseline, in the metric's unit (not turned)."""
    improvement_percentage: float | None
    """Of the baseline, positive is better; None at baseline 0."""
    improvement_interval: tuple[float, float] | None
    p_value: float | None
    """Two-sided, adjusted (Holm over co-primary objectives); None when nothing was tested."""
    test: str
    """Which test, by the name of its method."""
    mde: float | None
    """The smallest difference this many examples would find with 80 % power."""
    discordant: int | None
    """Examples (or clusters) on which the two differ."""
    verdict: Verdict
    reason: str
    """The verdict in a sentence a manager can read."""


_GATE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedResult:
    """Evidence from the sealed split; made by `validate` alone (`restored` reads back what it wrote)."""

    dataset: DatasetVersion
    baseline: Fingerprint
    optimized: Fingerprint
    n_examples: int
    alpha: float
    """The level that was spent, after accounting for earlier uses of this test split."""
    test_split_use: int
    """Which use of this test split it was; 1 is the first."""
    objectives: Mapping[str, ObjectiveResult]
    primary: str
    verdict: Verdict
    reason: str
    baseline_performance: Mapping[str, Estimate] = field(default_factory=dict)
    """On the sealed split, whatever the objectives are: success_rate (share of answers with full marks),
    avg_cost_per_task (dollars), avg_latency_ms (of the model's calls), avg_tokens_per_task, and quality_score (mean
    utility)."""
    optimized_performance: Mapping[str, Estimate] = field(default_factory=dict)
    """The same of the optimized agent."""
    seal: object

    def __post_init__(self) -> None:
        if self.seal is not _GATE:
            raise TypeError("wanted: a result of the gate; found: one made by hand; possible: evaluation.gate.validate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One candidate on the whole test split."""

    candidate: Candidate
    results: Sequence[ExampleResult]
    """In the order of the split's examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTerms:
    """What was fixed before the test split was opened."""

    dataset: DatasetVersion
    objectives: Objectives
    alpha: float
    """Two-sided level over all uses of this test split together, in (0, 1)."""
    minimum_effect: float
    """The smallest gain in the primary objective that matters, in its unit."""
    test_split_use: int
    seed: int


def validate(
    examples: Sequence[Example],
    baseline: Measurement,
    optimized: Measurement,
    terms: GateTerms,
    *,
    settled: tuple[Verdict, str] | None = None,
) -> ValidatedResult:
    """Return what the sealed split allows to be said.

    Objectives that are no guardrail are co-primary: their p-values are Holm's. A guardrail holds when the whole
    interval of its difference lies above minus its margin (non-inferiority; no correction, for all of them have
    to hold). `improved` needs the primary objective improved, no other one regressed, every guardrail held.

    Args:
        examples: the test split, in the order of both measurements.
        baseline: measured on all of it.
        optimized: measured on all of it.
        terms: fixed beforehand.
        settled: the verdict and its reason when val had decided already (no headroom, nothing better found);
            both measurements are then the baseline's and nothing is tested.
    Raises:
        InvalidRequestError: a measurement that is not of exactly these examples.
    """
    wanted = [example.id for example in examples]
    for name, measurement in (("baseline", baseline), ("optimized", optimized)):
        found = [result.example_id for result in measurement.results]
        if found != wanted:
            raise InvalidRequestError(
                f"wanted: {name} results for the {len(wanted)} test examples in their order; found: {len(found)} "
                "results or another order; possible: evaluate the whole test split"
            )
    alpha = reuse_level(terms.alpha, terms.test_split_use)
    clusters = clusters_of(examples)
    comparisons = {
        item.metric: _compare(item, baseline, optimized, clusters, terms, alpha) for item in terms.objectives.items
    }
    primaries = {item.metric: comparisons[item.metric] for item in terms.objectives.items if not item.guardrail}
    comparisons |= adjust_for_objectives(primaries)
    results = {
        item.metric: _result(item, comparisons[item.metric], baseline, optimized, clusters, terms, settled is None)
        for item in terms.objectives.items
    }
    verdict, reason = settled if settled is not None else _decide(terms.objectives, comparisons, results)
    return ValidatedResult(
        dataset=terms.dataset,
        baseline=baseline.candidate.fingerprint,
        optimized=optimized.candidate.fingerprint,
        n_examples=len(examples),
        alpha=alpha,
        test_split_use=terms.test_split_use,
        objectives=results,
        primary=terms.objectives.primary.metric,
        verdict=verdict,
        reason=reason,
        baseline_performance=_performance(baseline, clusters, terms, 1.0 - alpha),
        optimized_performance=_performance(optimized, clusters, terms, 1.0 - alpha),
        seal=_GATE,
    )


def restored(**written: Any) -> ValidatedResult:
    """Return what the gate wrote, read back by a store; stores call this and nobody else.

    Args:
        written: every field of a `ValidatedResult` but the seal.
    """
    return ValidatedResult(**written, seal=_GATE)


def paired_difference(
    objective: Objective,
    examples: Sequence[Example],
    without: Sequence[ExampleResult],
    with_: Sequence[ExampleResult],
    *,
    seed: int,
) -> Estimate:
    """Return the mean paired difference of one metric, with minus without, in the metric's unit.

    Both sequences are in the order of the examples. For what is shown beside the verdict, never for it.
    """
    sample = _sample(objective, without, with_, clusters_of(examples))
    comparison = compare(sample, alpha=0.05, minimum_effect=0.0, rng=_rng(seed, objective.metric, "difference"))
    return _estimate(comparison.difference, comparison.interval, comparison.n, 0.95, objective)


def clusters_of(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """Return the cluster of every example, those that have none in one of their own; None when nobody has one."""
    if all(example.cluster is None for example in examples):
        return None
    return tuple(example.cluster if example.cluster is not None else f"alone/{example.id}" for example in examples)


def _rng(seed: int, metric: str, what: str) -> np.random.Generator:
    return np.random.default_rng(random.Random(f"{seed}/{what}/{metric}").getrandbits(64))


def _sample(
    objective: Objective,
    baseline: Sequence[ExampleResult],
    optimized: Sequence[ExampleResult],
    clusters: tuple[str, ...] | None,
) -> PairedSample:
    return PairedSample(
        baseline=tuple(objective.oriented(result.scores[objective.metric].value) for result in baseline),
        candidate=tuple(objective.oriented(result.scores[objective.metric].value) for result in optimized),
        clusters=clusters,
    )


def _compare(
    objective: Objective,
    baseline: Measurement,
    optimized: Measurement,
    clusters: tuple[str, ...] | None,
    terms: GateTerms,
    alpha: float,
) -> Comparison:
    sample = _sample(objective, baseline.results, optimized.results, clusters)
    if objective.guardrail:
        effect = objective.margin * abs(sum(sample.baseline) / sample.n)
    else:
        effect = terms.minimum_effect if objective is terms.objectives.primary else 0.0
    return compare(sample, alpha=alpha, minimum_effect=effect, rng=_rng(terms.seed, objective.metric, "gate"))


def _result(
    objective: Objective,
    comparison: Comparison,
    baseline: Measurement,
    optimized: Measurement,
    clusters: tuple[str, ...] | None,
    terms: GateTerms,
    tested: bool,
) -> ObjectiveResult:
    level = 1.0 - comparison.alpha
    relative = comparison.improvement_interval
    return ObjectiveResult(
        metric=objective.metric,
        baseline=_mean(objective, baseline, clusters, terms.seed, level),
        optimized=_mean(objective, optimized, clusters, terms.seed, level),
        difference=_estimate(comparison.difference, comparison.interval, comparison.n, level, objective),
        improvement_percentage=comparison.improvement_percentage,
        improvement_interval=(relative.lower, relative.upper) if relative is not None else None,
        p_value=comparison.adjusted_p_value if tested else None,
        test=comparison.test.method.value,
        mde=comparison.mde,
        discordant=comparison.test.non_zero,
        verdict=comparison.verdict,
        reason=comparison.reason if not objective.guardrail else _guardrail_reason(objective, comparison),
    )


def _performance(
    measured: Measurement, clusters: tuple[str, ...] | None, terms: GateTerms, level: float
) -> dict[str, Estimate]:
    results = measured.results
    usages = [result.usage for result in results]
    scores = {
        "success_rate": [float(terms.objectives.full_marks(result.scores)) for result in results],
        "quality_score": [terms.objectives.scalar(result.scores) for result in results],
    }
    amounts = {
        "avg_cost_per_task": [usage.cost_usd for usage in usages],
        "avg_latency_ms": [1000.0 * usage.latency_seconds for usage in usages],
        "avg_tokens_per_task": [float(usage.prompt_tokens + usage.completion_tokens) for usage in usages],
    }
    fingerprint = measured.candidate.fingerprint
    found = {
        name: _mean_estimate(values, clusters, level, _rng(terms.seed, name, fingerprint))
        for name, values in {**scores, **amounts}.items()
    }
    # Nothing bounds an amount: a hundred answers of 0 dollars are no share of answers that cost a dollar.
    equal = {name for name, values in amounts.items() if min(values) == max(values)}
    return {name: replace(one, low=None, high=None) if name in equal else one for name, one in found.items()}


def _mean(
    objective: Objective, measured: Measurement, clusters: tuple[str, ...] | None, seed: int, level: float
) -> Estimate:
    values = [result.scores[objective.metric].value for result in measured.results]
    return _mean_estimate(values, clusters, level, _rng(seed, objective.metric, measured.candidate.fingerprint))


def _mean_estimate(
    values: Sequence[float], clusters: tuple[str, ...] | None, level: float, rng: np.random.Generator
) -> Estimate:
    interval = mean_interval(values, clusters=clusters, level=level, rng=rng)
    return Estimate(
        value=sum(values) / len(values),
        low=interval.lower if interval is not None else None,
        high=interval.upper if interval is not None else None,
        n=len(values),
        level=level,
    )


def _estimate(value: float, interval: Interval | None, n: int, level: float, objective: Objective) -> Estimate:
    """Return an oriented difference in the metric's own unit again."""
    low, high = (interval.lower, interval.upper) if interval is not None else (None, None)
    if objective.direction is Direction.MINIMIZE:
        value = -value
        low, high = (-high if high is not None else None), (-low if low is not None else None)
    return Estimate(value=value, low=low, high=high, n=n, level=level)


def _guardrail_reason(objective: Objective, comparison: Comparison) -> str:
    allowed = f"at most {comparison.minimum_effect:.3g} worse ({objective.margin:.0%} of the baseline)"
    holds = _holds(comparison.interval, comparison.minimum_effect)
    if holds is True:
        return f"The guardrail holds: {objective.metric} is shown to be {allowed}."
    if holds is False:
        return f"The guardrail is broken: {objective.metric} is shown to be worse than allowed, {allowed}."
    return f"The guardrail is not shown to hold: {objective.metric} may be {allowed}, and more is not ruled out."


def _decide(
    objectives: Objectives, comparisons: Mapping[str, Comparison], results: Mapping[str, ObjectiveResult]
) -> tuple[Verdict, str]:
    primary = results[objectives.primary.metric]
    others = [
        results[item.metric] for item in objectives.items if not item.guardrail and item is not objectives.primary
    ]
    standing = {
        item.metric: _holds(comparisons[item.metric].interval, comparisons[item.metric].minimum_effect)
        for item in objectives.items
        if item.guardrail
    }
    broken = [results[metric] for metric, holds in standing.items() if holds is False]
    unproven = [results[metric] for metric, holds in standing.items() if holds is None]
    if broken:
        return Verdict.REGRESSED, f"{broken[0].reason} {primary.reason}"
    if primary.verdict is not Verdict.IMPROVED:
        return primary.verdict, primary.reason
    worse = [result for result in others if result.verdict is Verdict.REGRESSED]
    if worse:
        return Verdict.INDECISIVE, f"{primary.reason} But {worse[0].metric} is worse. {worse[0].reason}"
    if unproven:
        return Verdict.INDECISIVE, f"{primary.reason} But: {unproven[0].reason}"
    return primary.verdict, primary.reason


def _holds(interval: Interval | None, allowed: float) -> bool | None:
    """Say whether a guardrail holds (True), is broken (False) or is not shown to hold (None)."""
    if interval is None:
        return None
    if interval.lower >= -allowed:
        return True
    return False if interval.upper < -allowed else None
