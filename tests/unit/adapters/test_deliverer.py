"""Deliveries: once more rather than never, whatever breaks, and none that holds up another tenant."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from dspy_optimization.adapters.deliverer import Deliverer, DeliveryTerms, Rota
from dspy_optimization.adapters.egress import Egress, GuardedTransport
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.outbox_store import Claim, Order, Outgoing, PostgresOutbox, Waiting
from dspy_optimization.adapters.postgres.tables import DeliveryState
from dspy_optimization.adapters.postgres.webhook_store import Delivery, OutwardType, PostgresWebhooks, Webhook
from dspy_optimization.adapters.webhooks import Answered, Poster, new_secret, verify
from dspy_optimization.events import EventType
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from webhook_world import BOX, NOON, Received, Receiver, Reply, add_optimization, event_of, tell

QUICK = DeliveryTerms(pauses_seconds=(0.0,) * 6, poll_seconds=0.02)
OTHER_TENANT = TenantId(UUID("00000000-0000-7000-8000-000000000002"))


def poster() -> Poster:
    transport = GuardedTransport(Egress({"127.0.0.1"}), total_seconds=5.0)
    return Poster(transport, now=lambda: datetime.now(UTC))


class World:
    """A tenant with an optimization, and a receiver that knows its webhook's secret."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.webhooks = PostgresWebhooks(database, LOCAL_TENANT, BOX)
        self.outbox = PostgresOutbox(database, BOX)
        self.optimization_id = add_optimization(database, LOCAL_TENANT)
        self.secret = new_secret()

    def add(self, receiver: Receiver) -> Webhook:
        return self.webhooks.add(receiver.url, self.secret, list(OutwardType))

    def tell(self, kind: EventType = EventType.OPTIMIZATION_COMPLETED) -> None:
        tell(self.database, LOCAL_TENANT, event_of(self.optimization_id, kind))

    def deliverer(self, terms: DeliveryTerms = QUICK) -> Deliverer:
        return Deliverer(self.outbox, poster().post, terms=terms, chance=lambda: 1.0)

    def delivery(self, webhook: Webhook) -> Delivery:
        (only,) = self.webhooks.deliveries(webhook.id)
        return only

    def check(self, one: Received) -> None:
        verify(one.headers, one.body, self.secret, datetime.now(UTC))


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


@contextmanager
def at_work(deliverer: Deliverer) -> Iterator[None]:
    deliverer.start()
    try:
        yield
    finally:
        deliverer.stop()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_secret_that_cannot_be_read_is_tried_again(database: Database) -> None:
    """With the key it was sealed with the message goes out; until then it says which setting is the matter."""
    with Receiver() as receiver:
        world = World(database)
        webhook = world.add(receiver)
        world.tell()
        lost = Deliverer(PostgresOutbox(database), poster().post, terms=QUICK, chance=lambda: 0.0)
        assert lost.step()
        (waits,) = world.webhooks.deliveries(webhook.id)
        assert "DSPY_OPT_SECRET_KEY" in (waits.last_error or "")
        assert DeliveryState.WAITING is waits.state
        end = time.monotonic() + 10.0
        while not world.deliverer().step():
            assert time.monotonic() < end
        (done,) = world.webhooks.deliveries(webhook.id)

    assert (DeliveryState.DELIVERED, 1) == (done.state, len(receiver.received))


def test_a_busy_receiver_gets_it_later(world: World) -> None:
    """503, then 200: two attempts under one id, signed each, one delivery."""
    terms = replace(QUICK, pauses_seconds=(0.2,))
    with Receiver(Reply(status=503), Reply()) as receiver:
        webhook = world.add(receiver)
        world.tell()
        deliverer = world.deliverer(terms)
        assert deliverer.step()
        waiting = world.delivery(webhook)
        assert not deliverer.step()
        until(deliverer.step)
        assert not deliverer.step()
        done = world.delivery(webhook)
        for one in receiver.received:
            world.check(one)

    assert (DeliveryState.WAITING, 1, 503, "HTTP 503") == (
        waiting.state,
        waiting.attempts,
        waiting.last_status,
        waiting.last_error,
    )
    assert (DeliveryState.DELIVERED, 2, 200, None) == (done.state, done.attempts, done.last_status, done.last_error)
    assert [done.message_id] * 2 == receiver.ids
    assert f"{world.optimization_id}" == json.loads(receiver.received[0].body)["data"]["optimization_id"]


