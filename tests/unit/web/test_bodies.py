"""Bodies are read of who may, as large as the route takes them, and few of the large ones at once."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Body, FastAPI
from fastapi.routing import iter_route_contexts

from dspy_optimization.web.access import Anybody
from dspy_optimization.web.app import create_app
from dspy_optimization.web.bodies import (
    EXAMPLES_BYTES,
    LARGE_AT_ONCE,
    LARGE_BYTES,
    ORDINARY_BYTES,
    KeyFirst,
    TakesExamples,
    _parsed,
)
from dspy_optimization.web.problems import install
from loops import run
from service_world import AGENT
from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")


def head_alone(keyed: Keyed, method: str, path: str, size: int, key: str | None) -> tuple[int, dict[str, Any]]:
    """Announce a body, send nothing of it, and return what is answered."""
    place = urlsplit(keyed.service.base_url)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {place.netloc}", "Content-Type: application/json"]
    lines += [f"Content-Length: {size}", *([] if key is None else [f"Authorization: Bearer {key}"])]
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10.0) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        got = b""
        while b"\r\n\r\n" not in got or not got.endswith(b"}"):
            got += connection.recv(65536)
    first, _, rest = got.decode().partition("\r\n")
    return int(first.split()[1]), json.loads(rest.partition("\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/optimize"),
        ("POST", "/api/v1/estimate"),
        ("POST", "/api/v1/datasets"),
        ("POST", "/api/v1/datasets/check"),
        ("POST", "/api/v1/schedules"),
        ("POST", "/api/v1/agents"),
        ("POST", "/api/v1/webhooks"),
        ("PATCH", "/api/v1/system/lanes/cpu"),
        ("PATCH", "/api/v1/system/partitions/gepa"),
    ],
)
def test_who_may_not_is_told_before_anything_is_read(keyed: Keyed, method: str, path: str) -> None:
    """No key, a wrong one, one that does not allow it: answered while the body is still to come."""
    keys = (None, "dso_0123456789ab_" + "x" * 32, keyed.keys["viewer"])
    found = [head_alone(keyed, method, path, 1000, key) for key in keys]
    usual = keyed.service.client.request(method, path, json={})

    assert [401, 401, 403] == [status for status, _ in found]
    assert usual.json() == found[0][1]


@pytest.mark.parametrize(
    ("method", "path", "most"),
    [
        ("POST", "/api/v1/optimize", EXAMPLES_BYTES),
        ("POST", "/api/v1/estimate", EXAMPLES_BYTES),
        ("POST", "/api/v1/datasets", EXAMPLES_BYTES),
        ("POST", "/api/v1/datasets/check", EXAMPLES_BYTES),
        ("POST", "/api/v1/schedules", EXAMPLES_BYTES),
        ("POST", "/api/v1/agents", 2 * 1024 * 1024),
        ("POST", "/api/v1/webhooks", ORDINARY_BYTES),
        ("POST", "/api/v1/login", ORDINARY_BYTES),
        ("PATCH", "/api/v1/system/lanes/cpu", ORDINARY_BYTES),
        ("PATCH", "/api/v1/system/partitions/gepa", ORDINARY_BYTES),
    ],
)
def test_a_body_is_as_large_as_the_route_takes_it(keyed: Keyed, method: str, path: str, most: int) -> None:
    """Where examples are taken much, elsewhere little; what is too large is refused by its announced size."""
    status, told = head_alone(keyed, method, path, most + 1, keyed.keys["administrator"])

    assert 413 == status
    assert f"at most {most} bytes" in told["detail"]


def test_a_body_that_announces_no_size_is_read_no_further(keyed: Keyed) -> None:
    """Chunk by chunk; and what is just small enough is read and judged."""
    chunks: Iterator[bytes] = iter([b'{"url": "'] + [b"x" * 65536] * 5)
    large = keyed.ask("/api/v1/webhooks", method="POST", content=chunks, headers={"Content-Type": "application/json"})
    ordinary = keyed.ask("/api/v1/webhooks", method="POST", json={"url": "x" * (ORDINARY_BYTES - 100)})
    long = {**AGENT, "name": "long", "signature": {**AGENT["signature"], "instructions": "é" * 30_000}}
    agent = keyed.ask("/api/v1/agents", method="POST", content=json.dumps(long).ljust(ORDINARY_BYTES + 1).encode(),
                      headers={"Content-Type": "application/json"})  # fmt: skip

    assert (413, 422, 201) == (large.status_code, ordinary.status_code, agent.status_code)


def test_every_route_with_a_body_looks_at_the_key_first(keyed: Keyed) -> None:
    """A route of tomorrow whose router forgets its class turns this red."""
    routes = [one.original_route for one in iter_route_contexts(create_app(keyed.service.settings).routes)]
    with_body = [one for one in routes if getattr(one, "body_field", None) is not None]

    assert len(with_body) >= 10
    assert [] == [one for one in with_body if not isinstance(one, KeyFirst)]


class Inside:
    """How many requests are dealt with at this moment, and how many there were at most."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.open = threading.Event()

    def deal(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.open.wait(20.0)
        with self.lock:
            self.now -= 1


def app_of(inside: Inside) -> FastAPI:
    app = FastAPI()
    app.router.route_class = KeyFirst
    app.state.large_bodies = asyncio.Semaphore(LARGE_AT_ONCE)
    install(app, sees_addresses=lambda _request: False)

    @app.post("/x", dependencies=[Anybody, TakesExamples])
    def take(body: Annotated[dict[str, Any], Body()]) -> int:
        inside.deal()
        return len(body["text"])

    return app


def test_large_bodies_take_turns() -> None:
    """Two at once, from the parsing to the answer; a small one goes between them, a broken one gives its turn back."""
    inside = Inside()

    async def send() -> tuple[list[httpx.Response], int]:
        transport = httpx.ASGITransport(app=app_of(inside))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            broken = [
                await client.post("/x", content=b"{" + b" " * LARGE_BYTES, headers={"Content-Type": "application/json"})
                for _ in range(LARGE_AT_ONCE + 1)
            ]
            large = [asyncio.create_task(client.post("/x", json={"text": "x" * LARGE_BYTES})) for _ in range(5)]
            while inside.now < LARGE_AT_ONCE:
                await asyncio.sleep(0.005)
            small = asyncio.create_task(client.post("/x", json={"text": "x"}))
            while inside.now < LARGE_AT_ONCE + 1:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
            most = inside.most
            inside.open.set()
            return [*broken, *(await asyncio.gather(*large, small))], most

    answered, most = run(asyncio.wait_for(send(), 30.0))

    assert [400] * 3 + [200] * 6 == [one.status_code for one in answered]
    assert LARGE_AT_ONCE + 1 == most
    assert LARGE_AT_ONCE + 1 >= inside.most


def test_the_event_loop_goes_on_while_a_body_is_parsed() -> None:
    """The parser alone would hold the interpreter to its end, in whichever thread it is."""
    body = b"[" + b"{}," * 2_000_000 + b"{}]"
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def parse() -> tuple[int, list[Mapping[str, Any]]]:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        before = ticks
        found = await asyncio.to_thread(_parsed, body)
        counted = ticks - before
        ticking.cancel()
        return counted, found

    counted, found = run(parse())

    assert 2_000_001 == len(found)
    assert counted >= 5
