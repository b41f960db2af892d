"""What the sealed test split allows to be said."""

from typing import Any

from pydantic import Field

from dspy_optimization.web.answers.base import Answer


class Measured(Answer):
    """A mean with its interval."""

    value: float
    n: int
    low: float | None
    high: float | None


class Worth(Answer):
    """What one change is worth."""

    component: str
    part: str
    worth: Measured


class ValMeanOut(Answer):
    """A mean on val with its interval."""

    value: float
    n: int
    low: float | None
    high: float | None
    level: float
    method: str | None = Field(description="How the interval was computed; null where the sample cannot tell.")


class FrontPointOut(Answer):
    """A candidate that none other beats on val; optimistic, for the search looked at the same examples."""

    candidate: str
    algorithm: str
    origin: str
    means: dict[str, ValMeanOut] = Field(description="Objective → mean on val, guardrails too.")
    guardrails_hold: bool
    on_front: bool = Field(description="False only of the baseline and the chosen one, which are told of in any case.")
    is_baseline: bool
    is_chosen: bool
    probability_on_front: float = Field(description="Share of bootstrap samples of the val examples, 0 to 1.")
    dominated_by: dict[str, float] = Field(description="Other point → how often it dominates this one; from 0.05 on.")
    alike: list[str] = Field(description="Points that it cannot be told apart from in any objective.")
    equal: list[str] = Field(description="Candidates with the same means, which this point stands for.")


class PickOut(Answer):
    """Which candidate went to the gate, and why."""

    policy: str
    candidate: str
    reason: str
    eligible: int = Field(description="Candidates whose guardrails hold and that the policy admits.")


class ResultDetails(Answer):
    """How the result came about."""

    iterations: int
    trials: int
    key_improvements: list[Worth]
    parameters: dict[str, Any]
    ended_because: str
    test_split_use: int | None
    n_examples: int | None


class ArtifactOut(Answer):
    """Where the optimized agent is."""

    agent_version: str
    checksum: str
    mlflow_run_id: str | None


class Results(Answer):
    """What the sealed test split allows to be said."""

    baseline_performance: dict[str, Measured]
    optimized_performance: dict[str, Measured]
    improvement_percentage: float | None
    absolute_improvement: float | None
    statistical_significance: float | None = Field(description="The p-value, two-sided, adjusted.")
    confidence_interval: tuple[float, float] | None
    mde: float | None
    verdict: str | None
    reason: str | None
    pareto_front: list[FrontPointOut] | None = Field(
        description="The candidates that none other beats on every objective, on val; null: it was not computed."
    )
    pick: PickOut | None = Field(default=None, description="Null where an older engine wrote the result.")
    algorithm_used: str | None
    optimization_details: ResultDetails
    artifact: ArtifactOut
