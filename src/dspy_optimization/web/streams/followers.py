"""One client's place in what happens to one optimization, or to many."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from dspy_optimization.engine import Engine
from dspy_optimization.errors import ExpiredError, NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.web.streams.feed import Feed, happens
from dspy_optimization.web.streams.hub import EventHub, Overheard
from dspy_optimization.web.streams.messages import Message, MessageType, Place
from dspy_optimization.web.streams.teller import ENDS, LISTED, Teller

MOST_WATCHED = 50
"""Optimizations one stream tells of."""


class Follower:
    """One client's place in a feed."""

    def __init__(self, feed: Feed, after: int | None) -> None:
        """Begin behind the event `after`; None: at the present."""
        self._feed = feed
        self._place: Place | None = None
        page = feed.page
        end = page.place.id if page.place.end is None else page.place.end
        self.is_done = page.is_over and (after is None or after >= end)
        """Whether nothing follows what was told."""
        self.knew_end = after is not None and self.is_done
        """Whether this client was told of the end before."""
        self.cursor = page.place.id if after is None else min(after, page.place.id)
        kind = page.state.type if self.is_done else MessageType.PROGRESS
        self.first = replace(page.state, id=page.state.id if self.is_done else self.cursor, type=kind)
        """Where the optimization stands."""

    async def news(self) -> Sequence[Message]:
        """Return what follows and is there; nothing when this client knows everything.

        Raises `NotFoundError` when the optimization is gone, `StoreError` when an old part cannot be read now.
        """
        self._feed.check()
        messages = await self._missed() or self._feed.since(self.cursor)
        if not messages and self._feed.page.is_over:
            self.is_done = True
            return [self._feed.page.state]
        for position, message in enumerate(messages):
            self.cursor = message.id
            if message.ends:
                self.is_done = True
                return messages[: position + 1]
        return messages

    async def _missed(self) -> Sequence[Message]:
        """Return what is no longer in memory; nothing once the rest is."""
        while self.cursor < self._feed.floor:
            page = await run_in_threadpool(self._feed.source.read, self._place)
            self._place = page.place
            found = [message for message in page.messages if message.id > self.cursor]
            if found:
                return found
            if not page.is_full:
                self.cursor = max(self.cursor, page.place.id)
        return []


@asynccontextmanager
async def following(
    hub: EventHub, engine: Engine, optimization_id: OptimizationId, after: int | None, signal: asyncio.Event
) -> AsyncIterator[Follower]:
    """Follow one optimization. Raises `NotFoundError` and `StoreError`."""
    source = Teller(stores=engine.stores, optimization_id=optimization_id, hub=hub)
    async with hub.feed(engine.steering.tenant, optimization_id, source, signal) as feed:
        yield Follower(feed, after)


async def told(
    hub: EventHub, engine: Engine, optimization_id: OptimizationId, after: int | None, *, again: bool = False
) -> AsyncGenerator[Message | None]:
    """Yield the messages of one optimization until it ends, None for every while without any.

    Raises `NotFoundError` and `StoreError`, mostly before the first message.

    Args:
        hub: of this process.
        engine: of the tenant that watches.
        optimization_id: which.
        after: the last event that is known; None: begin at the present.
        again: whether nothing at all is wanted when the end is known too.
    """
    signal = asyncio.Event()
    async with following(hub, engine, optimization_id, after, signal) as follower:
        if again and follower.knew_end:
            return
        yield follower.first
        while not follower.is_done and not hub.is_closing:
            signal.clear()
            news = await follower.news()
            for message in news:
                yield message
            if not news and not await happens(signal, hub.terms.heartbeat_seconds):
                yield None


class Gathering:
    """The optimizations one client watches together: each from its state on, again when it is resumed.

    The stream itself does not end, and who comes back gets every state anew: ids of different optimizations are not
    committed in their order, so no single one says what was missed.
    """

    def __init__(
        self,
        hub: EventHub,
        engine: Engine,
        wanted: Sequence[OptimizationId] | None,
        check: Callable[[OptimizationId], object],
    ) -> None:
        """Watch optimizations.

        Args:
            hub: of this process.
            engine: of the tenant that watches.
            wanted: which; None: those of the tenant that go on, told only what changes a list of them.
            check: asked in a thread before one is joined; raises `NotFoundError`, and `ExpiredError` for one that is
                not shown any longer.
        """
        self._hub = hub
        self._engine = engine
        self._wanted = wanted
        self._check = check
        self._signal = asyncio.Event()
        self._followers: dict[OptimizationId, tuple[Follower, AsyncExitStack]] = {}
        self._ended: dict[OptimizationId, int] = {}
        """Up to where those that ended were told."""

    async def told(self) -> AsyncGenerator[Message | None]:
        """Yield the messages of all, None at first and for every while without any.

        Raises as `told`, and `ExpiredError` before the first when one that is wanted is not shown any longer.
        """
        try:
            with self._hub.overhearing(self._engine.steering.tenant, self._signal) as overheard:
                first = self._wanted if self._wanted is not None else await self._going_on()
                news: Sequence[Message] = [message for one in first for message in await self._join(one)]
                yield None
                while not self._hub.is_closing:
                    for message in news:
                        yield message
                    if not news and not await happens(self._signal, self._hub.terms.heartbeat_seconds):
                        # One that began unheard, while the session was lost and nobody knew.
                        overheard.is_anything = self._wanted is None
                        yield None
                    self._signal.clear()
                    news = [*await self._newcomers(overheard), *await self._news()]
        finally:
            for one in list(self._followers):
                await self._leave(one)

    async def _going_on(self) -> Sequence[OptimizationId]:
        newest = await run_in_threadpool(self._engine.stores.optimizations.newest, 4 * MOST_WATCHED)
        return [one.request.id for one in newest if one.status not in ENDS][:MOST_WATCHED]

    async def _newcomers(self, overheard: Overheard) -> Sequence[Message]:
        """Return the state of those that began or went on since the last look."""
        ids, is_anything = overheard.take()
        found: list[Message] = []
        try:
            if is_anything:
                ids.update(self._wanted if self._wanted is not None else await self._going_on())
            for one in sorted(ids - self._followers.keys()):
                if len(self._followers) < MOST_WATCHED and (self._wanted is None or one in self._wanted):
                    with suppress(NotFoundError, ExpiredError):
                        found += await self._join(one)
        except StoreError:
            overheard.ids |= ids
            overheard.is_anything |= is_anything
        return found

    async def _news(self) -> Sequence[Message]:
        found: list[Message] = []
        for one, (follower, _) in list(self._followers.items()):
            try:
                found += [message for message in await follower.news() if self._is_told(message)]
            except NotFoundError:
                await self._leave(one)
                continue
            if follower.is_done:
                self._ended[one] = follower.cursor
                await self._leave(one)
        return found

    async def _join(self, one: OptimizationId) -> Sequence[Message]:
        """Follow it from now on, and return its state; nothing when it ended and that was told."""
        await run_in_threadpool(self._check, one)
        async with AsyncExitStack() as stack:
            after = self._ended.get(one)
            follower = await stack.enter_async_context(following(self._hub, self._engine, one, after, self._signal))
            if follower.is_done:
                self._ended[one] = follower.cursor
            else:
                self._followers[one] = (follower, stack.pop_all())
            return [] if follower.knew_end else [follower.first]

    async def _leave(self, one: OptimizationId) -> None:
        _, stack = self._followers.pop(one)
        await stack.aclose()

    def _is_told(self, message: Message) -> bool:
        return self._wanted is not None or message.ends or message.event in LISTED
