"""Messages: what they say, that they are signed, and that they arrive once more rather than never."""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from dspy_optimization.adapters.egress import Egress, GuardedTransport
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.tables import DeliveryState
from dspy_optimization.adapters.postgres.webhook_store import (
    Delivery,
    Outgoing,
    OutwardType,
    PostgresOutbox,
    PostgresWebhooks,
    Webhook,
)
from dspy_optimization.adapters.webhooks import (
    CONTENT_TYPE,
    Answered,
    Deliverer,
    DeliveryTerms,
    Poster,
    cloud_event,
    new_secret,
    sign,
    verify,
)
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import EventType
from dspy_optimization.tenancy import LOCAL_TENANT
from webhook_world import BOX, COMPLETED, NOON, Received, Receiver, Reply, add_optimization, event_of, tell

ID = UUID("0199c1d2-0000-7000-8000-0000000000aa")
QUICK = DeliveryTerms(pauses_seconds=(0.0,) * 6, poll_seconds=0.02)


def outgoing(url: str = "https://receiver.example.org", **changes: object) -> Outgoing:
    values: Mapping[str, object] = {
        "url": url,
        "secret": "whsec_" + base64.b64encode(b"k" * 24).decode(),
        "is_disabled": False,
        "event_id": 17,
        "type": "optimization.completed",
        "optimization_id": ID,
        "at": NOON,
        "data": COMPLETED,
    }
    return Outgoing(**{**values, **changes})


def poster(now: Callable[[], datetime] = lambda: NOON, total_seconds: float = 5.0) -> Poster:
    return Poster(GuardedTransport(Egress({"127.0.0.1"}), total_seconds=total_seconds), now=now)


def test_what_a_message_says() -> None:
    """CloudEvents 1.0, structured mode; data has the published fields and what the event says besides."""
    assert {
        "specversion": "1.0",
        "id": f"{ID}_17",
        "source": f"/optimizations/{ID}",
        "type": "optimization.completed",
        "subject": str(ID),
        "time": "2026-03-01T12:00:00+00:00",
        "datacontenttype": "application/json",
        "data": {
            "optimization_id": str(ID),
            "improvement_percentage": 12.5,
            "algorithm_used": "gepa",
            "statistical_significance": 0.01,
            "timestamp": "2026-03-01T12:00:00+00:00",
            "verdict": "improved",
            "ended_because": "finished",
            "lm_calls": 300,
            "cost_usd": 0.25,
        },
    } == cloud_event(outgoing())


def test_the_published_fields_are_always_there() -> None:
    """Those of completed, null where nothing can be said; other types say what their event says."""
    completed = cloud_event(outgoing(data={}))["data"]
    failed = cloud_event(outgoing(type="optimization.failed", data={"error": "e", "error_type": "ModelError"}))["data"]

    assert isinstance(completed, dict)
    assert isinstance(failed, dict)
    assert {"improvement_percentage", "algorithm_used", "statistical_significance", "optimization_id", "timestamp"} == (
        set(completed)
    )
    assert {"optimization_id", "timestamp", "error", "error_type"} == set(failed)


