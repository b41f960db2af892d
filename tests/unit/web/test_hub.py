"""The hub: what wakes a feed, and that nothing is lost whatever happens to its session or its watchers."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest

from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.errors import NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.standing import Standing
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from dspy_optimization.web.streams import hub as hubs
from dspy_optimization.web.streams.feed import KEPT, Feed, happens
from dspy_optimization.web.streams.hub import CHANNEL, SESSION_NAME, EventHub
from dspy_optimization.web.streams.messages import Message, MessageType, Page, Place, SplitSizes, StreamTerms
from loops import run

ONE = OptimizationId(UUID("00000000-0000-7000-8000-0000000000aa"))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEVER = StreamTerms(poll_seconds=3600.0)
NOWHERE = "postgresql://postgres@/nowhere?host=/nonexistent"


class Log:
    """A source whose log is a list; pages are as long as somebody says."""

    def __init__(self, page: int = 1000) -> None:
        self.ids: list[int] = []
        self.is_over = False
        self.reads = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._page = page

    def read(self, place: Place | None) -> Page:
        self.reads += 1
        self.gate.wait(10.0)
        if self.failure is not None:
            raise self.failure
        place = Place(id=0, standing=Standing(n_val=1, n_test=1)) if place is None else place
        found = [one for one in self.ids if one > place.id][: self._page]
        reached = Place(id=found[-1] if found else place.id, standing=place.standing)
        return Page(
            place=reached,
            messages=[message(one) for one in found],
            state=message(reached.id),
            is_over=self.is_over,
            is_full=len(found) == self._page,
        )


def message(number: int) -> Message:
    return Message(
        id=number, type=MessageType.PROGRESS, optimization_id=ONE, at=NOON, event="progress", data={"score": 0.5}
    )


def ids(messages: Sequence[Message]) -> list[int]:
    return [one.id for one in messages]


def alive(test: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run the test in a loop of its own, not for ever."""
    run(asyncio.wait_for(test(), 20.0))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def notify(url: str, payload: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])


def end_sessions(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database()",
            [SESSION_NAME],
        ).fetchone()
    return 0 if ended is None else int(ended[0])


def test_a_message_is_one_line_of_ascii() -> None:
    """Also what a model said across lines, in half surrogate pairs or with a name of its own."""
    one = Message(
        id=3,
        type=MessageType.PROGRESS,
        optimization_id=ONE,
        at=NOON,
        event="progress",
        data={"said": "a\nb\ud800 ü", "event": "mine"},
    )

    assert (
        '{"type":"progress","id":3,"optimization_id":"00000000-0000-7000-8000-0000000000aa",'
        '"timestamp":"2026-03-01T12:00:00+00:00","data":{"said":"a\\nb\\ud800 \\u00fc","event":"progress"}}' == one.text
    )
    assert one.text is one.text


def test_a_feed_wakes_whom_it_concerns(database_url: str) -> None:
    """A notification makes the feed of its optimization read, and nobody else's; nonsense wakes nobody."""

    async def test() -> None:
        hub = EventHub(database_url, NEVER)
        await hub.start()
        mine, others, watcher = Log(), Log(), asyncio.Event()
        other = OptimizationId(uuid4())
        async with hub.feed(LOCAL_TENANT, ONE, mine, watcher) as feed, hub.feed(LOCAL_TENANT, other, others, watcher):
            await until(lambda: hub.is_listening)
            await asyncio.sleep(0.05)
            watcher.clear()
            mine.ids, others.ids, before = [5], [6], others.reads
            for nonsense in ("", "a b c", f"{LOCAL_TENANT} {ONE}", f"{uuid4()} {ONE} 5"):
                await asyncio.to_thread(notify, database_url, nonsense)
            await asyncio.to_thread(notify, database_url, f"{LOCAL_TENANT} {ONE} 5")
            assert await happens(watcher, 5.0)
            assert [5] == ids(feed.since(0))
            assert before == others.reads
        await hub.stop()

    alive(test)


