"""Streams over real sockets: every event once and in order, whatever happens to clients, sessions and servers."""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from dspy_optimization.adapters.postgres import PostgresKeys
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.objective import Objective
from dspy_optimization.bootstrap import Foundation, new_id, open_foundation
from dspy_optimization.engine import Engine
from dspy_optimization.errors import ExpiredError, StoreError
from dspy_optimization.evaluation.gate import Estimate, ObjectiveResult, restored
from dspy_optimization.evaluation.ledger import Bill, OptimizationId, Spend
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    OptimizationRequest,
    OptimizationStatus,
    Target,
)
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.settings import Settings, read_settings
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, TenantId
from dspy_optimization.web.problems import install
from dspy_optimization.web.streams import routes as streams
from dspy_optimization.web.streams.feed import KEPT
from dspy_optimization.web.streams.followers import Gathering
from dspy_optimization.web.streams.hub import SESSION_NAME, EventHub
from dspy_optimization.web.streams.messages import Message, MessageType, StreamTerms
from dspy_optimization.web.streams.teller import PAGE
from loops import run

OTHER = TenantId(UUID("00000000-0000-7000-8000-000000000002"))
NEVER = StreamTerms(poll_seconds=3600.0)


@dataclass(frozen=True)
class StandIn:
    """What of `Serving` streams use."""

    settings: Settings
    keys: PostgresKeys
    foundation: Foundation

    def engine(self, tenant: TenantId) -> Engine:
        return self.foundation.engine(tenant)


@dataclass(frozen=True)
class World:
    """A database with engines, and servers on it."""

    serving: StandIn
    engine: Engine

    def add(self, engine: Engine | None = None, *, running: bool = True) -> OptimizationId:
        engine = self.engine if engine is None else engine
        fields = {"inputs": (Field(name="question"),), "outputs": (Field(name="answer"),)}
        agent = AgentConfig(name="router", kind=AgentKind.PREDICT, signature=Signature(instructions="Say.", **fields))

        def example(number: int) -> Example:
            text = str(number)
            return Example(id=ExampleId(f"example-{text}"), inputs={"question": text}, expected={"answer": text})

        splits = {split: (example(2 * n), example(2 * n + 1)) for n, split in enumerate(Split)}
        dataset = Dataset(name="numbers", version=DatasetVersion("d" * 64), splits=splits, seed=7)
        engine.stores.agents.add(agent)
        engine.stores.datasets.add(dataset)
        request = OptimizationRequest(
            id=OptimizationId(new_id()),
            target=Target(id=agent.name, version=agent.version),
            dataset=dataset.version,
            objectives=(Objective(metric="exact_match"),),
            algorithms=(AlgorithmChoice(name="gepa"),),
            constraints=Constraints(),
            created_at=datetime.now(UTC),
        )
        engine.stores.optimizations.add(request)
        if running:
            self.step(request.id, OptimizationStatus.RUNNING, EventType.OPTIMIZATION_STARTED, engine=engine)
        return request.id

    def tell(self, one: OptimizationId, kind: EventType = EventType.PROGRESS, **data: Json) -> None:
        self.engine.stores.events.emit(
            Event(type=kind, optimization_id=one, at=datetime.now(UTC), data={"algorithm": "gepa", **data})
        )

    def tell_many(self, one: OptimizationId, events: Sequence[Mapping[str, Json]]) -> None:
        """Write them in one transaction."""
        moment = datetime.now(UTC)
        self.engine.stores.optimizations.update(
            one,
            lambda before: before,
            [Event(type=EventType.PROGRESS, optimization_id=one, at=moment, data=data) for data in events],
        )

    def step(
        self,
        one: OptimizationId,
        status: OptimizationStatus,
        kind: EventType,
        *,
        engine: Engine | None = None,
        error: str | None = None,
    ) -> None:
        moment = datetime.now(UTC)
        (self.engine if engine is None else engine).stores.optimizations.update(
            one,
            lambda before: replace(before, status=status, error=error, updated_at=moment),
            [Event(type=kind, optimization_id=one, at=moment, data={} if error is None else {"error": error})],
        )

    def fail(self, one: OptimizationId, error: str = "the model is away") -> None:
        self.step(one, OptimizationStatus.FAILED, EventType.OPTIMIZATION_FAILED, error=error)

    def complete(self, one: OptimizationId) -> None:
        moment = datetime.now(UTC)
        event = Event(
            type=EventType.OPTIMIZATION_COMPLETED, optimization_id=one, at=moment, data={"ended_because": "finished"}
        )
        self.engine.stores.results.save(result_of(one, moment), OptimizationStatus.COMPLETED, [event])

    def ids(self, one: OptimizationId) -> list[int]:
        return [recorded.id for recorded in self.engine.stores.events.events(one)]


