"""Webhooks and what was sent to them: filled with the change it tells of, seen by its tenant alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database, PostgresKeys
from dspy_optimization.adapters.postgres.event_store import append
from dspy_optimization.adapters.postgres.outbox_store import Claim, PostgresOutbox
from dspy_optimization.adapters.postgres.tables import DeliveryState
from dspy_optimization.adapters.postgres.webhook_store import (
    MOST_WEBHOOKS,
    DeliveryPlace,
    OutwardType,
    PostgresWebhooks,
    Webhook,
)
from dspy_optimization.adapters.sealing import SecretBox
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType
from dspy_optimization.tenancy import AccessRole, TenantId
from webhook_world import BOX, add_optimization, event_of, tell

URL = "https://receiver.example.org/hook"


@pytest.fixture
def webhook(webhooks: PostgresWebhooks) -> Webhook:
    return webhooks.add(URL, "whsec_", list(OutwardType), "mine")


def waiting(database: Database) -> int:
    with database.shared() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM webhook_delivery")).scalar_one()


def test_what_is_kept(webhooks: PostgresWebhooks, webhook: Webhook) -> None:
    """All but the secret comes back."""
    assert (URL, tuple(OutwardType), "mine", None) == (
        webhook.url,
        webhook.events,
        webhook.description,
        webhook.disabled_at,
    )
    assert [webhook] == webhooks.webhooks()


def test_the_secret_is_kept_sealed(database_url: str, webhooks: PostgresWebhooks) -> None:
    """The same secret twice is two texts in the table, and neither holds it."""
    for _ in range(2):
        webhooks.add(URL, "whsec_c2VjcmV0", list(OutwardType))
    with psycopg.connect(database_url) as connection:
        kept = [row[0] for row in connection.execute("SELECT secret FROM webhook")]

    assert 2 == len(set(kept))
    assert all(one.startswith("sealed1.") and "c2VjcmV0" not in one for one in kept)


def test_without_a_key_none_is_added(database: Database, tenant: TenantId) -> None:
    """The refusal says which setting is missing; what is there can be listed and removed."""
    without = PostgresWebhooks(database, tenant)
    with pytest.raises(ConflictError, match="DSPY_OPT_SECRET_KEY is not set; possible: whoever operates"):
        without.add(URL, "whsec_", list(OutwardType))

    assert [] == without.webhooks()


def in_clear(database_url: str, webhook: Webhook, secret: str = "whsec_b2xk") -> None:
    """Keep its secret as releases before this one did."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE webhook SET secret = %s WHERE webhook_id = %s", [secret, webhook.id])


def secret_of(database_url: str, webhook: Webhook) -> str:
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT secret FROM webhook WHERE webhook_id = %s", [webhook.id]).fetchone()
    assert found is not None
    return str(found[0])


def claimed(database: Database, tenant: TenantId, told: OptimizationId, outbox: PostgresOutbox) -> Claim:
    tell(database, tenant, event_of(told))
    claim = outbox.claim(60.0)
    assert claim is not None
    return claim


def test_clear_ones_still_work_and_are_sealed_when_there_is_a_key(
    database: Database, database_url: str, tenant: TenantId, webhook: Webhook, told: OptimizationId,
    outbox: PostgresOutbox,
) -> None:  # fmt: skip
    """Used without a key as they are; with one, sealed at the first use, and read back the same."""
    in_clear(database_url, webhook)
    claim = claimed(database, tenant, told, outbox)
    first = PostgresOutbox(database).outgoing(claim)
    still = secret_of(database_url, webhook)
    second, third = outbox.outgoing(claim), outbox.outgoing(claim)

    assert "whsec_b2xk" == still
    assert ["whsec_b2xk"] * 3 == [one.secret for one in (first, second, third) if one is not None]
    assert secret_of(database_url, webhook).startswith("sealed1.")


def test_all_clear_ones_are_sealed_at_the_start(
    database: Database, database_url: str, tenant: TenantId, other_tenant: TenantId, webhook: Webhook,
    outbox: PostgresOutbox,
) -> None:  # fmt: skip
    """Those of every tenant that has a key; once; without a key of the installation none."""
    theirs = PostgresWebhooks(database, other_tenant, BOX).add(URL, "whsec_", list(OutwardType))
    PostgresKeys(database).create(other_tenant, AccessRole.VIEWER, "v")
    for one in (webhook, theirs):
        in_clear(database_url, one)

    assert [0, 2, 0] == [PostgresOutbox(database).seal_clear(), outbox.seal_clear(), outbox.seal_clear()]
    assert all(secret_of(database_url, one).startswith("sealed1.") for one in (webhook, theirs))


