"""The event log of one tenant."""

from collections.abc import Sequence
from typing import cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import event as table
from dspy_optimization.adapters.postgres.tables import optimization_request
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event, EventType, RecordedEvent
from dspy_optimization.optimization.store import Hook
from dspy_optimization.tenancy import TenantId

_NEW_EVENT = insert(table).on_conflict_do_nothing(
    index_elements=[table.c.tenant_id, table.c.optimization_id, table.c.key], index_where=table.c.key.is_not(None)
)


class PostgresEvents:
    """The `EventStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def emit(self, event: Event) -> None:
        """Keep the event; an event whose key is known already is dropped. `NotFoundError` without its optimization."""
        with self._database.transaction(self._tenant) as connection:
            tell(connection, event)

    def events(
        self, optimization_id: OptimizationId, after: int = 0, limit: int | None = None
    ) -> Sequence[RecordedEvent]:
        """Return events with a greater id, in order; no event with a smaller id appears later."""
        query = (
            sa.select(table)
            .where(table.c.optimization_id == optimization_id, table.c.event_id > after)
            .order_by(table.c.event_id)
            .limit(limit)
        )
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).all()
        return [recorded_event(row) for row in rows]


def telling(event: Event) -> Hook:
    """Return what writes the event in the transaction of the change it tells of."""
    return lambda transaction: append(cast("sa.Connection", transaction), [event])


def tell(connection: sa.Connection, event: Event) -> None:
    """Write an event in the caller's transaction, and hold the row lock of its optimization until that ends.

    Raises `NotFoundError` without its optimization.
    """
    lock = sa.select(optimization_request.c.optimization_id).where(
        optimization_request.c.optimization_id == event.optimization_id
    )
    if connection.execute(lock.with_for_update(key_share=True)).first() is None:
        raise NotFoundError(
            f"wanted: optimization {event.optimization_id} for the event {event.type.value}; found: none;"
            " possible: add the optimization first"
        )
    append(connection, [event])


def append(connection: sa.Connection, events: Sequence[Event]) -> None:
    """Write events in the caller's transaction, which holds the row lock of their optimization.

    Ids are given out under that lock, so within an optimization they are committed in their order and a reader that
    goes on from the last id it saw misses none.
    """
    if events:
        connection.execute(_NEW_EVENT, [_row(event) for event in events])


def _row(event: Event) -> dict[str, object]:
    return {
        "optimization_id": event.optimization_id,
        "type": event.type.value,
        "at": event.at,
        "key": event.key,
        "data": {"version": 1, "data": dict(event.data)},
    }


def recorded_event(row: "sa.Row[tuple[int, UUID, str]]") -> RecordedEvent:
    """Return the event of a row that holds all of its columns."""
    return RecordedEvent(
        id=row.event_id,
        event=Event(
            type=EventType(row.type),
            optimization_id=row.optimization_id,
            at=row.at,
            data=row.data["data"],
            key=row.key,
        ),
    )