@dataclass(frozen=True)
class Server:
    """One process's worth of streams."""

    port: int
    hub: EventHub
    loop: asyncio.AbstractEventLoop

    def socket(self, one: object, after: int | None = None, **options: object) -> connect:
        query = "" if after is None else f"?after={after}"
        return connect(f"ws://127.0.0.1:{self.port}/ws/optimizations/{one}{query}", **options)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[tuple[httpx.Response, "AsyncIterator[dict[str, Json]]"]]:
        """Yield the response and the messages that come, each checked to carry its id."""
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10.0) as client,
            client.stream("GET", path, headers=headers) as response,
        ):
            yield response, messages_of(response)

    async def whole(self, path: str, headers: Mapping[str, str] | None = None) -> list[dict[str, Json]]:
        async with self.stream(path, headers) as (response, messages):
            assert 200 == response.status_code
            return [message async for message in messages]


async def messages_of(response: httpx.Response) -> AsyncIterator[dict[str, Json]]:
    last = ""
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            last = line.removeprefix("id: ")
        elif line.startswith("data: "):
            message = json.loads(line.removeprefix("data: "))
            assert last == str(message["id"])
            yield message


def result_of(one: OptimizationId, moment: datetime) -> OptimizationResult:
    value = ComponentValue(instructions="Say.", demos=())
    candidate = Candidate(components={ComponentName("predict"): value}, origin="gepa", parents=())
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=20)
    objective = ObjectiveResult(
        metric="exact_match",
        baseline=estimate,
        optimized=estimate,
        difference=Estimate(value=0.25, low=0.125, high=0.375, n=20),
        improvement_percentage=50.0,
        improvement_interval=(10.0, 90.0),
        p_value=0.01,
        test="mcnemar",
        mde=0.2,
        discordant=7,
        verdict=Verdict.IMPROVED,
        reason="better",
    )
    validated = restored(
        dataset=DatasetVersion("d" * 64),
        baseline=candidate.fingerprint,
        optimized=candidate.fingerprint,
        n_examples=20,
        alpha=0.05,
        test_split_use=1,
        objectives={"exact_match": objective},
        primary="exact_match",
        verdict=Verdict.IMPROVED,
        reason="better",
    )
    spend = Spend(calls=3, cost_usd=0.25)
    return OptimizationResult(
        optimization_id=one,
        baseline=candidate,
        optimized=candidate,
        validated=validated,
        algorithm_used="gepa",
        bill=Bill(by_label={"gepa": spend}),
        artifact=Artifact(agent_version=Fingerprint("a" * 64), checksum="a" * 64),
        ended_because="finished",
        completed_at=moment,
    )


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DSPY_OPT_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("DSPY_CONFIG_PATH", raising=False)
    with open_foundation(read_settings(), track=False) as foundation:
        serving = StandIn(foundation.settings, PostgresKeys(foundation.database), foundation)
        yield World(serving, foundation.engine(LOCAL_TENANT))


@contextmanager
def served(serving: StandIn, terms: StreamTerms | None = None) -> Iterator[Server]:
    """A server on a port of its own, in a thread of its own, with a hub of its own."""
    hub = EventHub(serving.foundation.url, terms)
    loops: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.serving, app.state.hub = serving, hub
        loops.append(asyncio.get_running_loop())
        await hub.start()
        yield
        await hub.stop()

    app = FastAPI(lifespan=lifespan)
    install(app, sees_addresses=lambda _request: False)
    app.include_router(streams.router)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started and hub.is_listening)
    try:
        yield Server(server.servers[0].sockets[0].getsockname()[1], hub, loops[0])
    finally:
        server.should_exit = True
        thread.join(10.0)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.005)


