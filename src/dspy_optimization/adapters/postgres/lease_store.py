"""Leases of workers. By the database's clock: those of the machines may differ."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import worker_lease as table
from dspy_optimization.jobs.job import Lane
from dspy_optimization.jobs.lease import Lease, Worker, WorkerId

_REAP_LOCK = 0x6473_7079_7265_6170
_KEPT_SECONDS = 24 * 3600.0
"""How long a lease that was taken away stays to be seen."""
_CUT_OFF = sa.text("SELECT cut_off_worker(:worker)")


class PostgresLeases:
    """The `LeaseStore`. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, worker: Worker, lease_seconds: float) -> bool:
        """Extend the lease; False when it had been taken away."""
        expires = _in(lease_seconds)
        row = {
            "worker_id": worker.id,
            "host": worker.host,
            "process_id": worker.process_id,
            "lanes": [lane.value for lane in worker.lanes],
            "version": worker.version,
            "started_at": worker.started_at,
            "expires_at": expires,
        }
        extended = (
            insert(table)
            .values(row)
            .on_conflict_do_update(
                index_elements=[table.c.worker_id], set_={"expires_at": expires}, where=~table.c.taken_away
            )
            .returning(table.c.worker_id)
        )
        with self._database.shared() as connection:
            return connection.execute(extended).first() is not None

    def leases(self) -> Sequence[Lease]:
        """Return every lease that was not given up and not taken away, the newest worker first."""
        query = (
            sa.select(table, (table.c.expires_at > sa.func.now()).label("is_alive"))
            .where(~table.c.taken_away)
            .order_by(table.c.started_at.desc())
        )
        with self._database.shared() as connection:
            return [
                Lease(
                    worker=Worker(
                        id=WorkerId(row.worker_id),
                        host=row.host,
                        process_id=row.process_id,
                        lanes=tuple(Lane(lane) for lane in row.lanes),
                        version=row.version,
                        started_at=row.started_at,
                    ),
                    expires_at=row.expires_at,
                    is_alive=row.is_alive,
                )
                for row in connection.execute(query)
            ]

    @contextmanager
    def reaping(self) -> Iterator[bool]:
        """Yield whether this process may reap now: one at a time does."""
        with self._database.shared() as connection:
            yield bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_REAP_LOCK))).scalar_one())

    def take_away(self, worker: WorkerId) -> None:
        """End the lease unless it was extended meanwhile, then cut the worker's connections; forget old ones."""
        gone = (
            sa.update(table)
            .where(table.c.worker_id == worker, table.c.expires_at <= sa.func.now())
            .values(taken_away=True)
        )
        old = sa.delete(table).where(table.c.taken_away, table.c.expires_at < _in(-_KEPT_SECONDS))
        with self._database.shared() as connection:
            ended = connection.execute(gone).rowcount > 0
            connection.execute(old)
        if ended:
            with self._database.shared() as connection:
                connection.execute(_CUT_OFF, {"worker": worker})

    def give_up(self, worker: WorkerId) -> None:
        """Remove the lease of a worker that ended well."""
        with self._database.shared() as connection:
            connection.execute(sa.delete(table).where(table.c.worker_id == worker))


def _in(seconds: float) -> "sa.ColumnElement[datetime]":
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
