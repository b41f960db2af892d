"""What must be kept of deployments. Every store sees one tenant. `StoreError` when the database is away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.deployments.approval import Approval, ApprovalId
from dspy_optimization.deployments.breaker import Call
from dspy_optimization.deployments.pointer import Pointer
from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.deployments.stage import StageAnalysis
from dspy_optimization.deployments.version import Version
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.unit import Place


class VersionStore(Protocol):
    """Keeps versions, for ever as they were."""

    def add(self, version: Version) -> None:
        """Keep it; an equal checksum is kept once, with the evidence that came first."""
        ...

    def get(self, agent: str, checksum: Fingerprint) -> Version:
        """Return it as it is kept now: `version.verified` says whether it may answer. Raises `NotFoundError`."""
        ...

    def newest(self, agent: str, count: int) -> Sequence[Version]:
        """Return the newest first."""
        ...


class PointerStore(Protocol):
    """Keeps one pointer for an agent in an environment."""

    def create(self, pointer: Pointer) -> None:
        """Keep a new one. Raises `ConflictError` when there is one."""
        ...

    def get(self, agent: str, environment: str) -> Pointer:
        """Return it. Raises `NotFoundError`, naming the environments that the agent has one in."""
        ...

    def all(self, agent: str | None = None) -> Sequence[Pointer]:
        """Return all: of one agent, or of all."""
        ...

    def rolling(self) -> Sequence[Pointer]:
        """Return those whose rollout is running: whom somebody has to ask what is next."""
        ...

    def change(self, agent: str, environment: str, change: Callable[[Pointer], Pointer]) -> Pointer:
        """Change it under a row lock; what is new in its history is written as events in the same transaction.

        The very pointer that was handed in changes nothing. What `change` raises undoes everything.
        """
        ...


class RolloutStore(Protocol):
    """Keeps the evidence of rollouts, beside the rows that `experiments.store.RowStore` keeps under the same id."""

    def log(self, plan: RolloutPlan, as_of: datetime, after: Place) -> ExperimentLog:
        """Return the log of the units after a place, as `RowStore.log` does."""
        ...

    def settled_until(self) -> datetime:
        """Return the moment up to which every row that was received is visible."""
        ...

    def analysis(self, rollout: ExperimentId, stage: int) -> StageAnalysis | None:
        """Return the newest; None when there is none yet."""
        ...

    def save(self, rollout: ExperimentId, before: StageAnalysis | None, after: StageAnalysis) -> bool:
        """Keep `after` when `before` is still the newest of its stage; False when somebody else went on first."""
        ...

    def calls(self, rollout: ExperimentId, since: datetime) -> Sequence[Call]:
        """Return the calls of both versions that ended after a moment, in any order."""
        ...


class ApprovalStore(Protocol):
    """Keeps approvals."""

    def add(self, approval: Approval) -> None:
        """Keep a new one. Raises `ConflictError` when one of this version and environment waits already."""
        ...

    def get(self, approval_id: ApprovalId) -> Approval:
        """Return it. Raises `NotFoundError`, naming those that wait."""
        ...

    def waiting(self, at: datetime) -> Sequence[Approval]:
        """Return those that nobody has answered and that have not expired, the oldest first."""
        ...

    def change(self, approval_id: ApprovalId, change: Callable[[Approval], Approval]) -> Approval:
        """Change it under a row lock; the event is written in the same transaction."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStores:
    """What is kept of deployments, of one tenant."""

    versions: VersionStore
    pointers: PointerStore
    rollouts: RolloutStore
    approvals: ApprovalStore
