"""The queue on DBOS. DBOS is one for its whole process, so these tests share a worker and take turns."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.dbos import DbosQueue, DbosRuntime, QueueTerms, migrate_queue
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.database import session_name
from dspy_optimization.errors import InvalidRequestError, QueueFullError, StoreError
from dspy_optimization.jobs.job import Job, JobId, Lane, Priority, job_id
from dspy_optimization.jobs.lease import Worker, WorkerId
from dspy_optimization.jobs.partitions import Doorkeeper, PartitionLoad
from dspy_optimization.jobs.queue import LaneLoad, LaneTerms
from dspy_optimization.jobs.worker import Interruption, JobWorker, Outcome
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

pytestmark = pytest.mark.xdist_group("dbos")

BOUND = 7
TERMS = QueueTerms(bound=BOUND, concurrency=dict.fromkeys(Lane, 2))
SECONDS = 20.0


@dataclass(slots=True)
class Doing:
    """Holds every job until it is told to let go, and remembers what it did."""

    queue: DbosQueue
    database: Database
    open: threading.Event = field(default_factory=threading.Event)
    begun: list[Job] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    """What comes of the next attempts; then all are done."""
    most_at_once: int = 0
    now: int = 0
    now_of: Counter[str] = field(default_factory=Counter)
    most_of: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def carry_out(self, job: Job, interruption: Interruption) -> Outcome:
        with self.lock:
            self.begun.append(job)
            self.now += 1
            self.most_at_once = max(self.most_at_once, self.now)
            self.now_of.update(job.partitions)
            self.most_of |= self.now_of
            outcome = self.outcomes.pop(0) if self.outcomes else Outcome.DONE
        with interruption.telling(self.open.set):
            assert self.open.wait(SECONDS)
        with self.lock:
            self.now -= 1
            self.now_of.subtract(job.partitions)
        return Outcome.INTERRUPTED if interruption.is_set else outcome

    def wait_again(self, job: Job, outcome: Outcome) -> None:
        with self.database.shared() as connection:
            self.queue.submit(job, connection)

    def give_up(self, job: Job, reason: str) -> None:
        raise AssertionError(reason)


def _job(**changes: object) -> Job:
    subject = uuid4()
    return replace(Job(id=job_id(subject, uuid4()), tenant=LOCAL_TENANT, subject=subject), **changes)


def _worker(name: str, lanes: tuple[Lane, ...] = (Lane.CPU,)) -> Worker:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return Worker(id=WorkerId(name), host="h", process_id=1, lanes=lanes, version="1", started_at=began)


def _at_once(concurrency: int) -> Callable[[LaneTerms], LaneTerms]:
    return lambda in_force: replace(in_force, concurrency=concurrency)


def _soon(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def queue(database: Database, database_url: str) -> Iterator[DbosQueue]:
    migrate_queue(database_url)
    made = DbosQueue(database_url, database, TERMS)
    yield made
    made.close()


@pytest.fixture
def doing(queue: DbosQueue, database: Database) -> Doing:
    return Doing(queue, database)


@pytest.fixture
def launched(database_url: str, doing: Doing) -> Iterator[Callable[..., tuple[DbosRuntime, JobWorker]]]:
    """Start DBOS in this process, one after the other."""
    running: list[DbosRuntime] = []

    def launch(name: str = "w", lanes: tuple[Lane, ...] = (Lane.CPU,)) -> tuple[DbosRuntime, JobWorker]:
        for runtime in running:
            runtime.close()
        jobs = JobWorker(doing)
        runtime = DbosRuntime(database_url, _worker(name, lanes), TERMS)
        running.append(runtime)
        runtime.launch(jobs)
        return runtime, jobs

    yield launch
    doing.open.set()
    for runtime in running:
        runtime.close(1.0)


def _submit(queue: DbosQueue, database: Database, *jobs: Job) -> None:
    for job in jobs:
        with database.transaction(job.tenant) as connection:
            queue.submit(job, connection)


def _states(database_url: str) -> dict[str, str]:
    with psycopg.connect(database_url) as connection:
        return dict(connection.execute("SELECT workflow_uuid, status FROM dbos.workflow_status").fetchall())


def test_a_job_is_there_when_its_transaction_commits_and_not_otherwise(
    queue: DbosQueue, database: Database, database_url: str
) -> None:
    """A failure after the submission takes the job with it."""
    kept, lost = _job(), _job()
    _submit(queue, database, kept)
    with suppress(ZeroDivisionError), database.transaction(LOCAL_TENANT) as connection:
        queue.submit(lost, connection)
        raise ZeroDivisionError

    assert {kept.id: "ENQUEUED"} == _states(database_url)


def test_the_bound_is_exact_however_many_hand_in_at_once(
    queue: DbosQueue, database: Database, database_url: str
) -> None:
    """Forty at once: as many as may wait are taken, the others are told when to come again."""
    start = threading.Barrier(20)

    def hand_in(_number: int) -> float | None:
        try:
            with database.transaction(LOCAL_TENANT) as connection:
                if not start.broken:
                    start.wait(SECONDS)
                queue.submit(_job(lane=Lane.GPU if _number % 2 else Lane.CPU), connection)
        except QueueFullError as full:
            return full.retry_after_seconds
        return None

    with ThreadPoolExecutor(20) as pool:
        refused = [after for after in pool.map(hand_in, range(40)) if after is not None]

    assert (40 - BOUND, True) == (len(refused), all(after > 0 for after in refused))
    assert BOUND == len(_states(database_url)) == sum(load.waiting for load in queue.load().values())


def test_a_full_queue_is_seen_before_any_work_is_done(queue: DbosQueue, database: Database) -> None:
    """And a place that becomes free is seen too."""
    jobs = [_job() for _ in range(BOUND)]
    _submit(queue, database, *jobs[:-1])
    queue.check_room()
    _submit(queue, database, jobs[-1])
    with pytest.raises(QueueFullError, match=f"found: {BOUND} optimizations wait already"):
        queue.check_room()
    queue.withdraw([jobs[0].id])

    queue.check_room()


def test_a_full_queue_takes_what_ran_before(queue: DbosQueue, database: Database) -> None:
    """A job whose process had to go is not turned away at the door."""
    _submit(queue, database, *(_job() for _ in range(BOUND)))
    with pytest.raises(QueueFullError, match=f"found: {BOUND} optimizations wait already"):
        _submit(queue, database, _job())
    _submit(queue, database, _job().again(0.0))

    assert BOUND + 1 == queue.load()[Lane.CPU].waiting


def test_a_job_arrives_as_it_was_handed_in(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """Tenant, subject, lane, priority, partitions and counts; it is carried out once and then done."""
    job = _job(priority=Priority.HIGH, number=3, attempt=2, lane=Lane.GPU, partitions=("gepa", "simba"))
    _submit(queue, database, job)
    doing.open.set()
    launched("w", (Lane.CPU, Lane.GPU))

    assert _soon(lambda: _states(database_url) == {job.id: "SUCCESS"})
    assert [job] == doing.begun


def test_a_worker_leaves_the_lanes_it_does_not_serve(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """Nothing for a GPU runs without one; a process without lanes runs nothing."""
    cpu, gpu = _job(), _job(lane=Lane.GPU)
    _submit(queue, database, cpu, gpu)
    doing.open.set()
    launched("api", ())
    time.sleep(1.5)
    untouched = dict(_states(database_url))
    launched("w")

    assert {cpu.id: "ENQUEUED", gpu.id: "ENQUEUED"} == untouched
    assert _soon(lambda: _states(database_url)[cpu.id] == "SUCCESS")
    assert ([cpu], "ENQUEUED") == (doing.begun, _states(database_url)[gpu.id])


def test_what_waits_can_be_withdrawn_and_what_runs_cannot(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """Waiting and delayed ones are gone for good; what runs, is done or never was stays as it is."""
    running, waiting, delayed = _job(), _job(lane=Lane.GPU), replace(_job(), delay_seconds=3600.0)
    _submit(queue, database, running, waiting, delayed)
    launched()
    begun = _soon(lambda: len(doing.begun) == 1)
    queue.withdraw([running.id, waiting.id, delayed.id, JobId("never")])
    queue.withdraw([])
    states = _states(database_url)
    doing.open.set()

    assert begun
    assert {running.id: "PENDING", waiting.id: "CANCELLED", delayed.id: "CANCELLED"} == states
    assert _soon(lambda: _states(database_url)[running.id] == "SUCCESS")
    assert {lane: LaneLoad(waiting=0, running=0, concurrency=2) for lane in Lane} == queue.load()


def test_so_many_run_at_once_and_more_when_told_at_run_time(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object]
) -> None:
    """Two, then four without a restart; none stops the lane; a restart keeps what was set."""
    launched()
    _submit(queue, database, *(_job() for _ in range(6)))
    two = _soon(lambda: doing.now == 2)
    time.sleep(1.2)
    most = doing.most_at_once
    load = queue.load()[Lane.CPU]
    queue.change_terms(Lane.CPU, _at_once(4))
    four = _soon(lambda: doing.now == 4)
    time.sleep(1.2)

    assert (True, 2, True, 4) == (two, most, four, doing.most_at_once)
    assert LaneLoad(waiting=4, running=2, concurrency=2) == load
    queue.change_terms(Lane.CPU, _at_once(0))
    time.sleep(1.2)
    doing.open.set()
    assert _soon(lambda: doing.now == 0)
    time.sleep(1.2)
    assert (4, 0) == (len(doing.begun), queue.load()[Lane.CPU].concurrency)
    launched("next")
    assert 0 == queue.load()[Lane.CPU].concurrency


def test_the_next_attempt_waits_as_long_as_it_is_told(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """Not before its delay has passed, and then by itself."""
    doing.open.set()
    launched()
    job = _job().again(2.0)
    handed_in = time.monotonic()
    _submit(queue, database, job)
    state = _states(database_url)[job.id]
    arrived = _soon(lambda: bool(doing.begun))
    took = time.monotonic() - handed_in

    assert ("DELAYED", True) == (state, arrived)
    assert 2.0 <= took < 8.0
    assert 1 == queue.load()[Lane.CPU].waiting + len(doing.begun)


def test_the_jobs_of_a_dead_worker_go_to_another_in_their_lane(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """Those of the living stay; what is done by then stays done; the same job is carried out again, not another."""
    dead, alive, done = _job(), _job(), _job()
    _submit(queue, database, dead, alive, done)
    with psycopg.connect(database_url) as connection:
        for job, status, worker in ((dead, "PENDING", "dead"), (alive, "PENDING", "alive"), (done, "SUCCESS", "dead")):
            connection.execute(
                "UPDATE dbos.workflow_status SET status = %s, executor_id = %s WHERE workflow_uuid = %s",
                [status, worker, job.id],
            )
    claimants = set(queue.claimants())
    taken = queue.take_back([WorkerId("dead")])
    states = _states(database_url)
    doing.open.set()
    launched()

    assert ({"dead", "alive"}, 1) == (claimants, taken)
    assert {dead.id: "ENQUEUED", alive.id: "PENDING", done.id: "SUCCESS"} == states
    assert _soon(lambda: _states(database_url)[dead.id] == "SUCCESS")
    assert [dead] == doing.begun


def test_who_lost_a_job_cannot_end_it(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """Taken back while it runs: neither the end of the first run nor its next attempt is written down."""
    job = _job()
    _submit(queue, database, job)
    _, jobs = launched("still")
    begun = _soon(lambda: len(doing.begun) == 1)
    jobs.abandon()
    ended = _soon(lambda: jobs.running == 0)
    time.sleep(1.2)
    states = _states(database_url)
    taken = queue.take_back([WorkerId("still")])
    launched("other")

    assert (True, True, {job.id: "PENDING"}, 1) == (begun, ended, states, taken)
    assert _soon(lambda: _states(database_url) == {job.id: "SUCCESS"})
    assert [job, job] == doing.begun


def test_who_drains_hands_its_job_on_and_begins_no_other(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], database_url: str
) -> None:
    """The running one waits again at once; those that wait are not touched by a process that is about to go."""
    running, waiting = _job(), [_job() for _ in range(3)]
    runtime, jobs = launched("goes")
    queue.change_terms(Lane.CPU, _at_once(1))
    _submit(queue, database, running)
    begun = _soon(lambda: len(doing.begun) == 1)
    _submit(queue, database, *waiting)
    jobs.interrupt()
    runtime.close(SECONDS)
    states = _states(database_url)
    left = queue.take_back([WorkerId("goes")])
    first = list(doing.begun)
    launched("stays")

    assert begun
    assert [running] == first
    assert "SUCCESS" == states.pop(running.id)
    assert {"ENQUEUED"} >= set(states.values()) - {"PENDING"}
    assert list(states.values()).count("PENDING") == left <= 1
    assert _soon(lambda: set(_states(database_url).values()) == {"SUCCESS"})
    assert 5 == len(doing.begun)
    assert running.subject == doing.begun[1].subject


def test_the_sessions_of_a_worker_bear_its_name(
    queue: DbosQueue, launched: Callable[..., object], database_url: str
) -> None:
    """So that they end with its lease: one that stands still may hold rows that all others wait for."""
    launched("named")
    with psycopg.connect(database_url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        assert _soon(lambda: connection.execute(query, [session_name("named")]).fetchone() != (0,))


def test_a_database_that_is_away_is_said_to_be(queue: DbosQueue, database_url: str) -> None:
    """Whoever asks gets `StoreError` at once: a keeper of leases that waited would lose its own."""
    name = database_url.partition("/test_")[2].partition("?")[0]
    with psycopg.connect(database_url.replace(f"test_{name}", "postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE test_{name} ALLOW_CONNECTIONS false")
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test_{name}'")
        began = time.monotonic()
        for ask in (
            queue.load,
            queue.claimants,
            lambda: queue.take_back([WorkerId("w")]),
            lambda: queue.withdraw([JobId("x")]),
            lambda: queue.change_terms(Lane.CPU, _at_once(3)),
        ):
            with pytest.raises(StoreError):
                ask()

        assert time.monotonic() - began < 5.0


def test_many_may_make_the_queues_tables_at_once(database_url: str, database: Database) -> None:
    """Every process does so at its start; afterwards the application's role may hand jobs in and not more."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate_queue, [database_url] * 4))
    with database.shared() as connection:
        assert 0 == connection.execute(sa.text("SELECT count(*) FROM dbos.workflow_status")).scalar_one()
    with pytest.raises(StoreError, match=r"permission denied|must be owner"), database.shared() as connection:
        connection.execute(sa.text("DROP TABLE dbos.workflow_status"))