def alive(test: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run the test in a loop of its own, not for ever."""
    run(asyncio.wait_for(test(), 25.0))


async def take(connection: ClientConnection, count: int) -> list[dict[str, Json]]:
    return [json.loads(await connection.recv()) for _ in range(count)]


async def rest(connection: ClientConnection) -> tuple[list[dict[str, Json]], int | None]:
    """Return what comes until the server closes, and with which code it does."""
    found: list[dict[str, Json]] = []
    try:
        while True:
            found.append(json.loads(await connection.recv()))
    except ConnectionClosed as closed:
        return found, None if closed.rcvd is None else closed.rcvd.code


def ids(messages: Sequence[Mapping[str, Json]]) -> list[Json]:
    return [message["id"] for message in messages]


def kinds(messages: Sequence[Mapping[str, Json]]) -> list[Json]:
    return [message["type"] for message in messages]


def events(messages: Sequence[Mapping[str, Json]]) -> list[Json]:
    return [message["data"]["event"] for message in messages]


def test_every_event_arrives_once_and_in_order_through_two_processes(world: World) -> None:
    """Over sockets and server-sent events, from whichever process; the end closes them with 1000."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, NEVER) as first, served(world.serving, NEVER) as second:
            async with AsyncExitStack() as stack:
                sockets = [await stack.enter_async_context(server.socket(one)) for server in (first, second, second)]
                states = [(await take(connection, 1))[0] for connection in sockets]
                _, following = await stack.enter_async_context(first.stream(f"/api/v1/optimizations/{one}/events"))
                states.append(await anext(following))
                begun = world.ids(one)
                assert [("progress", begun[-1], "state")] * 4 == [
                    (state["type"], state["id"], state["data"]["event"]) for state in states
                ]

                def work() -> None:
                    for number in range(60):
                        world.tell(one, phase="p", iteration=number)
                    world.complete(one)

                await asyncio.to_thread(work)
                wanted = world.ids(one)[len(begun) :]
                for connection in sockets:
                    messages, code = await rest(connection)
                    assert (wanted, 1000) == (ids(messages), code)
                    assert ["progress"] * 60 + ["result"] == kinds(messages)
                assert wanted == ids([message async for message in following])

    alive(test)


def test_the_state_is_what_the_events_say(world: World) -> None:
    """Best score of whole val only, the algorithm at work, its iteration, the progress of the row."""
    one = world.add()
    world.tell(one, EventType.ALGORITHM_STARTED)
    trial = {"split": "val", "candidate": "c", "paid_calls": 1}
    world.tell(one, EventType.TRIAL_RECORDED, score=0.5, n_examples=2, **trial)
    world.tell(one, EventType.TRIAL_RECORDED, score=0.9, n_examples=1, **trial)
    world.tell(one, phase="rounds", iteration=3, iterations=9)
    world.engine.stores.optimizations.update(one, lambda before: replace(before, progress=0.25))

    async def test() -> None:
        with served(world.serving) as server:
            async with server.socket(one) as connection:
                message = (await take(connection, 1))[0]

        assert {"type", "id", "optimization_id", "timestamp", "data"} == set(message)
        assert (str(one), "progress") == (message["optimization_id"], message["type"])
        assert datetime.fromisoformat(message["timestamp"]).tzinfo is not None
        assert {
            "event": "state",
            "status": "running",
            "phase": "waiting",
            "progress": 0.25,
            "current_iteration": 3,
            "best_score": 0.5,
            "algorithm": "gepa",
        } == message["data"]

    alive(test)


def test_an_event_keeps_its_own_words(world: World) -> None:
    """Its type and data, beside where the optimization stood after it."""
    one = world.add()

    async def test() -> None:
        with served(world.serving) as server:
            async with server.socket(one) as connection:
                await take(connection, 1)
                await asyncio.to_thread(world.tell, one, phase="rounds", iteration=1, spend={"calls": 3}, event="x")
                message = (await take(connection, 1))[0]

        assert {
            "event": "progress",
            "status": "running",
            "phase": "rounds",
            "iteration": 1,
            "spend": {"calls": 3},
            "progress": 0.0,
            "current_iteration": 1,
            "best_score": None,
            "algorithm": "gepa",
        } == message["data"]

    alive(test)


@pytest.mark.parametrize("is_socket", [True, False])
def test_who_comes_back_gets_what_was_missed(world: World, is_socket: bool) -> None:
    """The state first, under the id that is known; then the missed events, then new ones."""
    one = world.add()
    for number in range(10):
        world.tell(one, phase="p", iteration=number)
    known = world.ids(one)

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            for after in (0, known[3], known[-1], 2**62):
                async with AsyncExitStack() as stack:
                    if is_socket:
                        connection = await stack.enter_async_context(server.socket(one, after))

                        async def follow(count: int, connection: ClientConnection = connection) -> list[dict]:
                            return await take(connection, count)
                    else:
                        # The header is newer than the address, which a browser repeats as it was.
                        path = f"/api/v1/optimizations/{one}/events?after=1"
                        stream = server.stream(path, {"Last-Event-ID": str(after)})
                        _, following = await stack.enter_async_context(stream)

                        async def follow(count: int, following: AsyncIterator = following) -> list[dict]:
                            return [await anext(following) for _ in range(count)]

                    missed = [number for number in world.ids(one) if number > after]
                    found = await follow(1 + len(missed))
                    assert [min(after, world.ids(one)[-1]), *missed] == ids(found)
                    assert "state" == events(found)[0]
                    await asyncio.to_thread(world.tell, one, phase="p", iteration=99)
                    assert world.ids(one)[-1:] == ids(await follow(1))

    alive(test)


def test_an_old_place_is_read_from_the_database(world: World) -> None:
    """What memory no longer holds comes first, page by page, and joins what it holds."""
    one = world.add()
    world.tell_many(one, [{"iteration": number} for number in range(2 * PAGE + KEPT)])

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with server.socket(one, 0) as connection, server.socket(one, world.ids(one)[-2]) as late:
                await take(late, 2)
                await asyncio.to_thread(world.complete, one)
                messages, code = await rest(connection)

        assert [0, *world.ids(one)] == ids(messages)
        assert (1000, ["result"]) == (code, kinds(messages)[-1:])

    alive(test)


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed"])
def test_an_end_closes(world: World, status: str) -> None:
    """With evidence, without, or with what went wrong; who comes later gets it as the state."""
    one = world.add()
    end = {
        "completed": lambda: world.complete(one),
        "cancelled": lambda: world.step(one, OptimizationStatus.CANCELLED, EventType.OPTIMIZATION_CANCELLED),
        "failed": lambda: world.fail(one, "the key is wrong"),
    }[status]
    path = f"/api/v1/optimizations/{one}/events"

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with server.socket(one) as connection, server.stream(path) as (_, following):
                begun = await take(connection, 1)
                await anext(following)
                await asyncio.to_thread(end)
                messages, code = await rest(connection)
                assert messages == [message async for message in following]
            ended = messages[-1]
            await asyncio.to_thread(world.tell, one, EventType.TRACKING_RECORDED, run_id="r")  # after the end
            async with server.socket(one) as connection:
                late, late_code = await rest(connection)
            async with server.socket(one, begun[0]["id"]) as connection:
                again, again_code = await rest(connection)
            async with server.socket(one, ended["id"]) as connection:
                knew, _ = await rest(connection)
            assert late == await server.whole(path)
            assert (
                204
                == httpx.get(
                    f"http://127.0.0.1:{server.port}{path}", headers={"Last-Event-ID": str(ended["id"])}
                ).status_code
            )

        kind = "error" if status == "failed" else "result"
        assert ([kind], 1000) == (kinds(messages), code)
        assert ([kind], ["state"], 1000) == (kinds(late), events(late), late_code)
        assert (["progress", kind], ["state", f"optimization.{status}"]) == (kinds(again), events(again))
        assert ([begun[0]["id"], ended["id"]], 1000) == (ids(again), again_code)
        assert late == knew
        for message in (ended, late[0], again[-1]):
            data = message["data"]
            assert status == data["status"]
            assert ("the key is wrong" if status == "failed" else None) == data.get("error")
            if kind == "result":
                evidence = ("verdict", "improvement_percentage", "statistical_significance", "confidence_interval")
                wanted = ["improved", 50.0, 0.01, [0.125, 0.375]] if status == "completed" else [None] * 4
                assert wanted == [data[name] for name in evidence]

    alive(test)


def test_a_pause_is_no_end_and_a_failure_is_over_once_resumed(world: World) -> None:
    """A stream outlives a pause; who watches a resumed one is told of its failure as of something past."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with server.socket(one) as connection:
                await take(connection, 1)
                world.step(one, OptimizationStatus.PAUSED, EventType.OPTIMIZATION_PAUSED)
                world.step(one, OptimizationStatus.RUNNING, EventType.OPTIMIZATION_RESUMED)
                await take(connection, 2)
                # One that does not read holds the feed, so that the failure stays in its memory.
                async with server.socket(one):
                    world.fail(one)
                    messages, _ = await rest(connection)
                    assert ["error"] == kinds(messages)
                    world.step(one, OptimizationStatus.QUEUED, EventType.OPTIMIZATION_QUEUED)
                    world.step(one, OptimizationStatus.RUNNING, EventType.OPTIMIZATION_RESUMED)
                    async with server.socket(one, 0) as again, server.socket(one, messages[-1]["id"]) as later:
                        found = await take(again, 1 + len(world.ids(one)))
                        assert [0, *world.ids(one)] == ids(found)
                        assert ["progress"] * len(found) == kinds(found)
                        assert ["state", "optimization.queued", "optimization.resumed"] == events(await take(later, 3))
                        world.complete(one)
                        assert (["result"], 1000) == (kinds((await rest(again))[0]), (await rest(later))[1])

    alive(test)


def test_a_failure_at_the_end_of_a_page_waits_for_the_next(world: World) -> None:
    """Only what follows says whether it was the end."""
    one = world.add()
    world.tell_many(one, [{"iteration": number} for number in range(PAGE - 2)])
    world.fail(one)
    assert PAGE == len(world.ids(one))
    world.step(one, OptimizationStatus.RUNNING, EventType.OPTIMIZATION_RESUMED)
    world.fail(one)

    async def test() -> None:
        with served(world.serving) as server:
            async with server.socket(one, 0) as connection:
                messages, code = await rest(connection)

        assert [0, *world.ids(one)] == ids(messages)
        assert (1000, ["progress"] * (len(messages) - 1) + ["error"]) == (code, kinds(messages))

    alive(test)


def test_who_may_not_is_told_why(world: World) -> None:
    """4401 without a key, 4403 from another site's page, 4404 for what is unknown, malformed or another tenant's."""
    world.serving.keys.add_tenant(OTHER, "other")
    theirs = world.add(world.serving.engine(OTHER))
    mine = world.add()
    key = world.serving.keys.create(LOCAL_TENANT, AccessRole.VIEWER, "mine")
    settings = world.serving.settings
    strict = replace(world.serving, settings=replace(settings, service=replace(settings.service, require_keys=True)))
    bearer = {"Authorization": f"Bearer {key}"}
    cookie = {"Cookie": f"dspy_opt_key={key}"}

    async def closed(server: Server, one: object, headers: Mapping[str, str], query: str = "") -> object:
        address = f"ws://127.0.0.1:{server.port}/ws/optimizations/{one}{query}"
        async with connect(address, additional_headers=headers) as connection:
            messages, code = await rest(connection)
        assert [] == messages
        return code

    async def test() -> None:
        with served(strict) as server:
            for headers in ({}, {"Authorization": "Bearer dso_000000000000_" + 32 * "x"}):
                assert 4401 == await closed(server, mine, headers)
            assert 4403 == await closed(server, mine, {**cookie, "Origin": "https://elsewhere.example"})
            for unknown in (theirs, uuid4(), "nonsense", "%00"):
                assert 4404 == await closed(server, unknown, bearer)
            for after in ("x", "-1", "1.5", "9" * 40):
                assert 4422 == await closed(server, mine, bearer, f"?after={after}")
            for headers in (bearer, {**cookie, "Origin": f"http://127.0.0.1:{server.port}"}):
                async with server.socket(mine, additional_headers=headers) as connection:
                    assert ["state"] == events(await take(connection, 1))

            base = f"http://127.0.0.1:{server.port}/api/v1"
            many = ",".join(str(uuid4()) for _ in range(51))
            for status, path, headers in (
                (401, f"optimizations/{mine}/events", {}),
                (401, "events", {}),
                (404, f"optimizations/{theirs}/events", bearer),
                (404, "optimizations/nonsense/events", bearer),
                (404, f"events?optimizations={mine},{theirs}", bearer),
                (422, f"events?optimizations={many}", bearer),
                (422, f"optimizations/{mine}/events?after=x", bearer),
            ):
                answer = httpx.get(f"{base}/{path}", headers=headers)
                assert (status, "application/problem+json") == (answer.status_code, answer.headers["content-type"])

    alive(test)


def test_a_revoked_key_ends_what_it_opened(world: World) -> None:
    """The socket with 4401, the stream of server-sent events by its end; another key's streams go on."""
    one = world.add()
    gone, kept = (world.serving.keys.create(LOCAL_TENANT, AccessRole.VIEWER, name) for name in ("gone", "kept"))
    settings = world.serving.settings
    strict = replace(world.serving, settings=replace(settings, service=replace(settings.service, require_keys=True)))
    terms = StreamTerms(heartbeat_seconds=0.05, recheck_seconds=0.1)
    headers, others = ({"Authorization": f"Bearer {key}"} for key in (gone, kept))

    async def test() -> None:
        with served(strict, terms) as server:
            path = f"/api/v1/optimizations/{one}/events"
            async with (
                server.socket(one, additional_headers=headers) as ending,
                server.socket(one, additional_headers=others) as going_on,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
                client.stream("GET", path, headers=headers) as response,
            ):
                await take(ending, 1)
                await take(going_on, 1)
                world.serving.keys.revoke(gone.split("_")[1])

                assert 4401 == (await rest(ending))[1]
                assert [line async for line in response.aiter_lines()]
                world.tell(one)
                assert [world.ids(one)[-1]] == ids(await take(going_on, 1))

    alive(test)


def test_what_ended_too_long_ago_is_told_by_no_stream(world: World) -> None:
    """As any other route says it: 410."""
    one, going_on = world.add(), world.add()
    world.fail(one)
    settings = world.serving.settings
    short = replace(world.serving, settings=replace(settings, service=replace(settings.service, retention_days=0.0)))

    async def test() -> None:
        with served(short) as server:
            async with server.socket(one) as connection:
                assert ([], 4410) == await rest(connection)
            answer = httpx.get(f"http://127.0.0.1:{server.port}/api/v1/optimizations/{one}/events")
            assert 410 == answer.status_code
            for watched in (f"{one}", f"{going_on},{one}"):
                several = httpx.get(
                    f"http://127.0.0.1:{server.port}/api/v1/events?optimizations={watched}", timeout=5.0
                )
                assert (410, "application/problem+json") == (several.status_code, several.headers["content-type"])

    alive(test)


def test_what_is_not_shown_any_longer_is_not_joined_again(world: World) -> None:
    """It ends and is too old while it is watched with others: nothing more is told of it, and the others go on."""
    ended, going_on = world.add(), world.add()
    too_old: set[OptimizationId] = set()

    def check(one: OptimizationId) -> None:
        if one in too_old:
            raise ExpiredError("it ended too long ago")

    async def test() -> None:
        hub = EventHub(world.serving.foundation.url, NEVER)
        await hub.start()
        while not hub.is_listening:
            await asyncio.sleep(0.005)
        messages = Gathering(hub, world.engine, [ended, going_on], check).told()

        async def said() -> Message:
            while (message := await anext(messages)) is None:
                pass
            return message

        try:
            assert [ended, going_on] == [(await said()).optimization_id for _ in range(2)]
            too_old.add(ended)
            await asyncio.to_thread(world.fail, ended)
            assert MessageType.ERROR is (await said()).type
            await asyncio.to_thread(world.step, ended, OptimizationStatus.RUNNING, EventType.OPTIMIZATION_RESUMED)
            await asyncio.to_thread(world.tell, going_on)
            assert going_on == (await said()).optimization_id
        finally:
            await messages.aclose()
            await hub.stop()

    alive(test)


def test_server_sent_events_are_not_kept_and_not_silent(world: World) -> None:
    """No cache, no buffering by proxies, when to come back, and a sign of life."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, StreamTerms(heartbeat_seconds=0.05)) as server:
            async with server.stream(f"/api/v1/optimizations/{one}/events") as (response, _):
                lines = response.aiter_lines()
                found = [await anext(lines) for _ in range(8)]

        assert ("no-store", "no") == (response.headers["cache-control"], response.headers["x-accel-buffering"])
        assert response.headers["content-type"].startswith("text/event-stream")
        assert ["retry: 2000", ""] == found[:2]
        assert f"id: {world.ids(one)[-1]}" == found[2]
        assert ["", ":", "", ":"] == found[4:]

    alive(test)


@pytest.mark.parametrize("is_socket", [True, False])
def test_a_slow_client_is_dropped_and_harms_nobody(world: World, is_socket: bool) -> None:
    """It takes nothing for as long as patience lasts; another one gets everything meanwhile."""
    one = world.add()
    noise = random.Random(1)
    terms = StreamTerms(poll_seconds=3600.0, patience_seconds=0.5)

    async def test() -> None:
        with served(world.serving, terms) as server:
            slow = socket.create_connection(("127.0.0.1", server.port))
            path = f"/ws/optimizations/{one}" if is_socket else f"/api/v1/optimizations/{one}/events"
            upgrade = (
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            )
            slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade if is_socket else ''}\r\n".encode())
            async with server.socket(one) as fast:
                await take(fast, 1)
                for _ in range(60):
                    big = [{"text": noise.randbytes(100_000).hex()}]
                    await asyncio.to_thread(world.tell_many, one, big)
                found = await take(fast, 60)
                await asyncio.sleep(1.5)
                received = await asyncio.to_thread(everything, slow)
                await asyncio.to_thread(world.complete, one)
                found += (await rest(fast))[0]

        assert world.ids(one)[1:] == ids(found)
        assert 0 < len(received) < 12_000_000

    def everything(slow: socket.socket) -> bytes:
        slow.settimeout(5.0)
        with slow:
            return b"".join(iter(lambda: slow.recv(1 << 20), b""))

    alive(test)


def test_a_lost_session_loses_no_event(world: World) -> None:
    """Not those while nobody listened, not those on the way; without the help of the poll."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with server.socket(one) as connection:
                await take(connection, 1)
                for number in range(5):
                    with psycopg.connect(world.serving.foundation.url, autocommit=True) as session:
                        session.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                            " AND datname = current_database()",
                            [SESSION_NAME],
                        )
                    for _ in range(10):
                        await asyncio.to_thread(world.tell, one, phase="p", iteration=number)
                    await asyncio.to_thread(until, lambda: server.hub.is_listening)
                await asyncio.to_thread(world.complete, one)
                messages, code = await rest(connection)

        assert (world.ids(one)[1:], 1000) == (ids(messages), code)

    alive(test)


