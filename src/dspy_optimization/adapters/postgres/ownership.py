"""Which optimizations this process works on: advisory locks that end with the process, however it ends."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import exc

from dspy_optimization.errors import ConflictError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId

_CLAIM = sa.text("SELECT pg_try_advisory_lock(:key)")
_RELEASE = sa.text("SELECT pg_advisory_unlock(:key)")
_PING = sa.text("SELECT 1")


class Ownership:
    """All claims of one process, on one connection: a hundred optimizations need no hundred connections.

    When the database was away the locks are gone; they are claimed again before anything more is written.
    """

    def __init__(self, connect: Callable[[], sa.Connection]) -> None:
        self._connect = connect
        self._connection: sa.Connection | None = None
        self._held: dict[int, bool] = {}
        """Key → whether it is still ours; False once another process took it while the database was away."""
        self._turn = threading.Lock()

    def claim(self, tenant: TenantId, optimization_id: OptimizationId) -> None:
        """Take the optimization. Raises `ConflictError` when somebody living holds it."""
        key = _key(tenant, optimization_id)
        with self._turn:
            if key in self._held or not self._alive().execute(_CLAIM, {"key": key}).scalar_one():
                raise ConflictError(
                    f"wanted: to work on optimization {optimization_id}; found: another living process or thread works"
                    " on it; possible: wait for it, pause it or cancel it there"
                )
            self._held[key] = True

    def confirm(self, tenant: TenantId, optimization_id: OptimizationId) -> None:
        """Raise `ConflictError` when this process held the optimization and lost it to another."""
        for error in self.lost(tenant, [optimization_id]).values():
            raise error

    def lost(
        self, tenant: TenantId, optimization_ids: Sequence[OptimizationId]
    ) -> Mapping[OptimizationId, ConflictError]:
        """Return those that this process held and lost to another, and why."""
        keys = {one: _key(tenant, one) for one in optimization_ids}
        with self._turn:
            held = {one: key for one, key in keys.items() if key in self._held}
            if not held:
                return {}
            self._alive()
            return {
                one: ConflictError(
                    f"wanted: to go on with optimization {one}; found: another process took it over while the database"
                    " was away; possible: stop here and watch it there"
                )
                for one, key in held.items()
                if not self._held[key]
            }

    def release(self, tenant: TenantId, optimization_id: OptimizationId) -> None:
        """Give the optimization up; no error when the database is away, for then nobody holds it."""
        key = _key(tenant, optimization_id)
        with self._turn:
            if not self._held.pop(key, False) or self._connection is None:
                return
            try:
                self._connection.execute(_RELEASE, {"key": key})
            except exc.DBAPIError:
                self._drop()

    def close(self) -> None:
        """Give up everything."""
        with self._turn:
            self._held.clear()
            self._drop()

    def _alive(self) -> sa.Connection:
        if self._connection is not None:
            try:
                self._connection.execute(_PING)
            except exc.DBAPIError:
                self._drop()
            else:
                return self._connection
        connection = self._connect()
        for key, ours in self._held.items():
            self._held[key] = ours and bool(connection.execute(_CLAIM, {"key": key}).scalar_one())
        self._connection = connection
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            # Not back to the pool: whoever got this session next would own what it still holds.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _key(tenant: TenantId, optimization_id: UUID) -> int:
    """Return the signed 64-bit number PostgreSQL locks by."""
    digest = hashlib.sha256(f"optimization/{tenant}/{optimization_id}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
