"""Who watches what: one LISTEN session a process wakes, one reading of a log serves everybody who watches it.

NOTIFY only wakes. What happened is read from the event log by id, and ids of one optimization are committed in their
order (`adapters.postgres.event_store`), so who goes on from the last id he saw misses nothing: not while the session
was lost, not when a notification was. LISTEN belongs to a session: behind a pooler in transaction mode nothing is
heard, and streams are as slow as the polling.

Everything here belongs to one event loop; the stores are asked in threads.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple, Protocol
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo
from starlette.concurrency import run_in_threadpool

from dspy_optimization.adapters.postgres.database import CONNECT, SESSION
from dspy_optimization.adapters.postgres.failures import parse_url
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.errors import NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.standing import Standing
from dspy_optimization.tenancy import TenantId

CHANNEL = "dspy_opt_event"
SESSION_NAME = "dspy-optimization events"
KEPT = 500
"""The newest messages of a log that stay in memory while somebody watches it; older ones are read again."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_QUIET_SECONDS = 30.0
"""After this long without a notification the session is asked whether it still lives."""
_ANSWER_SECONDS = 10.0
_MOST_SIZES = 10_000
logger = logging.getLogger(__name__)


class MessageType(StrEnum):
    """What a message is about."""

    PROGRESS = "progress"  # it goes on
    RESULT = "result"  # it completed or was cancelled; the last one
    ERROR = "error"  # it failed; the last one


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a client is told."""

    id: int
    """From where a client that lost its stream goes on: the event's id; 0 before the first."""
    type: MessageType
    optimization_id: OptimizationId
    at: datetime
    event: str
    data: Mapping[str, Json]

    @property
    def ends(self) -> bool:
        """Whether nothing follows."""
        return self.type is not MessageType.PROGRESS

    @cached_property
    def text(self) -> str:
        """The message as clients read it, written once however many they are: ASCII, one line."""
        body: dict[str, Json] = {
            "type": self.type.value,
            "id": self.id,
            "optimization_id": str(self.optimization_id),
            "timestamp": self.at.isoformat(),
            "data": {**self.data, "event": self.event},
        }
        return json.dumps(body, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a log was read, and where the optimization stood there."""

    id: int
    standing: Standing
    end: int | None = None
    """Id of the event that ended it; None: nothing did, or it went on afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The next part of a log."""

    place: Place
    messages: Sequence[Message]
    state: Message
    """Where the optimization stands; its type says how it ended once it is over."""
    is_over: bool
    is_full: bool
    """Whether more may be there already."""


class Source(Protocol):
    """Reads the log of one optimization. Thread-safe."""

    def read(self, place: Place | None) -> Page:
        """Return what follows; None: from the beginning. Raises `NotFoundError` and `StoreError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """How patient streams are."""

    poll_seconds: float = 5.0
    """Logs are read at least this often, heard or not."""
    heartbeat_seconds: float = 15.0
    """How long a stream of server-sent events may be silent."""
    patience_seconds: float = 20.0
    """How long a client may take for one message before it is dropped."""


class SplitSizes(NamedTuple):
    """How many examples a dataset has to measure with."""

    val: int
    test: int


class Feed:
    """The log of one optimization as it grows."""

    def __init__(self, source: Source, poll_seconds: float) -> None:
        self.source = source
        self.watchers: set[asyncio.Event] = set()
        """Set when there is something new."""
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._lock = asyncio.Lock()
        self._begun = 0
        self._completed = 0
        self._page: Page | None = None
        self._kept: deque[Message] = deque(maxlen=KEPT)
        self._floor = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def page(self) -> Page:
        """What was read last."""
        if self._page is None:
            raise RuntimeError("wanted: a feed that was read; found: a new one; possible: refresh it first")
        return self._page

    @property
    def floor(self) -> int:
        """The messages with a greater id are in memory."""
        return self._floor

    def since(self, cursor: int) -> Sequence[Message]:
        """Return the messages with a greater id, in order; the cursor is the floor or above."""
        return [*takewhile(lambda message: message.id > cursor, reversed(self._kept))][::-1]

    def check(self) -> None:
        """Raise what ended the reading, if anything did: `NotFoundError` when the optimization is gone."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def wake(self, event_id: int | None = None) -> None:
        """Read on soon; not when this event was read already."""
        if event_id is None or self._page is None or event_id > self._page.place.id:
            self._woken.set()

    def go_on(self) -> asyncio.Task[None]:
        """Keep reading until cancelled, in a task."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self._task

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()

    async def refresh(self) -> None:
        """Return when everything is read that was written before the call."""
        begun_before = self._begun
        async with self._lock:
            if self._completed > begun_before:
                return  # a reading that began after this call has answered it meanwhile
            is_full = True
            while is_full:
                self._begun += 1
                # Nothing is taken over before the thread has answered: who is cancelled here loses nothing.
                page = await run_in_threadpool(self.source.read, None if self._page is None else self._page.place)
                self._take(page)
                self._completed = self._begun
                is_full = page.is_full

    def _take(self, page: Page) -> None:
        if self._page is not None and self._page.is_over and page.messages:
            # It went on, so the end that is kept is none; who still needs it reads it again.
            self._kept.clear()
            self._floor = self._page.place.id
        for message in page.messages:
            if len(self._kept) == KEPT:
                self._floor = self._kept[0].id
            self._kept.append(message)
        self._page = page
        if page.messages or page.is_over:
            self.tell()

    def tell(self) -> None:
        """Let everybody who watches look."""
        for watcher in self.watchers:
            watcher.set()

    async def _run(self) -> None:
        try:
            while True:
                await happens(self._woken, self._poll_seconds)
                self._woken.clear()
                try:
                    await self.refresh()
                except StoreError as error:
                    logger.warning(
                        "Event log is out of reach", extra={"action": "event_log_unreachable", "error": str(error)}
                    )
        finally:
            self.tell()


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


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Return True when it is set, False when it was not in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
        return True
    return False
