"""Leases by a clock that moves when told: beating, reaping, and the time given to the living after an outage."""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from dspy_optimization.errors import StoreError
from dspy_optimization.jobs.lease import Lease, LeaseKeeper, Worker, WorkerId
from dspy_optimization.testing.fixed_clock import FixedClock

SECONDS = 15.0


def _worker(name: str) -> Worker:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return Worker(id=WorkerId(name), host="h", process_id=1, lanes=(), version="1", started_at=began)


@dataclass(slots=True)
class Shelf:
    """A `LeaseStore` and `Claims` in memory, by the same clock; `away` is an outage."""

    clock: FixedClock
    until: dict[Worker, datetime] = field(default_factory=dict)
    ended: set[WorkerId] = field(default_factory=set)
    running: dict[WorkerId, int] = field(default_factory=dict)
    away: bool = False
    reaped_elsewhere: bool = False
    answers_after: float = 0.0
    beats: int = 0
    born_while_reaping: Worker | None = None
    """Takes its lease and its first job in the moment the leases are read."""

    def beat(self, worker: Worker, lease_seconds: float) -> bool:
        self._reach()
        self.beats += 1
        self.clock.sleep(self.answers_after)
        if worker.id in self.ended:
            return False
        self.until[worker] = self.clock.now() + timedelta(seconds=lease_seconds)
        return True

    def leases(self) -> Sequence[Lease]:
        self._reach()
        found = [
            Lease(worker=worker, expires_at=until, is_alive=until > self.clock.now())
            for worker, until in self.until.items()
            if worker.id not in self.ended
        ]
        if self.born_while_reaping is not None:
            self.until[self.born_while_reaping] = self.clock.now() + timedelta(seconds=SECONDS)
            self.running[self.born_while_reaping.id] = 1
        return found

    @contextmanager
    def reaping(self) -> Iterator[bool]:
        yield not self.reaped_elsewhere

    def take_away(self, worker: WorkerId) -> None:
        self.ended.add(worker)

    def give_up(self, worker: WorkerId) -> None:
        self._reach()
        self.until = {one: until for one, until in self.until.items() if one.id != worker}

    def claimants(self) -> Collection[WorkerId]:
        return list(self.running)

    def take_back(self, gone: Collection[WorkerId]) -> int:
        return sum(self.running.pop(worker, 0) for worker in gone)

    def _reach(self) -> None:
        if self.away:
            raise StoreError("away")


@dataclass(slots=True)
class Lost:
    """Counts how often it was called."""

    times: int = 0

    def __call__(self) -> None:
        self.times += 1


def _keeper(shelf: Shelf, name: str = "me", lost: Lost | None = None) -> LeaseKeeper:
    return LeaseKeeper(
        shelf,
        shelf,
        _worker(name),
        lost=lost or Lost(),
        seconds=shelf.clock.seconds,
        lease_seconds=SECONDS,
    )


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(FixedClock())


def _steps(shelf: Shelf, keeper: LeaseKeeper, count: int) -> int:
    """Let so many thirds of a lease pass, each with a step; return how many jobs were taken back."""
    taken = 0
    for _ in range(count):
        shelf.clock.sleep(SECONDS / 3)
        taken += keeper.step()
    return taken


def test_the_jobs_of_the_dead_are_taken_back_and_those_of_the_living_stay(shelf: Shelf) -> None:
    """Dead is who let a whole lease pass; its lease is taken away before its jobs are."""
    me, other, dead = _keeper(shelf), _keeper(shelf, "other"), _keeper(shelf, "dead")
    for keeper in (me, other, dead):
        keeper.step()
    shelf.running = {WorkerId("me"): 1, WorkerId("other"): 2, WorkerId("dead"): 3}
    taken = 0
    for _ in range(4):
        shelf.clock.sleep(SECONDS / 3)
        taken += other.step() + me.step()

    assert 3 == taken
    assert {WorkerId("dead")} == shelf.ended
    assert {WorkerId("me"): 1, WorkerId("other"): 2} == shelf.running


def test_jobs_of_a_worker_without_any_lease_are_taken_back(shelf: Shelf) -> None:
    """It gave its lease up before its jobs had ended."""
    keeper = _keeper(shelf)
    keeper.step()
    shelf.running = {WorkerId("gone"): 2}

    assert 2 == _steps(shelf, keeper, 4)


def test_one_process_reaps_at_a_time(shelf: Shelf) -> None:
    """The others leave it to that one."""
    keeper = _keeper(shelf)
    keeper.step()
    shelf.running, shelf.reaped_elsewhere = {WorkerId("gone"): 2}, True

    assert 0 == _steps(shelf, keeper, 9)


