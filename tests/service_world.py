"""A real service on a port of its own: uvicorn in a thread, embedded PostgreSQL, a fake model that behaves."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from dspy_optimization.adapters.models import ModelSpec
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.evaluation.model import Role
from dspy_optimization.serving import ServiceRole
from dspy_optimization.settings import ServiceSettings, Settings
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer
from dspy_optimization.web.app import create_app

AGENT: Mapping[str, Any] = {
    "name": "capitals",
    "kind": "predict",
    "signature": {
        "instructions": "Say the word in capitals.",
        "inputs": [{"name": "word"}],
        "outputs": [{"name": "answer"}],
    },
}


def words(count: int = 60, prefix: str = "word") -> list[dict[str, str]]:
    """Return examples: a word, and it in capitals."""
    return [{"word": f"{prefix}{n:03}", "answer": f"{prefix}{n:03}".upper()} for n in range(count)]


def request_body(*, count: int = 60, prefix: str = "word", **changes: Any) -> dict[str, Any]:
    """Return a request that a good service accepts."""
    body: dict[str, Any] = {
        "target": {"id": "capitals", "config": dict(AGENT)},
        "dataset": {"examples": words(count, prefix), "name": "words"},
        "objectives": [{"metric": "exact_match"}],
        "algorithms": [{"bootstrap_random_search": {"candidates": 1}}],
        "constraints": {"concurrency": 4},
    }
    return {**body, **changes}


def spell(received: Received) -> Reply:
    """Answer rightly to most prompts that show demos, and to few that show none."""
    text = json.dumps(received.body["messages"])
    asked = text.rsplit("[[ ## word ## ]]", 1)[-1]
    word = asked.removeprefix("\\n").split("\\n")[0].strip()
    shown = text.count("[[ ## word ## ]]") > 2
    right = int(word[-3:]) % 100 < (90 if shown else 30) if word[-3:].isdigit() else False
    return answer(f"[[ ## answer ## ]]\n{word.upper() if right else word}\n\n[[ ## completed ## ]]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that runs."""

    base_url: str
    client: httpx.Client
    settings: Settings

    def submitted(self, **changes: Any) -> str:
        """Hand an optimization in and return its id."""
        response = self.client.post("/api/v1/optimize", json=request_body(**changes))
        assert 202 == response.status_code, response.text
        return str(response.json()["optimization_id"])

    def status(self, optimization_id: str) -> dict[str, Any]:
        """Return where it stands."""
        found: dict[str, Any] = self.client.get(f"/api/v1/optimizations/{optimization_id}/status").json()
        return found

    def until(self, optimization_id: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for one of the statuses."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.status(optimization_id)
            if found["status"] in statuses:
                return found
            time.sleep(0.05)
        raise AssertionError(f"wanted {statuses}, found {found}")


def service_settings(database_url: str, base_url: str, folder: Path, **service: Any) -> Settings:
    """Return settings under which every role asks one model server."""
    spec = ModelSpec(model="fake", base_url=base_url, max_attempts=2, timeout_seconds=10.0)
    return Settings(
        database_url=database_url,
        data_directory=folder,
        config_path=None,
        mlflow_tracking_uri="http://127.0.0.1:9",
        significance_threshold=0.05,
        models=dict.fromkeys(Role, spec),
        named_models={},
        allow=AllowList(),
        service=replace(ServiceSettings(), **service),
    )


@contextmanager
def running(settings: Settings, role: ServiceRole = ServiceRole.ALL) -> Iterator[Service]:
    """Run a service and yield it once it is ready. One a process: DBOS allows no more."""
    config = uvicorn.Config(
        create_app(settings, role), host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        base_url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base_url, timeout=30.0) as client:
            yield Service(base_url=base_url, client=client, settings=settings)
    finally:
        server.should_exit = True
        thread.join(40.0)


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Yield the fake model."""
    with ModelServer(spell) as server:
        yield server