def test_how_long_it_waits() -> None:
    """5 s, 30 s, 2 min, 10 min, 1 h, 3 h, each up to a fifth longer; then it is dead."""
    terms = DeliveryTerms()

    assert (5, 30, 120, 600, 3600, 10800) == terms.pauses_seconds
    for chance, factor in ((0.0, 1.0), (1.0, 1.2)):
        assert [*(pause * factor for pause in terms.pauses_seconds), None] == [
            terms.pause(attempts, chance) for attempts in range(1, 8)
        ]


def test_the_dead_letter_and_its_second_life(world: World) -> None:
    """Seven attempts, then none; somebody may ask for it again, and it has all its attempts again."""
    replies = [Reply(status=500)] * 8
    with Receiver(*replies, Reply()) as receiver:
        webhook = world.add(receiver)
        world.tell()
        deliverer = world.deliverer()
        attempts = sum(1 for _ in iter(deliverer.step, False))
        dead = world.delivery(webhook)
        world.webhooks.redeliver(dead.id)
        assert [True, True, False] == [deliverer.step() for _ in range(3)]
        done = world.delivery(webhook)

    assert (7, DeliveryState.DEAD, 7, 500) == (attempts, dead.state, dead.attempts, dead.last_status)
    assert (DeliveryState.DELIVERED, 2) == (done.state, done.attempts)
    assert 1 == len(set(receiver.ids))


def test_a_receiver_that_is_gone(world: World) -> None:
    """410 disables the webhook: what waits for it dies unsent, and nothing new is addressed to it."""
    with Receiver(Reply(status=410)) as receiver:
        webhook = world.add(receiver)
        world.tell()
        world.tell(EventType.OPTIMIZATION_FAILED)
        deliverer = world.deliverer()
        assert [True, True, False] == [deliverer.step() for _ in range(3)]
        world.tell(EventType.OPTIMIZATION_PAUSED)
        deliveries = world.webhooks.deliveries(webhook.id)

    assert 1 == len(receiver.received)
    assert [DeliveryState.DEAD] * 2 == [one.state for one in deliveries]
    assert {"HTTP 410: the receiver is gone for good", "the webhook is disabled"} == {
        one.last_error for one in deliveries
    }
    assert world.webhooks.webhooks()[0].disabled_at is not None


def test_deliverers_do_not_meet(world: World) -> None:
    """Many threads of two processes' deliverers: each message is sent to each receiver once."""
    with Receiver(meanwhile=lambda: time.sleep(0.005)) as one, Receiver() as other:
        for receiver in (one, other):
            world.add(receiver)
        for _ in range(15):
            world.tell()
        with at_work(world.deliverer()), at_work(world.deliverer()):
            until(lambda: len(one.received) >= 15 and len(other.received) >= 15)
            time.sleep(0.1)

    for receiver in (one, other):
        assert [1] * 15 == list(Counter(receiver.ids).values())


def test_it_goes_on_when_the_database_was_away(world: World, database_url: str) -> None:
    """A refused look is no end."""
    with Receiver() as receiver, psycopg.connect(database_url, autocommit=True) as connection:
        world.add(receiver)
        world.tell()
        connection.execute("ALTER TABLE webhook_delivery RENAME TO away")
        with at_work(world.deliverer()):
            time.sleep(0.2)
            assert [] == receiver.received
            connection.execute("ALTER TABLE away RENAME TO webhook_delivery")
            until(lambda: bool(receiver.received))


def test_an_attempt_that_never_ends(world: World) -> None:
    """A message that takes its process with it each time is given up in the end."""
    with Receiver() as receiver:
        webhook = world.add(receiver)
        world.tell()
        for _ in range(7):
            assert world.outbox.claim(0.0) is not None
        assert world.deliverer().step()
        dead = world.delivery(webhook)

    assert (DeliveryState.DEAD, "no attempt came to its end") == (dead.state, dead.last_error)
    assert [] == receiver.received


