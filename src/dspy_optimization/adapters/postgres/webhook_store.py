"""Webhooks of one tenant, and the outbox from which workers deliver for all of them.

The outbox is filled by a trigger in the transaction that writes an event (`migrations/versions/0003_webhooks.py`).
Its clock is the database's: those of the machines may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid4

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import DeliveryState, api_key, event
from dspy_optimization.adapters.postgres.tables import webhook as table
from dspy_optimization.adapters.postgres.tables import webhook_delivery as outbox
from dspy_optimization.adapters.sealing import FORM, SETTING, is_sealed
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.events import EventType, Json
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

MOST_WEBHOOKS = 50
"""So many a tenant: each event is told to each of them."""


class OutwardType(StrEnum):
    """What webhooks can be told. The trigger of the outbox names the same."""

    COMPLETED = EventType.OPTIMIZATION_COMPLETED.value
    FAILED = EventType.OPTIMIZATION_FAILED.value
    CANCELLED = EventType.OPTIMIZATION_CANCELLED.value
    PAUSED = EventType.OPTIMIZATION_PAUSED.value


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that one deliverer may attempt for a while; holds ids only."""

    id: UUID
    tenant: TenantId
    webhook_id: UUID
    event_id: int
    attempts: int
    """This one included."""
    until: datetime
    """Marks whose claim it is: what is said under an older one is not heard."""


class Sealing(Protocol):
    """Keeps secrets so that whoever reads the database does not read them."""

    def seal(self, text: str, place: bytes) -> str:
        """Return what may be kept."""
        ...

    def open(self, sealed: str, place: bytes) -> str:
        """Return the text. Raises `InvalidRequestError` for another key or another place."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What is to be told, where and signed with what."""

    url: str
    secret: str
    is_disabled: bool
    event_id: int
    type: str
    optimization_id: UUID
    at: datetime
    data: Mapping[str, Json]

    @property
    def message_id(self) -> str:
        """The same at every attempt and every webhook, and no other event's."""
        return message_id(self.optimization_id, self.event_id)


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
            "secret": self._sealing.seal(secret, _place(self._tenant, webhook_id)),
            "events": [one.value for one in events],
            "description": description,
        }
        with self._database.transaction(self._tenant) as connection:
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


