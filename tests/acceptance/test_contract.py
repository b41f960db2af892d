"""The service against its own OpenAPI document: no server error, no undocumented answer; every route is guarded."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from test_service import fresh

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.web.access import Public, Require
from dspy_optimization.web.app import create_app
from service_world import Service, model_server, request_body, running, service_settings

pytestmark = pytest.mark.xdist_group("service")

# Streams have no end to wait for; they have tests of their own.
WITHOUT = "events$"
# A request can fit the schema and still mean nothing (a cursor nobody gave): 422 says so.
UNCHECKED = "positive_data_acceptance"
# Pages for people send a browser to what it may not see; they hold no data.
PAGES = re.compile(
    r"^/(static/.*|optimizations.*|new|schedules|agents.*|datasets.*|models|system|login|docs|openapi\.json)?$"
)


@pytest.fixture(scope="module")
def service(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an optimization that has ended."""
    with model_server() as model:
        settings = service_settings(
            fresh(postgres, "contract"), model.base_url, tmp_path_factory.mktemp("data"), queue_size=10_000
        )
        with running(settings) as found:
            yield found


def test_every_answer_is_documented(service: Service) -> None:
    """Schemathesis: examples, coverage, fuzzing, stateful."""
    ended = service.submitted()
    service.until(ended, "completed")
    detail = service.client.get(f"/api/v1/optimizations/{ended}").json()
    candidate = service.client.get(f"/api/v1/optimizations/{ended}/candidates").json()["items"][0]["candidate"]
    recurs = {"name": "contract", "cron": "0 3 1 1 *", "request": request_body()}
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "contract_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
        "CONTRACT_OPTIMIZATION": ended,
        "CONTRACT_CANDIDATE": candidate,
        "CONTRACT_DATASET": detail["request"]["dataset"],
        "CONTRACT_SCHEDULE": service.client.post("/api/v1/schedules", json=recurs).json()["id"],
        "CONTRACT_EXPERIMENT": service.client.post("/api/v1/experiments", json={"optimization_id": ended}).json()[
            "experiment_id"
        ],
    }
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.base_url}/openapi.json",
        "--exclude-path-regex", WITHOUT, "--exclude-checks", UNCHECKED, "--max-examples", "12", "--seed", "1",
        "--workers", "1", "--no-color", "--request-timeout", "30",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)

    assert 0 == done.returncode, done.stdout[-6000:]
    assert re.search(r"(\d+) generated", done.stdout) is not None, done.stdout[-2000:]


def _guards(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from _guards(one)


def test_every_route_says_who_may(service: Service) -> None:
    """By introspection, deny by default: a route of tomorrow that forgets its permission turns this red."""
    app = create_app(service.settings)
    open_routes = []
    seen = 0
    for one in iter_route_contexts(app.routes):
        dependant = getattr(one, "dependant", None)
        guards = [] if dependant is None else list(_guards(dependant))
        seen += 1
        if not any(isinstance(guard, Require | Public) for guard in guards):
            open_routes.append(str(one.path))

    assert seen > 40
    assert [] == [path for path in open_routes if PAGES.match(path) is None and not path.startswith("/ws/")]


def test_ids_of_nothing(service: Service) -> None:
    """The same 404 for every address of an optimization that is not there."""
    nowhere = uuid4()
    paths = ("", "/status", "/candidates", "/diff", "/curve", "/examples", "/lineage", "/log", "/report", "/artifact")
    found = [service.client.get(f"/api/v1/optimizations/{nowhere}{path}") for path in paths]

    assert [404] * len(paths) == [response.status_code for response in found]
    assert {"application/problem+json"} == {response.headers["content-type"] for response in found}
