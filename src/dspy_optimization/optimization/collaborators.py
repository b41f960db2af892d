"""What the optimizer works with and does not make itself: models, algorithms, a tracker."""

from collections.abc import Callable, Mapping
from typing import Protocol

from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.evaluation.model import LanguageModel, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import Optimization
from dspy_optimization.optimization.result import OptimizationResult


class Models(Protocol):
    """The language models of one optimization."""

    def open(
        self, agent: AgentConfig, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]
    ) -> Mapping[Role, LanguageModel]:
        """Return the model of every role; their waits end with `stop`.

        Args:
            agent: names the model of the task role when it has a preference.
            stop: ends waiting for slots and retries.
            fell_back: told role, wanted model, used model and reason of every fallback.
        """
        ...

    def named(self, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]) -> Mapping[str, LanguageModel]:
        """Return the models that components may choose by name, each opened when it is first looked up."""
        ...


class AlgorithmRegistry(Protocol):
    """The algorithms there are."""

    def get(self, name: str) -> Algorithm:
        """Return an algorithm. Raises `NotFoundError` with the list of what exists."""
        ...

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        """Return the algorithm's options. Raises `InvalidRequestError` for an unknown or ill-typed one."""
        ...


class Tracker(Protocol):
    """Tells another system of what happened. Telling it the same again changes nothing.

    Raises `TrackingError` when that system is away; the optimization goes on without it.
    """

    def completed(self, optimization: Optimization, result: OptimizationResult, agent: AgentConfig) -> str | None:
        """Record a result; return the id it has there, None when nothing is tracked."""
        ...

    def ended(self, optimization: Optimization) -> str | None:
        """Record one that failed or was cancelled without a result; return the id it has there."""
        ...
