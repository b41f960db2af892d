"""Following an optimization: over a WebSocket, over server-sent events where there are none, else by asking."""

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TypeAlias

import httpx
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from dspy_optimization.errors import CapacityError, EngineError, InfrastructureError, NotFoundError
from dspy_optimization.events import Json
from dspy_optimization.sdk.answers import Status
from dspy_optimization.sdk.errors import AccessError
from dspy_optimization.sdk.problems import PASSING
from dspy_optimization.sdk.reading import read
from dspy_optimization.sdk.server_sent import server_sent
from dspy_optimization.sdk.transport import Transport, segment
from dspy_optimization.sdk.updates import Position, Update, update_of

MAX_MESSAGE_BYTES = 16 << 20
Messages: TypeAlias = Generator[Update, None, None]


class DroppedError(Exception):
    """The connection broke: open it again."""


class RefusedError(Exception):
    """This way of following is closed: take the next one."""


class Watch:
    """Follows one optimization. Iterating it opens connections; leaving the loop closes them."""

    def __init__(self, transport: Transport, optimization_id: str, *, after: int | None, poll_seconds: float) -> None:
        self._transport = transport
        self._id = optimization_id
        self._path = f"/optimizations/{segment(optimization_id)}"
        self._after = after
        self._poll_seconds = poll_seconds

    def __iter__(self) -> Iterator[Update]:
        """Yield the current state (or what came after `after`), then everything as it comes, up to the end."""
        position = Position(self._after)
        for follow in (self._socket, self._events) if self._transport.has_sockets else (self._events,):
            drops = 0
            while drops < self._transport.retries.attempts:
                if drops:
                    self._transport.pause(drops)
                position.begin()
                try:
                    with closing(follow(position.after)) as messages:
                        for message in messages:
                            for update in position.take(message):
                                drops = 0
                                yield update
                                if update.is_last:
                                    return
                    for update in position.end():
                        yield update
                        return
                except RefusedError:
                    break
                except DroppedError:
                    pass
                drops += 1
        yield from self._asked()

    def _socket(self, after: int | None) -> Messages:
        transport = self._transport
        try:
            with connect(
                transport.socket_url(f"/ws{self._path}", {"after": after}),
                additional_headers=transport.headers,
                open_timeout=transport.timeout_seconds,
                close_timeout=1,
                proxy=None if transport.address.is_loopback else True,
                max_size=MAX_MESSAGE_BYTES,
            ) as socket:
                while True:
                    yield self._message(socket.recv())
        except ConnectionClosedOK:
            return
        except ConnectionClosed as error:
            raise self._closed(error) from error
        except InvalidStatus as error:
            raise (DroppedError if error.response.status_code in PASSING else RefusedError) from error
        except WebSocketException as error:
            raise RefusedError from error
        except (OSError, EOFError) as error:
            raise DroppedError from error

    def _closed(self, error: ConnectionClosed) -> Exception:
        code = error.rcvd.code if error.rcvd is not None else None
        match code:
            case 4404:
                return NotFoundError(
                    f"wanted: an optimization; found: none with the id {self._id}; possible: client.optimizations() "
                    "lists them"
                )
            case 4401:
                wanted = "wanted: an API key; found: none, or one that is not known"
                return AccessError(f"{wanted}; possible: api_key or DSPY_OPT_API_KEY", status=401)
            case 4403:
                wanted = "wanted: a key that allows to read; found: one that does not"
                return AccessError(f"{wanted}; possible: a key of another role", status=403)
            case _:
                return DroppedError()

    def _events(self, after: int | None) -> Messages:
        # Not Last-Event-ID: whoever sends that is not told of an end that it knows.
        headers = {"Accept": "text/event-stream"}
        try:
            with self._transport.stream(f"{self._path}/events", {"after": after}, headers) as chunks:
                for event in server_sent(chunks):
                    document = self._document(event.data)
                    if "type" not in document or "data" not in document:
                        document = {"type": event.type, "data": document}
                    id_ = int(event.id) if event.id.isascii() and event.id.isdigit() else document.get("id")
                    yield self._update({**document, "id": id_})
        except httpx.RequestError as error:
            raise DroppedError from error
        except (InfrastructureError, CapacityError) as error:
            raise DroppedError from error
        except EngineError as error:
            raise RefusedError from error

    def _asked(self) -> Iterator[Update]:
        """Ask for the status again and again; yield when it says something else. Typed errors come from here."""
        last: Update | None = None
        while True:
            update = update_of(self._transport.get_as(Status, f"{self._path}/status"))
            if update != last:
                yield update
            if update.is_last:
                return
            last = update
            self._transport.surroundings.sleep(self._poll_seconds)

    def _message(self, text: str | bytes) -> Update:
        return self._update(self._document(text))

    def _update(self, document: dict[str, Json]) -> Update:
        return read(Update, {"optimization_id": self._id, **document}, "message")

    def _document(self, text: str | bytes) -> dict[str, Json]:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InfrastructureError(
                f"wanted: JSON in a message; found: {str(text)[:60]!r}; possible: a client and a service of the same "
                "version"
            ) from error
        return document if isinstance(document, dict) else {}
