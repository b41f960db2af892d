"""What an algorithm is given, what it may do, and what it is."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.metering import GpuMeter
from dspy_optimization.evaluation.agent import Calls, RunnableAgent
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be improved. An algorithm is a function of this and of the answers it gets."""

    agent: AgentConfig
    runnable: RunnableAgent
    baseline: Candidate
    frozen: frozenset[ComponentName]
    train: tuple[Example, ...]
    val: tuple[Example, ...]
    """Never the test split."""
    objectives: Objectives
    seed: int
    concurrency: int
    """Examples in flight at once."""
    options: object
    """The algorithm's own options: an instance of its `options` class."""
    computing: Computing = field(default_factory=lambda: Computing(meter=GpuMeter(time.monotonic)))
    """Where what is not asked of a model is computed: on a GPU where there is one."""
    known: tuple[Candidate, ...] = ()
    """Candidates that other algorithms of the same optimization measured on all of val before."""
    hints: tuple[str, ...] = ()

    def rng(self, step: str) -> random.Random:
        """Return the generator of a named step: same seed and step, same numbers."""
        return random.Random(f"{self.seed}/{step}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a problem is; what a forecast needs."""

    n_train: int
    n_val: int
    n_components: int
    """Components that may be changed."""

    @classmethod
    def of(cls, agent: RunnableAgent, dataset: Dataset) -> "Shape":
        """Return how large the problem of an agent and a dataset is."""
        return cls(
            n_train=len(dataset[Split.TRAIN]),
            n_val=len(dataset[Split.VAL]),
            n_components=len(set(agent.baseline.components) - agent.frozen),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a search may take at most, when the ledger knows nothing; most searches take less."""

    runs: int
    """Runs of the agent on one example."""
    proposals: int
    """Calls of the reflection model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a search is."""

    phase: str
    iteration: int
    iterations: int | None = None
    """How many there will be; None when the algorithm does not know."""
    candidate: Candidate | None = None
    score: float | None = None
    data: Mapping[str, Json] = field(default_factory=dict)


class SearchRun(Calls, Protocol):
    """What an algorithm may do. Every method raises `StopSearch` when the search has to end: let it pass."""

    @property
    def calls_left(self) -> int | None:
        """Distinct calls the search may still ask for; None: no bound is known. Other caps may end it before."""
        ...

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        """Return metric → score of one prediction (judges are asked through the ledger)."""
        ...

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        """Run the candidate on the examples, concurrently; results in the order of the examples."""
        ...

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        """Keep a trial. The best candidate is chosen among those with a result on all of `val`, and `submit`."""
        ...

    def submit(self, candidate: Candidate) -> None:
        """Name a candidate as a result of the search; the optimizer completes its trial on `val`."""
        ...

    def report(self, progress: Progress) -> None:
        """Tell where the search is; also says `check`."""
        ...


class Algorithm(Protocol):
    """Proposes and tests candidates. Keeps no state of its own: resume is to run it again.

    Call order: `search` once; inside it any of the run's methods, from any thread.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    options: ClassVar[type]
    """A frozen dataclass with defaults; its fields are the options, their types the schema."""

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search with these options takes at most."""
        ...

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Search until done; everything worth keeping was recorded or submitted before it returns or is stopped."""
        ...
