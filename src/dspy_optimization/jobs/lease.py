"""Leases: how workers show that they live, and how the jobs of dead ones find another worker."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from dspy_optimization.errors import StoreError
from dspy_optimization.jobs.job import Lane

WorkerId = NewType("WorkerId", str)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that serves jobs, or only requests."""

    id: WorkerId
    """Of one process: a restarted one has another."""
    host: str
    process_id: int
    lanes: tuple[Lane, ...]
    """What it serves; none: it only takes requests in."""
    version: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker and until when it counts as alive."""

    worker: Worker
    expires_at: datetime
    is_alive: bool
    """By the database's clock."""


class LeaseStore(Protocol):
    """Keeps leases by the database's clock."""

    def beat(self, worker: Worker, lease_seconds: float) -> bool:
        """Extend the lease; False when it had been taken away, for then its jobs may run elsewhere."""
        ...

    def leases(self) -> Sequence[Lease]:
        """Return every lease that was not given up, the newest worker first."""
        ...

    def reaping(self) -> AbstractContextManager[bool]:
        """Yield whether this process may reap now: one at a time does."""
        ...

    def take_away(self, worker: WorkerId) -> None:
        """End the lease and cut the worker's connections: whatever it still holds in the database is free.

        Nothing happens when the worker has extended its lease meanwhile.
        """
        ...

    def give_up(self, worker: WorkerId) -> None:
        """Remove the lease of a worker that ended well."""
        ...


class Claims(Protocol):
    """Who claimed which jobs."""

    def claimants(self) -> Collection[WorkerId]:
        """Return the workers that run jobs, whether they live or not."""
        ...

    def take_back(self, gone: Collection[WorkerId]) -> int:
        """Make every job that these workers run wait again; return how many there were."""
        ...


class LeaseKeeper:
    """Beats for one worker and reaps for all, from a thread of its own.

    After the database was away leases look old, so nobody reaps until a whole lease has passed since it came back: the
    living get the time to show themselves. Away it was when a beat failed, or came so late that others may have missed
    theirs. A process that starts cannot know, and waits as long.
    """

    def __init__(
        self,
        store: LeaseStore,
        claims: Claims,
        worker: Worker,
        *,
        lost: Callable[[], None],
        seconds: Callable[[], float],
        lease_seconds: float = 15.0,
    ) -> None:
        self._store = store
        self._claims = claims
        self._worker = worker
        self._lost = lost
        self._seconds = seconds
        self._lease_seconds = lease_seconds
        self._last_beat: float | None = None
        self._missed = True
        """Whether a beat has failed since the last one that did not."""
        self._reap_after = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def start(self) -> None:
        """Take the lease, then keep it. Raises `StoreError` when the database is away."""
        self.step()
        self._thread.start()

    def stop(self) -> None:
        """Give the lease up."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._store.give_up(self._worker.id)
        except StoreError:
            logger.warning("Lease not given up", extra={"action": "lease_not_given_up", "worker": self._worker.id})

    @property
    def is_fresh(self) -> bool:
        """Whether the lease was extended within its own length."""
        return self._last_beat is not None and self._seconds() - self._last_beat < self._lease_seconds

    def step(self) -> int:
        """Beat once and reap once; return how many jobs were taken back. `StoreError` when the database is away."""
        asked = self._seconds()
        missed, self._missed = self._missed, True
        held = self._store.beat(self._worker, self._lease_seconds)
        answered = self._seconds()
        if not held:
            self._ended.set()
            self._lost()
            return 0
        if missed or self._is_late(answered):
            self._reap_after = answered + self._lease_seconds
        self._last_beat, self._missed = asked, False
        return self._reap() if answered >= self._reap_after else 0

    def _is_late(self, at: float) -> bool:
        return self._last_beat is not None and at - self._last_beat > self._lease_seconds * 2.0 / 3.0

    def _keep(self) -> None:
        while not self._ended.wait(self._lease_seconds / 3.0):
            try:
                self.step()
            except StoreError:
                logger.warning("Lease not extended", extra={"action": "lease_not_extended", "worker": self._worker.id})

    def _reap(self) -> int:
        with self._store.reaping() as mine:
            if not mine:
                return 0
            # Before the leases are read: who claims jobs took a lease first.
            claimants = self._claims.claimants()
            for lease in self._store.leases():
                if not lease.is_alive:
                    logger.warning("Worker is gone", extra={"action": "worker_reaped", "worker": lease.worker.id})
                    self._store.take_away(lease.worker.id)
            # Read again: only who lost its lease for good may lose its jobs.
            holders = {lease.worker.id for lease in self._store.leases()}
            gone = [worker for worker in claimants if worker not in holders]
            return self._claims.take_back(gone) if gone else 0
