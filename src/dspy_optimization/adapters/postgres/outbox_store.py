"""The outbox: what is due, of every tenant, attempted by one deliverer at a time.

It is filled by a trigger in the transaction that writes an event (`migrations/versions/0003_webhooks.py`). Its clock is
the database's: those of the machines may differ.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import DeliveryState, api_key, event
from dspy_optimization.adapters.postgres.tables import webhook as table
from dspy_optimization.adapters.postgres.tables import webhook_delivery as outbox
from dspy_optimization.adapters.postgres.transaction_lock import try_lock
from dspy_optimization.adapters.postgres.webhook_store import Sealing, message_id, place_of_secret
from dspy_optimization.adapters.sealing import FORM, SETTING, is_sealed
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

_IS_FREE = sa.or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= sa.func.now())
_SINCE = sa.func.min(outbox.c.next_attempt_at).label("since")
_WAITING = (
    sa.select(outbox.c.holder, outbox.c.webhook_id, _SINCE)
    .where(outbox.c.state == DeliveryState.WAITING)
    .group_by(outbox.c.holder, outbox.c.webhook_id)
    .having(_SINCE.element <= sa.func.now(), sa.func.bool_and(_IS_FREE))
    .order_by(_SINCE)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A webhook that something is due for and that gets nothing at the moment."""

    tenant: TenantId
    webhook_id: UUID
    since: datetime
    """When the delivery that waits longest became due."""


Order: TypeAlias = Callable[[Sequence[Waiting]], Iterable[Waiting]]
"""Those that wait, the longest first → those to deliver to, the first first."""


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

    def claim(self, lease_seconds: float, order: Order | None = None) -> Claim | None:
        """Take a delivery that is due, if any; nobody else gets it before the lease is over.

        A webhook gets one delivery at a time, that which is due longest.

        Args:
            lease_seconds: how long it is this claim's.
            order: says which webhooks come first, and which not at all; None: that which waits longest.
        """
        with self._database.shared() as connection:
            found = [
                Waiting(tenant=TenantId(row.holder), webhook_id=row.webhook_id, since=row.since)
                for row in connection.execute(_WAITING)
            ]
            for one in found if order is None else order(found):
                # Another's claim is not seen before it is committed; who takes the lock after it sees it.
                if not try_lock(connection, f"webhook claim/{one.tenant}/{one.webhook_id}"):
                    continue
                row = connection.execute(_claimed(one, lease_seconds).returning(outbox)).one_or_none()
                if row is not None:
                    return Claim(
                        id=row.delivery_id,
                        tenant=one.tenant,
                        webhook_id=one.webhook_id,
                        event_id=row.event_id,
                        attempts=row.attempts,
                        until=row.claimed_until,
                    )
        return None

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
        return self._sealing.open(kept, place_of_secret(claim.tenant, claim.webhook_id))

    def _seal(self, tenant: TenantId, webhook_id: UUID, clear: str) -> bool:
        if self._sealing is None:
            return False
        sealed = (
            sa.update(table)
            .where(table.c.webhook_id == webhook_id, table.c.secret == clear)
            .values(secret=self._sealing.seal(clear, place_of_secret(tenant, webhook_id)))
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


def _claimed(waiting: Waiting, lease_seconds: float) -> sa.Update:
    other = outbox.alias("other")
    is_busy = sa.exists().where(
        other.c.holder == waiting.tenant,
        other.c.webhook_id == waiting.webhook_id,
        other.c.state == DeliveryState.WAITING,
        other.c.claimed_until > sa.func.now(),
    )
    due = (
        sa.select(outbox.c.delivery_id)
        .where(
            outbox.c.holder == waiting.tenant,
            outbox.c.webhook_id == waiting.webhook_id,
            outbox.c.state == DeliveryState.WAITING,
            outbox.c.next_attempt_at <= sa.func.now(),
            ~is_busy,
        )
        .order_by(outbox.c.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return (
        sa.update(outbox)
        .where(outbox.c.delivery_id.in_(due))
        .values(claimed_until=_in(lease_seconds), attempts=outbox.c.attempts + 1)
    )


def _of(claim: Claim) -> sa.Update:
    return sa.update(outbox).where(outbox.c.delivery_id == claim.id, outbox.c.claimed_until == claim.until)


def _failed(claim: Claim, error: str, status: int | None, retry_seconds: float | None) -> sa.Update:
    what = {"claimed_until": None, "last_error": error, "last_status": status}
    if retry_seconds is None:
        return _of(claim).values(**what, state=DeliveryState.DEAD)
    return _of(claim).values(**what, next_attempt_at=_in(retry_seconds))


def _in(seconds: float) -> "sa.ColumnElement[datetime]":
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
