"""Registered algorithms of one tenant."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import custom_algorithm as table
from dspy_optimization.adapters.postgres.transaction_lock import lock
from dspy_optimization.algorithms.custom import CustomAlgorithm
from dspy_optimization.algorithms.rules import RuleFinding
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.tenancy import TenantId

MOST_ALGORITHMS = 100
"""So many a tenant: each use of a name that is not installed looks through them."""


class PostgresAlgorithms:
    """The `CustomAlgorithmStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def get(self, name: str) -> CustomAlgorithm:
        """Return it. Raises `NotFoundError`, naming those that are registered."""
        with self._database.transaction(self._tenant) as connection:
            row = connection.execute(sa.select(table).where(table.c.name == name)).one_or_none()
            if row is None:
                raise _unknown(connection, name)
        return _algorithm(row)

    def registered(self) -> Sequence[CustomAlgorithm]:
        """Return all of them, sorted by name."""
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(sa.select(table)).all()
        return sorted((_algorithm(row) for row in rows), key=lambda one: one.name)

    def keep(self, algorithm: CustomAlgorithm) -> None:
        """Keep it, in place of one of the same name. Raises `ConflictError` when there are too many."""
        row = {
            "name": algorithm.name,
            "entrypoint": algorithm.entrypoint,
            "version": algorithm.version,
            "checks": [one.to_json() for one in algorithm.findings],
            "registered_at": algorithm.registered_at,
        }
        others = sa.select(sa.func.count()).select_from(table).where(table.c.name != algorithm.name)
        changed = {column: value for column, value in row.items() if column != "name"}
        kept = (
            insert(table)
            .values(row)
            .on_conflict_do_update(index_elements=[table.c.tenant_id, table.c.name], set_=changed)
        )
        with self._database.transaction(self._tenant) as connection:
            # Until it ends nobody else adds one: all would find room for the last.
            lock(connection, f"algorithms/{self._tenant}")
            if connection.execute(others).scalar_one() >= MOST_ALGORITHMS:
                raise ConflictError(
                    f"wanted: at most {MOST_ALGORITHMS} registered algorithms; found: as many already; possible: "
                    "remove one first"
                )
            connection.execute(kept)

    def remove(self, name: str) -> None:
        """Forget it. Raises `NotFoundError`, naming those that are registered."""
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(sa.delete(table).where(table.c.name == name)).rowcount == 0:
                raise _unknown(connection, name)


def _algorithm(row: "sa.Row[tuple[str, datetime]]") -> CustomAlgorithm:
    return CustomAlgorithm(
        name=row.name,
        entrypoint=row.entrypoint,
        version=row.version,
        findings=tuple(RuleFinding.from_json(one) for one in row.checks),
        registered_at=row.registered_at,
    )


def _unknown(connection: sa.Connection, name: str) -> NotFoundError:
    known = ", ".join(connection.execute(sa.select(table.c.name).order_by(table.c.name)).scalars()) or "none yet"
    return NotFoundError(f"wanted: the registered algorithm {name!r}; found: none of that name; possible: {known}")
