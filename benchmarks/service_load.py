"""The service under load: admission of a thousand at once, a hundred running, status and sockets beside them.

Everything is on the loopback of one machine: the service in a process of its own as `dspy-opt serve` runs it, the
model server in another, the callers in this one. Status is asked by locust users, each once a second on
average: the table says how many requests came of it, for a user who waits for an answer asks less often.
"""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import websockets

from benchmarks.finding import Finding, Table
from benchmarks.house import fresh_database, model_server, temporary_postgres
from benchmarks.machine import load
from dspy_optimization.events import Json

TITLE = "the service under load: admission, status and sockets beside running optimizations"

SUBMITTED = 1000
BOUND = 100
RUNNING = 100
SOCKETS = 200
REQUESTS_A_SECOND = 200
SPAWNED_A_SECOND = 50
SPAWNING_SECONDS = REQUESTS_A_SECOND // SPAWNED_A_SECOND
SECONDS = 10
MODEL_LATENCY_SECONDS = 2.0
ENDS = ("result", "error")
ANSWER = "[[ ## answer ## ]]\nOK\n\n[[ ## completed ## ]]"
AGENT = {
    "name": "oracle",
    "kind": "predict",
    "signature": {"instructions": "Say OK.", "inputs": [{"name": "word"}], "outputs": [{"name": "answer"}]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service in a process of its own."""

    base_url: str
    process_id: int

    def resident_mb(self) -> float:
        """Return the resident size of the process."""
        for line in Path(f"/proc/{self.process_id}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("wanted: VmRSS in /proc; found: none; possible: run it on Linux")


@dataclass(slots=True)
class Heard:
    """What one socket heard."""

    ids: list[int] = field(default_factory=list)
    last: str = ""


def measure() -> Finding:
    """Return what was admitted, how fast status was, and what the sockets heard."""
    with (
        temporary_postgres() as postgres,
        tempfile.TemporaryDirectory(prefix="dspy-opt-load-") as folder,
        model_server(MODEL_LATENCY_SECONDS, ANSWER) as model_url,
    ):
        config = Path(folder) / "config.yaml"
        config.write_text(
            f"models: {{task: {{model: {{base_url: '{model_url}', model: fake}}, max_concurrency: 400}}}}\n",
            encoding="utf-8",
        )
        with _service(fresh_database(postgres), config, "api", queue=BOUND, running=1) as service:
            admission = asyncio.run(_admission(service))
        shared = fresh_database(postgres)
        with (
            _service(shared, config, "api", queue=SUBMITTED, running=RUNNING) as service,
            _service(shared, config, "worker", queue=SUBMITTED, running=RUNNING) as worker,
        ):
            beside = asyncio.run(_beside(service, worker))
    return Finding(tables=(_admission_table(admission), _beside_table(beside)), notes=_NOTES, data={
        "admission": admission, "beside": beside,
    })  # fmt: skip


_NOTES = (
    (
        f"Admission: {SUBMITTED} requests by 50 callers at once, each with agent and examples of its own; "
        f"OPTIMIZATION_QUEUE_SIZE = {BOUND}, nothing is claimed meanwhile."
    ),
    (
        f"Beside: {RUNNING} optimizations run at once (an answer of the model takes {MODEL_LATENCY_SECONDS:g} s, one "
        f"call in flight each), {SOCKETS} WebSocket clients listen, {REQUESTS_A_SECOND} locust users ask for a status "
        f"once a second on average for {SECONDS} s. One process takes requests, another works; callers, model server "
        "and PostgreSQL share their cores. Memory is the worker's."
    ),
)


@contextmanager
def _service(url: str, config: Path, role: str, *, queue: int, running: int) -> Iterator[Service]:
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "DSPY_CONFIG_PATH": str(config),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "OPTIMIZATION_QUEUE_SIZE": str(queue),
        "MAX_CONCURRENT_OPTIMIZATIONS": str(running),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [sys.executable, "-c", "from dspy_optimization.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--role", role, "--log", "json"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Service(base_url=_address(process), process_id=process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _address(process: "subprocess.Popen[str]") -> str:
    for line in process.stderr or ():
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found is not None:
            return found[0]
    raise RuntimeError("wanted: the address of the service; found: it ended; possible: run dspy-opt serve by hand")


def _body(number: int, count: int = 20) -> dict[str, Json]:
    examples: list[Json] = [{"word": f"w{number:04}-{n:03}", "answer": "OK" if n % 2 else "NO"} for n in range(count)]
    return {
        "target": {"id": "oracle", "config": dict(AGENT)},
        "dataset": {"examples": examples, "name": f"words-{number}", "shares": {"train": 0.3, "val": 0.3, "test": 0.4}},
        "objectives": [{"metric": "exact_match"}],
        "algorithms": [{"bootstrap_random_search": {"candidates": 2}}],
        "constraints": {"concurrency": 1, "seed": number},
    }


async def _admission(service: Service) -> dict[str, Json]:
    answers: Counter[int] = Counter()
    numbers = iter(range(SUBMITTED))
    async with httpx.AsyncClient(base_url=service.base_url, timeout=120.0) as client:

        async def caller() -> None:
            for number in numbers:
                response = await client.post("/api/v1/optimize", json=_body(number, 40))
                answers[response.status_code] += 1

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(50)))
        seconds = time.perf_counter() - began
        listed = (await client.get("/api/v1/system")).json()["queue"]["lanes"]
    return {
        "answers": {str(status): count for status, count in sorted(answers.items())},
        "requests_a_second": SUBMITTED / seconds,
        "waiting": sum(lane["waiting"] for lane in listed),
    }


async def _beside(service: Service, worker: Service) -> dict[str, Json]:
    idle = worker.resident_mb()
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=service.base_url, timeout=120.0, limits=limits) as client:
        ids = []
        for number in range(RUNNING):
            response = await client.post("/api/v1/optimize", json=_body(number, 40))
            response.raise_for_status()
            ids.append(str(response.json()["optimization_id"]))
        await _until_running(client)
        heard = [Heard() for _ in range(SOCKETS)]
        listeners = [asyncio.create_task(_listen(service, ids[n % RUNNING], heard[n])) for n in range(SOCKETS)]
        await asyncio.sleep(3.0)
        running_before = await _running(client)
        asked = await _ask_for_status(service, ids)
        running_after = await _running(client)
        peak = worker.resident_mb()
        done, waiting = await asyncio.wait(listeners, timeout=400.0)
        for one in waiting:
            one.cancel()
        statuses: Counter[str] = Counter()
        logged: dict[str, list[int]] = {}
        errors: set[str] = set()
        for one in ids:
            ended = (await client.get(f"/api/v1/optimizations/{one}/status")).json()
            statuses[ended["status"]] += 1
            errors |= {ended["error"]} - {None}
            log = (await client.get(f"/api/v1/optimizations/{one}/log", params={"limit": 1000})).json()["items"]
            logged[one] = [event["id"] for event in log]
    missed = sum(_missed(logged[ids[n % RUNNING]], heard[n]) for n in range(SOCKETS) if heard[n].ids)
    doubled = sum(len(one.ids) - len(set(one.ids)) for one in heard)
    return {
        **asked,
        "running_before": running_before,
        "running_after": running_after,
        "ended": dict(statuses),
        "errors": sorted(errors),
        "sockets_ended": len(done),
        "socket_messages": sum(len(one.ids) for one in heard),
        "missed": missed,
        "doubled": doubled,
        "idle_mb": idle,
        "peak_mb": peak,
        "mb_each": (peak - idle) / RUNNING,
        "load": load(),
    }


def _missed(logged: Sequence[int], heard: Heard) -> int:
    """Return how many events a socket was not told of between its first message and the end it heard, if it did."""
    last = heard.ids[-1] if heard.last in ENDS else math.inf
    return len({event for event in logged if heard.ids[0] < event <= last} - set(heard.ids))


async def _until_running(client: httpx.AsyncClient) -> None:
    for _ in range(240):
        if await _running(client) >= RUNNING:
            return
        await asyncio.sleep(0.5)


async def _running(client: httpx.AsyncClient) -> int:
    lanes = (await client.get("/api/v1/system")).json()["queue"]["lanes"]
    return int(sum(lane["running"] for lane in lanes))


async def _listen(service: Service, optimization_id: str, heard: Heard) -> None:
    address = f"{service.base_url.replace('http', 'ws', 1)}/ws/optimizations/{optimization_id}"
    async with websockets.connect(address, max_size=None) as socket:
        async for message in socket:
            told = json.loads(message)
            if told["id"] not in heard.ids[-1:]:
                heard.ids.append(told["id"])
            heard.last = told["type"]


async def _ask_for_status(service: Service, ids: Sequence[str]) -> dict[str, Json]:
    """Return what locust measured: requests, failures and quantiles of the answers' times."""
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("status_callers.py")), "--headless"]
    # What is asked before all callers are there is not counted; who says so is locust.
    terms = ["-u", str(REQUESTS_A_SECOND), "-r", str(SPAWNED_A_SECOND), "-t", f"{SPAWNING_SECONDS + SECONDS}s"]
    terms += ["--reset-stats", "--json", "--skip-log"]
    asking = await asyncio.create_subprocess_exec(
        *command, *terms, "--host", service.base_url,
        env={**os.environ, "STATUS_CALLERS_IDS": ",".join(ids)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    told, _ = await asking.communicate()
    (stats,) = json.loads(told)
    times = sorted((float(milliseconds), count) for milliseconds, count in stats["response_times"].items())
    return {
        "requests": stats["num_requests"],
        "failures": stats["num_failures"],
        "requests_a_second": stats["num_requests"] / (stats["last_request_timestamp"] - stats["start_time"]),
        **{f"p{percent}_ms": _quantile(times, percent / 100) for percent in (50, 95, 99)},
    }


def _quantile(times: Sequence[tuple[float, int]], share: float) -> float:
    """Return the smallest time that this share of the requests did not exceed."""
    wanted = share * sum(count for _, count in times)
    seen = 0
    for milliseconds, count in times:
        seen += count
        if seen >= wanted:
            return milliseconds
    raise ValueError("wanted: answers; found: none; possible: see what the service says")


def _admission_table(found: dict[str, Json]) -> Table:
    answers = found["answers"]
    counts = answers if isinstance(answers, dict) else {}
    return Table(
        title=f"{SUBMITTED} requests at once, {BOUND} may wait",
        columns=("202", "503", "others", "waiting afterwards", "requests/s"),
        rows=(
            (
                str(counts.get("202", 0)),
                str(counts.get("503", 0)),
                str(SUBMITTED - int(str(counts.get("202", 0))) - int(str(counts.get("503", 0)))),
                str(found["waiting"]),
                f"{float(str(found['requests_a_second'])):.0f}",
            ),
        ),
    )


def _beside_table(found: dict[str, Json]) -> Table:
    def number(name: str, form: str = ".0f") -> str:
        return format(float(str(found[name])), form)

    return Table(
        title=f"Status {REQUESTS_A_SECOND} times a second beside {RUNNING} running, {SOCKETS} sockets",
        columns=(
            "running before / after", "requests/s", "failed", "p50 ms", "p95 ms", "p99 ms", "ended",
            "socket messages", "missed", "doubled",
            "MB idle", "MB at most", "MB each", "load",
        ),
        rows=(
            (
                f"{found['running_before']} / {found['running_after']}",
                number("requests_a_second"),
                number("failures"),
                number("p50_ms"),
                number("p95_ms"),
                number("p99_ms"),
                str(found["ended"]),
                number("socket_messages"),
                number("missed"),
                number("doubled"),
                number("idle_mb"),
                number("peak_mb"),
                number("mb_each", ".2f"),
                number("load", ".1f"),
            ),
        ),
    )  # fmt: skip
