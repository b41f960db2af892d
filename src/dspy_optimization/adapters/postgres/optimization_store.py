"""Optimizations of one tenant."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.adapters.postgres.event_store import append
from dspy_optimization.adapters.postgres.tables import agent_version, dataset
from dspy_optimization.adapters.postgres.tables import optimization_request as table
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event
from dspy_optimization.jobs.job import JobId
from dspy_optimization.optimization.pulse import Beat, Heard
from dspy_optimization.optimization.request import (
    ALLOWED,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Wish,
)
from dspy_optimization.optimization.store import Hook
from dspy_optimization.tenancy import TenantId

_SHOWN = 5


# Rows that somebody else is changing are left for the next beat: one that waits must not delay the others.
_BEAT = sa.text(
    """
    WITH beat AS (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:elapsed AS double precision[])) AS _ (id, elapsed)),
    free AS (
        SELECT optimization_id FROM optimization_request
        WHERE optimization_id IN (SELECT id FROM beat) AND status = 'running'
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE optimization_request AS request SET elapsed_seconds = beat.elapsed, updated_at = clock_timestamp()
    FROM beat JOIN free ON free.optimization_id = beat.id
    WHERE request.optimization_id = beat.id
    RETURNING request.optimization_id, request.wish
    """
)


class PostgresOptimizations:
    """The `OptimizationStore` of one tenant. Thread-safe; equal to any other of the tenant."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def __eq__(self, other: object) -> bool:
        """Whether both keep the same."""
        return (
            isinstance(other, PostgresOptimizations)
            and self._database is other._database
            and self._tenant == other._tenant
        )

    def __hash__(self) -> int:
        """Follow `__eq__`."""
        return hash((id(self._database), self._tenant))

    def add(self, request: OptimizationRequest, *, job: JobId | None = None, also: Sequence[Hook] = ()) -> Optimization:
        """Keep a new request as queued, and do more in the same transaction.

        Raises `ConflictError` when the id exists, `NotFoundError` when its agent version or dataset is not kept.
        """
        document = write(request)
        row = {
            "optimization_id": request.id,
            "target_type": request.target.type,
            "target_id": request.target.id,
            "target_version": request.target.version,
            "dataset_version": request.dataset,
            "objectives": [write(objective)["noun"] for objective in request.objectives],
            "algorithms": [choice.name for choice in request.algorithms],
            "constraints": write(request.constraints)["noun"],
            "document": document,
            "status": OptimizationStatus.QUEUED,
            "job": job,
            "created_at": request.created_at,
            "updated_at": request.created_at,
        }
        with self._database.transaction(self._tenant) as connection:
            _require(connection, agent_version.c.version, request.target.version, "an agent")
            _require(connection, dataset.c.version, request.dataset, "a dataset")
            added = insert(table).values(row).on_conflict_do_nothing().returning(table)
            found = connection.execute(added).one_or_none()
            if found is None:
                raise ConflictError(
                    f"wanted: a new optimization {request.id}; found: one with this id; possible: resume it, a new id"
                )
            for hook in also:
                hook(connection)
            return optimization_of(found)

    def get(self, optimization_id: OptimizationId) -> Optimization:
        """Return it. Raises `NotFoundError`, naming the newest ids."""
        with self._database.transaction(self._tenant) as connection:
            return _found(connection, optimization_id)

    def newest(self, count: int) -> Sequence[Optimization]:
        """Return the newest first."""
        query = sa.select(table).order_by(table.c.created_at.desc(), table.c.optimization_id.desc()).limit(count)
        with self._database.transaction(self._tenant) as connection:
            return [optimization_of(row) for row in connection.execute(query)]

    def update(
        self,
        optimization_id: OptimizationId,
        change: Callable[[Optimization], Optimization],
        events: Sequence[Event] = (),
        *,
        also: Sequence[Hook] = (),
    ) -> Optimization:
        """Change it under a row lock, write the events and do more in the same transaction.

        Raises `ConflictError` when the status step is not in `ALLOWED`, when the request itself would change, or when
        this process held the optimization and another one took it over.
        """
        with self._database.guarded():
            self._database.ownership.confirm(self._tenant, optimization_id)
        with self._database.transaction(self._tenant) as connection:
            before = locked(connection, optimization_id)
            after = step(connection, before, change(before), events)
            for hook in also:
                hook(connection)
            return after

    def beat(self, beats: Sequence[Beat]) -> Mapping[OptimizationId, Heard]:
        """Keep the time worked on these, which run here; return what is wished of each.

        Absent is one whose row somebody else is changing, and one that does not run. Raises `StoreError`.
        """
        with self._database.guarded():
            lost = self._database.ownership.lost(self._tenant, [one.optimization_id for one in beats])
        ours = [one for one in beats if one.optimization_id not in lost]
        heard = {one: Heard(taken=error) for one, error in lost.items()}
        if ours:
            values = {
                "ids": [one.optimization_id for one in ours],
                "elapsed": [one.elapsed_seconds for one in ours],
            }
            with self._database.transaction(self._tenant) as connection:
                for row in connection.execute(_BEAT, values):
                    wish = None if row.wish is None else Wish(row.wish)
                    heard[OptimizationId(row.optimization_id)] = Heard(wish=wish)
        return heard

    def owning(self, optimization_id: OptimizationId) -> AbstractContextManager[None]:
        """Hold it for this process until the context ends or the process dies.

        Raises `ConflictError` when another living process, or another thread of this one, holds it.
        """
        return self._database.owning(self._tenant, optimization_id)


def locked(connection: sa.Connection, optimization_id: OptimizationId) -> Optimization:
    """Return the optimization, its row locked against other changes until the transaction ends."""
    return _found(connection, optimization_id, lock=True)


def step(connection: sa.Connection, before: Optimization, after: Optimization, events: Sequence[Event]) -> Optimization:
    """Write the change and its events; progress never falls. The caller holds the lock of the row."""
    if after.request != before.request:
        raise ConflictError(
            f"wanted: optimization {before.request.id} with its request as it was; found: another request;"
            " possible: a new optimization"
        )
    if after.status is not before.status and after.status not in ALLOWED[before.status]:
        allowed = ", ".join(sorted(status.value for status in ALLOWED[before.status])) or "nothing, it is final"
        raise ConflictError(
            f"optimization {before.request.id} is {before.status.value} and cannot become {after.status.value};"
            f" allowed: {allowed}"
        )
    kept = replace(after, progress=min(max(before.progress, after.progress), 1.0))
    values = {
        "status": kept.status,
        "progress": kept.progress,
        "elapsed_seconds": kept.elapsed_seconds,
        "error": kept.error,
        "wish": kept.wish,
        "job": kept.job,
        "updated_at": kept.updated_at,
    }
    connection.execute(sa.update(table).where(table.c.optimization_id == before.request.id).values(values))
    append(connection, events)
    return kept


def _found(connection: sa.Connection, optimization_id: OptimizationId, *, lock: bool = False) -> Optimization:
    query = sa.select(table).where(table.c.optimization_id == optimization_id)
    # Weaker than FOR UPDATE: charges and trials may be written meanwhile, other changes of the row may not.
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    if row is None:
        newest = sa.select(table.c.optimization_id).order_by(table.c.created_at.desc()).limit(_SHOWN)
        known = ", ".join(str(one) for one in connection.execute(newest).scalars()) or "none yet"
        raise NotFoundError(
            f"wanted: optimization {optimization_id}; found: no such id; possible, newest first: {known}"
        )
    return optimization_of(row)


def _require(connection: sa.Connection, column: "sa.Column[object]", version: str, what: str) -> None:
    if connection.execute(sa.select(column).where(column == version)).first() is None:
        raise NotFoundError(f"wanted: {what} of version {version}; found: none; possible: add it first")


def optimization_of(row: "sa.Row[tuple[object, ...]]") -> Optimization:
    """Return the optimization of a row that holds all of its columns."""
    return Optimization(
        request=read(OptimizationRequest, row.document),
        status=OptimizationStatus(row.status),
        progress=row.progress,
        elapsed_seconds=row.elapsed_seconds,
        error=row.error,
        wish=None if row.wish is None else Wish(row.wish),
        job=None if row.job is None else JobId(row.job),
        updated_at=row.updated_at,
    )
