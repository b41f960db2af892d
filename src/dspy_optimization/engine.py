"""The engine: the flow as one value, an attribute a stage."""

from dataclasses import dataclass

from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.evaluation.agent import AgentBuilder
from dspy_optimization.experiments.conducting import Conductor
from dspy_optimization.experiments.store import ExperimentStores
from dspy_optimization.optimization.collaborators import AlgorithmRegistry, Models
from dspy_optimization.optimization.intake import Intake
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.optimization.steering import Steering
from dspy_optimization.optimization.store import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Everything an interface needs, put together by `bootstrap`."""

    allowed: AllowList
    """What configurations may name: tools, entrypoints, metric functions, hosts."""
    stores: Stores
    experiment_stores: ExperimentStores
    builder: AgentBuilder
    algorithms: AlgorithmRegistry
    models: Models
    intake: Intake
    optimizer: Optimizer
    steering: Steering
    conductor: Conductor
    """Of experiments."""