def test_after_an_outage_nobody_reaps_for_one_lease(shelf: Shelf) -> None:
    """All leases look old at first; who lives shows itself within one lease, who is dead does not."""
    me, slow, dead = _keeper(shelf), _keeper(shelf, "slow"), _keeper(shelf, "dead")
    for keeper in (me, slow, dead):
        keeper.step()
    _steps(shelf, me, 1)
    shelf.running = {WorkerId("slow"): 1, WorkerId("dead"): 1}
    shelf.away = True
    for _ in range(20):
        shelf.clock.sleep(SECONDS / 3)
        with pytest.raises(StoreError):
            me.step()
    stale = me.is_fresh
    shelf.away = False
    early = me.step() + _steps(shelf, me, 2)
    slow.step()
    late = _steps(shelf, me, 2)

    assert (False, True) == (stale, me.is_fresh)
    assert (0, 1) == (early, late)
    assert ({WorkerId("dead")}, {WorkerId("slow"): 1}) == (shelf.ended, shelf.running)


def test_an_outage_shorter_than_a_lease_counts_too(shelf: Shelf) -> None:
    """Who had just beaten when it began does not reap who was about to."""
    me, other = _keeper(shelf), _keeper(shelf, "other")
    other.step()
    me.step()
    _steps(shelf, me, 2)
    other.step()
    shelf.running = {WorkerId("other"): 1}
    _steps(shelf, me, 2)
    shelf.away = True
    with pytest.raises(StoreError):
        me.step()
    shelf.away = False
    taken = _steps(shelf, me, 1)
    other.step()

    assert (0, 0, set()) == (taken, _steps(shelf, me, 2), shelf.ended)


def test_an_outage_inside_one_beat_counts_too(shelf: Shelf) -> None:
    """The beat hung for an hour and then went through: the others hung as long."""
    me, other = _keeper(shelf), _keeper(shelf, "other")
    me.step()
    other.step()
    _steps(shelf, me, 2)
    other.step()
    _steps(shelf, me, 1)
    shelf.running, shelf.answers_after = {WorkerId("other"): 1}, 3600.0
    early = me.step()
    shelf.answers_after = 0.0
    other.step()

    assert (0, 0) == (early, _steps(shelf, me, 2))
    assert set() == shelf.ended


def test_who_has_just_started_gives_the_others_a_lease_too(shelf: Shelf) -> None:
    """It may be the first to see the database after an outage."""
    other = _keeper(shelf, "other")
    other.step()
    shelf.running = {WorkerId("other"): 1}
    shelf.clock.sleep(3600.0)
    me = _keeper(shelf)
    early = me.step() + _steps(shelf, me, 2)
    other.step()

    assert (0, 0) == (early, _steps(shelf, me, 2))


def test_who_claims_while_somebody_reaps_keeps_its_job(shelf: Shelf) -> None:
    """A worker that took its lease and its first job after the claims were read is none of the dead."""
    keeper = _keeper(shelf)
    keeper.step()
    shelf.running = {WorkerId("gone"): 1}
    shelf.born_while_reaping = _worker("new")

    assert 1 == _steps(shelf, keeper, 3)
    assert {WorkerId("new"): 1} == shelf.running


def test_who_lost_its_lease_is_told_once_and_touches_nothing(shelf: Shelf) -> None:
    """It neither reaps others nor goes on beating."""
    lost = Lost()
    keeper = LeaseKeeper(
        shelf, shelf, _worker("me"), lost=lost, seconds=shelf.clock.seconds, lease_seconds=SECONDS / 300
    )
    keeper.start()
    shelf.running = {WorkerId("other"): 1}
    shelf.clock.sleep(SECONDS)
    shelf.take_away(WorkerId("me"))
    for _ in range(500):
        if lost.times:
            break
        threading.Event().wait(0.01)
    beats = shelf.beats
    threading.Event().wait(0.1)

    assert (1, beats) == (lost.times, shelf.beats)
    assert {WorkerId("other"): 1} == shelf.running
    keeper.stop()


def test_the_thread_outlives_outages_and_gives_the_lease_up(shelf: Shelf) -> None:
    """It beats again once the database is back; at the end its lease is gone, or left to expire without an error."""
    keeper = LeaseKeeper(
        shelf, shelf, _worker("me"), lost=Lost(), seconds=shelf.clock.seconds, lease_seconds=SECONDS / 300
    )
    keeper.start()
    shelf.away = True
    threading.Event().wait(0.1)
    beats = shelf.beats
    shelf.away = False
    for _ in range(500):
        if shelf.beats > beats:
            break
        threading.Event().wait(0.01)
    grown = shelf.beats > beats
    shelf.away = True
    keeper.stop()
    left = len(shelf.until)
    shelf.away = False
    keeper.stop()

    assert grown
    assert (1, 0) == (left, len(shelf.until))


def test_no_lease_is_no_start(shelf: Shelf) -> None:
    """A worker that cannot show itself claims nothing."""
    shelf.away = True
    keeper = _keeper(shelf)

    with pytest.raises(StoreError):
        keeper.start()
    assert not keeper.is_fresh
