"""An agent that can be run, whatever it is built from."""

from collections.abc import Mapping
from typing import Protocol

from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.component_settings import Choices
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

    @property
    def choices(self) -> Mapping[ComponentName, Choices]:
        """What a candidate may settle of each component beside its texts; every component has an entry."""
        ...

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        """Return what the agent with this candidate answers; a failed program is a prediction with `failure`.

        Raises:
            StopSearch: the work has to end.
            InvalidRequestError: the candidate names what `baseline` or `choices` do not have; nothing was paid.
        """
        ...


class AgentBuilder(Protocol):
    """Turns configurations into agents that run."""

    def build(self, config: AgentConfig, *, without_models: frozenset[str] = frozenset()) -> RunnableAgent:
        """Return the runnable agent, or raise `InvalidRequestError`.

        Args:
            config: the agent.
            without_models: named models of the settings that no component may choose.
        """
        ...
