"""Requests that came with a key: the same one again is answered with what it made the first time."""

from typing import cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import idempotent_request as table
from dspy_optimization.errors import ConflictError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.jobs.queue import Transaction
from dspy_optimization.optimization.store import Hook
from dspy_optimization.tenancy import TenantId


class PostgresIdempotency:
    """Keys of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def known(self, key: str, digest: str) -> OptimizationId | None:
        """Return what the request made before; None when it is new. Raises `ConflictError` for another request."""
        with self._database.transaction(self._tenant) as connection:
            row = connection.execute(sa.select(table).where(table.c.key == key)).one_or_none()
        if row is None:
            return None
        if row.digest != digest:
            raise _other(key)
        return OptimizationId(row.optimization_id)

    def remembering(self, key: str, digest: str, optimization_id: OptimizationId) -> Hook:
        """Return what keeps the key in the transaction that keeps its request.

        Raises `ConflictError` when the key was kept meanwhile: `known` then says by which request.
        """

        def remember(transaction: Transaction) -> None:
            row = {"key": key, "digest": digest, "optimization_id": optimization_id}
            kept = insert(table).values(row).on_conflict_do_nothing().returning(table.c.key)
            if cast("sa.Connection", transaction).execute(kept).first() is None:
                raise _other(key)

        return remember


def _other(key: str) -> ConflictError:
    return ConflictError(
        f"wanted: a new request under the key {key!r}; found: another request came with it; possible: the same body "
        "again, or another key"
    )
