"""Optimizations in processes of their own, beside others in threads: apart, equal, stopped, crashed and taken over."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import isolated_agents
import psycopg
import pytest
from crash_world import AGENT, ALGORITHMS, CONCURRENCY, WORKERS, World, evidence, words
from forked import SERVES, Forked, begin

from dspy_optimization.adapters.child_process import ChildProcesses
from dspy_optimization.adapters.dbos import DbosQueue, QueueTerms, migrate_queue
from dspy_optimization.adapters.postgres import PostgresLeases
from dspy_optimization.adapters.postgres.database import session_name
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.objective import Objective
from dspy_optimization.bootstrap import Foundation, now, open_foundation
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.isolated import MODULE
from dspy_optimization.jobs.job import Job, JobId, Lane
from dspy_optimization.jobs.lease import Worker, WorkerId
from dspy_optimization.jobs.queue import LaneLoad, LaneTerms, Transaction
from dspy_optimization.jobs.worker import Attempt, JobWorker, LeftToOthers, Outcome
from dspy_optimization.optimization.handling import OptimizationHandler
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Isolation,
    Optimization,
    OptimizationStatus,
)
from dspy_optimization.settings import settings_to_json
from dspy_optimization.tenancy import LOCAL_TENANT

pytestmark = pytest.mark.crash

ALGORITHM = "bootstrap_fewshot"
ALLOWED = AllowList(entrypoints=frozenset({"isolated_agents:*"}))
SECONDS = 90.0
LEASE_SECONDS = 8.0
"""Of whole workers: how long nobody goes on with what a dead one had."""
NO_TRACKING = "http://127.0.0.1:9"
"""Of an MLflow that is not there."""


@dataclass(slots=True)
class Line:
    """A queue that remembers jobs and gives them out in order."""

    jobs: list[Job] = field(default_factory=list)

    def submit(self, job: Job, transaction: Transaction) -> None:
        self.jobs.append(job)

    def withdraw(self, jobs: object) -> None:
        """Leave them: who works on them finds that they have ended."""

    def load(self) -> Mapping[Lane, LaneLoad]:
        return {}

    def change_terms(self, lane: Lane, change: Callable[[LaneTerms], LaneTerms]) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A worker's handler without the queue before it."""

    world: World
    foundation: Foundation
    engine: Engine
    line: Line
    worker: JobWorker
    identity: Worker

    def submitted(self, prefix: str, isolation: Isolation, agent: AgentConfig = AGENT) -> Job:
        self.engine.steering.submit(self.engine.intake, self.engine.intake.check(_proposal(prefix, isolation, agent)))
        return self.line.jobs[-1]

    def standing(self, job: Job) -> Optimization:
        return self.engine.stores.optimizations.get(OptimizationId(job.subject))

    def calls(self, job: Job) -> int:
        return self.engine.stores.ledger.bill(OptimizationId(job.subject)).total.calls

    def evidence(self, job: Job) -> object:
        result = self.engine.stores.results.result(OptimizationId(job.subject))
        assert result is not None
        return evidence(result)

    def begun(self, *jobs: Job) -> "Begun":
        return Begun(self.worker, jobs)


