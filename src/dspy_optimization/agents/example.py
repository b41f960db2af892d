"""Examples and what an agent answered to one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.events import Json

ExampleId = NewType("ExampleId", str)


class Split(StrEnum):
    """Which examples may be used for what."""

    TRAIN = "train"  # algorithms learn from it
    VAL = "val"  # candidates are compared on it
    TEST = "test"  # sealed: only the gate opens it, for the baseline and the one chosen candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One case: what goes in and what should come out."""

    id: ExampleId
    """The content hash of inputs and expected: equal content, equal id."""
    inputs: Mapping[str, Json]
    expected: Mapping[str, Json]
    cluster: str | None = None
    """Examples of one cluster (a conversation, a document, a customer) never stand in two splits."""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    """For metrics alone (a task generator's own scorer needs it): never shown to an agent or an algorithm."""

    def to_json(self) -> dict[str, Json]:
        """Return the example as plain JSON."""
        return {
            "id": self.id,
            "inputs": dict(self.inputs),
            "expected": dict(self.expected),
            "cluster": self.cluster,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One language-model step inside a run of an agent."""

    component: ComponentName
    inputs: Mapping[str, Json]
    outputs: Mapping[str, Json]
    failure: str | None = None
    """Why the answer of this step could not be used, e.g. which field failed to parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one run of an agent took, whether the ledger had the answers already or not."""

    cost_usd: float = 0.0
    latency_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    lm_calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What an agent answered to one example."""

    outputs: Mapping[str, Json]
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)
    failure: str | None = None
    """Why there is no usable answer; None when there is one. Never an infrastructure failure: that is raised."""
