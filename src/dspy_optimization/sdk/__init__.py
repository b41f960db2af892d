"""A client for the engine behind HTTP; importing it imports nothing of the engine."""

from dspy_optimization.sdk.answers import (
    Accepted,
    ArtifactReference,
    Asked,
    Estimate,
    FrontPoint,
    KeyImprovement,
    Measured,
    Metrics,
    OptimizationStatus,
    Pick,
    PickAccepted,
    ResultDetails,
    Results,
    Status,
    Summary,
    ValMean,
)
from dspy_optimization.sdk.catalog import Dataset
from dspy_optimization.sdk.client import Client
from dspy_optimization.sdk.errors import AccessError, NotFinishedError
from dspy_optimization.sdk.evidence import Front
from dspy_optimization.sdk.experiments import Experiment, ExperimentStatus
from dspy_optimization.sdk.handle import OptimizationHandle, Picked
from dspy_optimization.sdk.live_agent import Assignment, LiveAgent, Reported
from dspy_optimization.sdk.request import Constraints, Examples, OptimizationRequest, Target
from dspy_optimization.sdk.retries import Retries, Surroundings
from dspy_optimization.sdk.schedules import Schedule
from dspy_optimization.sdk.updates import Update, UpdateType

__all__ = [
    "Accepted",
    "AccessError",
    "ArtifactReference",
    "Asked",
    "Assignment",
    "Client",
    "Constraints",
    "Dataset",
    "Estimate",
    "Examples",
    "Experiment",
    "ExperimentStatus",
    "Front",
    "FrontPoint",
    "KeyImprovement",
    "LiveAgent",
    "Measured",
    "Metrics",
    "NotFinishedError",
    "OptimizationHandle",
    "OptimizationRequest",
    "OptimizationStatus",
    "Pick",
    "PickAccepted",
    "Picked",
    "Reported",
    "ResultDetails",
    "Results",
    "Retries",
    "Schedule",
    "Status",
    "Summary",
    "Surroundings",
    "Target",
    "Update",
    "UpdateType",
    "ValMean",
]