def test_a_hundred_clients_get_fifty_events_each(world: World) -> None:
    """All of them, in order, and soon."""
    one = world.add()
    delays: list[float] = []

    async def follow(server: Server, ready: asyncio.Semaphore) -> list[Json]:
        async with server.socket(one, open_timeout=20.0, compression=None) as connection:
            await take(connection, 1)
            ready.release()
            found: list[Json] = []
            try:
                while True:
                    message = json.loads(await connection.recv())
                    delays.append((datetime.now(UTC) - datetime.fromisoformat(message["timestamp"])).total_seconds())
                    found.append(message["id"])
            except ConnectionClosed:
                return found

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            ready = asyncio.Semaphore(0)
            following = [asyncio.create_task(follow(server, ready)) for _ in range(100)]
            for _ in following:
                await ready.acquire()

            def work() -> None:
                for number in range(49):
                    world.tell(one, phase="p", iteration=number)
                    time.sleep(0.05)
                world.complete(one)

            await asyncio.to_thread(work)
            found = await asyncio.gather(*following)

        assert [world.ids(one)[1:]] * 100 == found

    alive(test)
    delays.sort()
    print(f"p50 {1000 * delays[len(delays) // 2]:.1f} ms, p99 {1000 * delays[len(delays) * 99 // 100]:.1f} ms")  # noqa: T201


