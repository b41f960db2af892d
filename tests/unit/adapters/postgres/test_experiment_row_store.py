"""Rows of experiments: kept once, settled when nothing can appear any more, the same log whatever came when."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from experiment_rows_world import at, exposure_row, log_of, outcome_row, plan_in, running_in

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres import experiment_row_store as store
from dspy_optimization.adapters.postgres.analysis_store import PostgresAnalyses
from dspy_optimization.adapters.postgres.experiment_row_store import BEFORE_ALL, PostgresExperimentRows
from dspy_optimization.errors import NotFoundError
from dspy_optimization.experiments.assignment import ExposureId, UnitId
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.experiments.unit import Place
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

MICROSECOND = timedelta(microseconds=1)
LATER = at(10_000)


class HandClock:
    """Says what it was set to."""

    def __init__(self) -> None:
        self.moment = at(0)

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def rows(database: Database, tenant: TenantId, clock: HandClock) -> PostgresExperimentRows:
    return PostgresExperimentRows(database, tenant, clock, wait_seconds=0.1)


@pytest.fixture
def experiment(database: Database) -> Experiment:
    return running_in(database)


@pytest.fixture
def kept(database: Database) -> Callable[[str], int]:
    """How many rows a table of the local tenant has."""

    def count(table: str) -> int:
        with database.transaction(LOCAL_TENANT) as connection:
            return int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())

    return count


@contextmanager
def writing(database: Database, rows: PostgresExperimentRows, *outcomes: Outcome) -> Iterator[None]:
    """Rows are written and not committed before the block ends."""
    with database.transaction(LOCAL_TENANT) as connection:
        rows.write(connection, store._ADD_OUTCOMES, [store._outcome_row(one) for one in outcomes])
        yield


def test_nothing_is_settled_beyond_a_writer_that_goes_on(
    database: Database, rows: PostgresExperimentRows, clock: HandClock, experiment: Experiment
) -> None:
    """Its rows appear later, with the moment they were received at; looks wait for them where they are."""
    plan = experiment.plan
    rows.add_exposures([exposure_row(plan, "unit", 0)])
    clock.moment = at(10)
    assert at(10) == rows.settled_until()

    with writing(database, rows, outcome_row(plan, "unit", "slow", 20)):
        clock.moment = at(30)
        assert at(10) == rows.settled_until()
        assert 0 == rows.log(experiment, at(10), None).counts().events
    assert at(30) == rows.settled_until()
    assert 1 == rows.log(experiment, at(30), None).counts().events


def test_a_writer_that_begins_after_the_promise_is_not_waited_for(
    database: Database, rows: PostgresExperimentRows, clock: HandClock, experiment: Experiment
) -> None:
    """It knows of it: under a traffic that never pauses moments are settled too."""
    waits = PostgresExperimentRows(database, LOCAL_TENANT, clock, wait_seconds=20.0)
    clock.moment = at(30)
    first, second = threading.Event(), threading.Event()
    begun, went_on = threading.Event(), threading.Event()

    def write(until: threading.Event, event_id: str, started: threading.Event) -> None:
        with writing(database, rows, outcome_row(experiment.plan, "unit", event_id, 20)):
            started.set()
            assert until.wait(20.0)

    with ThreadPoolExecutor(3) as pool:
        old = pool.submit(write, first, "old", begun)
        assert begun.wait(20.0)
        look = pool.submit(waits.settled_until)
        while not promised(database):
            time.sleep(0.01)
        new = pool.submit(write, second, "new", went_on)
        assert went_on.wait(20.0)
        first.set()
        assert at(30) == look.result(20.0)
        assert not new.done()
        second.set()
        old.result(20.0)
        new.result(20.0)
    received = {one.event_id: one.received_at for one in outcomes_of(rows, experiment)}
    assert {"old": at(20), "new": at(30) + MICROSECOND} == received


def promised(database: Database) -> bool:
    with database.transaction(LOCAL_TENANT) as connection:
        return connection.execute(sa.text("SELECT 1 FROM experiment_horizon")).first() is not None


def outcomes_of(rows: PostgresExperimentRows, experiment: Experiment) -> list[Outcome]:
    rows.add_exposures([exposure_row(experiment.plan, "unit", 0, 0.5)])
    log = rows.log(experiment, at(100_000), None)
    return [one for told in log._events.values() for one in told]


def test_what_is_written_after_a_promise_counts_as_received_after_it(
    rows: PostgresExperimentRows, clock: HandClock, experiment: Experiment
) -> None:
    """A request that waited long before it was written cannot change what was looked at; told again it is one row."""
    plan = experiment.plan
    rows.add_exposures([exposure_row(plan, "first", 5)])
    clock.moment = at(10)
    rows.settled_until()

    stale, fresh = exposure_row(plan, "stale", 9), exposure_row(plan, "fresh", 11)
    for _ in range(2):
        rows.add_exposures([stale, fresh])
    clock.moment = at(40)
    rows.settled_until()
    rows.add_exposures([stale, fresh])

    found = {one.unit_id: one for one in rows.first_exposures([stale.id, fresh.id])}
    assert {"stale": replace(stale, received_at=at(10) + MICROSECOND), "fresh": fresh} == found
    assert ["first"] == [one.unit_id for one in rows.log(experiment, at(10), None).exposed(at(10_000))]
    assert 3 == rows.log(experiment, LATER, None).counts().units
    assert 0 == rows.log(experiment, LATER, None).counts().repeated_exposures


def test_a_settled_moment_never_falls_and_never_leaves_the_clock(
    database: Database, rows: PostgresExperimentRows, clock: HandClock, experiment: Experiment
) -> None:
    """Before anything it is before all; a clock that runs ahead or goes back spoils nothing."""
    with writing(database, rows, outcome_row(experiment.plan, "unit", "slow", 1)):
        assert BEFORE_ALL == rows.settled_until()
    clock.moment = at(20)
    assert at(20) == rows.settled_until()
    clock.moment = at(10)
    assert at(20) == rows.settled_until()

    clock.moment = datetime.now(UTC) + timedelta(days=400)
    before = datetime.now(UTC)
    assert before - timedelta(seconds=60) < rows.settled_until() < datetime.now(UTC) + timedelta(seconds=60)


def test_a_tenant_is_not_held_up_by_another(
    database: Database, other_tenant: TenantId, rows: PostgresExperimentRows, clock: HandClock, experiment: Experiment
) -> None:
    """Each has its own promise and waits for its own writers."""
    theirs = PostgresExperimentRows(database, other_tenant, clock, wait_seconds=0.1)
    clock.moment = at(30)
    with writing(database, rows, outcome_row(experiment.plan, "unit", "slow", 20)):
        assert at(30) == theirs.settled_until()
        assert BEFORE_ALL == rows.settled_until()


def test_the_server_ends_a_writer_that_hangs(
    database: Database, rows: PostgresExperimentRows, experiment: Experiment
) -> None:
    """Otherwise a machine that vanished in mid-transaction would stop all looks of its tenant."""
    shown = "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
    with database.transaction(LOCAL_TENANT) as connection:
        rows.write(connection, store._ADD_OUTCOMES, [store._outcome_row(outcome_row(experiment.plan, "u", "e", 1))])
        assert ("1min", "30s") == tuple(connection.execute(sa.text(shown)).one())
    with database.transaction(LOCAL_TENANT) as connection:
        assert ("0", "0") == tuple(connection.execute(sa.text(shown)).one())


def test_outcomes_told_by_eight_threads_are_kept_once(
    rows: PostgresExperimentRows, experiment: Experiment, kept: Callable[[str], int]
) -> None:
    """Each in an order of its own; nobody waits for anybody for ever."""
    outcomes = [outcome_row(experiment.plan, f"u{n}", f"e{n}", n) for n in range(200)]

    def tell(seed: int) -> None:
        mixed = outcomes * 2
        random.Random(seed).shuffle(mixed)
        rows.add_outcomes(mixed)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(tell, seed) for seed in range(8)]:
            done.result(60.0)
    assert 200 == kept("outcome")


def test_rows_are_written_in_the_order_of_their_keys(
    database: Database, rows: PostgresExperimentRows, experiment: Experiment
) -> None:
    """Whatever order they come in: two who wrote the same rows in other orders would wait for each other."""
    numbers = random.Random(1).sample(range(50), 50)
    rows.add_outcomes([outcome_row(experiment.plan, "unit", f"e{n:02}", 1) for n in numbers])
    rows.add_exposures([exposure_row(experiment.plan, f"u{n}", 1) for n in numbers])

    with database.transaction(LOCAL_TENANT) as connection:
        events = connection.execute(sa.text("SELECT event_id FROM outcome ORDER BY ctid")).scalars().all()
        ids = connection.execute(sa.text("SELECT exposure_id FROM exposure ORDER BY ctid")).scalars().all()
    assert (sorted(events), sorted(ids)) == (events, ids)
    assert [50, 50] == [len(events), len(ids)]


def test_ten_thousand_outcomes_are_one_statement(
    rows: PostgresExperimentRows, experiment: Experiment, kept: Callable[[str], int]
) -> None:
    """More values than a statement has places for."""
    rows.add_outcomes([outcome_row(experiment.plan, f"u{n}", f"e{n}", n, score=n / 10_000) for n in range(10_000)])

    assert 10_000 == kept("outcome")


def blocks_read(database: Database, statement: sa.TextClause, values: Mapping[str, object]) -> int:
    """How many blocks of 8 KiB a query looks at."""
    with database.transaction(LOCAL_TENANT) as connection:
        explain = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
        (found,) = connection.execute(explain, values).scalar_one()
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])


def test_a_look_reads_its_units_and_no_others(
    database: Database, rows: PostgresExperimentRows, experiment: Experiment
) -> None:
    """In tables so new that the server knows nothing of what is in them."""
    plan = experiment.plan
    exposures = [exposure_row(plan, f"u{n}", n) for n in range(2_000)]
    rows.add_exposures(exposures)
    rows.add_outcomes([outcome_row(plan, f"u{n}", f"e{n}", n + 5) for n in range(2_000)])
    which = {"experiment": plan.experiment_id, "as_of": LATER}
    place = {"after_at": at(1_979), "after_unit": b"u1979", "grace": plan.window.grace}

    # Some three blocks a look-up, and the visible rows besides; reading all for each unit is thousands.
    assert 300 > blocks_read(database, store._EXPOSURES, {**which, **place})
    assert 300 > blocks_read(database, store._OUTCOMES, {**which, "ids": [one.id for one in exposures[-20:]]})
    assert 20 == len(rows.log(experiment, LATER, Place(at(1_979), UnitId("u1979"))).exposed(LATER))


def mixed_rows(experiment: Experiment, seed: int) -> list[Exposure | Outcome]:
    """Rows of every kind that a log knows: late, early, outside of the window, repeated, conflicting, crossed over."""
    chance, plan = random.Random(seed), experiment.plan
    made: list[Exposure | Outcome] = []
    for n in range(60):
        # Few moments, so that many fall together.
        served = float(chance.randrange(0, 200, 20))
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            again = served + chance.choice([0.0, 0.0, 100.0])
            crossed = {"variant": Variant.BASELINE} if chance.random() < 0.2 else {}
            raised = {"split": Split(buckets=6_000)} if chance.random() < 0.2 else {}
            delay = chance.choice([0.0, 1.0, 60.0, 60.000001, 500.0])
            made.append(exposure_row(plan, f"u{n}", again, again + delay, **crossed, **raised))
    for _ in range(150):
        told = float(chance.randrange(0, 8_000, 10))
        unit, event = f"u{chance.randrange(70)}", f"e{chance.randrange(90)}"
        happened = {} if chance.random() < 0.3 else {"happened_at": at(told - chance.choice([0, 5, 70, 4_000]))}
        made.append(outcome_row(plan, unit, event, told, score=chance.choice([0.0, 0.5, 1.0]), **happened))
        if chance.random() < 0.3:
            made.append(outcome_row(plan, unit, event, told, feedback=chance.choice(["no", "z\ud800", "ä\x00"])))
    edge = exposure_row(plan, "edge", 0.0)
    made.append(edge)
    for n, seconds in enumerate([-0.000001, 0.0, 3_600.0, 3_600.000001]):
        for received in (3_660.0, 3_660.000001):
            happened_at = at(seconds)
            made.append(outcome_row(plan, "edge", f"edge{n}{received}", received, score=1.0, happened_at=happened_at))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_when_the_log_is_the_same(
    database: Database, tenant: TenantId, rows: PostgresExperimentRows, experiment: Experiment, seed: int
) -> None:
    """As the one in memory: exposed and usable units at several moments, after several places, and every count."""
    made = mixed_rows(experiment, seed)
    chance, plan = random.Random(seed), experiment.plan
    chance.shuffle(made)
    while made_now := [made.pop() for _ in range(min(37, len(made)))]:
        rows.add_exposures([row for row in made_now if isinstance(row, Exposure)])
        rows.add_outcomes([row for row in made_now if isinstance(row, Outcome)])
    everything = mixed_rows(experiment, seed)

    whole = log_of(plan, everything)
    assert whole.counts() == PostgresAnalyses(database, tenant).counts(plan.experiment_id)
    for as_of in (at(100), at(3_750), at(5_000), LATER):
        by_then = log_of(plan, [row for row in everything if row.received_at <= as_of])
        places = [Place(one.exposed_at, one.unit_id) for one in by_then.exposed(LATER)]
        for after in (None, *places[::7]):
            found = rows.log(experiment, as_of, after)
            assert by_then.exposed(as_of, after) == found.exposed(as_of)
            assert by_then.usable(as_of, after) == found.usable(as_of)
    ids = sorted({row.id for row in everything if isinstance(row, Exposure)})
    firsts = {row.id: row for row in rows.first_exposures([*ids, ExposureId(uuid4())])}
    expected = {one: first for one in ids if (first := whole.first_exposure(one)) is not None}
    assert expected == firsts
    assert len(expected) < len(ids)


def test_units_of_one_moment_follow_each_other_as_texts_of_python_do(
    rows: PostgresExperimentRows, experiment: Experiment
) -> None:
    """Also those that PostgreSQL takes for no text; whatever the collation of the server."""
    ids = ["a", "B", "_", "ä", "a\x00", "a\x01", "a\x1a", "\ud800", "\uffff", "😀", "\ue000", "Z" * 5_000]
    rows.add_exposures([exposure_row(experiment.plan, one, 5) for one in ids])

    order = sorted(ids)
    assert order == [one.unit_id for one in rows.log(experiment, LATER, None).exposed(LATER)]
    for number, unit_id in enumerate(order):
        after = Place(at(5), unit_id)
        assert order[number + 1 :] == [one.unit_id for one in rows.log(experiment, LATER, after).exposed(LATER)]


def test_an_outcome_comes_back_as_it_was_told(rows: PostgresExperimentRows, experiment: Experiment) -> None:
    """Every field of it, to the last digit."""
    told = outcome_row(
        experiment.plan, "unit", "e\x00\ud800", 7, score=0.1 + 0.2, failed=True, cost_usd=1e-17, latency_ms=12.5,
        scores=(("safety", 0.3), ("ton\x00", 1.0)), feedback="\x1a \ud800 ä", happened_at=at(6.000001),
    )  # fmt: skip
    rows.add_outcomes([told])

    assert [told] == outcomes_of(rows, experiment)


def test_rows_of_an_unknown_experiment_are_refused_with_all_others(
    database: Database, rows: PostgresExperimentRows, experiment: Experiment, kept: Callable[[str], int]
) -> None:
    """The message names it; another tenant's is unknown too."""
    strange = plan_in(database, optimization_id=experiment.plan.optimization_id)
    with pytest.raises(NotFoundError, match=str(strange.experiment_id)):
        rows.add_exposures([exposure_row(experiment.plan, "unit", 1), exposure_row(strange, "unit", 1)])
    with pytest.raises(NotFoundError, match=str(strange.experiment_id)):
        rows.add_outcomes([outcome_row(experiment.plan, "unit", "e", 1), outcome_row(strange, "unit", "e", 1)])

    assert (0, 0) == (kept("exposure"), kept("outcome"))


