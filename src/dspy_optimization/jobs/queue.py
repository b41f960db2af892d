"""Where jobs wait, and what its keeper promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from dspy_optimization.jobs.job import Job, JobId, Lane

Transaction: TypeAlias = object
"""An open transaction of the store. Only adapters look inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLoad:
    """How busy a lane is, over all workers and tenants."""

    waiting: int
    running: int
    concurrency: int
    """How many may run at once."""


class JobQueue(Protocol):
    """Keeps jobs until they are done. Thread-safe.

    Call order: `submit` inside the transaction of the change the job is for, `withdraw` any time later.
    """

    def submit(self, job: Job, transaction: Transaction) -> None:
        """Add the job when the caller's transaction commits, and not otherwise.

        Raises `QueueFullError` when as many wait as may wait; attempts after the first are always taken.
        """
        ...

    def withdraw(self, jobs: Sequence[JobId]) -> None:
        """Take jobs out that wait; what runs or is done stays as it is."""
        ...

    def load(self) -> Mapping[Lane, LaneLoad]:
        """Return how busy every lane is."""
        ...

    def set_concurrency(self, lane: Lane, concurrency: int) -> None:
        """Let so many run at once from now on; what runs already goes on."""
        ...
