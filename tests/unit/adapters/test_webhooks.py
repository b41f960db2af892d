"""Messages: what they say, that they are signed, and what is made of an answer."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from dspy_optimization.adapters.egress import Egress, GuardedTransport
from dspy_optimization.adapters.postgres.outbox_store import Outgoing
from dspy_optimization.adapters.webhooks import CONTENT_TYPE, Answered, Poster, cloud_event, new_secret, sign, verify
from dspy_optimization.errors import InvalidRequestError
from webhook_world import COMPLETED, NOON, Receiver, Reply

ID = UUID("0199c1d2-0000-7000-8000-0000000000aa")


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


def test_the_result_of_an_experiment_has_the_published_fields() -> None:
    """Those and no others; it comes from the experiment, not from the optimization whose log it stands in."""
    data = {
        "experiment_id": "0199c1d2-0000-7000-8000-0000000000e1",
        "optimization_id": str(ID),
        "winner": "optimized",
        "confidence": 0.97,
        "deployment_recommended": True,
        "timestamp": "2026-03-01T12:00:00+00:00",
    }

    found = cloud_event(outgoing(type="experiment.result", data=data))
    assert data == found["data"]
    assert ("/experiments/0199c1d2-0000-7000-8000-0000000000e1", "0199c1d2-0000-7000-8000-0000000000e1") == (
        found["source"],
        found["subject"],
    )


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
        *(
            (
                Reply(status=308, headers={"Location": place}),
                Answered(status=308, error="HTTP 308: redirects are not followed"),
            )
            for place in ("http://xn--0/", "http://[::1/", "https://x:99999/", "//", "\x80")
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
