"""Events told to receivers: CloudEvents 1.0, signed as Standard Webhooks says, at least once.

    webhook-id: 0199…_17                      the same at every attempt: a receiver that knows it has had it
    webhook-timestamp: 1772366400             seconds since 1970, of this attempt
    webhook-signature: v1,<base64>            HMAC-SHA256 of "id.timestamp.body" under the secret; several with spaces

Source: https://cloudevents.io (structured mode, JSON format), https://www.standardwebhooks.com.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import httpx

from dspy_optimization.adapters.egress import GuardedTransport
from dspy_optimization.adapters.postgres.outbox_store import Outgoing
from dspy_optimization.adapters.postgres.webhook_store import OutwardType
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES = 32
MOST_ANSWER_BYTES = 4096
"""So much of an answer is read, and none of it is shown to anybody."""
GONE = 410

_EXPERIMENTS = frozenset({OutwardType.EXPERIMENT_RESULT, OutwardType.EXPERIMENT_ALERT})
_COMPLETED = ("improvement_percentage", "algorithm_used", "statistical_significance")


def new_secret() -> str:
    """Return a secret to sign with."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature. Raises `InvalidRequestError` for a secret of another form."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def verify(
    headers: Mapping[str, str], body: bytes, secret: str, now: datetime, tolerance_seconds: float = 300.0
) -> None:
    """Raise `InvalidRequestError` unless the message is from whoever has the secret, whole and recent.

    Args:
        headers: of the request, names in any case.
        body: as it came, unparsed.
        secret: as it was shown when the webhook was added.
        now: aware.
        tolerance_seconds: how far the clocks may differ; older messages may be somebody's recording.
    """
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not given.get(name)]
    if missing:
        raise InvalidRequestError(
            f"wanted: a signed message; found: no {', '.join(missing)}; possible: pass the headers of the request on"
        )
    stamp = given["webhook-timestamp"]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        raise InvalidRequestError(f"wanted: seconds since 1970 in webhook-timestamp; found: {stamp[:20]!r}")
    if abs(now.timestamp() - int(stamp)) > tolerance_seconds:
        raise InvalidRequestError(
            f"wanted: a message within {tolerance_seconds:g} s of {now:%Y-%m-%dT%H:%M:%S%z}; found: one of {stamp}; "
            "possible: refuse it; or set the clock of this machine"
        )
    expected = sign(secret, given["webhook-id"], int(stamp), body).encode()
    matching = [hmac.compare_digest(expected, one.encode()) for one in given["webhook-signature"].split(" ")]
    if not any(matching):
        raise InvalidRequestError(
            "wanted: a signature under this secret; found: another; possible: refuse it; or check the secret, and that "
            "the body is verified as it came"
        )


def cloud_event(outgoing: Outgoing) -> dict[str, Json]:
    """Return the event as CloudEvents says it."""
    at = outgoing.at.isoformat()
    data: dict[str, Json] = {"optimization_id": str(outgoing.optimization_id)}
    if outgoing.type == OutwardType.COMPLETED:
        # Published as an interface: these are there whatever the event holds.
        data |= dict.fromkeys(_COMPLETED)
    data |= {**outgoing.data, "timestamp": at}
    of, subject = "optimizations", str(outgoing.optimization_id)
    if outgoing.type in _EXPERIMENTS:
        of, subject = "experiments", str(outgoing.data["experiment_id"])
    return {
        "specversion": "1.0",
        "id": outgoing.message_id,
        "source": f"/{of}/{subject}",
        "type": outgoing.type,
        "subject": subject,
        "time": at,
        "datacontenttype": "application/json",
        "data": data,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of one attempt; says nothing that the receiver wrote."""

    status: int | None = None
    """None: there was no answer."""
    error: str | None = None
    """None: it was taken."""


class Poster:
    """Sends one message, once. Thread-safe."""

    def __init__(self, transport: GuardedTransport, *, now: Callable[[], datetime]) -> None:
        self._transport = transport
        self._now = now
        self._agent = f"dspy-optimization/{version('dspy-optimization')}"

    def post(self, outgoing: Outgoing) -> Answered:
        """Return what came of it; no answer and a refused address too."""
        try:
            return _read(self._send(outgoing))
        except InvalidRequestError as error:
            return Answered(error=str(error))
        except httpx.TimeoutException:
            return Answered(error="no whole answer in time")
        except httpx.NetworkError as error:
            return Answered(error=f"cannot be reached: {error}"[:300])
        except (httpx.HTTPError, httpx.InvalidURL):
            # What the library says of it quotes the answer.
            return Answered(error="the answer is no HTTP")

    def _send(self, outgoing: Outgoing) -> int:
        # Half surrogates that a model wrote are ASCII this way.
        body = json.dumps(cloud_event(outgoing), allow_nan=False, separators=(",", ":")).encode("ascii")
        stamp = int(self._now().timestamp())
        headers = {
            "accept": "*/*",
            "content-type": CONTENT_TYPE,
            "user-agent": self._agent,
            "webhook-id": outgoing.message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(outgoing.secret, outgoing.message_id, stamp, body),
        }
        # Without a client, which keeps cookies and reads where redirects lead even when it follows none.
        request = httpx.Request("POST", outgoing.url, content=body, headers=headers)
        with closing(self._transport.handle_request(request)) as response:
            taken = 0
            for piece in response.iter_raw(MOST_ANSWER_BYTES):
                taken += len(piece)
                if taken >= MOST_ANSWER_BYTES:
                    break
            return response.status_code


def _read(status: int) -> Answered:
    if 200 <= status < 300:
        return Answered(status=status)
    if status == GONE:
        return Answered(status=status, error="HTTP 410: the receiver is gone for good")
    if 300 <= status < 400:
        return Answered(status=status, error=f"HTTP {status}: redirects are not followed")
    return Answered(status=status, error=f"HTTP {status}")


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(
            f"wanted: a secret like {SECRET_PREFIX}<base64>; found: another text; possible: the one that was shown "
            "when the webhook was added"
        ) from error
