"""What happens to optimizations, told as it happens: over a WebSocket or as server-sent events, the same messages.

The first message is where the optimization stands; then come its events, each once and in their order, until the one
that ended it. A message's id is where to go on from after the stream was lost (`after`, or `Last-Event-ID`): then the
state comes first, under that id, and every event that was missed follows. A pause is no end, a failure is one; a failed
optimization that is resumed is watched anew.

Every client reads at its own place of a shared feed, so one that is slow holds back nobody and nothing piles up for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, NamedTuple, cast
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, WebSocket, WebSocketDisconnect
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.types import Message as AsgiMessage
from starlette.types import Send

from dspy_optimization.agents.example import Split
from dspy_optimization.engine import Engine
from dspy_optimization.errors import EngineError, InvalidRequestError, NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType, Json, RecordedEvent
from dspy_optimization.optimization.optimizer import Stores
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.standing import Standing, number
from dspy_optimization.tenancy import Permission
from dspy_optimization.web.access import Reading, admit
from dspy_optimization.web.hub import (
    EventHub,
    Feed,
    Message,
    MessageType,
    Overheard,
    Page,
    Place,
    SplitSizes,
    happens,
)
from dspy_optimization.web.problems import AccessError

PAGE = 500
"""Events read at once."""
MOST_WATCHED = 50
"""Optimizations one stream tells of."""
STATE = "state"
"""Stands for the event in a message that tells where an optimization stands."""
GREATEST_ID = 2**63 - 1

UNKNOWN, SLOW, RESTARTING, UNREADABLE = 4404, 1013, 1012, 4422
RETRY_MILLISECONDS = 2000

ENDS: Mapping[OptimizationStatus, MessageType] = {
    OptimizationStatus.COMPLETED: MessageType.RESULT,
    OptimizationStatus.CANCELLED: MessageType.RESULT,
    OptimizationStatus.FAILED: MessageType.ERROR,
}
_ENDING_EVENTS: Mapping[EventType, OptimizationStatus] = {
    EventType.OPTIMIZATION_COMPLETED: OptimizationStatus.COMPLETED,
    EventType.OPTIMIZATION_CANCELLED: OptimizationStatus.CANCELLED,
    EventType.OPTIMIZATION_FAILED: OptimizationStatus.FAILED,
}
_STEPS = frozenset(
    {
        *_ENDING_EVENTS,
        EventType.OPTIMIZATION_STARTED,
        EventType.OPTIMIZATION_QUEUED,
        EventType.OPTIMIZATION_RESUMED,
        EventType.OPTIMIZATION_PAUSED,
    }
)
"""Events that go with a step of the status."""
LISTED = frozenset({*_STEPS, EventType.PHASE_STARTED, EventType.ALGORITHM_STARTED, EventType.PROGRESS})
"""Events after which a list of optimizations looks different."""

logger = logging.getLogger(__name__)
router = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """The `Source` of one optimization: turns its events into messages."""

    stores: Stores
    optimization_id: OptimizationId
    hub: EventHub

    def read(self, place: Place | None) -> Page:
        """Return the next messages; the state is that after the last event there is, or newer."""
        place = self._beginning() if place is None else place
        recorded = list(self._events(place.id))
        optimization = self.stores.optimizations.get(self.optimization_id)
        if optimization.status in ENDS and len(recorded) < PAGE:
            # It may have ended between the two looks; the event that says so was written with the status.
            recorded += self._events(recorded[-1].id if recorded else place.id)
        is_full = len(recorded) >= PAGE
        if is_full:
            recorded = _without_open_failure(recorded)
        result = self._result(optimization)
        last_step = next((one.id for one in reversed(recorded) if one.event.type in _STEPS), None)
        standing, end, messages = place.standing, place.end, []
        for one in recorded:
            standing = standing.after(one.event)
            kind = _kind(one, optimization, is_last_step=one.id == last_step)
            if one.event.type in _STEPS:
                end = None if kind is MessageType.PROGRESS else one.id
            messages.append(_message(one, kind, optimization, standing, result))
        reached = Place(id=recorded[-1].id if recorded else place.id, standing=standing, end=end)
        return Page(
            place=reached,
            messages=messages,
            state=_state(optimization, reached, result),
            is_over=optimization.status in ENDS and not is_full,
            is_full=is_full,
        )

    def _events(self, after: int) -> Sequence[RecordedEvent]:
        return self.stores.events.events(self.optimization_id, after=after, limit=PAGE)

    def _beginning(self) -> Place:
        version = self.stores.optimizations.get(self.optimization_id).request.dataset
        sizes = self.hub.sizes.get(version)
        if sizes is None:
            dataset = self.stores.datasets.get(version)
            sizes = SplitSizes(val=len(dataset[Split.VAL]), test=len(dataset[Split.TEST]))
            self.hub.remember(version, sizes)
        return Place(id=0, standing=Standing(n_val=sizes.val, n_test=sizes.test))

    def _result(self, optimization: Optimization) -> OptimizationResult | None:
        if ENDS.get(optimization.status) is not MessageType.RESULT:
            return None
        return self.stores.results.result(self.optimization_id)


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

    def __init__(self, hub: EventHub, engine: Engine, wanted: Sequence[OptimizationId] | None) -> None:
        """Watch these; None: those of the tenant that go on, told only what changes a list of them."""
        self._hub = hub
        self._engine = engine
        self._wanted = wanted
        self._signal = asyncio.Event()
        self._followers: dict[OptimizationId, tuple[Follower, AsyncExitStack]] = {}
        self._ended: dict[OptimizationId, int] = {}
        """Up to where those that ended were told."""

    async def told(self) -> AsyncGenerator[Message | None]:
        """Yield the messages of all, None at first and for every while without any. Raises as `told`."""
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
                    with suppress(NotFoundError):
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


class EventStream(StreamingResponse):
    """Server-sent events. What goes wrong before the first message is answered as any other request."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncGenerator[Message | None], patience_seconds: float) -> None:
        """Send the messages; drop a client that takes longer than this for one."""
        self._chunks = _chunks(messages)
        self._patience_seconds = patience_seconds
        super().__init__(self._chunks, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def stream_response(self, send: Send) -> None:
        """Send everything. No messages at all is 204, which tells browsers not to come back."""
        async with aclosing(self._chunks) as chunks:
            first = await anext(chunks, b"")
            self.status_code = self.status_code if first else HTTPStatus.NO_CONTENT
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            is_taken = await self._is_taken(send, start) and await self._is_taken(send, _body(first))
            while is_taken and (chunk := await anext(chunks, b"")):
                is_taken = await self._is_taken(send, _body(chunk))
        if is_taken:
            await self._is_taken(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _is_taken(self, send: Send, message: AsgiMessage) -> bool:
        # A response that is returned from before its end makes the server cut the connection.
        return await in_time(send(message), self._patience_seconds)


@router.websocket("/ws/optimizations/{optimization_id}")
async def watch_by_socket(socket: WebSocket, optimization_id: str) -> None:
    """Send the messages of one optimization; close with 1000 after its end.

    Codes: 4401 no valid key, 4403 not allowed, 4404 unknown, 4422 `after` is no event id; 1012 the service ends, 1013
    come again later: the client took too long, or the database is away.
    """
    try:
        engine = await admit(socket, Permission.READ)
        one, after = id_of(optimization_id), _after(socket.query_params.get("after"))
    except (AccessError, InvalidRequestError, StoreError) as error:
        closing: Closing | None = _closing(error)
        await socket.accept()
    else:
        await socket.accept()
        closing = await _tell(socket, hub_of(socket), told(hub_of(socket), engine, one, after))
    # Whoever may not is told so by a code, although that takes accepting first: all a page's script sees of a refused
    # handshake is 1006, whatever its status. Nothing of the optimization is read or sent before it is known who asks.
    if closing is not None:
        with suppress(WebSocketDisconnect):
            await in_time(socket.close(closing.code, closing.reason), hub_of(socket).terms.patience_seconds)


@router.get(
    "/api/v1/optimizations/{optimization_id}/events",
    response_model=None,
    status_code=200,
    response_class=EventStream,
    responses={204: {"description": "It has ended, and that is known."}},
)
async def watch_by_events(
    request: Request,
    engine: Reading,
    optimization_id: str,
    after: Annotated[int | None, Query(ge=0, le=GREATEST_ID, description="The last event that is known.")] = None,
    last_event_id: Annotated[str | None, Header(description="As `after`; browsers send it.")] = None,
) -> EventStream:
    """Stream the messages of one optimization as server-sent events, until its end."""
    known = _last_known(last_event_id)
    again = known is not None
    messages = told(hub_of(request), engine, id_of(optimization_id), known if again else after, again=again)
    return EventStream(messages, hub_of(request).terms.patience_seconds)


@router.get("/api/v1/events", response_model=None, status_code=200, response_class=EventStream)
async def watch_several(
    request: Request,
    engine: Reading,
    optimizations: Annotated[
        str | None,
        Query(description=f"Ids, separated by commas, {MOST_WATCHED} at most; without: those that go on."),
    ] = None,
) -> EventStream:
    """Stream the messages of several optimizations as server-sent events, without end."""
    wanted = None if optimizations is None else _ids(optimizations)
    hub = hub_of(request)
    return EventStream(Gathering(hub, engine, wanted).told(), hub.terms.patience_seconds)


def hub_of(connection: HTTPConnection) -> EventHub:
    """Return the hub of this process."""
    return cast("EventHub", connection.app.state.hub)


def id_of(text: str) -> OptimizationId:
    """Return the id. Raises `NotFoundError` also for what cannot be one: no such optimization exists."""
    try:
        return OptimizationId(UUID(text))
    except ValueError as error:
        raise NotFoundError(
            f"wanted: an optimization; found: none can have the id {text[:50]!r}; possible: GET /api/v1/optimizations "
            "lists them"
        ) from error


async def in_time(sending: Awaitable[None], seconds: float) -> bool:
    """Send, and return True; False when it could not be done in time."""
    try:
        async with asyncio.timeout(seconds):
            await sending
    except TimeoutError:
        logger.warning("Slow client dropped", extra={"action": "slow_client_dropped", "patience_seconds": seconds})
        return False
    return True


class Closing(NamedTuple):
    """Why a socket is closed."""

    code: int
    reason: str


async def _tell(socket: WebSocket, hub: EventHub, messages: AsyncGenerator[Message | None]) -> Closing | None:
    """Send messages until they end; None: the client left before."""
    telling = asyncio.create_task(_send_all(socket, hub, messages))
    leaving = asyncio.create_task(_left(socket))
    try:
        await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        telling.cancel()
        await asyncio.gather(telling, leaving, return_exceptions=True)
    return None if telling.cancelled() else telling.result()


async def _send_all(socket: WebSocket, hub: EventHub, messages: AsyncGenerator[Message | None]) -> Closing | None:
    has_ended = False
    try:
        async with aclosing(messages):
            async for message in messages:
                if message is None:
                    continue  # the server's own pings keep a socket alive
                if not await in_time(socket.send_text(message.text), hub.terms.patience_seconds):
                    return Closing(SLOW, "too slow")
                has_ended = message.ends
    except (NotFoundError, StoreError) as error:
        return _closing(error)
    except WebSocketDisconnect:
        return None
    return Closing(1000, "ended") if has_ended else Closing(RESTARTING, "the service ends")


async def _left(socket: WebSocket) -> None:
    """Return when the client is gone; what it says meanwhile is not heard."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _closing(error: EngineError) -> Closing:
    match error:
        case AccessError():
            return Closing(
                4000 + error.status, "a key is needed" if error.status == 401 else "the key does not allow it"
            )
        case NotFoundError():
            return Closing(UNKNOWN, "no such optimization")
        case StoreError():
            return Closing(SLOW, "the database is away")
        case _:
            return Closing(UNREADABLE, "after: wanted an event id")


def _after(text: str | None) -> int | None:
    if text is None:
        return None
    known = _last_known(text)
    if known is None:
        raise InvalidRequestError(
            f"after: wanted: the id of an event; found: {text[:50]!r}; possible: a whole number, 0 for the beginning"
        )
    return known


def _last_known(text: str | None) -> int | None:
    """Return the id; None for what is none: a browser sends back whatever it was given, by whomever."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > len(str(GREATEST_ID)):
        return None
    return min(int(text), GREATEST_ID)


def _ids(text: str) -> Sequence[OptimizationId]:
    ids = list(dict.fromkeys(id_of(one.strip()) for one in text.split(",", maxsplit=MOST_WATCHED + 1)))
    if len(ids) > MOST_WATCHED:
        raise InvalidRequestError(
            f"optimizations: wanted: {MOST_WATCHED} ids at most; found: more; possible: several streams"
        )
    return ids


def _body(chunk: bytes) -> AsgiMessage:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


async def _chunks(messages: AsyncGenerator[Message | None]) -> AsyncGenerator[bytes]:
    is_first = True
    async with aclosing(messages):
        async for message in messages:
            # Without a name of its own every message reaches `onmessage`; its type is in the data.
            chunk = ":\n\n" if message is None else f"id: {message.id}\ndata: {message.text}\n\n"
            yield f"retry: {RETRY_MILLISECONDS}\n\n{chunk}".encode() if is_first else chunk.encode()
            is_first = False


def _kind(recorded: RecordedEvent, optimization: Optimization, *, is_last_step: bool) -> MessageType:
    """Return what the event is: an end, unless the optimization went on after it."""
    ending = _ENDING_EVENTS.get(recorded.event.type)
    if ending is None or (ending is OptimizationStatus.FAILED and not (is_last_step and optimization.status is ending)):
        return MessageType.PROGRESS
    return ENDS[ending]


def _without_open_failure(recorded: list[RecordedEvent]) -> list[RecordedEvent]:
    """Return a full page without its end when that is a failure: only what comes next says whether it was the last."""
    for place in range(len(recorded) - 1, 0, -1):
        if recorded[place].event.type in _STEPS:
            return recorded[:place] if recorded[place].event.type is EventType.OPTIMIZATION_FAILED else recorded
    return recorded


def _message(
    recorded: RecordedEvent,
    kind: MessageType,
    optimization: Optimization,
    standing: Standing,
    result: OptimizationResult | None,
) -> Message:
    own = dict(recorded.event.data)
    if kind is MessageType.RESULT:
        own |= _evidence(result)
    return Message(
        id=recorded.id,
        type=kind,
        optimization_id=optimization.request.id,
        at=recorded.event.at,
        event=recorded.event.type.value,
        data=_data(optimization, standing, own),
    )


def _state(optimization: Optimization, place: Place, result: OptimizationResult | None) -> Message:
    kind = ENDS.get(optimization.status, MessageType.PROGRESS)
    own: dict[str, Json] = {} if optimization.error is None else {"error": optimization.error}
    if kind is MessageType.RESULT:
        own |= _evidence(result)
    return Message(
        id=place.id,
        type=kind,
        optimization_id=optimization.request.id,
        at=optimization.updated_at,
        event=STATE,
        data=_data(optimization, place.standing, own),
    )


def _data(optimization: Optimization, standing: Standing, own: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what a message says: the event's own words, and where the optimization stood after it."""
    return {
        "status": optimization.status.value,
        "phase": standing.phase,
        **own,
        "progress": optimization.progress,
        "current_iteration": standing.iteration,
        "best_score": number(own, "best_score") if standing.best is None else standing.best,
        "algorithm": own.get("algorithm") if standing.algorithm is None else standing.algorithm,
    }


def _evidence(result: OptimizationResult | None) -> dict[str, Json]:
    """Return what the sealed split allowed to be said; nothing but None when it was not opened."""
    validated = None if result is None else result.validated
    primary = None if validated is None else validated.objectives[validated.primary]
    if validated is None or primary is None:
        return dict.fromkeys(
            ("verdict", "improvement_percentage", "statistical_significance", "confidence_interval"), None
        )
    low, high = primary.difference.low, primary.difference.high
    return {
        "verdict": validated.verdict.value,
        "improvement_percentage": primary.improvement_percentage,
        "statistical_significance": primary.p_value,
        "confidence_interval": None if low is None or high is None else [low, high],
    }
