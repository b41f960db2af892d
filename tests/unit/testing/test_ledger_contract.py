"""The contract of ledgers: it must notice a ledger that breaks it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from dspy_optimization.evaluation.ledger import Bill, Charge, ChargeStatus, LedgerBatch, OptimizationId
from dspy_optimization.evaluation.model import CallKey, ModelResponse
from dspy_optimization.testing.ledger_contract import LedgerContract
from dspy_optimization.testing.memory_ledger import MemoryLedger

IDS = [OptimizationId(UUID(int=1)), OptimizationId(UUID(int=2))]


class Forgetful(MemoryLedger):
    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        return {}


class Inventive(MemoryLedger):
    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        return {key: ModelResponse(body={}, prompt_tokens=0, completion_tokens=0, latency_seconds=0) for key in keys}


class Overwriting(MemoryLedger):
    def commit(self, batch: LedgerBatch) -> None:
        self._answers.clear()
        super().commit(batch)


class Doubling(MemoryLedger):
    def commit(self, batch: LedgerBatch) -> None:
        again = {one.id: replace(one, id=UUID(int=one.id.int + 100 * len(self.batches) + 100)) for one in batch.ended}
        super().commit(replace(batch, ended=list(again.values())))


class Lenient(MemoryLedger):
    def close_lost(self, optimization_id: OptimizationId) -> Sequence[Charge]:
        return [replace(one, cost_usd=0.0) for one in super().close_lost(optimization_id)]


class Blind(MemoryLedger):
    def bill(self, optimization_id: OptimizationId) -> Bill:
        return Bill()


class Shared(MemoryLedger):
    def bill(self, optimization_id: OptimizationId) -> Bill:
        bills = [super(Shared, self).bill(one) for one in IDS]
        return bills[0] if bills[0].by_role else bills[1]


class Final(MemoryLedger):
    def commit(self, batch: LedgerBatch) -> None:
        lost = {one.id for one in self.charges if one.status is ChargeStatus.LOST}
        super().commit(replace(batch, ended=[one for one in batch.ended if one.id not in lost]))


def broken_rules(make: Callable[[], MemoryLedger]) -> set[str]:
    suite = LedgerContract()
    broken = set()
    for name in (name for name in dir(LedgerContract) if name.startswith("test_")):
        test = getattr(suite, name)
        values = {"store": make(), "optimization_ids": IDS}
        wanted = test.__code__.co_varnames[1 : test.__code__.co_argcount]
        try:
            test(**{name: values[name] for name in wanted})
        except AssertionError:
            broken.add(name)
    return broken


@pytest.mark.parametrize("kind", [Forgetful, Inventive, Overwriting, Doubling, Lenient, Blind, Shared, Final])
def test_a_ledger_that_breaks_a_rule_is_noticed(kind: type[MemoryLedger]) -> None:
    """Each way of being wrong fails at least one test of the suite; the right one fails none."""
    assert broken_rules(MemoryLedger) == set()
    assert broken_rules(kind) != set()
