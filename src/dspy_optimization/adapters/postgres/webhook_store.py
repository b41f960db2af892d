"""Webhooks of one tenant, and what became of the events that were to be told to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid4

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import DeliveryState, event
from dspy_optimization.adapters.postgres.tables import webhook as table
from dspy_optimization.adapters.postgres.tables import webhook_delivery as outbox
from dspy_optimization.adapters.postgres.transaction_lock import lock
from dspy_optimization.adapters.sealing import SETTING
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.events import EventType
from dspy_optimization.tenancy import TenantId

MOST_WEBHOOKS = 50
"""So many a tenant: each event is told to each of them."""


class OutwardType(StrEnum):
    """What webhooks can be told. The trigger of the outbox names the same."""

    COMPLETED = EventType.OPTIMIZATION_COMPLETED.value
    FAILED = EventType.OPTIMIZATION_FAILED.value
    CANCELLED = EventType.OPTIMIZATION_CANCELLED.value
    PAUSED = EventType.OPTIMIZATION_PAUSED.value
    EXPERIMENT_RESULT = EventType.EXPERIMENT_RESULT.value
    EXPERIMENT_ALERT = EventType.EXPERIMENT_ALERT.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where somebody wants to be told of events."""

    id: UUID
    url: str
    events: Sequence[OutwardType]
    description: str | None
    created_at: datetime
    disabled_at: datetime | None
    """Since when nothing is sent there: it answered that it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one webhook."""

    id: UUID
    webhook_id: UUID
    event_type: str
    optimization_id: UUID
    message_id: str
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    """Means something while it waits."""
    last_error: str | None
    last_status: int | None
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPlace:
    """Where a page begins: behind this one."""

    created_at: datetime
    id: UUID


class Sealing(Protocol):
    """Keeps secrets so that whoever reads the database does not read them."""

    def seal(self, text: str, place: bytes) -> str:
        """Return what may be kept."""
        ...

    def open(self, sealed: str, place: bytes) -> str:
        """Return the text. Raises `InvalidRequestError` for another key or another place."""
        ...


def message_id(optimization_id: UUID, event_id: int) -> str:
    """Return what receivers know an event by. Holds no full stop: that is what parts it from the time when signed."""
    return f"{optimization_id}_{event_id}"


