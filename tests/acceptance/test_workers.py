"""Workers that die, stand still, are sent away or lose their database: everything ends once, as it would have.

What may be paid twice is what was in flight at each blow, and the bill never says less than the server counted.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crash_world import AGENT, ALGORITHMS, CONCURRENCY, WORKERS, Trap, World, evidence, words

from dspy_optimization.adapters.dbos import DbosQueue, QueueTerms, migrate_queue
from dspy_optimization.adapters.postgres import EmbeddedPostgres, PostgresLeases
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
from dspy_optimization.serving import LEASE_SECONDS as DEFAULT_LEASE_SECONDS
from dspy_optimization.tenancy import LOCAL_TENANT
from dspy_optimization.testing.model_server import ModelServer, Received, Reply

pytestmark = pytest.mark.crash

ALGORITHM = "bootstrap_fewshot"
AT_ONCE = 3
LEASE_SECONDS = 5.0
PATIENCE_SECONDS = 240.0
"""Bounds a hang; on an idle machine the whole takes a minute."""


@dataclass(slots=True)
class Yard:
    """Worker processes that share a world."""

    world: World
    lease_seconds: float = LEASE_SECONDS
    workers: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self) -> "subprocess.Popen[str]":
        config = self.world.folder / "config.yaml"
        config.write_text(
            f"models: {{task: {{model: {{base_url: '{self.world.server.base_url}', model: fake}}}}}}\n",
            encoding="utf-8",
        )
        environment = {
            **os.environ,
            "DATABASE_URL": self.world.url,
            "DSPY_CONFIG_PATH": str(config),
            "DSPY_OPT_DATA_DIR": str(self.world.folder),
            "MAX_CONCURRENT_OPTIMIZATIONS": str(AT_ONCE),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        said = (self.world.folder / f"worker-{len(self.workers)}.log").open("w", encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker_child.py")), str(self.lease_seconds)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        said.close()
        self.workers.append(process)
        return process

    def ready(self, process: "subprocess.Popen[str]") -> str:
        """Return the worker's id once it serves."""
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def end(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()

    def said(self) -> str:
        return "".join(path.read_text(encoding="utf-8")[-3000:] for path in self.world.folder.glob("worker-*.log"))


@contextmanager
def _yard(world: World, lease_seconds: float = LEASE_SECONDS) -> Iterator[Yard]:
    yard = Yard(world, lease_seconds)
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


def _check(
    engine: Engine, world: World, ids: Sequence[OptimizationId], straight: tuple[list[object], int], blows: int
) -> None:
    """Each ended once; what reached the server is a straight run and what was in flight at each blow."""
    wanted, total = straight
    results = [engine.stores.results.result(one) for one in ids]
    events = [[recorded.event.type for recorded in engine.stores.events.events(one)] for one in ids]
    in_flight = blows * AT_ONCE * WORKERS
    billed = sum(result.bill.total.calls for result in results if result is not None)

    assert [OptimizationStatus.COMPLETED] * len(ids) == _statuses(engine, ids)
    assert [1] * len(ids) == [seen.count(EventType.OPTIMIZATION_COMPLETED) for seen in events]
    assert [1] * len(ids) == [seen.count(EventType.OPTIMIZATION_STARTED) for seen in events]
    for result, expected in zip(results, wanted, strict=True):
        assert result is not None
        assert expected == evidence(result)
    assert total <= world.trap.calls <= total + in_flight
    assert world.trap.calls <= billed <= world.trap.calls + in_flight


def test_killed_still_and_sent_away_workers_leave_their_jobs_to_the_others(
    world_of: Callable[[str], World],
) -> None:
    """kill -9, SIGSTOP past the lease and SIGCONT, SIGTERM: three blows, and a worker that came later ends it all."""
    straight = _straight(world_of("straight"), 6)
    world = world_of("workers")
    slow = 0.04

    def weather(number: int, received: Received) -> Reply | None:
        time.sleep(slow)
        return None

    world.trap.weather = weather
    with _handing_in(world) as (engine, leases, queue), _yard(world) as yard:
        first, second, third = (yard.start() for _ in range(3))
        names = [yard.ready(process) for process in (first, second, third)]
        ids = _submitted(engine, 6)

        def working(name: str) -> bool:
            return queue.claimed_by().get(name, 0) > 0

        def calls_go_on() -> None:
            before = world.trap.calls
            _until(lambda: world.trap.calls > before + 20, "nobody asks anything", yard)

        _until(lambda: any(map(working, names)), "nobody works", yard)
        calls_go_on()
        by_name = dict(zip(names, (first, second, third), strict=True))
        killed = next(name for name in names if working(name))
        by_name[killed].kill()
        others = [name for name in names if name != killed]
        _until(lambda: any(map(working, others)), "nobody took over", yard)
        calls_go_on()

        still = next(name for name in others if working(name))
        by_name[still].send_signal(signal.SIGSTOP)
        (last,) = (name for name in others if name != still)
        _until(lambda: still not in [str(lease.worker.id) for lease in leases.leases()], "it was not reaped", yard)
        _until(lambda: working(last), "nobody took over from the one that stood still", yard)
        calls_go_on()
        by_name[still].send_signal(signal.SIGCONT)
        by_name[still].wait(60)

        fourth = yard.start()
        yard.ready(fourth)
        by_name[last].terminate()
        assert 0 == by_name[last].wait(60), yard.said()
        slow = 0.0
        _all_completed(engine, ids, yard)
        fourth.terminate()

        assert 0 == fourth.wait(60), yard.said()
        assert [] == leases.leases()
        _check(engine, world, ids, straight, blows=3)


def test_the_database_may_stop_and_come_back_under_all_workers(
    world_of: Callable[[str], World], tmp_path: Path
) -> None:
    """An immediate stop, back after two seconds: nobody is taken for dead, everything ends."""
    straight = _straight(world_of("straight"), 3)
    folder = Path("/var/tmp") / f"dspy-opt-workers-{tmp_path.name}-{time.time_ns()}"
    trap = Trap()
    with EmbeddedPostgres.open(folder) as postgres, ModelServer(trap) as server:
        world = World(url=postgres.url, server=server, trap=trap, folder=tmp_path)
        trap.weather = lambda *_: time.sleep(0.02)
        with _handing_in(world) as (engine, leases, _), _yard(world, DEFAULT_LEASE_SECONDS) as yard:
            names = {yard.ready(process) for process in [yard.start() for _ in range(3)]}
            ids = _submitted(engine, 3)
            _until(lambda: trap.calls > 60, "nobody asks anything", yard)
            cluster = postgres._cluster
            cluster._call("pg_ctl", "stop", "-m", "immediate", "-D", str(cluster.path))
            time.sleep(2.0)
            postgres.ensure_running()
            trap.weather = lambda *_: None
            _all_completed(engine, ids, yard)

            assert names == {str(lease.worker.id) for lease in leases.leases()}
            assert [None] * 3 == [process.poll() for process in yard.workers]
            _check(engine, world, ids, straight, blows=1)
