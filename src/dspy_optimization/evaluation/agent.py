"""An agent that can be run, whatever it is built from."""

from collections.abc import Mapping
from typing import Protocol

from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.example import Prediction
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json


class Calls(Protocol):
    """Where an agent's language-model calls go: through the ledger of one optimization, within its budget."""

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return the answer, from the ledger when it is known. Raises `StopSearch` when the work has to end."""
        ...


class RunnableAgent(Protocol):
    """A built agent. Thread-safe: one object runs many candidates at once."""

    @property
    def config(self) -> AgentConfig:
        """What it was built from."""
        ...

    @property
    def baseline(self) -> Candidate:
        """What every component says before anybody optimizes it."""
        ...

    @property
    def frozen(self) -> frozenset[ComponentName]:
        """Components no algorithm may change."""
        ...

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        """Return what the agent with this candidate answers; a failed program is a prediction with `failure`."""
        ...


class AgentBuilder(Protocol):
    """Turns configurations into agents that run."""

    def build(self, config: AgentConfig) -> RunnableAgent:
        """Return the runnable agent, or raise `InvalidRequestError`."""
        ...