class PostgresWebhooks:
    """Webhooks of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId, sealing: Sealing | None = None) -> None:
        """See the webhooks of a tenant; without `sealing` none can be added."""
        self._database = database
        self._tenant = tenant
        self._sealing = sealing

    def add(self, url: str, secret: str, events: Sequence[OutwardType], description: str | None = None) -> Webhook:
        """Keep a webhook; it is told of what happens from now on.

        Raises `ConflictError` when there are too many, or no key to keep the secret under.
        """
        if self._sealing is None:
            raise ConflictError(
                f"wanted: a key to keep the secrets of webhooks under; found: {SETTING} is not set; possible: whoever "
                "operates the service sets it, to the same value for all processes (openssl rand -base64 32)"
            )
        webhook_id = uuid4()
        row = {
            "webhook_id": webhook_id,
            "url": url,
            "secret": self._sealing.seal(secret, place_of_secret(self._tenant, webhook_id)),
            "events": [one.value for one in events],
            "description": description,
        }
        with self._database.transaction(self._tenant) as connection:
            # Until it ends nobody else adds one: all would find room for the last.
            lock(connection, f"webhooks/{self._tenant}")
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() >= MOST_WEBHOOKS:
                raise ConflictError(
                    f"wanted: at most {MOST_WEBHOOKS} webhooks; found: as many already; possible: remove one first"
                )
            return _webhook(connection.execute(sa.insert(table).values(row).returning(table)).one())

    def webhooks(self) -> Sequence[Webhook]:
        """Return every webhook, the newest first."""
        query = sa.select(table).order_by(table.c.created_at.desc(), table.c.webhook_id)
        with self._database.transaction(self._tenant) as connection:
            return [_webhook(row) for row in connection.execute(query)]

    def remove(self, webhook_id: UUID) -> None:
        """Forget a webhook with its secret and its deliveries. Raises `NotFoundError`."""
        gone = sa.delete(table).where(table.c.webhook_id == webhook_id)
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(gone).rowcount == 0:
                raise _unknown(connection, webhook_id)

    def deliveries(
        self,
        webhook_id: UUID,
        state: DeliveryState | None = None,
        after: DeliveryPlace | None = None,
        limit: int = 50,
    ) -> Sequence[Delivery]:
        """Return deliveries of a webhook, the newest first. Raises `NotFoundError`."""
        query = _deliveries(self._tenant).where(outbox.c.webhook_id == webhook_id)
        if state is not None:
            query = query.where(outbox.c.state == state)
        place = sa.tuple_(outbox.c.created_at, outbox.c.delivery_id)
        if after is not None:
            query = query.where(place < sa.tuple_(sa.literal(after.created_at), sa.literal(after.id, sa.Uuid())))
        query = query.order_by(outbox.c.created_at.desc(), outbox.c.delivery_id.desc()).limit(limit)
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(sa.select(table.c.url).where(table.c.webhook_id == webhook_id)).first() is None:
                raise _unknown(connection, webhook_id)
            return [_delivery(row) for row in connection.execute(query)]

    def redeliver(self, delivery_id: UUID) -> Delivery:
        """Send once more, at once and with all its attempts, whatever became of it; the message keeps its id.

        Raises `NotFoundError`, and `ConflictError` when its webhook is disabled.
        """
        mine = (outbox.c.delivery_id == delivery_id, outbox.c.holder == self._tenant)
        standing = sa.select(table.c.disabled_at).join(
            outbox, sa.and_(outbox.c.holder == table.c.tenant_id, outbox.c.webhook_id == table.c.webhook_id)
        )
        again = (
            sa.update(outbox)
            .where(*mine)
            .values(
                state=DeliveryState.WAITING,
                attempts=0,
                next_attempt_at=sa.func.now(),
                claimed_until=None,
                delivered_at=None,
            )
        )
        with self._database.transaction(self._tenant) as connection:
            found = connection.execute(standing.where(*mine)).one_or_none()
            if found is None:
                raise NotFoundError(
                    f"wanted: the delivery {delivery_id}; found: none of that id; possible: the deliveries of a "
                    "webhook are listed at /api/v1/webhooks/{id}/deliveries"
                )
            if found.disabled_at is not None:
                raise ConflictError(
                    f"wanted: a webhook that takes deliveries; found: it said that it is gone on "
                    f"{found.disabled_at:%Y-%m-%d} and is disabled; possible: add it anew"
                )
            connection.execute(again)
            return _delivery(connection.execute(_deliveries(self._tenant).where(*mine)).one())


def place_of_secret(tenant: TenantId, webhook_id: UUID) -> bytes:
    """Return what a secret belongs to: another tenant's, or another webhook's, cannot be opened."""
    return b"webhook secret 1" + tenant.bytes + webhook_id.bytes


def _deliveries(tenant: TenantId) -> "sa.Select[tuple[UUID, str]]":
    return (
        sa.select(outbox, event.c.type, event.c.optimization_id)
        .join(event, sa.and_(event.c.tenant_id == outbox.c.holder, event.c.event_id == outbox.c.event_id))
        .where(outbox.c.holder == tenant)
    )


def _webhook(row: "sa.Row[tuple[UUID, str]]") -> Webhook:
    return Webhook(
        id=row.webhook_id,
        url=row.url,
        events=tuple(OutwardType(one) for one in row.events),
        description=row.description,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )


def _delivery(row: "sa.Row[tuple[UUID, str]]") -> Delivery:
    return Delivery(
        id=row.delivery_id,
        webhook_id=row.webhook_id,
        event_type=row.type,
        optimization_id=row.optimization_id,
        message_id=message_id(row.optimization_id, row.event_id),
        state=row.state,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_error=row.last_error,
        last_status=row.last_status,
        created_at=row.created_at,
        delivered_at=row.delivered_at,
    )


def _unknown(connection: sa.Connection, webhook_id: UUID) -> NotFoundError:
    known = [str(one) for one in connection.execute(sa.select(table.c.webhook_id).limit(5)).scalars()]
    return NotFoundError(
        f"wanted: the webhook {webhook_id}; found: none of that id; possible: {', '.join(known) or 'none yet'}"
    )
