"""What a service promises about crashes, met as its users meet it: over HTTP, on processes that are really killed.

Six optimizations a scenario, on two APIs, three workers and a database of their own; two WebSocket clients each, which
come back wherever somebody answers. However it went, everything ends as on a calm day, nobody missed anything, and the
bill is what the model server counted and what was lost on the way.
"""

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import httpx
import psycopg
import pytest
from crash_world import WORKERS
from http_crash_world import (
    AT_ONCE,
    CALL_USD,
    CONCURRENCY,
    Ended,
    Fleet,
    Member,
    Scenario,
    body_of,
    fleet,
    scenario,
    until,
)

pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("crash_over_http")]

DATABASE_AWAY_SECONDS = 4.0


@pytest.fixture(scope="module")
def house() -> Iterator[Fleet]:
    """The fleet that all scenarios crash."""
    with fleet() as found:
        yield found


@pytest.fixture(scope="module")
def calm(house: Fleet) -> list[Ended]:
    """What a day without a crash comes to: every call is asked, charged and answered once."""
    with scenario(house, "calm", latency_seconds=0.0) as day:
        day.finish()
        ended = day.endings()
        _check_streams(day, ended)
    for one in ended:
        assert one.received == one.charged("settled") == Counter(dict.fromkeys(one.received, 1))
        assert len(one.charges) == one.lm_calls == one.told_calls
        assert math.isclose(CALL_USD * one.lm_calls, one.cost_usd)
    return ended


def _check(day: Scenario, calm: Sequence[Ended], *, in_flight: int, fenced: Member | None = None) -> None:
    """Hold what was left behind against a calm day.

    Args:
        day: has ended.
        calm: what it has to come to.
        in_flight: how many calls may have been under way at all blows together.
        fenced: a worker that woke up after its jobs were given to others: what it had asked before is answered twice.
    """
    ended = day.endings()
    _check_streams(day, ended)
    for one, wanted in zip(ended, calm, strict=True):
        _check_once(one, wanted, fenced)
        _check_spend(one, wanted, fenced)
    asked = sum(one.received.total() for one in ended)
    lost = sum(one.charged("lost").total() for one in ended)
    again = sum(len(one.charges) - one.charged("failed").total() - len(one.charged("settled")) for one in ended)

    assert day.asked() == asked
    assert lost <= again <= in_flight
    until(lambda: 0 == sum(day.fleet.queue()), "no job is left")


def _check_once(one: Ended, wanted: Ended, fenced: Member | None) -> None:
    """It was carried out once, by one process after the other, and came to what it had to."""
    # A worker that woke up asks among the calls of its successor: without it, these are one stretch.
    others = [name for name in one.owners if fenced is None or name != fenced.name]
    owners = [name for name, _ in groupby(others)]

    assert wanted.evidence == one.evidence
    assert wanted.facts == one.facts
    assert (1, 1) == (one.kinds["optimization.started"], one.kinds["optimization.completed"])
    assert len(owners) == len(set(owners))
    assert one.kinds["optimization.resumed"] >= len(set(one.owners)) - 1


def _check_spend(one: Ended, wanted: Ended, fenced: Member | None) -> None:
    """Nothing was sent unseen; what was charged and never arrived, or twice, was lost on the way."""
    settled, lost = one.charged("settled"), one.charged("lost")
    charged = settled + lost
    reserved = sum(charge.reserved_usd for charge in one.charges if charge.status == "lost")

    assert Counter() == one.charged("started")
    assert set(wanted.received) == set(settled)
    assert Counter() == one.received - charged
    assert Counter() == (charged - one.received) - lost
    if fenced is None:
        assert Counter(dict.fromkeys(settled, 1)) == settled
    assert charged.total() == one.lm_calls == one.told_calls
    assert math.isclose(CALL_USD * settled.total() + reserved, one.cost_usd)


def _check_streams(day: Scenario, ended: Sequence[Ended]) -> None:
    """Every client was told every event, once, in order, to the end."""
    logs = {one: found.log for one, found in zip(day.ids, ended, strict=True)}
    for heard in day.audience.heard:
        assert [] == heard.wrong
        assert logs[heard.optimization_id] == heard.ids
        assert 1000 == heard.code


def test_a_worker_is_killed(house: Fleet, calm: Sequence[Ended]) -> None:
    """kill -9 in the middle: after its lease others go on with what it worked on."""
    with scenario(house, "killed", latency_seconds=0.1) as day:
        day.goes_on(150)
        killed = day.busiest()
        killed.kill()
        orphans = day.held_by(killed)
        day.taken_over(orphans, killed)
        day.finish()

        assert orphans
        _check(day, calm, in_flight=len(orphans) * WORKERS)


def test_the_apis_are_killed_under_their_clients(house: Fleet, calm: Sequence[Ended]) -> None:
    """kill -9 of one API and then of the other: every client ends at one that was not there when it came."""
    with scenario(house, "deaf", latency_seconds=0.25) as day:
        until(lambda: all(one.ids for one in day.audience.heard), "everybody has heard something")
        first, second = house.apis
        theirs = day.audience.at(first)
        first.kill()
        newcomer = house.start("api")
        until(lambda: not set(theirs) & set(day.audience.at(first)), "its clients went elsewhere")
        house.await_serving(newcomer)
        second.kill()
        # On a busy machine some are told the end before the newcomer serves.
        until(
            lambda: all(one.code is not None or one in day.audience.at(newcomer) for one in day.audience.heard),
            "all that are not done are with the newcomer",
        )
        moved = day.audience.at(newcomer)
        house.start("api")
        day.finish()

        assert theirs
        assert moved
        _check(day, calm, in_flight=0)


