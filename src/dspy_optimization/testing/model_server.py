"""A real OpenAI-compatible server on the loopback interface that misbehaves exactly as it is told.

    with ModelServer(default=answer("4"), script=[too_many_requests(retry_after="1"), server_error()]) as server:
        model = OpenAIChat(server.base_url, "fake")

Replies of `script` are given first, in order of arrival; then `default` answers. Any of them may be a function
of the request. `python -m dspy_optimization.testing.model_server --latency 0.05` serves until it is interrupted.
"""

import argparse
import itertools
import json
import socket
import socketserver
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Self, TypeAlias

from dspy_optimization.events import Json

_REASONS = {200: "OK", 307: "Temporary Redirect", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One chat request as it arrived."""

    body: Mapping[str, Json]
    headers: Mapping[str, str]
    """Names in lower case."""
    at: float
    """`time.monotonic()` of its arrival."""
    in_flight: int
    """Requests that were being answered then, itself included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server does with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    latency_seconds: float = 0.0
    """Before the first byte."""
    hangs: bool = False
    """Never answer; the connection stays open until the server stops."""
    drops: bool = False
    """Close the connection without an answer."""
    pieces: int = 1
    """Send the content in so many pieces …"""
    pause_seconds: float = 0.0
    """… with this pause between them."""

    def after(self, seconds: float) -> "Reply":
        """Return the same reply, given only after so long."""
        return replace(self, latency_seconds=seconds)


Script: TypeAlias = Reply | Callable[[Received], Reply]


def answer(text: str = "ok", *, usage: tuple[int, int] | None = (10, 5), finish_reason: str = "stop") -> Reply:
    """Return a proper answer; `usage` is (prompt, completion) tokens, None: the server does not count."""
    body: dict[str, Json] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
    }
    if usage is not None:
        prompt, completion = usage
        body["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
    return json_reply(200, body)


def json_reply(status: int, body: Json, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(
        status=status,
        content=json.dumps(body).encode(),
        headers={"content-type": "application/json", **(headers or {})},
    )


def refused(status: int, message: str, *, code: str | None = None, retry_after: str | None = None) -> Reply:
    """Return an error in OpenAI's shape."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return json_reply(status, {"error": {"message": message, "type": "error", "code": code}}, headers)


def too_many_requests(retry_after: str | None = None) -> Reply:
    """Return a 429; `retry_after` goes into the header as it is (seconds or an HTTP date)."""
    return refused(429, "Rate limit reached", code="rate_limit_exceeded", retry_after=retry_after)


def server_error(status: int = 500) -> Reply:
    """Return a failure of the server's own."""
    return refused(status, "The server had an error")


def garbage() -> Reply:
    """Return a success whose body is no JSON."""
    return Reply(content=b"<html>\xff\x00 not what you asked for", headers={"content-type": "text/html"})


def silence() -> Reply:
    """Return no answer, ever."""
    return Reply(hangs=True)


def hang_up() -> Reply:
    """Close the connection without an answer."""
    return Reply(drops=True)


class ModelServer:
    """Serves until it is closed; one thread a connection, keep-alive. Counts what arrives."""

    def __init__(
        self,
        default: Script | None = None,
        *,
        script: Sequence[Script] = (),
        models: Sequence[str] = ("fake",),
        capacity: int | None = None,
        port: int = 0,
        keep_requests: int = 100_000,
    ) -> None:
        """Start serving at once.

        Args:
            default: given when the script has come to its end.
            script: given first, one a chat request, in order of arrival.
            models: what `GET /v1/models` lists.
            capacity: requests beyond so many at once get a 429; None: no limit.
            port: 0: any free one.
            keep_requests: the latest so many are kept in `requests`.
        """
        self._default = answer() if default is None else default
        self._script = deque(script)
        self._models = tuple(models)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._requests: deque[Received] = deque(maxlen=keep_requests)
        self._counter = itertools.count(1)
        self._calls = 0
        self._refusals = 0
        self._in_flight = 0
        self._max_in_flight = 0
        self._sockets: set[socket.socket] = set()
        self._server = _Listener(("127.0.0.1", port), _handler_of(self._serve))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="model-server", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._server.server_address[1])

    @property
    def base_url(self) -> str:
        """What to give as `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> int:
        """Chat requests that arrived so far, refused ones included."""
        return self._calls

    @property
    def refusals(self) -> int:
        """Chat requests that were refused because of `capacity`."""
        return self._refusals

    @property
    def max_in_flight(self) -> int:
        """The most requests that were ever being answered at once, without those refused for `capacity`."""
        return self._max_in_flight

    @property
    def requests(self) -> Sequence[Received]:
        """The latest chat requests, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def say(self, default: Script, *, script: Sequence[Script] = (), capacity: int | None = None) -> None:
        """Behave like this from now on."""
        with self._lock:
            self._default, self._script, self._capacity = default, deque(script), capacity

    def close(self) -> None:
        """Stop, and close every connection; requests that hang are dropped."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            sockets = list(self._sockets)
        for connection in sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        """Answer requests of one connection until either side ends it."""
        with self._lock:
            self._sockets.add(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection.makefile("rb") as reader:
                while not self._stopped.is_set() and self._exchange(connection, reader):
                    pass
        except (OSError, ValueError):
            return  # the other side went away in the middle of a request
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _exchange(self, connection: socket.socket, reader: BinaryIO) -> bool:
        """Answer one request; False ends the connection."""
        line = reader.readline(65536)
        if not line:
            return False
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (entry := reader.readline(65536)) not in (b"\r\n", b"\n", b""):
            name, _, value = entry.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        content = reader.read(int(headers.get("content-length", "0")))
        if method == "GET" and path == "/v1/models":
            listed: list[Json] = [{"id": name, "object": "model"} for name in self._models]
            return self._send(connection, json_reply(200, {"object": "list", "data": listed}))
        if method != "POST" or path != "/v1/chat/completions":
            return self._send(connection, refused(404, f"there is no {method} {path}"))
        return self._chat(connection, headers, content)

    def _chat(self, connection: socket.socket, headers: Mapping[str, str], content: bytes) -> bool:
        body = json.loads(content)
        with self._lock:
            self._calls += 1
            refuse = self._capacity is not None and self._in_flight >= self._capacity
            self._in_flight += 1
            received = Received(body=body, headers=headers, at=time.monotonic(), in_flight=self._in_flight)
            self._requests.append(received)
            if refuse:
                self._refusals += 1
                chosen: Script = too_many_requests()
            else:
                self._max_in_flight = max(self._max_in_flight, self._in_flight)
                chosen = self._script.popleft() if self._script else self._default
        released = False
        try:
            reply = chosen if isinstance(chosen, Reply) else chosen(received)
            if reply.latency_seconds:
                self._stopped.wait(reply.latency_seconds)
            if reply.hangs:
                self._stopped.wait()
            if reply.hangs or reply.drops:
                return False
            if reply.pieces == 1:
                # Before the last byte: a client that asks again at once must not meet its own old request.
                released = self._release()
            return self._send(connection, reply)
        finally:
            if not released:
                self._release()

    def _release(self) -> bool:
        with self._lock:
            self._in_flight -= 1
        return True

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        head = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Other')}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        head += [f"content-length: {len(reply.content)}", "", ""]
        start = "\r\n".join(head).encode("latin-1")
        if reply.pieces == 1:
            connection.sendall(start + reply.content)  # one packet: no waiting for an acknowledgement
            return True
        connection.sendall(start)
        size = max(1, -(-len(reply.content) // reply.pieces))
        for place in range(0, len(reply.content), size):
            connection.sendall(reply.content[place : place + size])
            self._stopped.wait(reply.pause_seconds)
        return True


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024


def _handler_of(serve: Callable[[socket.socket], None]) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            serve(self.request)

    return Handler


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve fixed answers until interrupted; the first line on standard output is the base URL."""
    parser = argparse.ArgumentParser(prog="model_server", description=main.__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before every answer")
    parser.add_argument("--capacity", type=int, default=None, help="more than so many at once get a 429")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--text", default="ok")
    options = parser.parse_args(arguments)
    with ModelServer(
        answer(options.text).after(options.latency), capacity=options.capacity, port=options.port, keep_requests=0
    ) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
