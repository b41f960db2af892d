"""How many jobs each of several worker processes runs at once."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from dspy_optimization.adapters.dbos import DbosQueue, QueueTerms, migrate_queue
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.jobs.job import Job, Lane, job_id
from dspy_optimization.jobs.queue import LaneTerms
from dspy_optimization.tenancy import LOCAL_TENANT

pytestmark = pytest.mark.xdist_group("dbos")

SECONDS = 30.0
TWO_LOOKS_SECONDS = 1.3
"""A worker looks for jobs every half second."""


@dataclass(frozen=True, slots=True)
class Child:
    """A worker in a process of its own."""

    process: "subprocess.Popen[str]"

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert "ready" == self.process.stdout.readline().strip()

    def let_go(self) -> int:
        """End what it holds; return how many jobs it held at most at once since the last time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("let go\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def queue(database: Database, database_url: str) -> Iterator[DbosQueue]:
    migrate_queue(database_url)
    made = DbosQueue(database_url, database, QueueTerms(bound=99, concurrency=dict.fromkeys(Lane, 3)))
    yield made
    made.close()


@pytest.fixture
def start(database_url: str) -> Iterator[Callable[[str], Child]]:
    """Start a worker that states three at once in all, two in each worker."""
    with ExitStack() as ends:

        def begin(name: str) -> Child:
            command = [sys.executable, str(Path(__file__).with_name("queue_child.py")), database_url, name, "3", "2"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            ends.enter_context(process)
            ends.callback(process.kill)
            return Child(process)

        yield begin


def _settled(queue: DbosQueue, wanted: dict[str, int]) -> dict[str, int]:
    """Return worker → how many jobs it runs, once it is as wanted and two looks for more have found none."""
    until = time.monotonic() + SECONDS
    while queue.claimed_by() != wanted and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(TWO_LOOKS_SECONDS)
    return dict(queue.claimed_by())


def test_no_worker_runs_more_than_its_number_and_together_they_run_as_many_as_the_lane(
    queue: DbosQueue, database: Database, start: Callable[[str], Child]
) -> None:
    """Whoever comes first leaves work to others; more, fewer and any number while they run, without a restart."""
    with database.transaction(LOCAL_TENANT) as connection:
        for _ in range(16):
            subject = uuid4()
            queue.submit(Job(id=job_id(subject, uuid4()), tenant=LOCAL_TENANT, subject=subject), connection)
    first, second = start("first"), start("second")
    first.ready()
    second.ready()
    until = time.monotonic() + SECONDS
    while sum(queue.claimed_by().values()) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(TWO_LOOKS_SECONDS)
    of_three = sorted(queue.claimed_by().values())
    queue.change_terms(Lane.CPU, lambda _: LaneTerms(concurrency=8, worker_concurrency=3))
    more = _settled(queue, {"first": 3, "second": 3})
    queue.change_terms(Lane.CPU, lambda in_force: replace(in_force, worker_concurrency=1))
    what_ran = _settled(queue, {"first": 3, "second": 3})
    until_then = [first.let_go(), second.let_go()]
    fewer = _settled(queue, {"first": 1, "second": 1})
    since = [first.let_go(), second.let_go()]
    queue.change_terms(Lane.CPU, lambda in_force: replace(in_force, worker_concurrency=None))
    while sum(queue.claimed_by().values()) < 8 and time.monotonic() < until + SECONDS:
        time.sleep(0.05)
    any_number = sum(queue.claimed_by().values())

    assert [1, 2] == of_three
    assert {"first": 3, "second": 3} == more == what_ran
    assert [3, 3] == until_then
    assert {"first": 1, "second": 1} == fewer
    assert [1, 1] == since
    assert 8 == any_number
