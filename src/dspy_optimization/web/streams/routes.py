"""What happens to optimizations, told as it happens: over a WebSocket or as server-sent events, the same messages.

The first message is where the optimization stands; then come its events, each once and in their order, until the one
that ended it. A message's id is where to go on from after the stream was lost (`after`, or `Last-Event-ID`): then the
state comes first, under that id, and every event that was missed follows. A pause is no end, a failure is one; a failed
optimization that is resumed is watched anew.

Every client reads at its own place of a shared feed, so one that is slow holds back nobody and nothing piles up for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Annotated, NamedTuple, cast
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, WebSocket, WebSocketDisconnect
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.types import Message as AsgiMessage
from starlette.types import Send

from dspy_optimization.errors import EngineError, ExpiredError, InvalidRequestError, NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import Permission
from dspy_optimization.web.access import Reading, admit, while_admitted
from dspy_optimization.web.problems import AccessError
from dspy_optimization.web.routes.parameters import GREATEST_ID, found
from dspy_optimization.web.streams.followers import MOST_WATCHED, Gathering, told
from dspy_optimization.web.streams.hub import EventHub
from dspy_optimization.web.streams.messages import Message

UNKNOWN, EXPIRED, SLOW, RESTARTING, UNREADABLE = 4404, 4410, 1013, 1012, 4422
RETRY_MILLISECONDS = 2000
logger = logging.getLogger(__name__)
router = APIRouter()


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
            # A key that ended ends the stream; a client that comes back with it is told why.
            with suppress(AccessError):
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

    Codes: 4401 no valid key, or not any more, 4403 not allowed, 4404 unknown, 4410 it ended too long ago, 4422 `after`
    is no event id; 1012 the service ends, 1013 come again later: the client took too long, or the database is away.
    """
    try:
        engine = await admit(socket, Permission.READ)
        one, after = id_of(optimization_id), _after(socket.query_params.get("after"))
        await run_in_threadpool(found, socket, engine, one)
    except (AccessError, NotFoundError, ExpiredError, InvalidRequestError, StoreError) as error:
        closing: Closing | None = _closing(error)
        await socket.accept()
    else:
        await socket.accept()
        messages = _admitted(socket, told(hub_of(socket), engine, one, after))
        closing = await _tell(socket, hub_of(socket), messages)
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
    one = id_of(optimization_id)
    await run_in_threadpool(found, request, engine, one)
    messages = told(hub_of(request), engine, one, known if again else after, again=again)
    return EventStream(_admitted(request, messages), hub_of(request).terms.patience_seconds)


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
    gathering = Gathering(hub, engine, wanted, lambda one: found(request, engine, one))
    return EventStream(_admitted(request, gathering.told()), hub.terms.patience_seconds)


def hub_of(connection: HTTPConnection) -> EventHub:
    """Return the hub of this process."""
    return cast("EventHub", connection.app.state.hub)


def _admitted(connection: HTTPConnection, messages: AsyncGenerator[Message | None]) -> AsyncGenerator[Message | None]:
    return while_admitted(connection, Permission.READ, messages, every_seconds=hub_of(connection).terms.recheck_seconds)


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
    except (AccessError, NotFoundError, StoreError) as error:
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
        case ExpiredError():
            return Closing(EXPIRED, "it ended too long ago")
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