def test_several_are_watched_together(world: World) -> None:
    """Each once and in order; one that ended says so, is no end of the stream, and comes back when it is resumed."""
    first, second, failed = world.add(), world.add(), world.add()
    world.fail(failed)
    alone = world.add()

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            path = f"/api/v1/events?optimizations={first},{second},%20{failed},{first}"
            async with server.stream(path) as (response, following):
                assert 200 == response.status_code
                states = [await anext(following) for _ in range(3)]
                assert [str(first), str(second), str(failed)] == [state["optimization_id"] for state in states]
                assert ["progress", "progress", "error"] == kinds(states)

                def work() -> None:
                    for number in range(20):
                        world.tell(first, phase="p", iteration=number)
                        world.tell(alone, phase="p", iteration=number)
                        world.tell(second, EventType.TRIAL_RECORDED, candidate="c")
                    world.complete(first)
                    world.step(failed, OptimizationStatus.RUNNING, EventType.OPTIMIZATION_RESUMED)
                    world.complete(second)

                await asyncio.to_thread(work)
                found = [await anext(following) for _ in range(21 + 21 + 2)]
                by = {
                    one: [message for message in found if message["optimization_id"] == str(one)]
                    for one in (first, second, failed)
                }
                assert world.ids(first)[1:] == ids(by[first])
                assert world.ids(second)[1:] == ids(by[second])
                assert ["state", "optimization.resumed"] == events(by[failed])
                assert ["result", "result"] == [by[first][-1]["type"], by[second][-1]["type"]]
                world.fail(failed, "again")
                assert ("error", "again") == ((last := await anext(following))["type"], last["data"]["error"])

    alive(test)