def test_a_webhook_removed_on_the_way(world: World) -> None:
    """Claimed, then removed: nothing is sent."""
    with Receiver() as receiver:
        webhook = world.add(receiver)
        world.tell()
        claim = world.outbox.claim(60.0)
        world.webhooks.remove(webhook.id)

        assert claim is not None
        assert world.outbox.outgoing(claim) is None
        assert not world.deliverer().step()


CHILD = """
import sys
from datetime import UTC, datetime
from dspy_optimization.adapters.deliverer import Deliverer, DeliveryTerms
from dspy_optimization.adapters.egress import Egress, GuardedTransport
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.sealing import SecretBox
from dspy_optimization.adapters.postgres.outbox_store import PostgresOutbox
from dspy_optimization.adapters.webhooks import Poster

with Database.open(sys.argv[1]) as database:
    poster = Poster(GuardedTransport(Egress({"127.0.0.1"})), now=lambda: datetime.now(UTC))
    outbox = PostgresOutbox(database, SecretBox(bytes(range(32))))
    Deliverer(outbox, poster.post, terms=DeliveryTerms(lease_seconds=1.0)).step()
"""


@pytest.mark.crash
def test_killed_between_sending_and_marking(world: World, database_url: str) -> None:
    """The receiver has it, nobody wrote that down: it comes again, under the same id, when the claim has ended."""
    child: list[subprocess.Popen[bytes]] = []

    def kill_once() -> None:
        if child:
            os.kill(child.pop().pid, signal.SIGKILL)

    with Receiver(meanwhile=kill_once) as receiver:
        webhook = world.add(receiver)
        world.tell()
        with subprocess.Popen([sys.executable, "-c", CHILD, database_url]) as process:
            child.append(process)
            killed = process.wait(20.0)
        claimed = world.delivery(webhook)
        until(world.deliverer().step)
        done = world.delivery(webhook)

    assert -signal.SIGKILL == killed
    assert (DeliveryState.WAITING, 1) == (claimed.state, claimed.attempts)
    assert (DeliveryState.DELIVERED, 2) == (done.state, done.attempts)
    assert [done.message_id] * 2 == receiver.ids


