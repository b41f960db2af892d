"""One experiment for tests: a plan, and rows of its log."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import ExperimentId, UnitId
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.guardrail import Guardrail, GuardrailKind
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan, MissingOutcome, PrimaryMetric, Terms, Window
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.tenancy import LOCAL_TENANT

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
EXPERIMENT = ExperimentId(UUID("0199c1d2-0000-7000-8000-0000000000e1"))
OPTIMIZATION = OptimizationId(UUID("0199c1d2-0000-7000-8000-0000000000a1"))
BASELINE, OPTIMIZED = Fingerprint("b" * 64), Fingerprint("f" * 64)
LATENCY = Guardrail(name="latency", kind=GuardrailKind.LATENCY, limit=1_000.0, expected=0.4)
ERRORS = Guardrail(name="errors", kind=GuardrailKind.ERROR_RATE, expected=0.1, allowance=0.05)
HOUR_WINDOW = Window(seconds=3_600.0, grace_seconds=60.0)


def seconds(number: float) -> datetime:
    """The moment so many seconds after the start."""
    return START + timedelta(seconds=number)


def hours(number: float) -> datetime:
    """The moment so many hours after the start."""
    return START + timedelta(hours=number)


def plan(**changed: Any) -> ExperimentPlan:
    """A plan with one hour of window and a minute of grace; every field may be another."""
    fields: dict[str, Any] = {
        "experiment_id": EXPERIMENT,
        "tenant": LOCAL_TENANT,
        "optimization_id": OPTIMIZATION,
        "agent": "support",
        "baseline": BASELINE,
        "optimized": OPTIMIZED,
        "primary": PrimaryMetric(metric="solved", mde=0.05, expected=0.8, missing=MissingOutcome.EXCLUDE),
        "guardrails": (),
        "window": HOUR_WINDOW,
        "terms": Terms(),
        "split": Split(buckets=5_000),
        "salt": "salt-1",
    }
    return ExperimentPlan(**(fields | changed))


def exposure(of: ExperimentPlan, unit_id: str, at: float, *, received: float | None = None, **changed: Any) -> Exposure:
    """The row of a unit exposed and received so many seconds after the start, under the plan's split."""
    unit = UnitId(unit_id)
    variant = of.split.variant(of.assigner.unit_hash.bucket(unit))
    row = Exposure(
        id=of.assigner.exposure_id(unit),
        experiment_id=of.experiment_id,
        unit_id=unit,
        variant=variant,
        version=of.version(variant),
        split=of.split,
        exposed_at=seconds(at),
        received_at=seconds(at if received is None else received),
    )
    return replace(row, **changed)


def outcome(
    of: ExperimentPlan, unit_id: str, event_id: str, at: float, *, received: float | None = None, **said: Any
) -> Outcome:
    """A row that tells of a unit's event so many seconds after the start; a score of 1 unless something is said."""
    return Outcome(
        experiment_id=of.experiment_id,
        exposure_id=of.assigner.exposure_id(UnitId(unit_id)),
        event_id=event_id,
        happened_at=seconds(at),
        received_at=seconds(at if received is None else received),
        **(said or {"score": 1.0}),
    )


def log_of(of: ExperimentPlan, rows: Iterable[Exposure | Outcome]) -> ExperimentLog:
    """The log of rows, taken in as they come."""
    log = ExperimentLog(of)
    for row in rows:
        if isinstance(row, Exposure):
            log.add_exposure(row)
        else:
            log.add_outcome(row)
    return log


def analysed(of: ExperimentPlan, log: ExperimentLog, as_of: datetime, before: Analysis | None = None) -> Analysis:
    """The analysis of everything usable at a moment, going on from an earlier one."""
    analysis = Analysis.start(of) if before is None else before
    exposures, units = log.exposed(as_of, analysis.last_exposure), log.usable(as_of, analysis.last_unit)
    return analysis.extend(of, exposures, units)


def units_of(of: ExperimentPlan, variant: Variant, count: int, prefix: str = "u") -> list[str]:
    """The first ids that the plan's split gives a variant."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        unit_id = f"{prefix}{number}"
        if of.split.variant(of.assigner.unit_hash.bucket(unit_id)) is variant:
            found.append(unit_id)
        number += 1
    return found