class Begun:
    """Attempts under way, each in a thread as under the queue."""

    def __init__(self, worker: JobWorker, jobs: tuple[Job, ...]) -> None:
        self._attempts: dict[JobId, Attempt] = {}
        self._threads = [threading.Thread(target=self._attempt, args=[worker, job]) for job in jobs]
        self._jobs = jobs
        for thread in self._threads:
            thread.start()

    def ended(self, seconds: float = SECONDS) -> list[Attempt]:
        """Return what became of them, without those left to others."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            assert thread.is_alive() is False, "it hangs"
        return [self._attempts[job.id] for job in self._jobs if job.id in self._attempts]

    def _attempt(self, worker: JobWorker, job: Job) -> None:
        with suppress(LeftToOthers):
            self._attempts[job.id] = worker.attempt(job)


def _proposal(prefix: str, isolation: Isolation, agent: AgentConfig) -> Proposal:
    return Proposal(
        agent=agent,
        dataset=words(prefix=prefix),
        objectives=(Objective(metric="exact_match"),),
        metrics=({"type": "exact_match"},),
        algorithms=(AlgorithmChoice(name=ALGORITHM, options=ALGORITHMS[ALGORITHM]),),  # type: ignore[arg-type]
        constraints=Constraints(limits=Limits(), concurrency=CONCURRENCY, isolation=isolation),
    )


def _agent(name: str) -> AgentConfig:
    return AgentConfig(name=name, kind=AgentKind.ENTRYPOINT, entrypoint=f"isolated_agents:{name}")


@contextmanager
def _bench(world: World, grace_seconds: float = 12.0, tracking: str | None = NO_TRACKING) -> Iterator[Bench]:
    settings = replace(world.settings(), allow=ALLOWED, mlflow_tracking_uri=tracking)
    identity = Worker(
        id=WorkerId(str(uuid4())), host="h", process_id=os.getpid(), lanes=(), version="1", started_at=datetime.now(UTC)
    )
    with open_foundation(settings, worker=identity.id) as foundation:
        PostgresLeases(foundation.database).beat(identity, 600.0)
        line = Line()
        worker = JobWorker(
            OptimizationHandler(
                optimizer=lambda tenant: foundation.engine(tenant, line).optimizer,
                isolated=ChildProcesses(
                    module=MODULE,
                    settings=settings_to_json(settings),
                    worker=identity.id,
                    grace_seconds=grace_seconds,
                ),
                queue=line,
                now=now,
            )
        )
        try:
            yield Bench(
                world=world,
                foundation=foundation,
                engine=foundation.engine(LOCAL_TENANT, line),
                line=line,
                worker=worker,
                identity=identity,
            )
        finally:
            worker.abandon()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """Where the agents of the plug-in write and read; the model's price list is not fetched."""
    monkeypatch.setenv(isolated_agents.FOLDER, str(tmp_path))
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    caplog.set_level(logging.INFO, logger="dspy_optimization")
    return tmp_path


