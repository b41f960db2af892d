"""What the optimizer needs kept. Every store sees one tenant. `StoreError` when the database is away."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import ExampleId
from dspy_optimization.evaluation.ledger import LedgerStore, OptimizationId
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import Event, RecordedEvent
from dspy_optimization.jobs.job import JobId
from dspy_optimization.jobs.queue import Transaction
from dspy_optimization.optimization.front import Completed
from dspy_optimization.optimization.pulse import Beats
from dspy_optimization.optimization.request import Optimization, OptimizationRequest, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult

Hook: TypeAlias = Callable[[Transaction], None]
"""Does something in the transaction of a change."""


class OptimizationStore(Beats, Protocol):
    """Keeps optimizations."""

    def add(self, request: OptimizationRequest, *, job: JobId | None = None, also: Sequence[Hook] = ()) -> Optimization:
        """Keep a new request as queued, and do more in the same transaction. Raises `ConflictError` when the id exists.

        Args:
            request: new.
            job: which job carries it out; None: whoever accepted it does.
            also: called in order with the open transaction; what they raise undoes everything.
        """
        ...

    def get(self, optimization_id: OptimizationId) -> Optimization:
        """Return it. Raises `NotFoundError`, naming the newest ids."""
        ...

    def newest(self, count: int) -> Sequence[Optimization]:
        """Return the newest first."""
        ...

    def update(
        self,
        optimization_id: OptimizationId,
        change: Callable[[Optimization], Optimization],
        events: Sequence[Event] = (),
        *,
        also: Sequence[Hook] = (),
    ) -> Optimization:
        """Change it under a row lock, write the events and do more in the same transaction.

        Raises `ConflictError` when the status step is not in `ALLOWED`.
        """
        ...

    def owning(self, optimization_id: OptimizationId) -> AbstractContextManager[None]:
        """Hold it for this process until the context ends or the process dies.

        Raises `ConflictError` when another living process holds it.
        """
        ...


class TrialStore(Protocol):
    """Keeps trials."""

    def record(self, optimization_id: OptimizationId, trial: Trial) -> bool:
        """Keep a trial; False when (algorithm, candidate, split, example ids) is known already."""
        ...

    def trials(self, optimization_id: OptimizationId) -> Sequence[Trial]:
        """Return them in the order they were recorded."""
        ...

    def completed(self, optimization_id: OptimizationId, n_val: int) -> Sequence[Completed]:
        """Return the candidates measured on all `n_val` examples of val, in the order in which they became so."""
        ...


class ResultStore(Protocol):
    """Keeps results; one an optimization."""

    def save(self, result: OptimizationResult, status: OptimizationStatus, events: Sequence[Event]) -> None:
        """Keep the result, set the status and write the events in one transaction."""
        ...

    def result(self, optimization_id: OptimizationId) -> OptimizationResult | None:
        """Return the result; None while there is none."""
        ...

    def test_split_uses(self, sealed: Sequence[ExampleId]) -> int:
        """Return how many optimizations opened a test split that holds any of these examples.

        Counts them from the moment the gate opens the split, not from the result.
        """
        ...

    def open_test_split(self, dataset: DatasetVersion, optimization_id: OptimizationId) -> int:
        """Record durably that this optimization opens the split; return which use it is (1 the first)."""
        ...


class EventStore(Protocol):
    """Keeps the event log."""

    def emit(self, event: Event) -> None:
        """Keep the event; an event whose key is known already is dropped."""
        ...

    def events(
        self, optimization_id: OptimizationId, after: int = 0, limit: int | None = None
    ) -> Sequence[RecordedEvent]:
        """Return events with a greater id, in order."""
        ...


class AgentStore(Protocol):
    """Keeps agents; every version once."""

    def add(self, config: AgentConfig, parent: Fingerprint | None = None) -> Fingerprint:
        """Keep a version under the agent's name; the same content again changes nothing."""
        ...

    def get(self, version: Fingerprint) -> AgentConfig:
        """Return it. Raises `NotFoundError`."""
        ...

    def versions(self, name: str | None = None) -> Sequence[tuple[str, Fingerprint]]:
        """Return (name, version), newest first."""
        ...


class DatasetStore(Protocol):
    """Keeps datasets; immutable."""

    def add(self, dataset: Dataset) -> DatasetVersion:
        """Keep it; the same content again changes nothing."""
        ...

    def get(self, version: DatasetVersion) -> Dataset:
        """Return it. Raises `NotFoundError`."""
        ...

    def versions(self, name: str | None = None) -> Sequence[tuple[str, DatasetVersion]]:
        """Return (name, version), newest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What is kept, of one tenant."""

    optimizations: OptimizationStore
    trials: TrialStore
    results: ResultStore
    events: EventStore
    agents: AgentStore
    datasets: DatasetStore
    ledger: LedgerStore