def test_a_sealed_one_is_of_its_webhook_and_tenant(
    database: Database, database_url: str, tenant: TenantId, webhooks: PostgresWebhooks, webhook: Webhook,
    told: OptimizationId, outbox: PostgresOutbox,
) -> None:  # fmt: skip
    """Written to another row it opens nothing; nor does it under another key, or none, and the message says so."""
    other = webhooks.add(URL, "whsec_", [OutwardType.PAUSED])
    claim = claimed(database, tenant, told, outbox)
    for box, part in ((SecretBox(bytes(32)), "DSPY_OPT_SECRET_KEY: wanted: the key it was"), (None, "it is not set")):
        with pytest.raises(InvalidRequestError, match=part):
            PostgresOutbox(database, box).outgoing(claim)
    in_clear(database_url, webhook, secret_of(database_url, other))
    with pytest.raises(InvalidRequestError, match="changed or moved"):
        outbox.outgoing(claim)


@pytest.mark.parametrize("kind", list(EventType))
def test_which_events_are_addressed(
    database: Database, tenant: TenantId, webhooks: PostgresWebhooks, webhook: Webhook, told: OptimizationId,
    kind: EventType,
) -> None:  # fmt: skip
    """The outward types, to each webhook that wants the type. The trigger and the enum name the same."""
    other = webhooks.add(URL, "whsec_", [OutwardType.PAUSED])
    tell(database, tenant, event_of(told, kind))

    expected = int(kind.value in list(OutwardType))
    assert expected == len(webhooks.deliveries(webhook.id))
    assert int(kind is EventType.OPTIMIZATION_PAUSED) == len(webhooks.deliveries(other.id))


def test_a_change_that_is_undone_tells_nothing(
    database: Database, tenant: TenantId, webhook: Webhook, told: OptimizationId
) -> None:
    """Event and delivery are one transaction."""

    def undone() -> None:
        with database.transaction(tenant) as connection:
            append(connection, [event_of(told)])
            assert 1 == connection.execute(sa.text("SELECT count(*) FROM webhook_delivery")).scalar_one()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        undone()

    assert 0 == waiting(database)


def test_a_fact_told_twice_is_one_delivery(
    database: Database, tenant: TenantId, webhook: Webhook, told: OptimizationId
) -> None:
    """An event whose key is known is dropped, and addressed to nobody."""
    for _ in range(2):
        tell(database, tenant, event_of(told, key="once"))

    assert 1 == waiting(database)


def test_another_tenant_sees_nothing(
    database: Database,
    tenant: TenantId,
    other_tenant: TenantId,
    webhooks: PostgresWebhooks,
    webhook: Webhook,
    told: OptimizationId,
) -> None:
    """Neither webhooks nor deliveries, nor do its events go there; what it asks of them is unknown."""
    tell(database, tenant, event_of(told))
    (delivery,) = webhooks.deliveries(webhook.id)
    theirs = PostgresWebhooks(database, other_tenant)
    tell(database, other_tenant, event_of(add_optimization(database, other_tenant)))

    assert [] == theirs.webhooks()
    assert 1 == waiting(database)
    for look in (
        lambda: theirs.deliveries(webhook.id),
        lambda: theirs.remove(webhook.id),
        lambda: theirs.redeliver(delivery.id),
    ):
        with pytest.raises(NotFoundError):
            look()
    assert [delivery] == webhooks.deliveries(webhook.id)


def test_nothing_is_addressed_for_another_tenant(
    database: Database, tenant: TenantId, other_tenant: TenantId, webhook: Webhook, told: OptimizationId
) -> None:
    """A delivery names an event of its own holder, or is refused."""
    tell(database, tenant, event_of(told))
    forged = sa.text("INSERT INTO webhook_delivery (holder, webhook_id, event_id) VALUES (:holder, :webhook, 1)")
    with pytest.raises(StoreError, match="foreign key"), database.transaction(other_tenant) as connection:
        connection.execute(forged, {"holder": other_tenant, "webhook": webhook.id})


