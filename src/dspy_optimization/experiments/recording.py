"""The door of the log: what becomes a row, and what is refused before it does."""

from collections.abc import Mapping
from datetime import datetime

from dspy_optimization.errors import InvalidRequestError, NotFoundError
from dspy_optimization.experiments.assignment import Assignment, ExposureId
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan


def exposure_of(
    plan: ExperimentPlan, assignment: Assignment, *, exposed_at: datetime, received_at: datetime
) -> Exposure:
    """Return the row that says an assigned unit was served.

    Raises:
        InvalidRequestError: the unit is not in the experiment.
    """
    if assignment.unit_id is None or assignment.split is None or assignment.exposure_id is None:
        raise InvalidRequestError(
            f"exposure: wanted: an assignment into the experiment; found: one that is not ({assignment.reason.value}); "
            "possible: record nothing for it"
        )
    return Exposure(
        id=assignment.exposure_id,
        experiment_id=plan.experiment_id,
        unit_id=assignment.unit_id,
        variant=assignment.variant,
        version=plan.version(assignment.variant),
        split=assignment.split,
        exposed_at=exposed_at,
        received_at=received_at,
    )


def check_exposure(plan: ExperimentPlan, exposure: Exposure) -> None:
    """Refuse an exposure that was recorded elsewhere and is none of this experiment.

    Variant and id are worked out again: who records the wrong ones would compare groups that nobody drew.

    Raises:
        InvalidRequestError: another experiment, id, variant or version than the plan gives this unit.
    """
    assigner = plan.assigner
    variant = exposure.split.variant(assigner.unit_hash.bucket(exposure.unit_id))
    wanted = {
        "experiment": str(plan.experiment_id),
        "exposure id": str(assigner.exposure_id(exposure.unit_id)),
        "variant": variant.value,
        "version": plan.version(variant),
    }
    found = {
        "experiment": str(exposure.experiment_id),
        "exposure id": str(exposure.id),
        "variant": exposure.variant.value,
        "version": exposure.version,
    }
    for name, value in wanted.items():
        if found[name] != value:
            raise InvalidRequestError(
                f"exposure of unit {exposure.unit_id}: wanted: {name} {value}; found: {found[name]}; possible: record "
                "what `assign` answered, unchanged"
            )


def check_outcome(outcome: Outcome, exposures: Mapping[ExposureId, Exposure]) -> None:
    """Refuse an outcome that cannot be one.

    Args:
        outcome: as it was told.
        exposures: the first exposures that are known, by id; at least the one it names, if there is such a one.
    Raises:
        NotFoundError: no such exposure is known.
        InvalidRequestError: it happened before its exposure.
    """
    exposure = exposures.get(outcome.exposure_id)
    if exposure is None or exposure.experiment_id != outcome.experiment_id:
        raise NotFoundError(
            f"outcome {outcome.event_id}: wanted: a recorded exposure of experiment {outcome.experiment_id}; found: "
            f"{outcome.exposure_id}, which is none; possible: the exposure_id that `assign` answered with"
        )
    if outcome.at < exposure.exposed_at:
        raise InvalidRequestError(
            f"outcome {outcome.event_id}: wanted: something that happened after its exposure at "
            f"{exposure.exposed_at.isoformat()}; found: {outcome.at.isoformat()}; possible: a later happened_at, or "
            "leave it out, and the time of receipt counts"
        )