def test_a_defect_ends_its_attempt_and_no_more(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised is a failed attempt with its pause, and dead after the last; the log says which it was."""

    def broken(outgoing: Outgoing) -> Answered:
        raise UnicodeError("idna")

    with Receiver() as receiver, caplog.at_level(logging.ERROR):
        webhook = world.add(receiver)
        world.tell()
        deliverer = Deliverer(world.outbox, broken, terms=QUICK)
        assert deliverer.step()
        waits = world.delivery(webhook)
        attempts = 1 + sum(1 for _ in iter(deliverer.step, False))
        dead = world.delivery(webhook)

    assert (DeliveryState.WAITING, 1) == (waits.state, waits.attempts)
    assert "found: a defect of the engine" in (waits.last_error or "")
    assert (DeliveryState.DEAD, 7, 7) == (dead.state, dead.attempts, attempts)
    assert [str(dead.id)] * 7 == [record.delivery for record in caplog.records]
    assert all(record.exc_info is not None for record in caplog.records)


def test_threads_survive_what_nobody_thought_of(world: World) -> None:
    """Neither a message that breaks each thread that sends it nor a claim that breaks ends a delivery thread."""
    claims = threading.Semaphore(4)

    class Breaking(PostgresOutbox):
        def claim(self, lease_seconds: float, order: Order | None = None) -> Claim | None:
            if claims.acquire(blocking=False):
                raise ZeroDivisionError
            return super().claim(lease_seconds, order)

    def post(outgoing: Outgoing) -> Answered:
        if outgoing.url == bad.url:
            raise UnicodeError("idna")
        return poster().post(outgoing)

    with Receiver() as bad, Receiver() as good:
        for _ in range(4):
            world.add(bad)
        world.add(good)
        deliverer = Deliverer(Breaking(world.database, BOX), post, terms=QUICK)
        assert not deliverer.is_whole
        with at_work(deliverer):
            for _ in range(4):
                world.tell()
            until(lambda: len(good.received) == 4)
            assert deliverer.is_whole

    assert [] == bad.received
    assert not deliverer.is_whole


def test_a_tenants_slow_receivers_hold_up_no_other_tenant(world: World, database_url: str) -> None:
    """They take half of the threads, whatever is due; what another tenant is told goes out meanwhile."""
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO tenant (tenant_id, name) VALUES (%s, 'other')", [OTHER_TENANT])
    go_on = threading.Event()
    slow: list[str] = []
    sent: list[str] = []

    def post(outgoing: Outgoing) -> Answered:
        if "slow" not in outgoing.url:
            sent.append(outgoing.url)
            return Answered(status=200)
        slow.append(outgoing.url)
        go_on.wait(20.0)
        return Answered(status=200)

    for number in range(8):
        world.webhooks.add(f"https://slow{number}.example/", world.secret, list(OutwardType))
    theirs = PostgresWebhooks(world.database, OTHER_TENANT, BOX)
    theirs.add("https://quick.example/", world.secret, list(OutwardType))
    told = add_optimization(world.database, OTHER_TENANT)
    for _ in range(3):
        world.tell()
    with at_work(Deliverer(world.outbox, post, terms=QUICK)):
        until(lambda: len(slow) == 2)
        for _ in range(5):
            tell(world.database, OTHER_TENANT, event_of(told))
        until(lambda: len(sent) == 5)
        at_once = len(slow)
        # A removal makes no room for more of them.
        for webhook in world.webhooks.webhooks():
            if webhook.url in slow:
                world.webhooks.remove(webhook.id)
        time.sleep(0.2)
        after = len(slow)
        go_on.set()
        until(lambda: len(slow) == 2 + 6 * 3)

    assert (2, 2) == (at_once, after)


def waiting(tenant: TenantId, webhook: int, seconds: float = 0.0) -> Waiting:
    return Waiting(tenant=tenant, webhook_id=UUID(int=webhook), since=NOON + timedelta(seconds=seconds))


def claim_of(one: Waiting) -> Claim:
    return Claim(id=uuid4(), tenant=one.tenant, webhook_id=one.webhook_id, event_id=1, attempts=1, until=NOON)


def served(rota: Rota, found: list[Waiting], times: int) -> list[Waiting]:
    """Serve whoever is next, so many times, one after the other."""
    chosen = []
    for _ in range(times):
        claim = claim_of(rota.order(found)[0])
        rota.begin(claim)
        rota.end(claim)
        chosen.append(next(one for one in found if one.webhook_id == claim.webhook_id))
    return chosen


def test_tenants_take_turns_and_so_do_their_webhooks() -> None:
    """However much and however long something of one waits; before anybody was served the longest goes first."""
    a, b, c = (TenantId(UUID(int=number)) for number in (1, 2, 3))
    of_a = [waiting(a, number, number) for number in (13, 11, 12)]
    of_b, of_c = [waiting(b, 21, 60)], [waiting(c, 31, 90)]

    assert [13, 21, 31, 11, 21, 31, 12, 21, 31, 13] == [
        one.webhook_id.int for one in served(Rota(2), [*of_a, *of_b, *of_c], 10)
    ]


def test_a_tenant_has_its_share_and_no_more() -> None:
    """As many at once as it may, also when nobody else waits; one that ends makes room for one."""
    tenant, other = TenantId(UUID(int=1)), TenantId(UUID(int=2))
    found = [waiting(tenant, number) for number in range(1, 4)]
    rota, claims = Rota(2), [claim_of(one) for one in found]
    for claim in claims[:2]:
        rota.begin(claim)

    assert [] == rota.order(found)
    assert [other] == [one.tenant for one in rota.order([*found, waiting(other, 9)])]
    rota.end(claims[0])
    assert [3, 1, 2] == [one.webhook_id.int for one in rota.order(found)]


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 1), (4, 2), (5, 2)])
def test_half_of_the_threads_are_a_tenants(threads: int, expected: int) -> None:
    """One at least."""
    assert expected == DeliveryTerms(threads=threads).most_of_a_tenant
