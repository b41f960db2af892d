"""Facts for users: written with the change they tell of, read by streams, trackers and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class EventType(StrEnum):
    """What happened; the name is stable, `data` may grow."""

    # data: raw_seconds, estimated_seconds, estimated_cost_usd, calls; of a schedule: schedule, schedule_name, due_at
    OPTIMIZATION_ACCEPTED = "optimization.accepted"
    OPTIMIZATION_STARTED = "optimization.started"
    OPTIMIZATION_QUEUED = "optimization.queued"  # again, after a pause or a failure; data: reason, retry_in_seconds
    OPTIMIZATION_RESUMED = "optimization.resumed"
    OPTIMIZATION_PAUSED = "optimization.paused"
    OPTIMIZATION_CANCELLED = "optimization.cancelled"
    OPTIMIZATION_FAILED = "optimization.failed"
    OPTIMIZATION_COMPLETED = "optimization.completed"
    PHASE_STARTED = "phase.started"  # data: phase, algorithm
    ALGORITHM_STARTED = "algorithm.started"  # data: algorithm, turn, allowance_calls, reason
    ALGORITHM_ENDED = "algorithm.ended"  # data: algorithm, turn, outcome, best_score
    PROGRESS = "progress"  # data: phase, algorithm, iteration, iterations, candidate, score, best_score, spend, eta
    TRIAL_RECORDED = "trial.recorded"  # data: algorithm, candidate, split, n_examples, score, parents
    BUDGET_WARNING = "budget.warning"  # data: cap, limit, used, share
    MODEL_FALLBACK = "model.fallback"  # data: role, wanted, used, reason
    DEVICE_FALLBACK = "device.fallback"  # data: device, reason; the search goes on on the processor
    TRACKING_FAILED = "tracking.failed"  # data: error; the optimization itself is not touched by it
    TRACKING_RECORDED = "tracking.recorded"  # data: run_id; after an earlier failure
    VERDICT = "verdict"  # data: objective, verdict, difference, interval, p_value
    # Of an experiment with what this optimization ended with, weeks later as may be.
    EXPERIMENT_ALERT = "experiment.alert"  # data: experiment_id, alert, reason
    EXPERIMENT_RESULT = "experiment.result"  # data: those of `ExperimentResult`


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about one optimization."""

    type: EventType
    optimization_id: UUID
    at: datetime
    """Aware, UTC."""
    data: Mapping[str, Json] = field(default_factory=dict)
    key: str | None = None
    """Facts with the same key are one fact: a replayed optimization tells it once. None: never merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event with its place in the log of its optimization."""

    id: int
    event: Event


class EventSink(Protocol):
    """Takes events in the order they happen; must not fail the work it is told about."""

    def emit(self, event: Event) -> None:
        """Record the event, or drop it when its key is known already."""
        ...
