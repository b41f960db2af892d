"""Answers about optimizations: handed in, listed, steered, where they stand."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from dspy_optimization.web.answers.base import Answer
from dspy_optimization.web.answers.results import Results


class Accepted(Answer):
    """An optimization that waits for a worker."""

    optimization_id: UUID
    status: str
    estimated_completion: datetime | None
    estimated_cost_usd: float | None
    links: dict[str, str]


class PickAccepted(Accepted):
    """An optimization that takes a picked candidate to the gate."""

    picked_from: UUID
    candidate: str
    test_split_use: int = Field(description="Which use of the test split it will be, as things stood; 1 is the first.")
    alpha: float = Field(description="The level of that use; every further use has a smaller one.")
    sentence: str = Field(description="The same in words.")


class PickPreview(Answer):
    """What taking a candidate to the gate would be; nothing is kept or spent."""

    picked_from: UUID
    candidate: str
    test_split_use: int = Field(description="Which use of the test split it would be, as things stand.")
    alpha: float = Field(description="The level of that use; every further use has a smaller one.")
    sentence: str = Field(description="The same in words.")
    calls: int = Field(description="At most; what was answered before is not paid again.")
    cost_usd: float | None = Field(description="At most; null where the price is not known.")


class Asked(Answer):
    """What became of asking something of an optimization."""

    optimization_id: UUID
    status: str
    is_done: bool = Field(description="False: a worker does it after the calls in flight.")


class EstimateOut(Answer):
    """What an optimization takes at most."""

    calls: int
    calls_by_role: dict[str, int]
    calls_by_phase: dict[str, int]
    search_calls: int | None = Field(description="What a cap on calls leaves for the algorithms; null: no cap.")
    tokens: int
    cost_usd: float | None
    minutes: float
    seconds_a_call: float
    algorithms: list[str]
    reason: str | None
    models: dict[str, str]
    dataset: str
    estimated_seconds: float = Field(description="What it will probably take, by what earlier ones took.")


class TargetOut(Answer):
    """What is optimized."""

    type: str
    id: str
    version: str


class Summary(Answer):
    """An optimization at a glance. Scores are of val; verdict and gain of the sealed test split."""

    optimization_id: UUID
    target: TargetOut
    status: str
    progress: float
    algorithms: list[str]
    created_at: datetime
    updated_at: datetime
    elapsed_seconds: float
    baseline_score: float | None
    best_score: float | None
    verdict: str | None
    improvement_percentage: float | None
    absolute_improvement: float | None
    confidence_interval: tuple[float, float] | None
    lm_calls: int
    cost_usd: float
    error: str | None


class OfSchedule(Answer):
    """Which schedule made an optimization."""

    id: UUID
    name: str = Field(description="What it was called then.")
    due_at: datetime | None = Field(description="The due time it was made for; null when a person fired it.")


class Detail(Summary):
    """An optimization with what was asked for."""

    request: dict[str, Any]
    body: dict[str, Any] = Field(description="The body of POST /api/v1/optimize that asks for the same again.")
    schedule: OfSchedule | None = Field(description="Null when a person handed it in.")
    links: dict[str, str]


class Metrics(Answer):
    """Where a running optimization is."""

    current_iteration: int | None
    best_score: float | None
    algorithm: str | None
    phase: str | None
    trials: int
    lm_calls: int
    cache_hit_rate: float | None
    cost_usd: dict[str, float]
    tokens: int
    elapsed_seconds: float
    eta_seconds: float | None


class StatusOut(Answer):
    """Where an optimization stands."""

    optimization_id: UUID
    status: str
    progress: float
    estimated_completion: datetime | None
    metrics: Metrics
    results: Results | None
    error: str | None
