"""How an experiment ended, as it is published: the event `experiment.result`."""

from dataclasses import dataclass
from datetime import datetime

from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.split import Variant

EXPERIMENT_RESULT = "experiment.result"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """What whoever subscribed is told, once, when an experiment ends; the fields are a contract."""

    experiment_id: ExperimentId
    optimization_id: OptimizationId
    winner: Variant
    confidence: float
    """1 - p of the claim that the winner beats the other, in [0, 1]; 0 where nothing speaks for it."""
    deployment_recommended: bool
    timestamp: datetime
    """When it ended, UTC."""

    def to_json(self) -> dict[str, Json]:
        """Return the data of the event."""
        return {
            "experiment_id": str(self.experiment_id),
            "optimization_id": str(self.optimization_id),
            "winner": self.winner.value,
            "confidence": self.confidence,
            "deployment_recommended": self.deployment_recommended,
            "timestamp": self.timestamp.isoformat(),
        }
