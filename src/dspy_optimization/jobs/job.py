"""What a job is: a piece of durable work that some worker does, however often workers die meanwhile."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NewType
from uuid import UUID

from dspy_optimization.tenancy import TenantId

JobId = NewType("JobId", str)


class Lane(StrEnum):
    """What a job needs of the machine it runs on; a worker serves one or several."""

    CPU = "cpu"  # any worker
    GPU = "gpu"  # a worker with a GPU


class Priority(StrEnum):
    """How much of the queue's turns a job gets beside the others of other tenants."""

    HIGH = "high"  # four turns for one of normal
    NORMAL = "normal"
    LOW = "low"  # one turn for four of normal


WEIGHT_COST = {Priority.HIGH: 1, Priority.NORMAL: 4, Priority.LOW: 16}
"""How far a job moves its tenant back in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at carrying something out; what it is about is looked up by its subject."""

    id: JobId
    """Unique for ever: the same one submitted again is the same job."""
    tenant: TenantId
    subject: UUID
    """What is to be carried out, such as an optimization."""
    lane: Lane = Lane.CPU
    priority: Priority = Priority.NORMAL
    partitions: tuple[str, ...] = ()
    """What it uses, such as algorithms; the operator may bound how many that use the same run at once."""
    number: int = 1
    """Counts every time it was queued."""
    attempt: int = 1
    """Counts the times that failed."""
    delay_seconds: float = 0.0
    """How long it waits before it may be claimed."""

    @property
    def before(self) -> JobId:
        """The id it had before it was queued again; its own when it is the first."""
        return JobId(f"{self.id.rsplit('/', 1)[0]}/{max(self.number - 1, 1)}")

    def again(self, delay_seconds: float) -> "Job":
        """Return the next attempt at the same subject."""
        root = self.id.rsplit("/", 1)[0]
        number = self.number + 1
        return replace(
            self, id=JobId(f"{root}/{number}"), number=number, attempt=self.attempt + 1, delay_seconds=delay_seconds
        )


def job_id(subject: UUID, submission: UUID) -> JobId:
    """Return the id of the first attempt of a submission: one subject may be submitted again after a pause."""
    return JobId(f"{subject}/{submission}/1")
