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
    pareto_front: list[dict[str, Any]] | None = Field(
        description="The candidates that none other beats on every objective; null: it was not computed."
    )
    algorithm_used: str | None
    optimization_details: ResultDetails
    artifact: ArtifactOut
