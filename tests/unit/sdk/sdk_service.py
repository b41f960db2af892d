"""A small service on the loopback interface that keeps the HTTP contract, and breaks it where it is told to."""

import asyncio
import json
import logging
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dspy_optimization.events import Json
from dspy_optimization.sdk import Surroundings

ID = "01928c3e-0000-7000-8000-000000000001"
AT = "2026-03-01T12:00:00Z"


@dataclass(slots=True)
class Time:
    """Sleeping is noted and costs nothing; chance is as told."""

    slept: list[float] = field(default_factory=list)
    chance: float = 0.0
    keys: list[str] = field(default_factory=lambda: [f"key-{n}" for n in range(9, 0, -1)])

    def surroundings(self) -> Surroundings:
        """Return it as the client takes it."""
        return Surroundings(
            sleep=self.slept.append,
            monotonic=lambda: sum(self.slept),
            now=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC),
            chance=lambda: self.chance,
            new_key=self.keys.pop,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    drops: bool = False
    """Break the connection off in the middle of the answer."""


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Json) -> Reply:
    """Return a refusal as the contract has it."""
    body: dict[str, Json] = {"type": "about:blank", "title": "No", "status": status, "detail": detail, **more}
    return Reply(body=body, status=status, headers=headers or {}, media_type="application/problem+json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one opened WebSocket or event stream does."""

    messages: int | None = None
    """How many to send, the state not counted; None: all there are."""
    text: str | None = None
    """Send this instead of everything."""
    code: int | None = None
    """Then close like this; None: 1000 after the last message of all, else break off."""


def progress(number: int) -> dict[str, Json]:
    """Return a message of the log."""
    return message(number, "progress", progress=number / 10, best_score=0.5, current_iteration=number)


def message(number: int, kind: str, **data: Json) -> dict[str, Json]:
    """Return a message of any kind."""
    return {"type": kind, "id": number, "optimization_id": ID, "timestamp": AT, "data": data}


class Service:
    """`with Service() as service: Client(service.url)`."""

    def __init__(self) -> None:
        self.forget()
        app = Starlette(
            routes=[
                WebSocketRoute("/ws/optimizations/{id}", self._socket),
                Route("/api/v1/optimizations/{id}/events", self._events),
                Route("/{path:path}", self._answer, methods=["GET", "POST", "DELETE"]),
            ]
        )
        self._socket_listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket_listening.getsockname()[1]}"
        config = uvicorn.Config(
            app, log_config=None, lifespan="off", ws="websockets-sansio", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket_listening],))

    def forget(self) -> None:
        """Be as new."""
        self.replies: dict[str, list[Reply]] = defaultdict(list)
        """`GET /path` → answers, one after the other; the last one stays."""
        self.received: list[Received] = []
        self.log: list[dict[str, Json]] = [*map(progress, range(1, 6)), message(6, "result", progress=1.0)]
        self.now = 0
        """The newest message when somebody who has seen nothing comes."""
        self.lines: list[Line] = []
        """Of sockets and event streams, in order of arrival; then whole ones."""
        self.refuses_sockets = False
        self.opened: list[tuple[str, str | None]] = []
        """socket or events → the `after` it came with."""

    def __enter__(self) -> Self:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket_listening.close()

    def on(self, what: str, *replies: object) -> None:
        """Answer `GET /path` (below /api/v1) like this."""
        self.replies[what] = [one if isinstance(one, Reply) else Reply(body=one) for one in replies]

    def asked(self, what: str) -> Sequence[Received]:
        """Return the requests of a kind."""
        return [one for one in self.received if f"{one.method} {one.path}" == what]

    async def _answer(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/api/v1")
        raw = await request.body()
        self.received.append(
            Received(
                method=request.method,
                path=path,
                query=dict(request.query_params),
                headers=dict(request.headers),
                body=json.loads(raw) if raw else None,
            )
        )
        replies = self.replies[f"{request.method} {path}"]
        if not replies:
            replies = [problem(404, f"wanted: something at {path}; found: nothing; possible: another address")]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = dict(reply.headers)
        if reply.drops:
            headers["content-length"] = str(len(content) + 10)
        return Response(content, reply.status, headers, reply.media_type)

    async def _socket(self, socket: WebSocket) -> None:
        after = socket.query_params.get("after")
        self.opened.append(("socket", after))
        if self.refuses_sockets:
            await socket.close()
            return
        await socket.accept()
        line = self.lines.pop(0) if self.lines else Line()
        if line.text is not None:
            await socket.send_text(line.text)
        for one in self._told(after, line):
            await socket.send_json(one)
        if line.messages is None and line.code is None:
            await socket.close(1000)
        elif line.code is not None:
            await socket.close(line.code, "told so")
        else:
            raise ConnectionResetError

    async def _events(self, request: Request) -> Response:
        after = request.query_params.get("after")
        self.opened.append(("events", after))
        line = self.lines.pop(0) if self.lines else Line()
        if line.code is not None:
            return JSONResponse({"detail": "refused"}, line.code)

        async def body() -> AsyncIterator[str]:
            yield ": beating\n\n"
            for one in self._told(after, line):
                await asyncio.sleep(0)
                yield f"id: {one['id']}\r\nevent: {one['type']}\r\ndata: {json.dumps(one)}\r\n\r\n"
            if line.messages is not None:
                raise ConnectionResetError

        return StreamingResponse(body(), media_type="text/event-stream")

    def _told(self, after: str | None, line: Line) -> list[dict[str, Json]]:
        seen = self.now if after is None else int(after)
        newest = self.log[-1]["id"] if after is not None else self.now
        state = {**progress(0), "id": newest, "data": {"progress": 0.0, "state": True}}
        if after is not None and seen >= len(self.log):
            return [self.log[-1]]
        following = [one for one in self.log if isinstance(one["id"], int) and one["id"] > seen]
        return [state, *following[: line.messages]]