def test_nothing_is_nothing(rows: PostgresExperimentRows, experiment: Experiment) -> None:
    """No rows, no ids, no units."""
    rows.add_exposures([])
    rows.add_outcomes([])

    assert ([], []) == (rows.first_exposures([]), rows.log(experiment, LATER, None).exposed(LATER))


def test_no_tenant_sees_rows_of_another(
    database: Database, other_tenant: TenantId, rows: PostgresExperimentRows, clock: HandClock, experiment: Experiment
) -> None:
    """Nor can one write to another's experiment."""
    row = exposure_row(experiment.plan, "unit", 1)
    rows.add_exposures([row])
    theirs = PostgresExperimentRows(database, other_tenant, clock)

    assert [] == theirs.first_exposures([row.id])
    assert [] == theirs.log(experiment, LATER, None).exposed(LATER)
    with pytest.raises(NotFoundError):
        theirs.add_exposures([row])
    assert [row] == rows.first_exposures([row.id])


def test_the_rows_of_a_log_stay_as_they_are(database: Database, database_url: str, experiment: Experiment) -> None:
    """The role of the application has no right to change or remove one."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
            " WHERE grantee = 'dspy_opt_app' AND table_name IN ('exposure', 'outcome') ORDER BY 1, 2"
        ).fetchall()
        columns = connection.execute(
            "SELECT count(*) FROM information_schema.role_column_grants WHERE grantee = 'dspy_opt_app'"
            " AND table_name IN ('exposure', 'outcome') AND privilege_type = 'UPDATE'"
        ).fetchone()

    assert [("exposure", "INSERT"), ("exposure", "SELECT"), ("outcome", "INSERT"), ("outcome", "SELECT")] == found
    assert (0,) == columns
