"""The ledger: every language-model call once. It is the cache, the checkpoint and the bill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType, Protocol
from uuid import UUID

from dspy_optimization.evaluation.model import CallKey, ModelResponse, Role

OptimizationId = NewType("OptimizationId", UUID)
ChargeId = NewType("ChargeId", UUID)


class ChargeStatus(StrEnum):
    """How far a paid call came."""

    STARTED = "started"  # written before the call is sent: nothing is ever sent unseen
    SETTLED = "settled"  # answered; costs what the answer says
    FAILED = "failed"  # refused for good; costs nothing
    LOST = "lost"  # the process died between sending and settling; costs what was reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of the bill: one call that went to a model."""

    id: ChargeId
    optimization_id: OptimizationId
    key: CallKey
    role: Role
    label: str
    """What it was for: the algorithm, or "baseline", "gate", "ablation"."""
    model: str
    """The identity of the model that was asked (not of a fallback)."""
    status: ChargeStatus
    reserved_usd: float
    """The most the call can cost; 0 for models without a price."""
    cost_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started_at: datetime
    settled_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What was spent; sums over charges. A lost call counts with what was reserved for it."""

    calls: int = 0
    lost_calls: int = 0
    cost_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            calls=self.calls + other.calls,
            lost_calls=self.lost_calls + other.lost_calls,
            cost_usd=self.cost_usd + other.cost_usd,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What one optimization was charged, by role and by label, and what the ledger saved it."""

    by_role: Mapping[Role, Spend] = field(default_factory=dict)
    by_label: Mapping[str, Spend] = field(default_factory=dict)
    answered_from_ledger: int = 0
    """Calls of the present process that were not paid because the answer was known."""

    @property
    def total(self) -> Spend:
        """All roles together."""
        return sum(self.by_role.values(), Spend())


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerBatch:
    """What one group commit writes, all or nothing. Writing it twice changes nothing."""

    started: Sequence[Charge] = ()
    ended: Sequence[Charge] = ()
    """Settled, failed or lost charges, started earlier or in this very batch."""
    answers: Mapping[CallKey, ModelResponse] = field(default_factory=dict)


class LedgerStore(Protocol):
    """Keeps charges and answers of one tenant. Thread-safe; raises `StoreError` when the database is away."""

    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        """Return the answers that are known; unknown keys are absent."""
        ...

    def commit(self, batch: LedgerBatch) -> None:
        """Write the batch durably in one transaction; idempotent."""
        ...

    def bill(self, optimization_id: OptimizationId) -> Bill:
        """Return what the optimization was charged so far."""
        ...

    def close_lost(self, optimization_id: OptimizationId) -> Sequence[Charge]:
        """Mark every charge that was started and never ended as lost, at its reserved cost; return them."""
        ...