def test_a_lost_session_loses_nothing(database_url: str) -> None:
    """What happened while nobody listened is read when somebody does again, without waiting for the poll."""

    async def test() -> None:
        hub = EventHub(database_url, NEVER)
        await hub.start()
        log, watcher = Log(), asyncio.Event()
        async with hub.feed(LOCAL_TENANT, ONE, log, watcher) as feed:
            await until(lambda: hub.is_listening)
            with hub.overhearing(LOCAL_TENANT, asyncio.Event()) as overheard:
                assert 1 == await asyncio.to_thread(end_sessions, database_url)
                await until(lambda: not hub.is_listening)
                log.ids = [1, 2, 3]
                watcher.clear()
                assert await happens(watcher, 5.0)
                assert [1, 2, 3] == ids(feed.since(0))
                assert (set(), True) == overheard.take()
                assert (set(), False) == overheard.take()
        await hub.stop()

    alive(test)


def test_a_quiet_session_is_asked_whether_it_lives(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And hears what comes while it answers."""
    monkeypatch.setattr(hubs, "_QUIET_SECONDS", 0.01)

    async def test() -> None:
        hub = EventHub(database_url, NEVER)
        await hub.start()
        signal = asyncio.Event()
        with hub.overhearing(LOCAL_TENANT, signal) as overheard:
            await until(lambda: hub.is_listening)
            await asyncio.sleep(0.1)
            overheard.take()
            for number in range(20):
                await asyncio.to_thread(notify, database_url, f"{LOCAL_TENANT} {UUID(int=number)} 1")
            await until(lambda: len(overheard.ids) == 20)
            assert hub.is_listening
        await hub.stop()

    alive(test)


def test_a_database_that_is_away_is_waited_for(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Starting without it works, the poll goes on, and no message shows the address."""

    async def test() -> None:
        hub = EventHub(NOWHERE, StreamTerms(poll_seconds=0.02))
        await hub.start()
        log, watcher = Log(), asyncio.Event()
        async with hub.feed(LOCAL_TENANT, ONE, log, watcher) as feed:
            log.ids = [1]
            watcher.clear()
            assert await happens(watcher, 5.0)
            assert [1] == ids(feed.since(0))
            assert not hub.is_listening
        await hub.stop()

    alive(test)

    assert "listen_lost" in {getattr(record, "action", None) for record in caplog.records}
    assert "nonexistent" not in caplog.text


def test_a_feed_goes_on_after_the_log_was_out_of_reach() -> None:
    """A store that fails is asked again; whoever watches notices nothing but the wait."""

    async def test() -> None:
        hub = EventHub(NOWHERE, StreamTerms(poll_seconds=0.02))
        log, watcher = Log(), asyncio.Event()
        async with hub.feed(LOCAL_TENANT, ONE, log, watcher) as feed:
            log.failure, reads = StoreError("away"), log.reads
            await until(lambda: log.reads > reads + 2)
            feed.check()
            log.ids, log.failure = [1], None
            await until(lambda: ids(feed.since(0)) == [1])
        await hub.stop()

    alive(test)


def test_who_watches_what_is_gone_is_told() -> None:
    """An optimization that was removed ends its feed with the reason, at joining and later."""

    async def test() -> None:
        hub = EventHub(NOWHERE, StreamTerms(poll_seconds=0.02))
        log, watcher = Log(), asyncio.Event()
        async with hub.feed(LOCAL_TENANT, ONE, log, watcher) as feed:
            watcher.clear()
            log.failure = NotFoundError("gone")
            assert await happens(watcher, 5.0)
            with pytest.raises(NotFoundError, match="gone"):
                feed.check()
            with pytest.raises(NotFoundError, match="gone"):
                async with hub.feed(LOCAL_TENANT, ONE, log, asyncio.Event()):
                    pass
        log.failure = None
        async with hub.feed(LOCAL_TENANT, ONE, log, watcher) as feed:
            feed.check()
        await hub.stop()

    alive(test)


def test_who_is_cancelled_while_reading_loses_nothing_for_the_others() -> None:
    """The page a cancelled reader had asked for is read again."""

    async def test() -> None:
        log = Log()
        feed = Feed(log, 3600.0)
        log.ids = [1, 2]
        log.gate.clear()
        first = asyncio.create_task(feed.refresh())
        await until(lambda: log.reads == 1)
        first.cancel()
        log.gate.set()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        await feed.refresh()
        assert [1, 2] == ids(feed.since(0))

    alive(test)


def test_many_who_join_at_once_read_twice() -> None:
    """The reading under way may miss what was written before they came; one more serves all of them."""

    async def test() -> None:
        log = Log()
        feed = Feed(log, 3600.0)
        log.gate.clear()
        joining = [asyncio.create_task(feed.refresh())]
        await until(lambda: log.reads == 1)
        joining += [asyncio.create_task(feed.refresh()) for _ in range(50)]
        await asyncio.sleep(0.02)
        log.ids = [1]
        log.gate.set()
        await asyncio.gather(*joining)
        assert 2 == log.reads
        assert [1] == ids(feed.since(0))

    alive(test)


def test_a_reading_that_failed_serves_nobody() -> None:
    """Who waited for it reads for himself."""

    async def test() -> None:
        log = Log()
        feed = Feed(log, 3600.0)
        log.gate.clear()
        first = asyncio.create_task(feed.refresh())
        await until(lambda: log.reads == 1)
        second, third = asyncio.create_task(feed.refresh()), asyncio.create_task(feed.refresh())
        await asyncio.sleep(0.02)
        log.failure = StoreError("away")
        log.gate.set()
        outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [StoreError] * 3 == [type(outcome) for outcome in outcomes]

    alive(test)


def test_the_newest_messages_stay_in_memory() -> None:
    """However long the log and however its pages fall; what is older is below the floor."""

    async def test() -> None:
        log = Log(page=300)
        feed = Feed(log, 3600.0)
        log.ids = list(range(10, 10 + 2 * KEPT))
        await feed.refresh()
        newest = log.ids[-KEPT:]
        assert newest == ids(feed.since(feed.floor))
        assert log.ids[-KEPT - 1] == feed.floor
        assert newest[-3:] == ids(feed.since(newest[-4]))
        assert [] == ids(feed.since(newest[-1]))

    alive(test)


def test_an_end_that_was_none_is_forgotten() -> None:
    """After a failed optimization went on, what was kept of its end is read again by who needs it."""

    async def test() -> None:
        log = Log()
        feed = Feed(log, 3600.0)
        log.ids, log.is_over = [1, 2], True
        await feed.refresh()
        assert [1, 2] == ids(feed.since(0))
        log.ids, log.is_over = [1, 2, 3], False
        await feed.refresh()
        assert 2 == feed.floor
        assert [3] == ids(feed.since(2))

    alive(test)


def test_a_feed_ends_with_its_last_watcher() -> None:
    """One reading however many watch; none when nobody does."""

    async def test() -> None:
        hub = EventHub(NOWHERE, StreamTerms(poll_seconds=0.02))
        log, unused = Log(), Log()
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(hub.feed(LOCAL_TENANT, ONE, log, asyncio.Event()))
            second = await stack.enter_async_context(hub.feed(LOCAL_TENANT, ONE, unused, asyncio.Event()))
            other_tenant = TenantId(uuid4())
            third = await stack.enter_async_context(hub.feed(other_tenant, ONE, unused, asyncio.Event()))
            assert first is second
            assert first is not third
        await asyncio.sleep(0.05)
        reads = log.reads
        await asyncio.sleep(0.1)
        assert reads == log.reads
        await hub.stop()

    alive(test)


def test_closing_wakes_everybody() -> None:
    """Streams look, see that they have to end, and a server need not wait for them."""

    async def test() -> None:
        hub = EventHub(NOWHERE, NEVER)
        await hub.start()
        watcher, signal = asyncio.Event(), asyncio.Event()
        async with hub.feed(LOCAL_TENANT, ONE, Log(), watcher):
            with hub.overhearing(LOCAL_TENANT, signal):
                watcher.clear()
                hub.close_streams()
                assert (True, True, True) == (watcher.is_set(), signal.is_set(), hub.is_closing)
                began = time.monotonic()
                await hub.stop()
                assert time.monotonic() - began < 1.0

    alive(test)


def test_sizes_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are small, yet there is no end of datasets."""
    monkeypatch.setattr(hubs, "_MOST_SIZES", 2)
    hub = EventHub(NOWHERE)
    for name in "abc":
        hub.remember(DatasetVersion(name), SplitSizes(val=1, test=2))

    assert {"c": SplitSizes(val=1, test=2)} == hub.sizes
