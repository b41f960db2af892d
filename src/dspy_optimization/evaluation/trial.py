"""A trial: a candidate with its scores on some examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import ExampleId, Split, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleResult:
    """What one candidate was worth on one example."""

    example_id: ExampleId
    scores: Mapping[str, Score]
    """Metric → score; every metric of the objectives."""
    outputs: Mapping[str, Json]
    failure: str | None = None
    """Why there was no usable answer."""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One measurement of one candidate. Trials of the same candidate and split are one trial that grows."""

    algorithm: str
    """Who asked for it: an algorithm, or "baseline"."""
    candidate: Candidate
    split: Split
    results: tuple[ExampleResult, ...]
    score: float
    """Mean utility over the results (`Objectives.scalar`)."""
    iteration: int
    paid_calls: int
    """Calls the optimization had paid when the trial was recorded: the x axis of every curve."""
    recorded_at: datetime

    @property
    def example_ids(self) -> Sequence[ExampleId]:
        """The examples it was measured on."""
        return [result.example_id for result in self.results]