class PostgresOutbox:
    """Deliveries that are due, of every tenant. Thread-safe."""

    def __init__(self, database: Database, sealing: Sealing | None = None) -> None:
        """Deliver for all; without `sealing` only what is signed with secrets from before there was a key."""
        self._database = database
        self._sealing = sealing

    def seal_clear(self) -> int:
        """Seal secrets that were kept before there was a key; return how many. Without a key nothing happens.

        Those of tenants that have neither a key nor a delivery are sealed when they are used first.
        """
        if self._sealing is None:
            return 0
        holders = sa.union(sa.select(api_key.c.holder), sa.select(outbox.c.holder))
        with self._database.shared() as connection:
            tenants = {TenantId(one) for one in connection.execute(holders).scalars()}
        clear = sa.select(table.c.webhook_id, table.c.secret).where(~table.c.secret.startswith(f"{FORM}."))
        total = 0
        for tenant in tenants | {LOCAL_TENANT}:
            with self._database.transaction(tenant) as connection:
                rows = connection.execute(clear).all()
            total += sum(self._seal(tenant, row.webhook_id, row.secret) for row in rows)
        return total

    def claim(self, lease_seconds: float) -> Claim | None:
        """Take the delivery that is due longest, if any; nobody else gets it before the lease is over.

        A webhook gets one delivery at a time: a slow one takes up one deliverer and no more.
        """
        other = outbox.alias("other")
        is_busy = sa.exists().where(
            other.c.holder == outbox.c.holder,
            other.c.webhook_id == outbox.c.webhook_id,
            other.c.state == DeliveryState.WAITING,
            other.c.claimed_until > sa.func.now(),
        )
        due = (
            sa.select(outbox.c.delivery_id)
            .where(
                outbox.c.state == DeliveryState.WAITING,
                outbox.c.next_attempt_at <= sa.func.now(),
                sa.or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= sa.func.now()),
                ~is_busy,
            )
            .order_by(outbox.c.next_attempt_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = (
            sa.update(outbox)
            .where(outbox.c.delivery_id.in_(due))
            .values(claimed_until=_in(lease_seconds), attempts=outbox.c.attempts + 1)
            .returning(outbox)
        )
        with self._database.shared() as connection:
            row = connection.execute(taken).one_or_none()
        if row is None:
            return None
        return Claim(
            id=row.delivery_id,
            tenant=TenantId(row.holder),
            webhook_id=row.webhook_id,
            event_id=row.event_id,
            attempts=row.attempts,
            until=row.claimed_until,
        )

    def outgoing(self, claim: Claim) -> Outgoing | None:
        """Return what is to be told; None when the webhook was removed meanwhile.

        Raises `InvalidRequestError` when its secret cannot be read.
        """
        query = (
            sa.select(table.c.url, table.c.secret, table.c.disabled_at, event)
            .join(event, event.c.tenant_id == table.c.tenant_id)
            .where(table.c.webhook_id == claim.webhook_id, event.c.event_id == claim.event_id)
        )
        with self._database.transaction(claim.tenant) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Outgoing(
            url=row.url,
            secret=self._opened(claim, row.secret),
            is_disabled=row.disabled_at is not None,
            event_id=row.event_id,
            type=row.type,
            optimization_id=row.optimization_id,
            at=row.at,
            data=row.data["data"],
        )

    def _opened(self, claim: Claim, kept: str) -> str:
        if not is_sealed(kept):
            self._seal(claim.tenant, claim.webhook_id, kept)
            return kept
        if self._sealing is None:
            raise InvalidRequestError(
                f"{SETTING}: wanted: the key that the secret of the webhook is kept under; found: it is not set; "
                "possible: set it, to the same value for all processes"
            )
        return self._sealing.open(kept, _place(claim.tenant, claim.webhook_id))

    def _seal(self, tenant: TenantId, webhook_id: UUID, clear: str) -> bool:
        if self._sealing is None:
            return False
        sealed = (
            sa.update(table)
            .where(table.c.webhook_id == webhook_id, table.c.secret == clear)
            .values(secret=self._sealing.seal(clear, _place(tenant, webhook_id)))
        )
        with self._database.transaction(tenant) as connection:
            return connection.execute(sealed).rowcount > 0

    def delivered(self, claim: Claim, status: int) -> None:
        """Mark as delivered."""
        done = _of(claim).values(
            state=DeliveryState.DELIVERED,
            delivered_at=sa.func.now(),
            claimed_until=None,
            last_error=None,
            last_status=status,
        )
        with self._database.shared() as connection:
            connection.execute(done)

    def failed(self, claim: Claim, error: str, status: int | None, retry_seconds: float | None) -> None:
        """Let it wait for the next attempt; without one it is dead."""
        with self._database.shared() as connection:
            connection.execute(_failed(claim, error, status, retry_seconds))

    def gone(self, claim: Claim, error: str, status: int) -> None:
        """Disable the webhook and give this delivery up: the receiver wants nothing any more."""
        disabled = (
            sa.update(table)
            .where(table.c.webhook_id == claim.webhook_id)
            .values(disabled_at=sa.func.coalesce(table.c.disabled_at, sa.func.now()))
        )
        with self._database.transaction(claim.tenant) as connection:
            # In this order, which is that of a removal.
            connection.execute(disabled)
            connection.execute(_failed(claim, error, status, None))


def _place(tenant: TenantId, webhook_id: UUID) -> bytes:
    """Return what a secret belongs to: another tenant's, or another webhook's, cannot be opened."""
    return b"webhook secret 1" + tenant.bytes + webhook_id.bytes


def _of(claim: Claim) -> sa.Update:
    return sa.update(outbox).where(outbox.c.delivery_id == claim.id, outbox.c.claimed_until == claim.until)


def _failed(claim: Claim, error: str, status: int | None, retry_seconds: float | None) -> sa.Update:
    what = {"claimed_until": None, "last_error": error, "last_status": status}
    if retry_seconds is None:
        return _of(claim).values(**what, state=DeliveryState.DEAD)
    return _of(claim).values(**what, next_attempt_at=_in(retry_seconds))


def _in(seconds: float) -> "sa.ColumnElement[datetime]":
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


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
