"""What the service says of an optimization. Fields that a newer service adds are passed over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dspy_optimization.events import Json


class OptimizationStatus(StrEnum):
    """Where an optimization stands."""

    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker has it
    PAUSED = "paused"  # stopped on request or by a failure that may pass; can be resumed
    COMPLETED = "completed"  # ended with a verdict
    FAILED = "failed"  # ended with an error; can be retried once that is mended
    CANCELLED = "cancelled"  # ended on request, with the best so far
    UNKNOWN = "unknown"  # a newer service says what this client has no word for

    @property
    def is_done(self) -> bool:
        """Whether nothing more will happen by itself or by resuming."""
        return self in {OptimizationStatus.COMPLETED, OptimizationStatus.FAILED, OptimizationStatus.CANCELLED}

    @property
    def stands_still(self) -> bool:
        """Whether nothing more will happen until somebody asks for it: done, or paused."""
        return self.is_done or self is OptimizationStatus.PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is optimized."""

    type: str
    id: str
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An optimization that waits for a worker."""

    optimization_id: str
    status: OptimizationStatus
    estimated_completion: datetime | None = None
    estimated_cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What became of asking an optimization to stop or go on."""

    optimization_id: str
    status: OptimizationStatus
    is_done: bool
    """False: a worker does it after the calls in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What an optimization takes at most."""

    calls: int
    calls_by_role: Mapping[str, int] = field(default_factory=dict)
    calls_by_phase: Mapping[str, int] = field(default_factory=dict)
    search_calls: int | None = None
    """What a cap on calls leaves for the algorithms; None: there is no cap."""
    tokens: int | None = None
    cost_usd: float | None = None
    """None: a price is not known."""
    minutes: float | None = None
    seconds_a_call: float | None = None
    estimated_seconds: float | None = None
    """What it will probably take."""
    algorithms: tuple[str, ...] = ()
    reason: str | None = None
    """Why these algorithms, where the service chose."""
    models: Mapping[str, str] = field(default_factory=dict)
    dataset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A mean with its interval."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PickAccepted:
    """An optimization that takes a picked candidate to the gate, and waits for a worker."""

    optimization_id: str
    status: OptimizationStatus
    estimated_completion: datetime | None = None
    estimated_cost_usd: float | None = None
    picked_from: str
    candidate: str
    test_split_use: int
    """Which use of the test split it will be, as things stood; 1 is the first."""
    alpha: float
    """The level of that use; every further use has a smaller one."""
    sentence: str = ""
    """The same in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValMean:
    """A mean on val with its interval, in the unit of the metric."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    level: float | None = None
    method: str | None = None
    """How the interval was computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A candidate that none other beats on val; optimistic, for the search looked at the same examples."""

    candidate: str
    algorithm: str | None = None
    origin: str | None = None
    means: Mapping[str, ValMean] = field(default_factory=dict)
    """Objective → mean on val, guardrails too."""
    guardrails_hold: bool = True
    on_front: bool = True
    """False only of the baseline and the chosen one, which are told of in any case."""
    is_baseline: bool = False
    is_chosen: bool = False
    probability_on_front: float | None = None
    """Share of bootstrap samples of the val examples, 0 to 1."""
    dominated_by: Mapping[str, float] = field(default_factory=dict)
    """Other point → how often it dominates this one; from 0.05 on."""
    alike: tuple[str, ...] = ()
    """Points that it cannot be told apart from in any objective."""
    equal: tuple[str, ...] = ()
    """Candidates with the same means, which this point stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Which candidate went to the gate, and why."""

    policy: str
    candidate: str
    reason: str = ""
    eligible: int | None = None
    """Candidates whose guardrails hold and that the policy admits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyImprovement:
    """What one change is worth, on val."""

    component: str
    part: str
    """instructions, demos, model, parameters, kind or tools."""
    worth: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultDetails:
    """How the result came about."""

    iterations: int | None = None
    trials: int | None = None
    key_improvements: tuple[KeyImprovement, ...] = ()
    parameters: Mapping[str, Json] = field(default_factory=dict)
    ended_because: str | None = None
    """finished, target_met, no_headroom, cancelled, or the name of the cap that was reached."""
    test_split_use: int | None = None
    n_examples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactReference:
    """Which agent came out."""

    agent_version: str
    checksum: str | None = None
    mlflow_run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What the sealed test split allows to be said."""

    baseline_performance: Mapping[str, Measured] = field(default_factory=dict)
    optimized_performance: Mapping[str, Measured] = field(default_factory=dict)
    improvement_percentage: float | None = None
    absolute_improvement: float | None = None
    statistical_significance: float | None = None
    """The p-value."""
    confidence_interval: tuple[float, float] | None = None
    """Of the absolute improvement."""
    mde: float | None = None
    """The smallest gain that these examples could have shown."""
    verdict: str | None = None
    """improved, no_improvement, regressed, indecisive, insufficient_data or no_headroom; None: test was not opened."""
    reason: str | None = None
    pareto_front: tuple[FrontPoint, ...] | None = None
    """The candidates that none other beats on every objective, on val; None: it was not computed."""
    pick: Pick | None = None
    algorithm_used: str | None = None
    optimization_details: ResultDetails = field(default_factory=ResultDetails)
    artifact: ArtifactReference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How far it is and what it took."""

    current_iteration: int | None = None
    best_score: float | None = None
    """On val."""
    algorithm: str | None = None
    phase: str | None = None
    trials: int | None = None
    lm_calls: int | None = None
    cache_hit_rate: float | None = None
    """Share, 0 to 1."""
    cost_usd: Mapping[str, float | None] = field(default_factory=dict)
    """By role, and `total`."""
    tokens: int | None = None
    elapsed_seconds: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where an optimization stands."""

    optimization_id: str
    status: OptimizationStatus
    progress: float
    """0 to 1."""
    estimated_completion: datetime | None = None
    metrics: Metrics = field(default_factory=Metrics)
    results: Results | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """An optimization at a glance. Scores are of val; verdict and gain of the sealed test split."""

    optimization_id: str
    target: Target
    status: OptimizationStatus
    progress: float
    algorithms: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime | None = None
    elapsed_seconds: float | None = None
    best_score: float | None = None
    baseline_score: float | None = None
    verdict: str | None = None
    improvement_percentage: float | None = None
    absolute_improvement: float | None = None
    confidence_interval: tuple[float, float] | None = None
    lm_calls: int | None = None
    cost_usd: float | None = None
    error: str | None = None
    request: Mapping[str, Json] = field(default_factory=dict)
    """What was handed in; empty in lists."""
