"""Delivers what is due to webhooks, for every tenant, so that no tenant's slow receivers hold up another tenant."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from dspy_optimization.adapters.postgres.outbox_store import Claim, Outgoing, PostgresOutbox, Waiting
from dspy_optimization.adapters.webhooks import GONE, Answered
from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.tenancy import TenantId

logger = logging.getLogger(__name__)


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

    @property
    def most_of_a_tenant(self) -> int:
        """How many threads may attempt for one tenant at once: half of them, so that the others find one."""
        return max(self.threads // 2, 1)

    def pause(self, attempts: int, chance: float) -> float | None:
        """Return the seconds after so many failed attempts; None: no more are made. `chance` in [0, 1)."""
        if attempts > len(self.pauses_seconds):
            return None
        return self.pauses_seconds[attempts - 1] * (1.0 + self.jitter * chance)


class _Served(NamedTuple):
    """Which claim, counted from 1, was a tenant's newest, and of which webhook."""

    number: int
    webhook_id: UUID


class Rota:
    """Whom one process delivers for next. Not thread-safe.

    A tenant that has its share of the threads is passed over. Of the others the one goes first that was served least
    recently, and so do a tenant's webhooks, one after the other by their ids. Lost with the process, which harms
    nobody: all begin anew together, whoever waits longest first.
    """

    def __init__(self, most_of_a_tenant: int) -> None:
        self._most = most_of_a_tenant
        self._under_way: Counter[TenantId] = Counter()
        self._served: dict[TenantId, _Served] = {}
        self._claims = 0

    def order(self, waiting: Sequence[Waiting]) -> Sequence[Waiting]:
        """Return those that may be served now, the next one first. `waiting`: the longest first."""
        return sorted((one for one in waiting if self._under_way[one.tenant] < self._most), key=self._rank)

    def begin(self, claim: Claim) -> None:
        """Note that it is attempted."""
        self._claims += 1
        self._under_way[claim.tenant] += 1
        self._served[claim.tenant] = _Served(number=self._claims, webhook_id=claim.webhook_id)

    def end(self, claim: Claim) -> None:
        """Note that it is no more."""
        self._under_way[claim.tenant] -= 1

    def _rank(self, one: Waiting) -> tuple[int, bool, int]:
        served = self._served.get(one.tenant)
        if served is None:
            return 0, False, 0
        return served.number, one.webhook_id <= served.webhook_id, one.webhook_id.int


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
        self._rota = Rota(self._terms.most_of_a_tenant)
        self._choosing = threading.Lock()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._deliver, name=f"webhooks-{number}", daemon=True)
            for number in range(self._terms.threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def is_whole(self) -> bool:
        """Whether each of its threads lives."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, seconds: float = 4.0) -> None:
        """End when the attempts in flight have ended, or after so long; what is left over is sent again elsewhere."""
        self._ended.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(end - time.monotonic(), 0.0))

    def step(self) -> bool:
        """Attempt one delivery that is due; return whether there was one. `StoreError` when the database is away."""
        with self._choosing:
            claim = self._outbox.claim(self._terms.lease_seconds, self._rota.order)
            if claim is None:
                return False
            self._rota.begin(claim)
        try:
            self._attempt(claim)
        except StoreError:
            raise
        except Exception:
            # A defect that one delivery brings to light must not keep the others from going out.
            facts = {"webhook": str(claim.webhook_id), "delivery": str(claim.id)}
            logger.exception("Webhook attempt broke", extra={"action": "webhook_attempt_broke", **facts})
            why = "wanted: an attempt; found: a defect of the engine, which its log shows; possible: it tries again"
            self._mark(claim, Answered(error=why))
        finally:
            with self._choosing:
                self._rota.end(claim)
        return True

    def _attempt(self, claim: Claim) -> None:
        if claim.attempts > len(self._terms.pauses_seconds) + 1:
            self._outbox.failed(claim, "no attempt came to its end", None, None)
            return
        try:
            outgoing = self._outbox.outgoing(claim)
        except InvalidRequestError as error:
            self._mark(claim, Answered(error=str(error)))
            return
        if outgoing is None:
            return
        if outgoing.is_disabled:
            self._outbox.failed(claim, "the webhook is disabled", None, None)
            return
        self._mark(claim, self._post(outgoing))

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
            except Exception:
                # The claim ends by itself; a thread that ended would be missing until the process is started anew.
                logger.exception("Webhooks wait for a defect", extra={"action": "webhooks_broke"})
                is_busy = False
            if not is_busy:
                self._ended.wait(self._terms.poll_seconds)
