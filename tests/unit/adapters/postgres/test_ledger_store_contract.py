"""PostgreSQL keeps what every ledger keeps."""

from collections.abc import Callable, Sequence

import pytest

from dspy_optimization.adapters.postgres import Database, PostgresLedger
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId
from dspy_optimization.testing.ledger_contract import LedgerContract


class TestPostgresLedger(LedgerContract):
    """The shipped suite, on a real database."""

    @pytest.fixture
    def store(self, database: Database, tenant: TenantId) -> PostgresLedger:
        return PostgresLedger(database, tenant)

    @pytest.fixture
    def optimization_ids(self, optimization_in: Callable[..., OptimizationId]) -> Sequence[OptimizationId]:
        return [optimization_in(), optimization_in()]
