"""Experiments that are kept: one for each agent, about an optimization with as little around it as possible."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.experiment_store import PostgresExperiments
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.experiments.assignment import ExperimentId, UnitId
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan, MissingOutcome, PrimaryMetric, Window
from dspy_optimization.experiments.split import Split
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from webhook_world import NOON, add_optimization

WINDOW = Window(seconds=3_600.0, grace_seconds=60.0)


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def plan_in(database: Database, tenant: TenantId = LOCAL_TENANT, **changed: Any) -> ExperimentPlan:
    """A plan about an optimization that is kept; every field may be another."""
    fields: dict[str, Any] = {
        "experiment_id": ExperimentId(uuid4()),
        "tenant": tenant,
        "agent": "support",
        "baseline": Fingerprint("b" * 64),
        "optimized": Fingerprint("f" * 64),
        "primary": PrimaryMetric(metric="solved", mde=0.05, missing=MissingOutcome.EXCLUDE),
        "window": WINDOW,
        "split": Split(buckets=5_000),
        "salt": "salt-1",
    }
    if "optimization_id" not in changed:
        changed["optimization_id"] = add_optimization(database, tenant)
    return ExperimentPlan(**(fields | changed))


def planned_in(database: Database, tenant: TenantId = LOCAL_TENANT, **changed: Any) -> Experiment:
    """A new experiment, not yet kept."""
    return Experiment.planned(plan_in(database, tenant, **changed), created_at=NOON)


def running_in(database: Database, tenant: TenantId = LOCAL_TENANT, **changed: Any) -> Experiment:
    """A kept experiment that takes units in since noon."""
    experiment = planned_in(database, tenant, **changed).start(at=NOON)
    PostgresExperiments(database, tenant).add(experiment)
    return experiment


def exposure_row(
    plan: ExperimentPlan, unit_id: str, seconds: float, received: float | None = None, **changed: Any
) -> Exposure:
    """The row of a unit served so many seconds after noon."""
    unit = UnitId(unit_id)
    variant = plan.split.variant(plan.assigner.unit_hash.bucket(unit))
    fields: dict[str, Any] = {
        "id": plan.assigner.exposure_id(unit),
        "experiment_id": plan.experiment_id,
        "unit_id": unit,
        "variant": variant,
        "version": plan.version(variant),
        "split": plan.split,
        "exposed_at": at(seconds),
        "received_at": at(seconds if received is None else received),
    }
    return Exposure(**(fields | changed))


def outcome_row(plan: ExperimentPlan, unit_id: str, event_id: str, received: float, **said: Any) -> Outcome:
    """A row that tells of a unit's event, received so many seconds after noon."""
    return Outcome(
        experiment_id=plan.experiment_id,
        exposure_id=plan.assigner.exposure_id(UnitId(unit_id)),
        event_id=event_id,
        received_at=at(received),
        **(said or {"score": 1.0}),
    )


def log_of(plan: ExperimentPlan, rows: Sequence[Exposure | Outcome]) -> ExperimentLog:
    """The log of rows, in memory."""
    log = ExperimentLog(plan)
    for row in rows:
        if isinstance(row, Exposure):
            log.add_exposure(row)
        else:
            log.add_outcome(row)
    return log
