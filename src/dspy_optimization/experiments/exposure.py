"""That a unit was served by one of the two versions."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId, UnitId
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.split import BUCKETS, Split, Variant

ExposureOrder: TypeAlias = tuple[datetime, datetime, int, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One row of the log: a unit was served. The first one of a unit counts, the others are told of and ignored."""

    id: ExposureId
    """One for all exposures of the unit in this experiment."""
    experiment_id: ExperimentId
    unit_id: UnitId
    variant: Variant
    version: Fingerprint
    """The agent version that answered."""
    split: Split
    """The split the unit was drawn under: its propensity (`split.share`) and its stage."""
    exposed_at: datetime
    """When it was served, aware."""
    received_at: datetime
    """When the engine took the row in, aware, not before `exposed_at`."""

    def __post_init__(self) -> None:
        where = f"exposure of unit {self.unit_id}"
        object.__setattr__(self, "exposed_at", checked_moment(f"{where}: exposed_at", self.exposed_at))
        object.__setattr__(self, "received_at", checked_moment(f"{where}: received_at", self.received_at))
        if not self.unit_id:
            raise InvalidRequestError(
                'exposure: wanted: a unit id; found: ""; possible: nothing, who has none is not in the experiment'
            )
        if not self.split.compares:
            raise InvalidRequestError(
                f"{where}: wanted: a split with units for both versions; found: {self.split.buckets} of {BUCKETS:,} "
                f"buckets; possible: 1 to {BUCKETS - 1:,}"
            )
        if self.exposed_at > self.received_at:
            raise InvalidRequestError(
                f"{where}: wanted: an exposure that has happened; found: exposed_at {self.exposed_at.isoformat()}, "
                f"after it was received at {self.received_at.isoformat()}; possible: the clock of the engine"
            )

    @property
    def propensity(self) -> float:
        """The chance this unit had to get the optimized version, in (0, 1)."""
        return self.split.share

    @property
    def order(self) -> ExposureOrder:
        """By which the rows of one unit are ordered: the lowest is the first exposure. A function of the row alone."""
        return (self.exposed_at, self.received_at, self.split.buckets, self.variant.value, self.version)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {
            "exposure_id": str(self.id),
            "experiment_id": str(self.experiment_id),
            "unit_id": self.unit_id,
            "variant": self.variant.value,
            "version": self.version,
            "propensity": self.propensity,
            "exposed_at": self.exposed_at.isoformat(),
            "received_at": self.received_at.isoformat(),
        }