def _until(true: Callable[[], bool], what: str, seconds: float = SECONDS) -> float:
    """Return after how many seconds it was true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.02)
    return time.monotonic() - began


def _children(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            of = int((place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            said = (place / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if of == parent and MODULE.encode() in said:
            found.append(int(place.name))
    return found


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_three_at_once_see_nothing_of_each_other(world_of: Callable[[str], World], folder: Path) -> None:
    """Two processes and a thread: module state, environment, history, cache and settings of none but its own."""
    with _bench(world_of("apart")) as bench:
        agent = _agent("watchful")
        jobs = [
            bench.submitted(prefix, isolation, agent)
            for prefix, isolation in (("1st", Isolation.PROCESS), ("2nd", Isolation.PROCESS), ("3rd", Isolation.THREAD))
        ]
        attempts = bench.begun(*jobs).ended()
        statuses = [bench.standing(job).status for job in jobs]
    seen: list[dict[str, Any]] = [
        json.loads(line) for path in folder.glob("*.seen") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    processes = {run: {one["process"] for one in seen if one["run"] == run} for run in ("1st", "2nd", "3rd")}

    assert [Outcome.DONE] * 3 == [attempt.outcome for attempt in attempts]
    assert [OptimizationStatus.COMPLETED] * 3 == statuses
    assert {os.getpid()} == processes["3rd"]
    assert [1, 1, 1] == [len(own) for own in processes.values()]
    assert 3 == len(set.union(*processes.values()))
    for run in processes:
        own = [one for one in seen if one["run"] == run]
        assert len(own) > 50
        for place in ("module", "environment", "history", "cache", "settings"):
            assert {run} >= {other for one in own for other in one[place]}, (run, place)


def test_two_threads_share_the_process_and_not_their_models(world_of: Callable[[str], World], folder: Path) -> None:
    """What isolation is for: a thread cannot hide the state of modules, but models, history and settings it does."""
    isolated_agents.SEEN.clear()
    with _bench(world_of("threads")) as bench:
        jobs = [bench.submitted(prefix, Isolation.THREAD, _agent("watchful")) for prefix in ("1st", "2nd")]
        bench.begun(*jobs).ended()
    seen: list[dict[str, Any]] = [
        json.loads(line) for path in folder.glob("*.seen") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    models = {run: {one["model"] for one in seen if one["run"] == run} for run in ("1st", "2nd")}

    assert {("1st", "2nd")} < {tuple(one["module"]) for one in seen}
    assert set() == models["1st"] & models["2nd"]
    assert [] == [one for one in seen if one["history"] or one["cache"] or one["settings"]]


def test_a_process_finds_what_a_thread_finds(
    world_of: Callable[[str], World], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same candidate, the same verdict, the same bill, and its run in MLflow, without a word on standard error.

    The extra seconds and megabytes are printed.
    """
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "DEBUG")
    found, seconds = [], []
    for name, isolation, tracking in (
        ("thread", Isolation.THREAD, NO_TRACKING),
        ("process", Isolation.PROCESS, None),
    ):
        with _bench(world_of(name), tracking=tracking) as bench:
            job = bench.submitted("", isolation)
            began, most = time.monotonic(), 0
            under_way = bench.begun(job)
            while bench.standing(job).status not in {OptimizationStatus.COMPLETED, OptimizationStatus.FAILED}:
                most = max([most, *(_resident(child) for child in _children(os.getpid()))])
                time.sleep(0.1)
            under_way.ended()
            seconds.append(time.monotonic() - began)
            found.append((bench.evidence(job), bench.calls(job), bench.world.trap.calls))
            result = bench.engine.stores.results.result(OptimizationId(job.subject))
    said = [vars(record)["words"] for record in caplog.records if record.getMessage() == "Process said"]
    sys.stderr.write(f"\nthread {seconds[0]:.2f} s, process {seconds[1]:.2f} s, its memory {most / 1e6:.0f} MB\n")

    assert found[0] == found[1]
    assert result is not None
    assert result.artifact.mlflow_run_id is not None
    assert [] == said


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("signal 9", OptimizationStatus.PAUSED, "killed by signal 9, SIGKILL (out of memory"),
        ("signal 11", OptimizationStatus.FAILED, "killed by signal 11, SIGSEGV (native code crashed)"),
        ("exit 3", OptimizationStatus.FAILED, "exit status 3"),
    ],
)
def test_an_agent_that_ends_its_process_harms_nobody_else(
    world_of: Callable[[str], World], folder: Path, fault: str, status: OptimizationStatus, words: str
) -> None:
    """The neighbour in a thread of the worker goes on; the sentence names what happened; mended, it goes on itself."""
    (folder / "fault").write_text(fault, encoding="utf-8")
    with _bench(world_of("faulty")) as bench:
        bad = bench.submitted("bad", Isolation.PROCESS, _agent("faulty"))
        good = bench.submitted("good", Isolation.THREAD, _agent("faulty"))
        attempts = bench.begun(bad, good).ended()
        found = bench.standing(bad)
        (folder / "fault").unlink()
        if status is OptimizationStatus.FAILED:
            bench.engine.steering.resume(OptimizationId(bad.subject))
        again = bench.line.jobs[-1]
        after = bench.begun(again).ended()

        assert OptimizationStatus.COMPLETED is bench.standing(good).status
        assert OptimizationStatus.COMPLETED is bench.standing(bad).status
    assert (status, True) == (found.status, words in (found.error or "")), found.error
    assert (15.0 if status is OptimizationStatus.PAUSED else 0.0) == again.delay_seconds
    assert Outcome.PASSING is attempts[0].outcome or status is OptimizationStatus.FAILED
    assert [Outcome.DONE, Outcome.DONE] == [attempts[1].outcome, after[0].outcome]


