"""The outbox: what is due is claimed by one at a time, and nothing else of the same webhook meanwhile."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.outbox_store import Claim, PostgresOutbox, Waiting
from dspy_optimization.adapters.postgres.tables import DeliveryState
from dspy_optimization.adapters.postgres.webhook_store import OutwardType, PostgresWebhooks, Webhook
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType
from dspy_optimization.tenancy import TenantId
from webhook_world import event_of, tell

URL = "https://receiver.example.org/hook"


@pytest.fixture
def webhook(webhooks: PostgresWebhooks) -> Webhook:
    return webhooks.add(URL, "whsec_", list(OutwardType))


def test_a_claim_is_one_deliverers(
    database: Database, tenant: TenantId, webhook: Webhook, told: OptimizationId, outbox: PostgresOutbox
) -> None:
    """Nobody else has it before the lease is over; afterwards the first one is not heard any more."""
    tell(database, tenant, event_of(told))
    first = outbox.claim(60.0)
    assert first is not None
    assert outbox.claim(60.0) is None
    with database.shared() as connection:
        connection.execute(sa.text("UPDATE webhook_delivery SET claimed_until = now() - interval '1 second'"))
    second = outbox.claim(60.0)
    assert second is not None
    outbox.failed(first, "too late", None, None)
    outbox.delivered(second, 200)

    (delivery,) = PostgresWebhooks(database, tenant).deliveries(webhook.id)
    assert (first.id, 1, 2) == (second.id, first.attempts, second.attempts)
    assert (DeliveryState.DELIVERED, None) == (delivery.state, delivery.last_error)


def test_a_webhook_gets_one_at_a_time(
    database: Database,
    tenant: TenantId,
    webhooks: PostgresWebhooks,
    webhook: Webhook,
    told: OptimizationId,
    outbox: PostgresOutbox,
) -> None:
    """The oldest first; a webhook that is slow keeps no other waiting."""
    other = webhooks.add(URL, "whsec_", [OutwardType.FAILED])
    tell(database, tenant, event_of(told))
    tell(database, tenant, event_of(told, EventType.OPTIMIZATION_FAILED))
    claims = [outbox.claim(60.0) for _ in range(3)]

    assert [webhook.id, other.id, None] == [one and one.webhook_id for one in claims]
    assert claims[0] is not None
    outgoing = outbox.outgoing(claims[0])
    assert outgoing is not None
    assert (URL, "optimization.completed", 12.5) == (
        outgoing.url,
        outgoing.type,
        outgoing.data["improvement_percentage"],
    )


def test_a_row_that_is_being_claimed_is_passed_over(
    database: Database, tenant: TenantId, webhook: Webhook, told: OptimizationId, outbox: PostgresOutbox
) -> None:
    """Claiming waits for nobody."""
    tell(database, tenant, event_of(told))
    with database.shared() as connection:
        connection.execute(sa.text("SELECT 1 FROM webhook_delivery FOR UPDATE"))

        assert outbox.claim(60.0) is None


def test_four_who_come_at_once_get_one_of_a_webhook(
    database: Database, tenant: TenantId, webhook: Webhook, told: OptimizationId, outbox: PostgresOutbox
) -> None:
    """However many are due, in twenty rounds."""
    for _ in range(4):
        tell(database, tenant, event_of(told))
    anew = sa.text("UPDATE webhook_delivery SET claimed_until = NULL, attempts = 0")
    together = threading.Barrier(4)

    def claim(_: int) -> Claim | None:
        together.wait()
        return outbox.claim(60.0)

    counts = []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            counts.append(sum(one is not None for one in pool.map(claim, range(4))))
            with database.shared() as connection:
                connection.execute(anew)

    assert [1] * 20 == counts


def test_what_was_seen_waiting_may_be_somebody_elses_meanwhile(
    database: Database, tenant: TenantId, webhooks: PostgresWebhooks, webhook: Webhook, told: OptimizationId,
    outbox: PostgresOutbox,
) -> None:  # fmt: skip
    """Between the look and the claim another one takes it: the next of those that wait is claimed, or none."""
    for _ in range(2):
        tell(database, tenant, event_of(told))
    faster: list[Claim | None] = []

    def overtaken(found: Sequence[Waiting]) -> Sequence[Waiting]:
        faster.append(outbox.claim(60.0))
        return found

    assert outbox.claim(60.0, overtaken) is None
    other = webhooks.add(URL, "whsec_", list(OutwardType))
    for _ in range(2):
        tell(database, tenant, event_of(told))
    claim = outbox.claim(60.0)

    assert [webhook.id] == [one and one.webhook_id for one in faster]
    assert claim is not None
    assert other.id == claim.webhook_id


def test_who_claims_says_in_which_order(
    database: Database, tenant: TenantId, webhooks: PostgresWebhooks, webhook: Webhook, told: OptimizationId,
    outbox: PostgresOutbox,
) -> None:  # fmt: skip
    """Of those that wait, the longest first, one is chosen, or none although some wait."""
    other = webhooks.add(URL, "whsec_", [OutwardType.COMPLETED])
    tell(database, tenant, event_of(told, EventType.OPTIMIZATION_FAILED))
    tell(database, tenant, event_of(told))
    seen: list[Waiting] = []

    def backwards(found: Sequence[Waiting]) -> Sequence[Waiting]:
        seen.extend(found)
        return found[::-1]

    assert outbox.claim(60.0, lambda _: ()) is None
    claim = outbox.claim(60.0, backwards)

    assert claim is not None
    assert other.id == claim.webhook_id
    assert [webhook.id, other.id] == [one.webhook_id for one in seen]
    assert {tenant} == {one.tenant for one in seen}
    assert seen[0].since < seen[1].since
