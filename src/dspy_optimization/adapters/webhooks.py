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
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import httpx

from dspy_optimization.adapters.egress import GuardedTransport
from dspy_optimization.adapters.postgres.webhook_store import Claim, Outgoing, OutwardType, PostgresOutbox
from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.events import Json

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES = 32
MOST_ANSWER_BYTES = 4096
"""So much of an answer is read, and none of it is shown to anybody."""
GONE = 410

_COMPLETED = ("improvement_percentage", "algorithm_used", "statistical_significance")
logger = logging.getLogger(__name__)


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
    return {
        "specversion": "1.0",
        "id": outgoing.message_id,
        "source": f"/optimizations/{outgoing.optimization_id}",
        "type": outgoing.type,
        "subject": str(outgoing.optimization_id),
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
            "content-type": CONTENT_TYPE,
            "user-agent": self._agent,
            "webhook-id": outgoing.message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(outgoing.secret, outgoing.message_id, stamp, body),
        }
        # A client a message: cookies of one receiver are nobody else's.
        with (
            httpx.Client(transport=self._transport, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", outgoing.url, content=body, headers=headers) as response,
        ):
            taken = 0
            for piece in response.iter_raw(MOST_ANSWER_BYTES):
                taken += len(piece)
                if taken >= MOST_ANSWER_BYTES:
                    break
            return response.status_code


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTerms:
    """How often and how patiently."""

    pauses_seconds: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0)
    """After each failed attempt; after the attempt that follows the last one it is dead."""
    jitter: float = 0.2
    """A pause is longer by up to this share, so that what failed together does not come back together."""
    lease_seconds: float = 60.0
    """How long one attempt may take; after that another deliverer takes it for lost."""
    poll_seconds: float = 1.0
    threads: int = 4

    def pause(self, attempts: int, chance: float) -> float | None:
        """Return the seconds after so many failed attempts; None: no more are made. `chance` in [0, 1)."""
        if attempts > len(self.pauses_seconds):
            return None
        return self.pauses_seconds[attempts - 1] * (1.0 + self.jitter * chance)


class Deliverer:
    """Delivers what is due, for every tenant, from threads of its own.

    An attempt is claimed, sent, marked. Who dies in between leaves a claim that ends by itself, and the message is sent
    again under the same id.
    """

    def __init__(
        self,
        outbox: PostgresOutbox,
        post: Callable[[Outgoing], Answered],
        *,
        terms: DeliveryTerms | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._post = post
        self._terms = DeliveryTerms() if terms is None else terms
        self._chance = chance
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._deliver, name=f"webhooks-{number}", daemon=True)
            for number in range(self._terms.threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 4.0) -> None:
        """End when the attempts in flight have ended, or after so long; what is left over is sent again elsewhere."""
        self._ended.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(end - time.monotonic(), 0.0))

    def step(self) -> bool:
        """Attempt one delivery that is due; return whether there was one. `StoreError` when the database is away."""
        claim = self._outbox.claim(self._terms.lease_seconds)
        if claim is None:
            return False
        if claim.attempts > len(self._terms.pauses_seconds) + 1:
            self._outbox.failed(claim, "no attempt came to its end", None, None)
            return True
        try:
            outgoing = self._outbox.outgoing(claim)
        except InvalidRequestError as error:
            self._mark(claim, Answered(error=str(error)))
            return True
        if outgoing is None:
            return True
        if outgoing.is_disabled:
            self._outbox.failed(claim, "the webhook is disabled", None, None)
            return True
        self._mark(claim, self._post(outgoing))
        return True

    def _mark(self, claim: Claim, answered: Answered) -> None:
        facts = {"webhook": str(claim.webhook_id), "delivery": str(claim.id), "status": answered.status}
        if answered.error is None and answered.status is not None:
            self._outbox.delivered(claim, answered.status)
            logger.info("Webhook delivered", extra={"action": "webhook_delivered", **facts})
            return
        error = answered.error or "no answer"
        logger.warning("Webhook not delivered", extra={"action": "webhook_not_delivered", "error": error, **facts})
        if answered.status == GONE:
            self._outbox.gone(claim, error, GONE)
        else:
            pause = self._terms.pause(claim.attempts, self._chance())
            self._outbox.failed(claim, error, answered.status, pause)

    def _deliver(self) -> None:
        while not self._ended.is_set():
            try:
                is_busy = self.step()
            except StoreError as error:
                logger.warning("Webhooks wait", extra={"action": "webhooks_wait", "error": str(error)})
                is_busy = False
            if not is_busy:
                self._ended.wait(self._terms.poll_seconds)


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
