"""A fleet to crash: API and worker processes that run the command line, the database they share, and who watches.

The model server sees who asks what: every process has a model key of its own, and keys are no part of what a call is.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import websockets
from forked import Forked, begin

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.adapters.postgres.key_store import tenant_of
from dspy_optimization.evaluation.model import CallKey, ModelRequest, call_key
from dspy_optimization.tenancy import AccessRole
from dspy_optimization.testing.model_server import ModelServer, Received, Reply
from service_world import request_body, spell

EACH_SCENARIO = 6
"""Optimizations handed in."""
AT_ONCE = 4
"""Optimizations that run at once, over all workers; the others wait."""
CONCURRENCY = 4
LEASE_SECONDS = 8.0
"""Of every process: who reaps gives the others as long as its own lease to show themselves."""
PATIENCE_SECONDS = 180.0
"""Bounds a hang; on two idle cores nothing here takes half a minute."""
CALL_USD = 0.02
"""What an answer of the fake model costs: ten tokens of prompt, five of completion."""
_PRICE = "{prompt_usd_per_million: 1000, completion_usd_per_million: 2000}"
_ADDRESS = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
_WORD = re.compile(r"\[\[ ## word ## \]\]\n([a-z]+)\d+")


def until(true: Callable[[], bool], what: str, found: Callable[[], object] = lambda: "it is not so") -> None:
    """Wait for a condition; say what there is instead when it does not come."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, f"wanted: {what}; found after {PATIENCE_SECONDS:g} s: {found()}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that reached the model server."""

    at: float
    by: str
    """Name of the process."""
    subject: str
    """Which optimization it belongs to: the letters its words begin with."""
    key: CallKey


@dataclass(slots=True)
class Model:
    """Answers as `service_world.spell`, after a while, and remembers who asked what."""

    latency_seconds: float = 0.0
    identity: str = ""
    asked: list[Asked] = field(default_factory=list)

    def __call__(self, received: Received) -> Reply:
        body = dict(received.body)
        body.pop("model")
        text = str(body["messages"][-1]["content"])  # type: ignore[index, call-overload]
        found = _WORD.findall(text)
        assert found, text
        by = received.headers["authorization"].removeprefix("Bearer ")
        key = call_key(self.identity, ModelRequest(body=body))
        self.asked.append(Asked(at=received.at, by=by, subject=found[-1], key=key))
        return spell(received).after(self.latency_seconds)

    def owners(self, subject: str) -> list[str]:
        """Return who asked for an optimization, in order of arrival, every stretch of one process once."""
        ours = sorted((one.at, one.by) for one in list(self.asked) if one.subject == subject)
        return [by for by, _ in groupby(by for _, by in ours)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process of the fleet."""

    name: str
    process: Forked
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def address(self) -> str | None:
        """Where it listens, once it does."""
        found = _ADDRESS.search(self.log.read_text(encoding="utf-8"))
        return None if found is None else found[1]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


