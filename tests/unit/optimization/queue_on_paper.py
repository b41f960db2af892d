"""A queue that remembers what it was given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dspy_optimization.errors import EngineError
from dspy_optimization.jobs.job import Job, JobId, Lane
from dspy_optimization.jobs.queue import LaneLoad, LaneTerms, Transaction


@dataclass(slots=True)
class PaperQueue:
    """A `JobQueue` that nobody serves."""

    jobs: list[Job] = field(default_factory=list)
    withdrawn: list[JobId] = field(default_factory=list)
    refuses: EngineError | None = None

    def submit(self, job: Job, transaction: Transaction) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.jobs.append(job)

    def withdraw(self, jobs: Sequence[JobId]) -> None:
        self.withdrawn += jobs

    def load(self) -> Mapping[Lane, LaneLoad]:
        return {lane: LaneLoad(waiting=len(self.jobs), running=0, concurrency=1) for lane in Lane}

    def change_terms(self, lane: Lane, change: Callable[[LaneTerms], LaneTerms]) -> None:
        raise NotImplementedError
