"""Where jobs wait, and what its keeper promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.jobs.job import Job, JobId, Lane

Transaction: TypeAlias = object
"""An open transaction of the store. Only adapters look inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneTerms:
    """How many jobs of a lane may run at once."""

    concurrency: int
    """Over all workers together."""
    worker_concurrency: int | None = None
    """In each worker; None: any number."""

    def check(self) -> None:
        """Raise `InvalidRequestError` when one worker alone may run none, or more than all of them together."""
        if self.worker_concurrency is not None and not 1 <= self.worker_concurrency <= self.concurrency:
            raise InvalidRequestError(
                f"worker_concurrency: wanted: from 1 to {self.concurrency}, as many as all workers together may run "
                f"(concurrency); found: {self.worker_concurrency}; possible: change both numbers at once, or null as "
                "worker_concurrency, which lets each worker run any number"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLoad:
    """How busy a lane is, over all workers and tenants."""

    waiting: int
    running: int
    concurrency: int
    """How many may run at once."""
    worker_concurrency: int | None = None
    """How many of them in each worker; None: any number."""


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

    def change_terms(self, lane: Lane, change: Callable[[LaneTerms], LaneTerms]) -> None:
        """Let so many run at once from now on as `change` makes of what was in force; what runs already goes on.

        Nobody else changes them meanwhile, and all of it comes into force or nothing: `InvalidRequestError` when
        what it made does not pass `LaneTerms.check`.
        """
        ...