def test_ids_are_uuids_all_the_way() -> None:
    """A job's subject is looked up by the id it was handed in with."""
    assert UUID(_job().id.split("/")[0])


def _of(partitions: str, **changes: object) -> Job:
    return _job(partitions=tuple(partitions.split()), **changes)


@pytest.fixture
def door(queue: DbosQueue) -> Iterator[Doorkeeper]:
    """Lets held jobs in, as every worker process does."""
    keeper = Doorkeeper(queue.settle, polling_seconds=0.1)
    keeper.start()
    yield keeper
    keeper.stop()


def test_never_more_of_a_partition_than_its_bound_while_others_overtake(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], door: Doorkeeper
) -> None:
    """One bounded by one, four places in the lane: those behind it go on, it goes one by one, all are done."""
    queue.set_bound("gepa", 1)
    launched()
    queue.change_terms(Lane.CPU, _at_once(4))
    bounded, others = [_of("gepa") for _ in range(3)], [_of("simba") for _ in range(3)]
    _submit(queue, database, *bounded, *others)
    full = _soon(lambda: doing.now == 4)
    time.sleep(1.2)
    at_once = [job for job in doing.begun if "gepa" in job.partitions]
    load, partitions = queue.load()[Lane.CPU], queue.partitions()
    doing.open.set()
    ended = _soon(lambda: len(doing.begun) == 6 and doing.now == 0)

    assert (True, True, 1) == (full, ended, len(at_once))
    assert {job.id for job in others} == {job.id for job in doing.begun[:4]} - {at_once[0].id}
    assert 1 == doing.most_of["gepa"]
    assert LaneLoad(waiting=2, running=4, concurrency=4) == load
    assert {"gepa": PartitionLoad(waiting=2, running=1, concurrency=1)} == partitions