def test_a_dashboard_hears_of_everything_that_goes_on(world: World) -> None:
    """What runs, what begins, nothing of other tenants, and only what changes a list."""
    world.serving.keys.add_tenant(OTHER, "other")
    theirs = world.serving.engine(OTHER)
    old, running = world.add(), world.add()
    world.complete(old)

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with server.stream("/api/v1/events") as (_, following):
                state = await anext(following)
                assert (str(running), "state") == (state["optimization_id"], state["data"]["event"])
                world.add(theirs)
                world.tell(running, EventType.TRIAL_RECORDED, candidate="c")
                world.tell(running, phase="p", iteration=1)
                begun = world.add()
                world.complete(running)
                found = [await anext(following) for _ in range(3)]

        assert {str(running), str(begun)} == {message["optimization_id"] for message in found}
        mine = [message for message in found if message["optimization_id"] == str(running)]
        assert ["progress", "optimization.completed"] == events(mine)
        assert all(before["id"] < after["id"] for before, after in pairwise(mine))

    alive(test)


def test_streams_end_with_the_service(world: World) -> None:
    """Sockets with 1012, which tells a client to come back; server-sent events end, and browsers come back."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with (
                server.socket(one) as connection,
                server.stream(f"/api/v1/optimizations/{one}/events") as (_, following),
                server.stream("/api/v1/events") as (_, gathered),
            ):
                for stream in (following, gathered):
                    await anext(stream)
                await take(connection, 1)
                server.loop.call_soon_threadsafe(server.hub.close_streams)
                assert 1012 == (await rest(connection))[1]
                for stream in (following, gathered):
                    assert [] == [message async for message in stream]

    alive(test)


def test_who_leaves_leaves_nothing_behind(world: World) -> None:
    """Nobody reads for clients that are gone, however they went."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, NEVER) as server:
            async with (
                server.socket(one) as connection,
                server.stream(f"/api/v1/optimizations/{one}/events") as (_, following),
                server.stream("/api/v1/events") as (_, gathered),
            ):
                await take(connection, 1)
                for stream in (following, gathered):
                    await anext(stream)
                await connection.send("hello?")  # is not heard
                assert 1 == len(server.hub._feeds)
            dead = await server.socket(one)
            await take(dead, 1)
            dead.transport.abort()
            await asyncio.to_thread(until, lambda: server.hub._feeds == {} and server.hub._overheard == {})

    alive(test)


def test_a_database_that_is_away_is_no_end(world: World) -> None:
    """1013 and 503: come again later."""

    class Away(StandIn):
        def engine(self, tenant: TenantId) -> Engine:
            raise StoreError("away")

    serving = Away(world.serving.settings, world.serving.keys, world.serving.foundation)

    async def test() -> None:
        with served(serving) as server:
            async with server.socket(uuid4()) as connection:
                assert ([], 1013) == await rest(connection)
            async with server.stream("/api/v1/events") as (response, _):
                assert 503 == response.status_code

    alive(test)


def test_an_end_without_an_event_is_an_end(world: World) -> None:
    """The row decides; nobody waits for a word that does not come."""
    one = world.add()

    async def test() -> None:
        with served(world.serving, StreamTerms(poll_seconds=0.05)) as server:
            async with server.socket(one) as connection:
                await take(connection, 1)
                world.engine.stores.optimizations.update(
                    one, lambda before: replace(before, status=OptimizationStatus.CANCELLED)
                )
                messages, code = await rest(connection)

        assert (["result"], ["state"], 1000) == (kinds(messages), events(messages), code)

    alive(test)