class Fleet:
    """Two APIs and three workers on one database; what dies is made up for by `complete`."""

    def __init__(self, postgres: EmbeddedPostgres, server: ModelServer, model: Model, folder: Path) -> None:
        self.postgres = postgres
        self.model = model
        self._folder = folder
        self._everybody: list[Member] = []
        self._names = Counter[str]()
        config = folder / "config.yaml"
        config.write_text(
            f"models: {{task: {{model: {{base_url: '{server.base_url}', model: fake}}, api_key_env: MODEL_KEY,"
            f" price: {_PRICE}}}}}\n",
            encoding="utf-8",
        )
        self._environment = {
            **os.environ,
            "DATABASE_URL": postgres.url,
            "DSPY_CONFIG_PATH": str(config),
            "DSPY_OPT_DATA_DIR": str(folder),
            "DSPY_OPT_REQUIRE_KEYS": "yes",
            "MAX_CONCURRENT_OPTIMIZATIONS": str(AT_ONCE),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        self._database = Database.open(postgres.url)
        self._client = httpx.Client(timeout=30.0)
        self._operator = self.key_of("operators", AccessRole.ADMINISTRATOR)

    @property
    def apis(self) -> list[Member]:
        """The living APIs that listen, the oldest first."""
        return [one for one in self._everybody if one.name.startswith("api") and one.is_alive and one.address]

    @property
    def workers(self) -> list[Member]:
        """The living workers, the oldest first."""
        return [one for one in self._everybody if one.name.startswith("worker") and one.is_alive]

    def start(self, role: str) -> Member:
        """Start a process; it serves when it has an address."""
        self._names[role] += 1
        name = f"{role}-{self._names[role]}"
        log = self._folder / f"{name}.log"
        words = ("serve", "--role", role, "--port", "0", "--log", "json")
        process = begin(
            "command_line", LEASE_SECONDS, *words, environment={**self._environment, "MODEL_KEY": name}, log=log
        )
        member = Member(name=name, process=process, log=log)
        self._everybody.append(member)
        return member

    def complete(self) -> None:
        """Start what is missing, and wait until all of it serves."""
        for role, count in (("api", 2), ("worker", 3)):
            alive = [one for one in self._everybody if one.name.startswith(role) and one.is_alive]
            for _ in range(count - len(alive)):
                self.start(role)
        for one in [one for one in self._everybody if one.is_alive]:
            self.await_serving(one)

    def await_serving(self, member: Member) -> None:
        def serves() -> bool:
            assert member.is_alive, f"{member.name} ended:\n{self.said()}"
            return member.address is not None

        until(serves, f"{member.name} serves")

    def ask(self, method: str, path: str, key: str, *, at: Member | None = None, **more: Any) -> httpx.Response:
        """Return the answer of an API; without a certain one, of any, as soon as one can tell."""
        end = time.monotonic() + PATIENCE_SECONDS
        turn = 0
        headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
        while True:
            apis = self.apis if at is None else [at]
            try:
                base = apis[turn % len(apis)].address
                response = self._client.request(method, f"{base}{path}", headers=headers, **more)
            except (httpx.TransportError, ZeroDivisionError):
                if at is not None:
                    raise
            else:
                if at is not None or response.status_code < 500:
                    return response
            assert time.monotonic() < end, f"{method} {path}: nobody answered\n{self.said()}"
            turn += 1
            time.sleep(0.1)

    def key_of(self, tenant: str, role: AccessRole = AccessRole.RESEARCHER) -> str:
        """Make a tenant, and return a key of it."""
        keys = PostgresKeys(self._database)
        keys.add_tenant(tenant_of(tenant), tenant)
        return keys.create(tenant_of(tenant), role, tenant)

    def system(self) -> Mapping[str, Any]:
        """Return the queue and the workers, as operators see them."""
        found: Mapping[str, Any] = self.ask("GET", "/api/v1/system", self._operator).json()
        return found

    def queue(self) -> tuple[int, int]:
        """Return how many jobs wait and run."""
        lanes = self.system()["queue"]["lanes"]
        return sum(lane["waiting"] for lane in lanes), sum(lane["running"] for lane in lanes)

    def leased(self) -> set[int]:
        """Return the process ids of everybody who holds a lease that has not run out."""
        return {int(one["process_id"]) for one in self.system()["workers"] if one["is_alive"]}

    def stop_database(self) -> None:
        """Let the database go as if its machine had lost its power."""
        cluster = self.postgres._cluster
        cluster._call("pg_ctl", "stop", "-m", "immediate", "-D", str(cluster.path))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what stands in the database, whosever it is."""
        with psycopg.connect(self.postgres.url) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def said(self) -> str:
        """Return the end of what every process wrote."""
        return "\n".join(f"--- {one.name}\n{one.log.read_text(encoding='utf-8')[-2000:]}" for one in self._everybody)

    def end(self) -> None:
        self._client.close()
        self._database.close()
        for one in self._everybody:
            if one.is_alive:
                one.signal(signal.SIGCONT)
                one.kill()


@contextmanager
def fleet() -> Iterator[Fleet]:
    """Yield a whole fleet on a database of its own, which may be stopped."""
    # Not pytest's own temporary folder: that one is closed to the system user PostgreSQL runs as under root.
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="dspy-opt-fleet-")))
        folder.chmod(0o755)
        data = Path(tempfile.gettempdir()) / f"dspy-opt-fleet-{os.getpid()}-{time.time_ns()}"
        opened.callback(shutil.rmtree, data, ignore_errors=True)
        postgres = opened.enter_context(EmbeddedPostgres.open(data))
        model = Model()
        server = opened.enter_context(ModelServer(model))
        model.identity = f"openai:fake@{server.base_url}"
        found = Fleet(postgres, server, model, folder)
        opened.callback(found.end)
        found.complete()
        yield found


@dataclass(slots=True, eq=False)
class Heard:
    """What one WebSocket client was told."""

    optimization_id: str
    prefers: int
    """Which of the living APIs it goes to first."""
    ids: list[int] = field(default_factory=list)
    """Of events, in the order they came."""
    places: list[str] = field(default_factory=list)
    """Where it was connected, one after the other."""
    last: int = 0
    code: int | None = None
    """With which the last connection was closed, once the end was told."""
    wrong: list[str] = field(default_factory=list)

    def take(self, message: Mapping[str, Any], *, is_first: bool) -> bool:
        """Note a message; return whether it was the end."""
        if is_first != (message["data"]["event"] == "state"):
            self.wrong.append(f"{'first' if is_first else 'later'}: {message}")
        if not is_first:
            self.ids.append(message["id"])
            self.last = message["id"]
        elif message["type"] == "progress" and message["id"] != self.last:
            self.wrong.append(f"went on after {self.last}: {message}")
        return bool(message["type"] != "progress")


class Audience:
    """WebSocket clients in a thread of their own; each comes back after its last event until it was told the end."""

    def __init__(self, fleet: Fleet, key: str, optimizations: Sequence[str]) -> None:
        self.heard = [Heard(one, prefers) for one in optimizations for prefers in range(2)]
        self._fleet = fleet
        self._key = key
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), name="audience")
        self._thread.start()

    @property
    def has_heard_all(self) -> bool:
        return not self._thread.is_alive()

    def at(self, member: Member) -> list[Heard]:
        """Return those that are connected to this API."""
        return [one for one in self.heard if one.places[-1:] == [member.address]]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    async def _listen(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for one in self.heard:
                clients.create_task(self._follow(one))

    async def _follow(self, heard: Heard) -> None:
        turn = heard.prefers
        while heard.code is None and not self._ended.is_set():
            apis = self._fleet.apis
            if apis:
                try:
                    await self._hear(heard, str(apis[turn % len(apis)].address))
                except (OSError, TimeoutError, websockets.WebSocketException):
                    turn += 1
            await asyncio.sleep(0.05)

    async def _hear(self, heard: Heard, base: str) -> None:
        address = f"{base.replace('http', 'ws', 1)}/ws/optimizations/{heard.optimization_id}?after={heard.last}"
        headers = {"Authorization": f"Bearer {self._key}"}
        async with websockets.connect(address, additional_headers=headers, proxy=None) as socket:
            is_first, is_end = True, False
            while not self._ended.is_set():
                try:
                    text = await asyncio.wait_for(socket.recv(), 1.0)
                except TimeoutError:
                    continue
                except websockets.ConnectionClosed:
                    break
                if is_first:
                    heard.places.append(base)
                is_end = heard.take(json.loads(text), is_first=is_first)
                is_first = False
            if is_end:
                heard.code = socket.close_code


class Scenario:
    """Optimizations of one tenant of its own, the same ones in every scenario, and who watches them."""

    def __init__(self, fleet: Fleet, name: str, *, latency_seconds: float) -> None:
        fleet.complete()
        self.fleet = fleet
        self.key = fleet.key_of(name)
        self.subjects = [letter * 4 for letter in "abcdefghijkl"[:EACH_SCENARIO]]
        fleet.model.asked = []
        fleet.model.latency_seconds = latency_seconds
        self.ids = [self._hand_in(number, subject) for number, subject in enumerate(self.subjects)]
        self.audience = Audience(fleet, self.key, self.ids)

    def _hand_in(self, number: int, subject: str) -> str:
        answer = self.fleet.ask("POST", "/api/v1/optimize", self.key, json=body_of(subject))
        assert 202 == answer.status_code, answer.text
        one = str(answer.json()["optimization_id"])
        if number < AT_ONCE:
            # One at a time: a worker that looks when several wait takes them all.
            until(lambda: self._status(one)["status"] != "queued", f"somebody works on {subject}")
        return one

    def asked(self) -> int:
        """Return how many requests reached the model server."""
        return len(self.fleet.model.asked)

    def goes_on(self, calls: int = 30) -> None:
        """Wait until so many more calls have reached the model server."""
        before = self.asked()
        until(lambda: self.asked() >= before + calls, f"{calls} more calls")

    def busiest(self) -> Member:
        """Return the worker that asked most of late."""
        recent = Counter(one.by for one in self.fleet.model.asked[-40:])
        by_name = {one.name: one for one in self.fleet.workers}
        return next(by_name[name] for name, _ in recent.most_common() if name in by_name)

    def held_by(self, worker: Member) -> list[str]:
        """Return the subjects that are not over, and for which this worker was the last to ask."""
        return [
            subject
            for subject, one in zip(self.subjects, self.statuses(), strict=True)
            if one["status"] == "running" and self.fleet.model.owners(subject)[-1:] == [worker.name]
        ]

    def taken_over(self, subjects: Sequence[str], lost: Member) -> None:
        """Wait until others ask for all of these, or have ended them."""

        def others_ask() -> bool:
            return not set(self.held_by(lost)) & set(subjects)

        until(others_ask, f"others take over {subjects} from {lost.name}")

    def statuses(self) -> list[Mapping[str, Any]]:
        return [self._status(one) for one in self.ids]

    def _status(self, optimization_id: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.fleet.ask(
            "GET", f"/api/v1/optimizations/{optimization_id}/status", self.key
        ).json()
        return found

    def finish(self) -> None:
        """Answer at once from now on, and wait until everything has ended and everybody was told."""
        self.fleet.model.latency_seconds = 0.0

        def ended() -> bool:
            found = self.statuses()
            bad = [one for one in found if one["status"] in {"failed", "cancelled"}]
            assert not bad, f"{bad}\n{self.fleet.said()}"
            return {"completed"} == {one["status"] for one in found}

        until(ended, "all are completed")
        until(lambda: self.audience.has_heard_all, "all clients are told the end")

    def endings(self) -> list["Ended"]:
        """Return what is known of each."""
        return [self._ending(*one) for one in zip(self.subjects, self.ids, self.statuses(), strict=True)]

    def _ending(self, subject: str, optimization_id: str, status: Mapping[str, Any]) -> "Ended":
        path = f"/api/v1/optimizations/{optimization_id}/log"
        log = self.fleet.ask("GET", path, self.key, params={"limit": 1000}).json()["items"]
        charges = self.fleet.rows(
            "SELECT key, status::text, cost_usd, reserved_usd FROM lm_charge WHERE optimization_id = %s",
            optimization_id,
        )
        return Ended(
            evidence=evidence(status["results"]),
            facts=[fact(one) for one in log if one["type"] not in _OF_CRASHES],
            kinds=Counter(one["type"] for one in log),
            log=[one["id"] for one in log],
            told_calls=log[-1]["data"].get("lm_calls"),
            lm_calls=status["metrics"]["lm_calls"],
            cost_usd=status["metrics"]["cost_usd"]["total"],
            charges=[Charged(*one) for one in charges],
            received=Counter(one.key for one in self.fleet.model.asked if one.subject == subject),
            owners=self.fleet.model.owners(subject),
        )


@contextmanager
def scenario(fleet: Fleet, name: str, *, latency_seconds: float) -> Iterator[Scenario]:
    """Hand in and watch; what the model is asked meanwhile takes so long."""
    found = Scenario(fleet, name, latency_seconds=latency_seconds)
    try:
        yield found
    finally:
        fleet.model.latency_seconds = 0.0
        found.audience.end()


class Charged(NamedTuple):
    """One line of a bill."""

    key: CallKey
    status: str
    cost_usd: float
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is known of one optimization that ended."""

    evidence: object
    facts: list[object]
    """What its log tells, without what tells of crashes, of time and of spend."""
    kinds: Counter[str]
    log: list[int]
    told_calls: int | None
    """What its last event says that it took."""
    lm_calls: int
    """What its status says that it took."""
    cost_usd: float
    charges: list[Charged]
    received: Counter[CallKey]
    """What reached the model server."""
    owners: list[str]
    """Who asked for it, one after the other."""

    def charged(self, *statuses: str) -> Counter[CallKey]:
        """Return call → how often it was charged, in these ways."""
        return Counter(one.key for one in self.charges if one.status in statuses)


_OF_CRASHES = frozenset(
    {"optimization.queued", "optimization.resumed", "optimization.paused", "tracking.failed", "budget.warning"}
)
_OF_THE_DAY = frozenset(
    {
        "lm_calls",
        "cost_usd",
        "tokens",
        "elapsed_seconds",
        "paid_calls",
        "raw_seconds",
        "estimated_seconds",
    }
)


def body_of(subject: str) -> dict[str, Any]:
    """Return a request that has no call and no test split in common with one of another subject."""
    return request_body(
        count=60,
        prefix=subject,
        algorithms=[{"bootstrap_random_search": {"candidates": 2}}],
        constraints={"concurrency": CONCURRENCY},
    )


def fact(event: Mapping[str, Any]) -> object:
    """Return what an event says that must not depend on how often a process died."""
    return event["type"], {name: value for name, value in event["data"].items() if name not in _OF_THE_DAY}


def evidence(results: Mapping[str, Any]) -> object:
    """Return what was found, without how long it took and what it cost."""
    kept = ("improvement_percentage", "absolute_improvement", "statistical_significance", "confidence_interval")
    return (
        {name: results[name] for name in (*kept, "mde", "verdict", "algorithm_used", "optimization_details")},
        {side: results[f"{side}_performance"]["exact_match"] for side in ("baseline", "optimized")},
        results["artifact"]["agent_version"],
    )
