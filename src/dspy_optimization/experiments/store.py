"""What must be kept of experiments. Every store sees one tenant. `StoreError` when the database is away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId
from dspy_optimization.experiments.experiment import Conclusion, Experiment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.log import ExperimentLog, LogCounts
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.unit import Place


class ExperimentStore(Protocol):
    """Keeps experiments; at most one that has not ended an agent."""

    def add(self, experiment: Experiment) -> None:
        """Keep a new one. Raises `ConflictError` when its agent has one that has not ended."""
        ...

    def get(self, experiment_id: ExperimentId) -> Experiment:
        """Return it. Raises `NotFoundError`, naming the newest ids."""
        ...

    def newest(self, count: int) -> Sequence[Experiment]:
        """Return the newest first."""
        ...

    def running(self, agent: str | None = None) -> Sequence[Experiment]:
        """Return those that take units in: of one agent, or all."""
        ...

    def change(
        self, experiment_id: ExperimentId, change: Callable[[Experiment], Experiment | Conclusion]
    ) -> Experiment:
        """Change it under a row lock; an alert, and the result once it ends, are events of the same transaction.

        The result is told whoever ended it, once. What `change` raises undoes everything.
        """
        ...


class RowStore(Protocol):
    """Keeps the rows of the logs: exposures and outcomes, as they were received, for ever as they were.

    A row becomes visible after its `received_at`. `settled_until` says up to which moment no more rows can appear;
    a look at a later moment could miss rows that count. What is kept in spite of it counts as received right after
    that moment.
    """

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Keep rows; equal ones once."""
        ...

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Keep rows; equal ones once. Rows of one event with other content are kept too: they are conflicts."""
        ...

    def first_exposures(self, exposure_ids: Sequence[ExposureId]) -> Sequence[Exposure]:
        """Return the first exposures of these ids, as `ExperimentLog` defines first; unknown ids are left out."""
        ...

    def log(self, experiment: Experiment, as_of: datetime, after: Place | None) -> ExperimentLog:
        """Return the log of the units after a place, with all rows of each and of their events received by `as_of`.

        Units follow each other by (first exposure, unit id as bytes): order by unit_id COLLATE "C".
        """
        ...

    def settled_until(self) -> datetime:
        """Return the moment up to which every row that was received is visible."""
        ...


class AnalysisStore(Protocol):
    """Keeps the analysis of every experiment between two looks."""

    def analysis(self, experiment_id: ExperimentId) -> Analysis | None:
        """Return the newest; None when there is none yet."""
        ...

    def counts(self, experiment_id: ExperimentId) -> LogCounts:
        """Return what is in the log, and what of it does not count."""
        ...

    def save(self, experiment_id: ExperimentId, before: Analysis | None, after: Analysis) -> bool:
        """Keep `after` when `before` is still the newest; False when somebody else went on first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentStores:
    """What is kept of experiments, of one tenant."""

    experiments: ExperimentStore
    rows: RowStore
    analyses: AnalysisStore
