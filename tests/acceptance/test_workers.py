"""Workers that are sent away: everything ends once, as it would have, and costs what it would have."""

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crash_world import AGENT, ALGORITHMS, CONCURRENCY, World, evidence, words
from forked import SERVES, Forked, begin

from dspy_optimization.adapters.dbos import DbosQueue, QueueTerms, migrate_queue
from dspy_optimization.adapters.postgres import PostgresLeases
from dspy_optimization.agents.objective import Objective
from dspy_optimization.bootstrap import open_foundation
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import EventType
from dspy_optimization.jobs.job import Lane
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationStatus
from dspy_optimization.tenancy import LOCAL_TENANT
from dspy_optimization.testing.model_server import Received, Reply

pytestmark = pytest.mark.crash

ALGORITHM = "bootstrap_fewshot"
AT_ONCE = 3
PATIENCE_SECONDS = 240.0
"""Bounds a hang; on an idle machine the whole takes a minute."""
_SERVING = re.compile(rf"{SERVES} (\S+)\n")


@dataclass(slots=True)
class Yard:
    """Worker processes that share a world."""

    world: World
    workers: list[Forked] = field(default_factory=list)

    def start(self) -> Forked:
        process = begin(
            "work",
            environment=self.world.environment(MAX_CONCURRENT_OPTIMIZATIONS=str(AT_ONCE)),
            log=self._log(len(self.workers)),
        )
        self.workers.append(process)
        return process

    def ready(self, process: Forked) -> str:
        """Return the worker's id once it serves."""
        log = self._log(self.workers.index(process))

        def serves() -> bool:
            assert process.poll() is None, self.said()
            return bool(_SERVING.search(log.read_text(encoding="utf-8")))

        _until(serves, "no worker", self)
        return _SERVING.findall(log.read_text(encoding="utf-8"))[0]

    def end(self) -> None:
        for process in self.workers:
            process.kill()
            process.wait(60)

    def said(self) -> str:
        return "".join(path.read_text(encoding="utf-8")[-3000:] for path in self.world.folder.glob("worker-*.log"))

    def _log(self, number: int) -> Path:
        return self.world.folder / f"worker-{number}.log"


@contextmanager
def _yard(world: World) -> Iterator[Yard]:
    yard = Yard(world)
    try:
        yield yard
    finally:
        yard.end()


@contextmanager
def _handing_in(world: World) -> Iterator[tuple[Engine, PostgresLeases, DbosQueue]]:
    """An engine that hands in for workers."""
    with open_foundation(world.settings(), track=False) as foundation:
        migrate_queue(foundation.url)
        terms = QueueTerms(bound=100, concurrency=dict.fromkeys(Lane, AT_ONCE))
        queue = DbosQueue(foundation.url, foundation.database, terms)
        try:
            yield foundation.engine(LOCAL_TENANT, queue), PostgresLeases(foundation.database), queue
        finally:
            queue.close()


def _proposal(number: int) -> Proposal:
    """Return one of many that have no call and no test split in common."""
    return Proposal(
        agent=AGENT,
        dataset=words(prefix=chr(97 + number) * 3),
        objectives=(Objective(metric="exact_match"),),
        metrics=({"type": "exact_match"},),
        algorithms=(AlgorithmChoice(name=ALGORITHM, options=ALGORITHMS[ALGORITHM]),),  # type: ignore[arg-type]
        constraints=Constraints(limits=Limits(), concurrency=CONCURRENCY),
    )


def _submitted(engine: Engine, count: int) -> list[OptimizationId]:
    return [
        engine.steering.submit(engine.intake, engine.intake.check(_proposal(number))).request.id
        for number in range(count)
    ]


def _until(true: Callable[[], bool], what: str, yard: Yard, seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what}\n{yard.said()}"
        time.sleep(0.05)


def _statuses(engine: Engine, ids: Sequence[OptimizationId]) -> list[OptimizationStatus]:
    return [engine.stores.optimizations.get(one).status for one in ids]


def _all_completed(engine: Engine, ids: Sequence[OptimizationId], yard: Yard) -> None:
    def done() -> bool:
        statuses = _statuses(engine, ids)
        assert OptimizationStatus.FAILED not in statuses, yard.said()
        return set(statuses) == {OptimizationStatus.COMPLETED}

    _until(done, "not all are completed", yard)


def _straight(world: World, count: int) -> tuple[list[object], int]:
    """Return what a calm day finds, in the order of handing in, and how many calls it takes."""
    with world.engine() as engine:
        found = []
        for number in range(count):
            one = engine.intake.accept(engine.intake.check(_proposal(number))).request.id
            engine.optimizer.run(one, StopSignal())
            result = engine.stores.results.result(one)
            assert result is not None
            found.append(evidence(result))
        return found, world.trap.calls


def test_a_worker_that_is_sent_away_hands_its_jobs_over(world_of: Callable[[str], World]) -> None:
    """SIGTERM: what is under way is waited for, the other worker goes on at once, and nothing is paid twice.

    What happens to workers that die or stand still, and when the database does, is shown in `test_crash_over_http`.
    """
    wanted, total = _straight(world_of("straight"), 4)
    world = world_of("workers")
    slow = 0.04

    def weather(number: int, received: Received) -> Reply | None:
        time.sleep(slow)
        return None

    world.trap.weather = weather
    with _handing_in(world) as (engine, leases, queue), _yard(world) as yard:
        by_name = {yard.ready(process): process for process in (yard.start(), yard.start())}
        ids = _submitted(engine, 4)

        def working(name: str) -> bool:
            return queue.claimed_by().get(name, 0) > 0

        _until(lambda: any(map(working, by_name)), "nobody works", yard)
        before = world.trap.calls
        _until(lambda: world.trap.calls > before + 20, "nobody asks anything", yard)
        sent = next(name for name in by_name if working(name))
        (other,) = (name for name in by_name if name != sent)
        by_name[sent].send_signal(signal.SIGTERM)
        assert 0 == by_name[sent].wait(60), yard.said()
        assert [other] == [str(lease.worker.id) for lease in leases.leases()]
        slow = 0.0
        _all_completed(engine, ids, yard)
        by_name[other].send_signal(signal.SIGTERM)

        assert 0 == by_name[other].wait(60), yard.said()
        assert [] == leases.leases()
        results = [engine.stores.results.result(one) for one in ids]
        events = [[recorded.event.type for recorded in engine.stores.events.events(one)] for one in ids]
        assert [1] * len(ids) == [seen.count(EventType.OPTIMIZATION_COMPLETED) for seen in events]
        assert [1] * len(ids) == [seen.count(EventType.OPTIMIZATION_STARTED) for seen in events]
        assert sum(seen.count(EventType.OPTIMIZATION_RESUMED) for seen in events) > 0
        assert wanted == [None if result is None else evidence(result) for result in results]
        assert total == world.trap.calls
        assert total == sum(result.bill.total.calls for result in results if result is not None)
