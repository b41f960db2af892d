"""The ledger in memory."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.ledger import LedgerBatch, OptimizationId
from dspy_optimization.testing.ledger_contract import LedgerContract, started_charge
from dspy_optimization.testing.memory_ledger import MemoryLedger


class TestMemoryLedger(LedgerContract):
    """It keeps what every ledger keeps."""

    @pytest.fixture
    def store(self) -> MemoryLedger:
        return MemoryLedger()

    @pytest.fixture
    def optimization_ids(self) -> Sequence[OptimizationId]:
        return [OptimizationId(UUID(int=1)), OptimizationId(UUID(int=2))]


def test_it_can_be_taken_away() -> None:
    """Every method fails as a store does, and what was there is still there afterwards."""
    store, mine = MemoryLedger(), OptimizationId(UUID(int=1))
    store.commit(LedgerBatch(started=[started_charge(mine, 1)]))
    store.away = True
    for reach in (
        lambda: store.answers([]),
        lambda: store.commit(LedgerBatch()),
        lambda: store.bill(mine),
        lambda: store.close_lost(mine),
    ):
        with pytest.raises(StoreError):
            reach()
    store.away = False

    assert store.charges == (started_charge(mine, 1),)