def test_a_webhook_that_is_being_removed_does_not_undo_an_event(
    database: Database, tenant: TenantId, webhook: Webhook, told: OptimizationId, database_url: str
) -> None:
    """The event waits for the removal and is told to nobody."""
    telling = threading.Thread(target=tell, args=[database, tenant, event_of(told)])
    with database.transaction(tenant) as connection:
        connection.execute(sa.text("DELETE FROM webhook"))
        telling.start()
        with psycopg.connect(database_url, autocommit=True) as looking:
            blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while looking.execute(blocked).fetchone() == (0,):
                time.sleep(0.01)
    telling.join()

    with database.transaction(tenant) as connection:
        assert 1 == connection.execute(sa.text("SELECT count(*) FROM event")).scalar_one()
    assert 0 == waiting(database)


def test_what_is_removed_is_gone(
    database: Database, tenant: TenantId, webhooks: PostgresWebhooks, webhook: Webhook, told: OptimizationId
) -> None:
    """With its secret and its deliveries; another look says so."""
    tell(database, tenant, event_of(told))
    webhooks.remove(webhook.id)

    assert ([], 0) == (webhooks.webhooks(), waiting(database))
    with pytest.raises(NotFoundError, match="none yet"):
        webhooks.remove(webhook.id)
    with pytest.raises(NotFoundError, match="none of that id"):
        webhooks.redeliver(uuid4())


def test_pages_of_deliveries(
    database: Database,
    tenant: TenantId,
    webhooks: PostgresWebhooks,
    webhook: Webhook,
    told: OptimizationId,
    outbox: PostgresOutbox,
) -> None:
    """The newest first, none twice, also those of one moment; by state."""
    with database.transaction(tenant) as connection:
        append(connection, [event_of(told) for _ in range(5)])
    claim = outbox.claim(60.0)
    assert claim is not None
    outbox.delivered(claim, 200)
    whole = webhooks.deliveries(webhook.id)
    pages = [whole[:2]]
    while pages[-1]:
        last = pages[-1][-1]
        place = DeliveryPlace(created_at=last.created_at, id=last.id)
        pages.append(webhooks.deliveries(webhook.id, after=place, limit=2))

    assert [2, 2, 1, 0] == [len(page) for page in pages]
    assert whole == [one for page in pages for one in page]
    assert [claim.id] == [one.id for one in webhooks.deliveries(webhook.id, DeliveryState.DELIVERED)]
    assert 4 == len(webhooks.deliveries(webhook.id, DeliveryState.WAITING))


def test_one_that_is_gone_is_not_sent_to_again(
    database: Database,
    tenant: TenantId,
    webhooks: PostgresWebhooks,
    webhook: Webhook,
    told: OptimizationId,
    outbox: PostgresOutbox,
) -> None:
    """A disabled webhook has to be added anew."""
    tell(database, tenant, event_of(told))
    claim = outbox.claim(60.0)
    assert claim is not None
    outbox.gone(claim, "HTTP 410", 410)
    (delivery,) = webhooks.deliveries(webhook.id)

    assert (DeliveryState.DEAD, 410) == (delivery.state, delivery.last_status)
    with pytest.raises(ConflictError, match="add it anew"):
        webhooks.redeliver(delivery.id)


def test_there_is_an_end_to_webhooks(webhooks: PostgresWebhooks) -> None:
    """Each event goes to each of them."""
    for _ in range(MOST_WEBHOOKS):
        webhooks.add(URL, "whsec_", [OutwardType.PAUSED])
    with pytest.raises(ConflictError, match="remove one first"):
        webhooks.add(URL, "whsec_", [OutwardType.PAUSED])


def test_the_end_holds_for_those_who_add_at_once(
    database_url: str, webhooks: PostgresWebhooks, webhook: Webhook
) -> None:
    """Nobody counts while another one's is not committed: of four who come for the last place one gets it."""
    for _ in range(MOST_WEBHOOKS - 2):
        webhooks.add(URL, "whsec_", [OutwardType.PAUSED])

    def added(_: int) -> bool:
        try:
            webhooks.add(URL, "whsec_", [OutwardType.PAUSED])
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        with psycopg.connect(database_url) as connection:
            # Lets them count and nobody write, until all have come.
            connection.execute("LOCK TABLE webhook IN SHARE MODE")
            adding = [pool.submit(added, number) for number in range(4)]
            end = time.monotonic() + 20.0
            while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() != (4,):
                assert time.monotonic() < end
                time.sleep(0.01)
        outcomes = [one.result() for one in adding]

    assert 1 == sum(outcomes)
    assert MOST_WEBHOOKS == len(webhooks.webhooks())