def test_a_worker_stands_still_longer_than_its_lease(house: Fleet, calm: Sequence[Ended]) -> None:
    """SIGSTOP and, after others have taken over, SIGCONT: it finds that it owns nothing, and goes."""
    with scenario(house, "still", latency_seconds=0.15) as day:
        day.goes_on(100)
        still = day.busiest()
        still.signal(signal.SIGSTOP)
        house.start("worker")
        held = day.held_by(still)
        until(lambda: still.process.pid not in house.leased(), "its lease is taken away")
        day.taken_over(held, still)
        day.goes_on()
        before = day.asked()
        still.signal(signal.SIGCONT)
        until(lambda: not still.is_alive, "it has gone")
        day.finish()

        late = [one for one in house.model.asked[before:] if one.by == still.name]
        assert held
        # What was on its way when it stopped still arrives.
        assert len(late) <= len(held) * CONCURRENCY
        _check(day, calm, in_flight=len(held) * WORKERS, fenced=still)


def test_the_database_stops_under_everybody(house: Fleet, calm: Sequence[Ended]) -> None:
    """An immediate stop, back after four seconds: nobody is taken for dead, no client gives up, everything ends."""
    with scenario(house, "dark", latency_seconds=0.1) as day:
        day.goes_on(150)
        everybody = [*house.apis, *house.workers]
        house.stop_database()
        time.sleep(DATABASE_AWAY_SECONDS)
        house.postgres.ensure_running()
        day.goes_on()
        day.finish()

        pids = {one.process.pid for one in everybody}
        until(
            lambda: pids == house.leased(),
            "everybody shows that it lives",
            lambda: (
                [(one.name, one.process.pid, one.process.poll()) for one in everybody],
                house.system(),
                house.said(),
            ),
        )
        _check(day, calm, in_flight=AT_ONCE * WORKERS)


def test_everything_goes_wrong_at_once(house: Fleet, calm: Sequence[Ended]) -> None:
    """One worker is dead, one stands still, an API is dead and the database is away; what is left sees it through."""
    with scenario(house, "black", latency_seconds=0.15) as day:
        day.goes_on(100)
        still = day.busiest()
        killed = next(one for one in house.workers if one is not still)
        still.signal(signal.SIGSTOP)
        killed.kill()
        house.apis[0].kill()
        house.stop_database()
        time.sleep(DATABASE_AWAY_SECONDS)
        house.postgres.ensure_running()
        for role in ("api", "worker", "worker"):
            house.start(role)
        held = day.held_by(still)
        until(lambda: still.process.pid not in house.leased(), "its lease is taken away")
        day.taken_over(held, still)
        still.signal(signal.SIGCONT)
        until(lambda: not still.is_alive, "it has gone")
        day.finish()

        assert held
        _check(day, calm, in_flight=2 * AT_ONCE * WORKERS, fenced=still)


@pytest.mark.parametrize(
    ("lock", "is_kept"), [("idempotent_request IN SHARE ROW EXCLUSIVE", False), ("lm_charge IN ACCESS EXCLUSIVE", True)]
)
def test_one_request_makes_one_optimization_whenever_its_api_dies(house: Fleet, lock: str, is_kept: bool) -> None:
    """With an `Idempotency-Key`, killed before the commit or after it: the same again is answered by another.

    What the request waits for is held by a lock of ours, so that the process dies exactly there.
    """
    house.complete()
    # What works on an optimization waits for the lock as well.
    until(lambda: 0 == sum(house.queue()), "nothing else is under way")
    dying, other = house.apis
    tenant = f"again-{is_kept}"
    key = house.key_of(tenant)
    asked = {"json": body_of("wxyz"), "headers": {"Idempotency-Key": tenant}}
    answers: list[object] = []
    asking = threading.Thread(target=_ask_into, args=(answers, house, key, dying, asked))
    with psycopg.connect(house.postgres.url) as holding:
        holding.execute(f"LOCK TABLE {lock} MODE")  # type: ignore[arg-type]
        asking.start()
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        until(lambda: bool(house.rows(waits, lock.split()[0])), "the request waits for the lock")
        kept = house.rows("SELECT 1 FROM idempotent_request WHERE key = %s", tenant)
        dying.kill()
        house.start("api")
        asking.join()
    again = [house.ask("POST", "/api/v1/optimize", key, at=other, **asked) for _ in range(2)]
    listed = house.ask("GET", "/api/v1/optimizations", key).json()["items"]

    assert is_kept is bool(kept)
    assert isinstance(answers[0], httpx.TransportError)
    assert {202} == {one.status_code for one in again}, [one.text for one in again]
    assert [one["optimization_id"] for one in listed] * 2 == [one.json()["optimization_id"] for one in again]


def _ask_into(answers: list[object], house: Fleet, key: str, at: Member, asked: dict[str, Any]) -> None:
    try:
        answers.append(house.ask("POST", "/api/v1/optimize", key, at=at, **asked))
    except httpx.TransportError as error:
        answers.append(error)