def test_a_killed_process_pays_nothing_twice(
    world_of: Callable[[str], World], caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond what was in flight; its log lines name the optimization."""
    with _bench(world_of("straight")) as bench:
        straight = bench.submitted("", Isolation.THREAD)
        bench.begun(straight).ended()
        wanted, total = bench.evidence(straight), bench.world.trap.calls
    with _bench(world_of("killed")) as bench:
        job = bench.submitted("", Isolation.PROCESS)
        under_way = bench.begun(job)
        _until(lambda: bench.world.trap.calls > total // 2, "nobody asks anything")
        (child,) = _children(os.getpid())
        os.kill(child, signal.SIGKILL)
        (attempt,) = under_way.ended()
        assert Outcome.PASSING is attempt.outcome
        (attempt,) = bench.begun(bench.line.jobs[-1]).ended()
        calls = bench.world.trap.calls
        billed = bench.calls(job)

        assert (Outcome.DONE, wanted) == (attempt.outcome, bench.evidence(job))
    assert total <= calls <= total + WORKERS
    assert calls <= billed <= calls + WORKERS
    ended = [record for record in caplog.records if record.getMessage() == "Process ended"]
    assert [-9, 0] == [vars(record)["code"] for record in ended][-2:]
    assert str(job.subject) == vars(ended[-1])["optimization"]


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_wish_reaches_the_process_within_two_seconds(world_of: Callable[[str], World], wish: str) -> None:
    """It reads the row itself; the worker only sees how it ended."""
    with _bench(world_of("wish")) as bench:
        bench.world.trap.weather = lambda *_: time.sleep(0.1)
        job = bench.submitted("", Isolation.PROCESS)
        under_way = bench.begun(job)
        _until(lambda: bench.world.trap.calls > 20, "nobody asks anything")
        getattr(bench.engine.steering, wish)(OptimizationId(job.subject))
        wanted = OptimizationStatus.PAUSED if wish == "pause" else OptimizationStatus.CANCELLED
        took = _until(lambda: bench.standing(job).status is wanted, "it goes on")
        (attempt,) = under_way.ended()
        bench.world.trap.weather = lambda *_: None
        if wish == "pause":
            bench.engine.steering.resume(OptimizationId(job.subject))
            bench.begun(bench.line.jobs[-1]).ended()
            assert OptimizationStatus.COMPLETED is bench.standing(job).status
    sys.stderr.write(f"\n{wish} took {took:.2f} s\n")

    assert Outcome.DONE is attempt.outcome
    assert took < 2.0


def test_a_worker_that_goes_hands_its_process_over(world_of: Callable[[str], World]) -> None:
    """Nothing is lost and nothing paid twice; one that had not begun goes at once."""
    with _bench(world_of("straight")) as bench:
        job = bench.submitted("", Isolation.THREAD)
        bench.begun(job).ended()
        wanted, total = bench.evidence(job), bench.world.trap.calls
    world = world_of("handover")
    with _bench(world) as bench:
        job = bench.submitted("", Isolation.PROCESS)
        under_way = bench.begun(job)
        _until(lambda: world.trap.calls > total // 2, "nobody asks anything")
        bench.worker.interrupt()
        (attempt,) = under_way.ended(5.0)
        again = bench.line.jobs[-1]
        waits = bench.standing(job).status
    with _bench(world) as bench:
        under_way = bench.begun(again)
        _until(lambda: bool(_children(os.getpid())), "no process")
        bench.worker.interrupt()
        (early,) = under_way.ended(5.0)
        again = bench.line.jobs[-1]
    with _bench(world) as bench:
        (last,) = bench.begun(again).ended()

        assert wanted == bench.evidence(job)
    assert (Outcome.INTERRUPTED, OptimizationStatus.QUEUED) == (attempt.outcome, waits)
    assert (Outcome.INTERRUPTED, Outcome.DONE) == (early.outcome, last.outcome)
    assert total == world.trap.calls


def test_a_process_that_does_not_hand_over_is_ended_and_goes_on_elsewhere(
    world_of: Callable[[str], World], folder: Path
) -> None:
    """Its agent hangs; the worker cannot wait."""
    (folder / "fault").write_text("hang", encoding="utf-8")
    world = world_of("hangs")
    with _bench(world, grace_seconds=1.0) as bench:
        job = bench.submitted("bad", Isolation.PROCESS, _agent("faulty"))
        under_way = bench.begun(job)
        _until(lambda: world.trap.calls > 0, "nobody asks anything")
        bench.worker.interrupt()
        (attempt,) = under_way.ended(8.0)
        again, status = bench.line.jobs[-1], bench.standing(job).status
    (folder / "fault").unlink()
    with _bench(world) as bench:
        (last,) = bench.begun(again).ended()

        assert OptimizationStatus.COMPLETED is bench.standing(job).status
    assert (Outcome.INTERRUPTED, OptimizationStatus.RUNNING) == (attempt.outcome, status)
    assert Outcome.DONE is last.outcome


def test_who_cuts_a_worker_off_cuts_its_processes_off(world_of: Callable[[str], World]) -> None:
    """The sessions of the process are the worker's, and it ends once it sees that the lease is gone."""
    with _bench(world_of("cut")) as bench:
        bench.world.trap.weather = lambda *_: time.sleep(0.2)
        job = bench.submitted("", Isolation.PROCESS)
        under_way = bench.begun(job)
        _until(lambda: bench.world.trap.calls > 10, "nobody asks anything")
        (child,) = _children(os.getpid())
        with psycopg.connect(bench.world.url) as connection:
            named = connection.execute(
                "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() GROUP BY application_name"
            ).fetchall()
        assert {session_name(bench.identity.id)} == {name for name, _ in named}
        # As a reaper does whose worker was silent for too long.
        leases = PostgresLeases(bench.foundation.database)
        leases.beat(bench.identity, 0.0)
        leases.take_away(bench.identity.id)
        took = _until(lambda: not _lives(child), "it lives on", 15.0)
        bench.worker.abandon()
        bench.world.trap.weather = lambda *_: None
        left = under_way.ended()
    sys.stderr.write(f"\nended {took:.2f} s after the lease\n")

    assert [] == left
    assert took < 12.0


@dataclass(slots=True)
class Workers:
    """Whole worker processes, each the leader of its group."""

    world: World
    started: list[Forked] = field(default_factory=list)

    def start(self) -> Forked:
        """Return one that serves."""
        config = self.world.folder / "config.yaml"
        model = f"{{model: {{base_url: '{self.world.server.base_url}', model: fake}}}}"
        config.write_text(
            f"models: {{task: {model}}}\nallow: {{entrypoints: ['isolated_agents:*']}}\n", encoding="utf-8"
        )
        environment = {
            **os.environ,
            "DATABASE_URL": self.world.url,
            "DSPY_CONFIG_PATH": str(config),
            "DSPY_OPT_DATA_DIR": str(self.world.folder),
            "MLFLOW_TRACKING_URI": NO_TRACKING,
            "PYTHONPATH": str(Path(__file__).parent),
        }
        log = self.world.folder / f"worker-{len(self.started)}.log"
        process = begin("work", LEASE_SECONDS, environment=environment, log=log, leads_group=True)
        self.started.append(process)
        _until(lambda: SERVES in log.read_text(encoding="utf-8"), "no worker")
        return process

    def end(self) -> None:
        for process in self.started:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(60)


@contextmanager
def _workers(world: World) -> Iterator[tuple[Workers, Engine]]:
    workers = Workers(world)
    with open_foundation(replace(world.settings(), allow=ALLOWED), track=False) as foundation:
        migrate_queue(foundation.url)
        queue = DbosQueue(
            foundation.url, foundation.database, QueueTerms(bound=100, concurrency=dict.fromkeys(Lane, 3))
        )
        try:
            yield workers, foundation.engine(LOCAL_TENANT, queue)
        finally:
            workers.end()
            queue.close()


@pytest.mark.parametrize("blow", ["killed", "stopped", "ended with its group"])
def test_a_process_ends_with_its_worker_and_another_goes_on(world_of: Callable[[str], World], blow: str) -> None:
    """However the worker ends: what was answered is not paid again, and nothing of it goes on alone."""
    with _bench(world_of("straight")) as bench:
        job = bench.submitted("", Isolation.THREAD)
        bench.begun(job).ended()
        wanted, total = bench.evidence(job), bench.world.trap.calls
    world = world_of("workers")
    world.trap.weather = lambda *_: time.sleep(0.05)
    with _workers(world) as (workers, engine):
        first = workers.start()
        submitted = engine.steering.submit(
            engine.intake, engine.intake.check(_proposal("", Isolation.PROCESS, AGENT))
        ).request.id
        _until(lambda: world.trap.calls > total // 3, "nobody asks anything")
        # From here on it would take ten seconds, should it go on alone.
        world.trap.weather = lambda *_: time.sleep(0.4)
        (child,) = _children(first.pid)
        match blow:
            case "killed":
                first.kill()
                took = _until(lambda: not _lives(child), "it lives on", 10.0)
                assert took < 2.0
            case "stopped":
                first.send_signal(signal.SIGSTOP)
            case _:
                os.killpg(first.pid, signal.SIGTERM)
                os.kill(child, signal.SIGTERM)  # as systemd does with a whole control group
                assert 0 == first.wait(30)
                assert _lives(child) is False
        world.trap.weather = lambda *_: None
        workers.start()
        _until(lambda: engine.stores.optimizations.get(submitted).status is OptimizationStatus.COMPLETED, "it hangs")
        result = engine.stores.results.result(submitted)
        assert result is not None
        calls = world.trap.calls

        assert wanted == evidence(result)
        assert _lives(child) is False
    assert total <= calls <= total + (0 if blow == "ended with its group" else WORKERS)