def test_a_bound_may_change_while_jobs_wait_and_run(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], door: Doorkeeper
) -> None:
    """More at once, none any more beside what runs, and no bound at all."""
    launched()
    queue.change_terms(Lane.CPU, _at_once(10))
    queue.set_bound("gepa", 1)
    _submit(queue, database, *(_of("gepa") for _ in range(6)))
    one = _soon(lambda: doing.now == 1)
    queue.set_bound("gepa", 3)
    three = _soon(lambda: doing.now == 3)
    queue.set_bound("gepa", 2)
    time.sleep(1.2)
    still = doing.now
    queue.set_bound("gepa", None)
    all_six = _soon(lambda: doing.now == 6)

    assert (True, True, 3, True) == (one, three, still, all_six)
    assert {} == queue.partitions()


def test_a_new_bound_counts_for_what_waits_in_the_lane_already(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], door: Doorkeeper
) -> None:
    """Handed in before anybody bounded it; others do not stand behind it any longer."""
    _submit(queue, database, *(_of("gepa simba") for _ in range(4)))
    queue.set_bound("gepa", 1)
    assert _soon(lambda: queue.load()[Lane.CPU].waiting == 4 and queue.settle() == 0)
    launched()
    queue.change_terms(Lane.CPU, _at_once(3))
    _submit(queue, database, _of("simba"))
    two = _soon(lambda: doing.now == 2)
    time.sleep(1.2)

    assert (True, 2, 1) == (two, doing.now, doing.most_of["gepa"])


