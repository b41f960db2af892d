"""Who watches what: one LISTEN session a process wakes, one reading of a log serves everybody who watches it.

NOTIFY only wakes. What happened is read from the event log by id, and ids of one optimization are committed in their
order (`adapters.postgres.event_store`), so who goes on from the last id he saw misses nothing: not while the session
was lost, not when a notification was. LISTEN belongs to a session: behind a pooler in transaction mode nothing is
heard, and streams are as slow as the polling.

Everything here belongs to one event loop; the stores are asked in threads.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo

from dspy_optimization.adapters.postgres.database import CONNECT, SESSION
from dspy_optimization.adapters.postgres.failures import parse_url
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId
from dspy_optimization.web.streams.feed import Feed
from dspy_optimization.web.streams.messages import Source, SplitSizes, StreamTerms

CHANNEL = "dspy_opt_event"
SESSION_NAME = "dspy-optimization events"
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_QUIET_SECONDS = 30.0
"""After this long without a notification the session is asked whether it still lives."""
_ANSWER_SECONDS = 10.0
_MOST_SIZES = 10_000
logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Overheard:
    """Which optimizations of one tenant had news since somebody last looked."""

    signal: asyncio.Event
    ids: set[OptimizationId] = field(default_factory=set)
    is_anything: bool = False
    """Whether notifications may have been missed."""

    def hear(self, optimization_id: OptimizationId | None) -> None:
        """Remember the news; None: anything may have happened."""
        if optimization_id is None:
            self.is_anything = True
        else:
            self.ids.add(optimization_id)
        self.signal.set()

    def take(self) -> tuple[set[OptimizationId], bool]:
        """Return what was heard, and forget it."""
        heard = (self.ids, self.is_anything)
        self.ids, self.is_anything = set(), False
        return heard


class EventHub:
    """Listens for news and keeps a feed for every optimization that is watched. One a process, of one event loop."""

    def __init__(self, url: str, terms: StreamTerms | None = None) -> None:
        """Take what is needed; nothing is opened before `start`.

        Args:
            url: of the database; has to lead to a session.
            terms: of the streams.
        """
        self.terms = StreamTerms() if terms is None else terms
        self.sizes: dict[DatasetVersion, SplitSizes] = {}
        """Of datasets that were met; a version's never change."""
        self.is_listening = False
        self.is_closing = False
        """Whether streams have to end."""
        address = parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        options = {name: str(value) for name, value in {**CONNECT, "application_name": SESSION_NAME}.items()}
        self._address = make_conninfo(address, **options)
        self._feeds: dict[tuple[TenantId, OptimizationId], Feed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._overheard: dict[TenantId, list[Overheard]] = {}

    async def start(self) -> None:
        """Begin to listen; a database that is away is waited for."""
        self.is_closing = False
        self._keep(asyncio.create_task(self._listen()))

    async def stop(self) -> None:
        """End every stream and stop listening."""
        self.close_streams()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close_streams(self) -> None:
        """End every stream in good order; a server that waits for its connections calls it before it waits."""
        self.is_closing = True
        for feed in self._feeds.values():
            feed.tell()
        for listeners in self._overheard.values():
            for listener in listeners:
                listener.signal.set()

    @asynccontextmanager
    async def feed(
        self, tenant: TenantId, optimization_id: OptimizationId, source: Source, watcher: asyncio.Event
    ) -> AsyncIterator[Feed]:
        """Join the feed of an optimization, read up to now. Raises `NotFoundError` and `StoreError`.

        Args:
            tenant: whose it is.
            optimization_id: which.
            source: reads it, unless somebody watches it already.
            watcher: set whenever there is something new.
        """
        key = (tenant, optimization_id)
        feed = self._feeds.setdefault(key, Feed(source, self.terms.poll_seconds))
        feed.watchers.add(watcher)
        try:
            await feed.refresh()
            self._keep(feed.go_on())
            yield feed
        finally:
            feed.watchers.discard(watcher)
            if not feed.watchers:
                del self._feeds[key]
                feed.stop()

    @contextmanager
    def overhearing(self, tenant: TenantId, signal: asyncio.Event) -> Iterator[Overheard]:
        """Hear which optimizations of a tenant have news, whichever they are."""
        listener = Overheard(signal=signal)
        listeners = self._overheard.setdefault(tenant, [])
        listeners.append(listener)
        try:
            yield listener
        finally:
            listeners.remove(listener)
            if not listeners:
                self._overheard.pop(tenant, None)

    def remember(self, version: DatasetVersion, sizes: SplitSizes) -> None:
        """Keep the sizes of a dataset, so that it is not read again for them."""
        if len(self.sizes) >= _MOST_SIZES:
            self.sizes.clear()
        self.sizes[version] = sizes

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, NotFoundError):
            logger.error("Streams lost what feeds them", exc_info=error, extra={"action": "stream_task_failed"})

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(self._address, autocommit=True)
                async with connection:
                    for statement in (*SESSION, f"LISTEN {CHANNEL}"):
                        await connection.execute(statement.encode())
                    self.is_listening = True
                    pause = _FIRST_PAUSE_SECONDS
                    self._wake_all()
                    await self._hear(connection)
            except (psycopg.Error, OSError) as error:
                # The driver's words may hold the address; which error it is says enough.
                logger.warning(
                    "Events are not heard",
                    extra={"action": "listen_lost", "error": type(error).__name__, "again_in_seconds": pause},
                )
            finally:
                self.is_listening = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _hear(self, connection: "psycopg.AsyncConnection[tuple[object, ...]]") -> None:
        while True:
            async for notification in connection.notifies(timeout=_QUIET_SECONDS):
                self._wake(notification.payload)
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.execute("SELECT 1")

    def _wake(self, payload: str) -> None:
        try:
            tenant, optimization, event = payload.split(" ")
            key = (TenantId(UUID(tenant)), OptimizationId(UUID(optimization)))
            event_id = int(event)
        except ValueError:
            return  # whoever may connect may notify
        feed = self._feeds.get(key)
        if feed is not None:
            feed.wake(event_id)
        for listener in self._overheard.get(key[0], ()):
            listener.hear(key[1])

    def _wake_all(self) -> None:
        for feed in self._feeds.values():
            feed.wake()
        for listeners in self._overheard.values():
            for listener in listeners:
                listener.hear(None)
