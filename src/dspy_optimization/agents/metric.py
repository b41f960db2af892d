"""Metrics: what is measured on one answer."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dspy_optimization.agents.example import Example, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number with its reason."""

    value: float
    """In the unit of the metric; an objective knows which direction is better."""
    feedback: str = ""
    """What was expected, what came, what to change: for reflection and for people."""
    failure: str | None = None
    """Why there was nothing to measure; the value is then the floor of the metric."""


@runtime_checkable
class Metric(Protocol):
    """Measures one answer. Raises `InfrastructureError` when it cannot tell; never guesses a number."""

    @property
    def name(self) -> str:
        """How objectives call it."""
        ...

    @property
    def floor(self) -> float:
        """What an answer that cannot be used is worth, in the unit of the metric."""
        ...

    @property
    def ceiling(self) -> float | None:
        """The best value there is; None when there is none (cost, latency)."""
        ...

    def score(self, example: Example, prediction: Prediction) -> Score:
        """Return what the prediction is worth on this example."""
        ...