def test_a_bound_holds_over_both_lanes_and_through_retries_and_takeovers(
    queue: DbosQueue,
    database: Database,
    doing: Doing,
    launched: Callable[..., object],
    door: Doorkeeper,
    database_url: str,
) -> None:
    """What is tried again or taken back from a dead worker is counted like any other."""
    queue.set_bound("gepa", 1)
    taken, gpu, again = _of("gepa"), _of("gepa", lane=Lane.GPU), _of("gepa").again(0.5)
    _submit(queue, database, taken)
    assert _soon(lambda: _places(database_url)[taken.id] == "optimizations-cpu")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'dead'")
    _submit(queue, database, gpu, again)
    time.sleep(1.0)
    places = _places(database_url)
    queue.take_back([WorkerId("dead")])
    launched("w", (Lane.CPU, Lane.GPU))
    one = _soon(lambda: doing.now == 1)
    time.sleep(1.2)
    first = [job.id for job in doing.begun]
    doing.open.set()

    assert ("held-gpu", "held-cpu") == (places[gpu.id], places[again.id])
    assert (True, 1) == (one, len(first))
    assert _soon(lambda: len(doing.begun) == 3 and doing.now == 0)
    assert 1 == doing.most_of["gepa"]


def test_held_jobs_can_be_withdrawn_and_count_for_the_bound_of_the_queue(
    queue: DbosQueue, database: Database, door: Doorkeeper
) -> None:
    """Where a job waits is nobody else's business."""
    queue.set_bound("gepa", 1)
    jobs = [_of("gepa") for _ in range(BOUND)]
    _submit(queue, database, *jobs)
    with pytest.raises(QueueFullError):
        _submit(queue, database, _of("simba"))
    queue.withdraw([job.id for job in jobs])
    time.sleep(0.5)

    assert 0 == queue.load()[Lane.CPU].waiting


