"""A ledger in memory that can be taken away: for tests of what stands on a ledger, not for work."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.ledger import (
    Bill,
    Charge,
    ChargeId,
    ChargeStatus,
    LedgerBatch,
    OptimizationId,
    Spend,
)
from dspy_optimization.evaluation.model import CallKey, ModelResponse, Role

_OPEN = (ChargeStatus.STARTED, ChargeStatus.LOST)


class MemoryLedger:
    """A `LedgerStore` that passes `testing.ledger_contract`, as the real one does. Thread-safe."""

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        """Start empty.

        Args:
            before: told the name of every method before it does anything; may raise what a store raises.
        """
        self._before = before
        self._lock = threading.Lock()
        self._charges: dict[ChargeId, Charge] = {}
        self._answers: dict[CallKey, ModelResponse] = {}
        self.away = False
        """True: every method raises `StoreError`."""
        self.batches: list[LedgerBatch] = []
        """What was committed, in order."""

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All charges, in the order they came."""
        with self._lock:
            return tuple(self._charges.values())

    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        """Return the answers that are known."""
        self._reach("answers")
        with self._lock:
            return {key: self._answers[key] for key in keys if key in self._answers}

    def commit(self, batch: LedgerBatch) -> None:
        """Keep the batch."""
        self._reach("commit")
        with self._lock:
            self.batches.append(batch)
            for charge in batch.started:
                self._charges.setdefault(charge.id, charge)
            for charge in batch.ended:
                if charge.id not in self._charges or self._charges[charge.id].status in _OPEN:
                    self._charges[charge.id] = charge
            for key, answer in batch.answers.items():
                self._answers.setdefault(key, answer)

    def bill(self, optimization_id: OptimizationId) -> Bill:
        """Return the sums."""
        self._reach("bill")
        by_role: dict[Role, Spend] = {}
        by_label: dict[str, Spend] = {}
        for charge in self._of(optimization_id):
            if charge.status is ChargeStatus.FAILED:
                continue
            spend = _spend(charge)
            by_role[charge.role] = by_role.get(charge.role, Spend()) + spend
            by_label[charge.label] = by_label.get(charge.label, Spend()) + spend
        return Bill(by_role=by_role, by_label=by_label)

    def close_lost(self, optimization_id: OptimizationId) -> Sequence[Charge]:
        """Mark open charges as lost."""
        self._reach("close_lost")
        lost = [
            replace(charge, status=ChargeStatus.LOST, cost_usd=charge.reserved_usd)
            for charge in self._of(optimization_id)
            if charge.status is ChargeStatus.STARTED
        ]
        with self._lock:
            self._charges.update({charge.id: charge for charge in lost})
        return sorted(lost, key=lambda charge: (charge.started_at, charge.id))

    def _reach(self, method: str) -> None:
        self._before(method)
        if self.away:
            raise StoreError("the ledger in memory was told to be away")

    def _of(self, optimization_id: OptimizationId) -> Iterable[Charge]:
        return [charge for charge in self.charges if charge.optimization_id == optimization_id]


def _spend(charge: Charge) -> Spend:
    under_way = charge.status is ChargeStatus.STARTED
    return Spend(
        calls=1,
        lost_calls=int(charge.status is ChargeStatus.LOST),
        cost_usd=charge.reserved_usd if under_way else charge.cost_usd,
        prompt_tokens=charge.prompt_tokens,
        completion_tokens=charge.completion_tokens,
    )
