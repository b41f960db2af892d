"""What becomes of an attempt, and how a process leaves its jobs to others."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from dspy_optimization.errors import StoreError
from dspy_optimization.jobs import worker as module
from dspy_optimization.jobs.job import Job, job_id
from dspy_optimization.jobs.worker import (
    BUSY_DELAY_SECONDS,
    RETRY_DELAYS_SECONDS,
    Attempt,
    Interruption,
    JobWorker,
    LeftToOthers,
    Outcome,
)
from dspy_optimization.tenancy import LOCAL_TENANT

JOB = Job(id=job_id(UUID(int=1), UUID(int=2)), tenant=LOCAL_TENANT, subject=UUID(int=1))


@dataclass(slots=True)
class Handling:
    """Does what it is told and remembers what it was asked."""

    work: Callable[[Interruption], Outcome] = lambda _: Outcome.DONE
    away: int = 0
    """How many more writes fail."""
    again: list[tuple[Job, Outcome]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    carried_out: int = 0

    def carry_out(self, job: Job, interruption: Interruption) -> Outcome:
        self.carried_out += 1
        return self.work(interruption)

    def wait_again(self, job: Job, outcome: Outcome) -> None:
        self._write()
        self.again.append((job, outcome))

    def give_up(self, job: Job, reason: str) -> None:
        self._write()
        self.given_up.append(reason)

    def _write(self) -> None:
        if self.away:
            self.away -= 1
            raise StoreError("away")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORE_DELAY_SECONDS", 0.001)


def _raising(error: Exception) -> Callable[[Interruption], Outcome]:
    def work(_interruption: Interruption) -> Outcome:
        raise error

    return work


def test_what_is_done_is_not_done_again() -> None:
    """No next attempt."""
    handler = Handling()

    assert Attempt(outcome=Outcome.DONE) == JobWorker(handler).attempt(JOB)
    assert ([], []) == (handler.again, handler.given_up)


@pytest.mark.parametrize(
    ("outcome", "delay", "attempt"),
    [
        (Outcome.PASSING, RETRY_DELAYS_SECONDS[0], 2),
        (Outcome.BUSY, BUSY_DELAY_SECONDS, 1),
        (Outcome.INTERRUPTED, 0.0, 1),
    ],
)
def test_what_is_not_done_waits_again(outcome: Outcome, delay: float, attempt: int) -> None:
    """Only what failed counts as an attempt; an interrupted job goes on at once."""
    handler = Handling(work=lambda _: outcome)
    JobWorker(handler).attempt(JOB)
    ((job, told),) = handler.again

    assert (outcome, delay, attempt, 2) == (told, job.delay_seconds, job.attempt, job.number)


def test_a_defect_after_the_job_was_given_to_others_is_theirs_to_speak_of() -> None:
    """Nothing is written about what another process works on by now."""
    handler = Handling()
    worker = JobWorker(handler)

    def work(_interruption: Interruption) -> Outcome:
        worker.abandon()
        raise KeyError("x")

    handler.work = work
    with pytest.raises(LeftToOthers):
        worker.attempt(JOB)

    assert ([], []) == (handler.given_up, handler.again)


def test_the_pauses_grow_and_end() -> None:
    """After the last one a person has to look: nothing is queued, the subject is left so that it can be resumed."""
    handler = Handling(work=_raising(StoreError("gone")))
    worker, job, delays = JobWorker(handler), JOB, []
    while True:
        worker.attempt(job)
        if not handler.again:
            break
        job = handler.again.pop()[0]
        delays.append(job.delay_seconds)

    assert list(RETRY_DELAYS_SECONDS) == delays == sorted(delays)
    assert ["gone"] == handler.given_up


def test_a_defect_gives_one_job_up() -> None:
    """The process goes on with the others; the job says what broke."""
    handler = Handling(work=_raising(KeyError("x")))
    attempt = JobWorker(handler).attempt(JOB)

    assert (Outcome.DONE, "KeyError: 'x'") == (attempt.outcome, attempt.error)
    assert (["KeyError: 'x'"], []) == (handler.given_up, handler.again)


@pytest.mark.parametrize("work", [lambda _: Outcome.PASSING, _raising(KeyError("x"))])
def test_what_came_of_it_is_written_however_long_the_database_is_away(work: Callable[[Interruption], Outcome]) -> None:
    """Five refusals, then it is written once."""
    handler = Handling(work=work, away=5)
    JobWorker(handler).attempt(JOB)

    assert (0, 1) == (handler.away, len(handler.again) + len(handler.given_up))


def test_an_interruption_ends_attempts_and_begins_none() -> None:
    """The running one ends and waits again; one that is claimed afterwards is left alone, not even ended."""
    begun = threading.Event()

    def work(interruption: Interruption) -> Outcome:
        told = threading.Event()
        with interruption.telling(told.set):
            begun.set()
            assert told.wait(10.0)
        return Outcome.INTERRUPTED

    handler = Handling(work=work)
    worker = JobWorker(handler)
    thread = threading.Thread(target=worker.attempt, args=[JOB])
    thread.start()
    begun.wait(10.0)
    running, draining = worker.running, worker.is_draining
    worker.interrupt()
    thread.join(10.0)
    with pytest.raises(LeftToOthers):
        worker.attempt(JOB)

    assert (1, False) == (running, draining)
    assert (0, True, 1, 1) == (worker.running, worker.is_draining, handler.carried_out, len(handler.again))


def test_who_was_taken_for_dead_says_nothing() -> None:
    """The job runs elsewhere by then: neither a next attempt nor an end may be written."""
    handler = Handling()
    worker = JobWorker(handler)

    def work(interruption: Interruption) -> Outcome:
        worker.abandon()
        return Outcome.INTERRUPTED if interruption.is_set else Outcome.DONE

    handler.work = work
    with pytest.raises(LeftToOthers):
        worker.attempt(JOB)

    assert ([], [], 0) == (handler.again, handler.given_up, worker.running)


def test_who_waits_for_the_database_can_be_sent_away() -> None:
    """A process that has to end does not hang on a database that never comes back."""
    handler = Handling(work=lambda _: Outcome.PASSING, away=10**9)
    worker = JobWorker(handler)
    threading.Timer(0.05, worker.abandon).start()

    with pytest.raises(LeftToOthers):
        worker.attempt(JOB)


def test_the_keeper_of_jobs_cannot_write_it_down_as_an_end() -> None:
    """Whoever catches `Exception` around a job does not catch this."""
    assert not issubclass(LeftToOthers, Exception)


def test_an_interruption_tells_late_listeners_at_once_and_each_once() -> None:
    """Who stopped listening is told nothing."""
    interruption, told = Interruption(), []
    with interruption.telling(lambda: told.append("left")):
        pass
    with interruption.telling(lambda: told.append("there")):
        interruption.set()
        interruption.set()
    with interruption.telling(lambda: told.append("late")):
        pass

    assert ["there", "late"] == told


def test_who_wants_to_know_is_told_how_many_run() -> None:
    """Also after an attempt that breaks."""
    told: list[int] = []

    def broken(_: Interruption) -> Outcome:
        raise RuntimeError("a defect")

    for work in (lambda _: Outcome.DONE, broken):
        JobWorker(Handling(work=work), told.append).attempt(JOB)

    assert [1, 0, 1, 0] == told