def test_tenants_take_turns_in_a_bounded_partition_too(
    queue: DbosQueue, database: Database, doing: Doing, launched: Callable[..., object], door: Doorkeeper
) -> None:
    """And a tenant's own jobs of others do not stand behind its bounded ones."""
    queue.set_bound("gepa", 1)
    other = TenantId(uuid4())
    many = [_of("gepa") for _ in range(4)]
    _submit(queue, database, *many)
    late, free = _of("gepa", tenant=other), _of("simba")
    with database.transaction(LOCAL_TENANT) as connection:
        queue.submit(late, connection)
    _submit(queue, database, free)
    queue.settle()
    doing.open.set()
    launched()
    queue.change_terms(Lane.CPU, _at_once(1))

    assert _soon(lambda: len(doing.begun) == 6 and doing.now == 0)
    order = [job.id for job in doing.begun]
    assert order.index(late.id) <= 3
    assert order.index(free.id) <= 3


def test_the_first_start_writes_a_bound_and_later_ones_keep_it(
    queue: DbosQueue, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As with lanes; a start that says another says so in the log."""
    kept = []
    for stated in (2, 3):
        terms = replace(TERMS, partitions={"gepa": stated})
        runtime = DbosRuntime(database_url, _worker("w", ()), terms)
        runtime.launch(JobWorker(Doing(queue, None)))  # type: ignore[arg-type]
        runtime.close()
        kept.append(queue.partitions()["gepa"].concurrency)
    said = [vars(record) for record in caplog.records if record.getMessage() == "Bound was changed meanwhile"]

    assert [2, 2] == kept
    assert [("gepa", 3, 2)] == [(one["partition"], one["stated"], one["kept"]) for one in said]


def test_both_numbers_of_a_lane_change_together_or_not_at_all(
    queue: DbosQueue, launched: Callable[..., object]
) -> None:
    """One worker never more than all of them; what is refused leaves both as they were."""
    launched("w", ())
    lanes = [queue.load()[lane].worker_concurrency for lane in Lane]
    queue.change_terms(Lane.CPU, lambda _: LaneTerms(concurrency=6, worker_concurrency=4))
    refused = [
        LaneTerms(concurrency=3, worker_concurrency=4),
        LaneTerms(concurrency=9, worker_concurrency=10),
        LaneTerms(concurrency=9, worker_concurrency=0),
    ]
    for terms in refused:
        with pytest.raises(InvalidRequestError, match=f"found: {terms.worker_concurrency}; possible: change both"):
            queue.change_terms(Lane.CPU, lambda _, terms=terms: terms)
    kept = queue.load()
    seen = []
    queue.change_terms(Lane.CPU, lambda in_force: seen.append(in_force) or LaneTerms(concurrency=1))  # type: ignore[func-returns-value]

    assert [None, None] == lanes
    assert LaneLoad(waiting=0, running=0, concurrency=6, worker_concurrency=4) == kept[Lane.CPU]
    assert LaneLoad(waiting=0, running=0, concurrency=2, worker_concurrency=None) == kept[Lane.GPU]
    assert [LaneTerms(concurrency=6, worker_concurrency=4)] == seen
    assert LaneLoad(waiting=0, running=0, concurrency=1, worker_concurrency=None) == queue.load()[Lane.CPU]


def test_changes_of_a_lane_wait_for_one_another(queue: DbosQueue, launched: Callable[..., object]) -> None:
    """Each adds one to what the one before made of it: none is lost."""
    launched("w", ())
    with ThreadPoolExecutor(4) as pool:
        changes = [
            pool.submit(queue.change_terms, Lane.CPU, lambda one: replace(one, concurrency=one.concurrency + 1))
            for _ in range(12)
        ]
        for change in changes:
            change.result(SECONDS)

    assert 14 == queue.load()[Lane.CPU].concurrency


def test_before_the_first_start_there_is_no_lane_to_change(queue: DbosQueue) -> None:
    """Said, not passed over; what the settings state is shown."""
    with pytest.raises(StoreError, match="wanted: the queue optimizations-gpu; found: none"):
        queue.change_terms(Lane.GPU, _at_once(1))

    assert LaneLoad(waiting=0, running=0, concurrency=2) == queue.load()[Lane.GPU]


def test_the_first_start_writes_how_many_each_worker_runs_and_later_ones_keep_it(
    queue: DbosQueue, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that states another number says so in the log, one that states none says nothing."""
    kept = []
    for stated in (1, 2, None):
        runtime = DbosRuntime(database_url, _worker("w", ()), replace(TERMS, worker_concurrency=stated))
        runtime.launch(JobWorker(Doing(queue, None)))  # type: ignore[arg-type]
        runtime.close()
        kept.append(queue.load()[Lane.CPU].worker_concurrency)
    said = [vars(record) for record in caplog.records if getattr(record, "action", "") == "worker_concurrency_kept"]

    assert [1, 1, 1] == kept
    assert [("cpu", 2, 1), ("gpu", 2, 1)] == [(one["lane"], one["stated"], one["kept"]) for one in said]


@pytest.mark.parametrize("number", [0, 3])
def test_terms_that_contradict_one_another_cannot_be_stated(number: int) -> None:
    """Before anything is written: of two in all, none or three in each worker."""
    with pytest.raises(InvalidRequestError, match=f"wanted: from 1 to 2, .* found: {number};"):
        replace(TERMS, worker_concurrency=number)


def _places(database_url: str) -> dict[str, str]:
    with psycopg.connect(database_url) as connection:
        return dict(connection.execute("SELECT workflow_uuid, queue_name FROM dbos.workflow_status").fetchall())