def test_a_signature_is_the_one_of_the_standard() -> None:
    """The published example of Standard Webhooks (its libraries' test vector)."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == sign(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body
    )


def test_new_secrets() -> None:
    """24 random bytes or more, each time others."""
    one, other = new_secret(), new_secret()

    assert one.startswith("whsec_")
    assert 32 == len(base64.b64decode(one.removeprefix("whsec_")))
    assert one != other


def signed(body: bytes = b"{}", at: datetime = NOON) -> dict[str, str]:
    stamp = int(at.timestamp())
    return {
        "Webhook-Id": "a_1",
        "Webhook-Timestamp": str(stamp),
        "Webhook-Signature": sign(outgoing().secret, "a_1", stamp, body),
    }


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        (signed(), b"{ }", "found: another"),
        ({**signed(), "Webhook-Id": "a_2"}, b"{}", "found: another"),
        ({**signed(), "Webhook-Timestamp": str(int(NOON.timestamp()) + 1)}, b"{}", "found: another"),
        ({**signed(), "Webhook-Signature": "v1,AAAA é"}, b"{}", "found: another"),
        ({**signed(), "Webhook-Signature": signed()["Webhook-Signature"].replace("v1,", "v2,")}, b"{}", "another"),
        (signed(at=NOON - timedelta(seconds=301)), b"{}", "within 300 s"),
        (signed(at=NOON + timedelta(seconds=301)), b"{}", "within 300 s"),
        ({**signed(), "Webhook-Timestamp": "-1"}, b"{}", "seconds since 1970"),
        ({**signed(), "Webhook-Timestamp": "²"}, b"{}", "seconds since 1970"),
        ({**signed(), "Webhook-Signature": ""}, b"{}", "no webhook-signature"),
        ({}, b"{}", "no webhook-id, webhook-timestamp, webhook-signature"),
    ],
)
def test_what_is_not_ours_is_refused(headers: Mapping[str, str], body: bytes, said: str) -> None:
    """Changed, forged, recorded or unsigned."""
    with pytest.raises(InvalidRequestError, match=said):
        verify(headers, body, outgoing().secret, NOON)


def test_several_signatures() -> None:
    """While secrets are changed a message may be signed twice; one that fits is enough."""
    headers = signed()
    headers["Webhook-Signature"] = f"v1,{base64.b64encode(b'x' * 32).decode()} {headers['Webhook-Signature']}"

    verify(headers, b"{}", outgoing().secret, NOON + timedelta(seconds=299))
    with pytest.raises(InvalidRequestError, match=r"wanted: a secret like whsec_"):
        verify(headers, b"{}", "whsec_?", NOON)


def test_what_arrives() -> None:
    """A POST whose headers sign its body; the secret is not in it."""
    with Receiver() as receiver:
        assert Answered(status=200) == poster().post(outgoing(receiver.url))
    one = receiver.received[0]
    key = base64.b64decode(outgoing().secret.removeprefix("whsec_"))
    expected = hmac.digest(key, f"{ID}_17.1772366400.".encode() + one.body, hashlib.sha256)

    assert f"v1,{base64.b64encode(expected).decode()}" == one.headers["webhook-signature"]
    assert ("/hook", CONTENT_TYPE) == (one.path, one.headers["content-type"])
    assert cloud_event(outgoing()) == json.loads(one.body)
    verify(one.headers, one.body, outgoing().secret, NOON)


def test_text_that_is_no_text() -> None:
    """Half a surrogate pair, NUL: the body stays JSON."""
    data = {"error": "\ud800 \x00 é"}
    with Receiver() as receiver:
        poster().post(outgoing(receiver.url, type="optimization.failed", data=data))

    assert data["error"] == json.loads(receiver.received[0].body)["data"]["error"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=204), Answered(status=204)),
        (Reply(status=503, content=b"inside"), Answered(status=503, error="HTTP 503")),
        (
            Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
            Answered(status=302, error="HTTP 302: redirects are not followed"),
        ),
        (Reply(status=410), Answered(status=410, error="HTTP 410: the receiver is gone for good")),
        (Reply(is_http=False, content=b"inside\r\n\r\n"), Answered(error="the answer is no HTTP")),
        (Reply(drip_seconds=0.05), Answered(error="no whole answer in time")),
        (Reply(content=b"x" * 3_000_000), Answered(status=200)),
    ],
)
def test_what_is_made_of_an_answer(reply: Reply, expected: Answered) -> None:
    """Only 2xx is a delivery, and nothing of the body is kept."""
    with Receiver(reply) as receiver:
        assert expected == poster(total_seconds=0.5).post(outgoing(receiver.url))


def test_receivers_that_are_not_there() -> None:
    """Nobody listens, or the address may not be asked any more."""
    with Receiver() as receiver:
        url = receiver.url

    assert "cannot be reached" in (poster().post(outgoing(url)).error or "")
    assert "not public" in (poster().post(outgoing("https://10.0.0.1/")).error or "")
    assert "wanted: a secret like" in (poster().post(outgoing(url, secret="whsec_?")).error or "")


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
        return Deliverer(self.outbox, poster(lambda: datetime.now(UTC)).post, terms=terms, chance=lambda: 1.0)

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
from dspy_optimization.adapters.egress import Egress, GuardedTransport
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.sealing import SecretBox
from dspy_optimization.adapters.postgres.webhook_store import PostgresOutbox
from dspy_optimization.adapters.webhooks import Deliverer, DeliveryTerms, Poster

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


def test_what_the_documentation_shows() -> None:
    """Its receiver takes a message of now; its example is a message as they are."""
    text = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (example,) = re.findall(r"```json\n(.*?)```", text, re.S)
    shown: dict[str, Callable[..., None]] = {}
    exec(code, shown)
    with Receiver() as receiver:
        poster(lambda: datetime.now(UTC)).post(outgoing(receiver.url))
    (one,) = receiver.received

    shown["receive"](dict(one.headers), one.body, outgoing().secret)
    assert json.loads(one.body) == json.loads(example)
