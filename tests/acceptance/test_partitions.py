"""Over HTTP: algorithms of which not all run at once, and optimizations in processes of their own."""

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.cli.logs import configure_logs
from dspy_optimization.testing.model_server import ModelServer
from service_world import Service, running, service_settings, spell

pytestmark = pytest.mark.xdist_group("service")

BOUNDED = [{"bootstrap_random_search": {"candidates": 1}}]
OTHER = ["labeled_fewshot"]


@pytest.fixture(scope="module")
def pace() -> list[float]:
    """How many seconds an answer takes."""
    return [0.0]


@pytest.fixture(scope="module")
def service(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory, pace: list[float]
) -> Iterator[Service]:
    """A service with four places, and one for one algorithm."""
    database = f"partitions_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    with ModelServer(lambda received: spell(received).after(pace[0])) as model:
        settings = service_settings(
            postgres.url_of(database),
            model.base_url,
            tmp_path_factory.mktemp("data"),
            max_concurrent=4,
            max_concurrent_per_worker=4,
            algorithm_limits={"bootstrap_random_search": 1},
        )
        with running(settings) as found:
            yield found


def _partitions(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.client.get("/api/v1/system").json()["queue"]["partitions"]
    return found


def test_one_at_once_of_an_algorithm_while_others_overtake(service: Service) -> None:
    """Three that wait for one another do not stand in the way of one that came after them."""
    bounded = [service.submitted(prefix=f"bounded{n}", algorithms=BOUNDED) for n in range(3)]
    both = service.submitted(prefix="both", algorithms=[*BOUNDED, *OTHER])
    other = service.submitted(prefix="other", algorithms=OTHER)
    most, ended, overtaken = 0, dict[str, float](), list[dict[str, Any]]()
    until = time.monotonic() + 90.0
    while len(ended) < 5 and time.monotonic() < until:
        statuses = {one: service.status(one)["status"] for one in (*bounded, both, other)}
        most = max(most, sum(statuses[one] == "running" for one in (*bounded, both)))
        overtaken += _partitions(service)
        for one, status in statuses.items():
            if status == "completed":
                ended.setdefault(one, time.monotonic())
        time.sleep(0.05)

    assert 5 == len(ended), "it hangs"
    assert 1 == most
    assert ended[other] < sorted(ended[one] for one in (*bounded, both))[1]
    assert {"bootstrap_random_search"} == {one["partition"] for one in overtaken}
    assert 1 == max(one["running"] for one in overtaken)
    assert 2 <= max(one["waiting"] for one in overtaken)


def test_what_the_settings_state_of_each_worker_is_in_force(service: Service) -> None:
    """From the first start on, in every lane."""
    lanes = service.client.get("/api/v1/system").json()["queue"]["lanes"]

    assert {"cpu": (4, 4), "gpu": (4, 4)} == {
        one["lane"]: (one["concurrency"], one["worker_concurrency"]) for one in lanes
    }


def test_operators_change_how_many_run_at_once(service: Service) -> None:
    """More, any number, fewer again; of what is installed; told to Prometheus."""
    way = "/api/v1/system/partitions/bootstrap_random_search"
    three = service.client.patch(way, json={"concurrency": 3}).json()
    metrics = service.client.get("/metrics").text
    none = service.client.patch(way, json={"concurrency": None}).json()
    listed = _partitions(service)
    service.client.patch(way, json={"concurrency": 1})
    unknown = service.client.patch("/api/v1/system/partitions/gpa", json={"concurrency": 1})
    wrong = service.client.patch(way, json={"concurrency": 0})
    no_number = service.client.patch(way, json={"concurrency": True})
    missing = service.client.patch(way, json={})

    assert {"partition": "bootstrap_random_search", "waiting": 0, "running": 0, "concurrency": 3} == three
    assert 'dspy_opt_partition_concurrency{partition="bootstrap_random_search"} 3.0' in metrics
    assert (None, []) == (none["concurrency"], listed)
    assert (404, True) == (unknown.status_code, "gepa" in unknown.json()["detail"])
    assert (422, 422, 422) == (wrong.status_code, no_number.status_code, missing.status_code)


def test_a_process_of_its_own_over_http(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, shown, asked for again with what was shown; its log lines are JSON and name the optimization."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    said = io.StringIO()
    root, own = logging.getLogger(), logging.getLogger("dspy_optimization")
    before = (list(root.handlers), root.level, own.level)
    configure_logs(logging.INFO, as_json=True)
    monkeypatch.setattr("sys.stderr", said)
    constraints = {"isolation": "process", "concurrency": 4}
    try:
        one = service.submitted(prefix="isolated", algorithms=OTHER, constraints=constraints)
        service.until(one, "completed")
        until = time.monotonic() + 10.0
        while "child_ended" not in said.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        root.handlers, root.level, own.level = before
    shown = service.client.get(f"/api/v1/optimizations/{one}").json()["request"]
    again = service.client.post("/api/v1/estimate", json=shown)
    lines = [json.loads(line) for line in said.getvalue().splitlines() if line.startswith("{")]
    of_it = [line for line in lines if line.get("optimization") == one]

    assert "process" == shown["constraints"]["isolation"]
    assert 200 == again.status_code, again.text
    assert ["child_begun", "child_ended"] == [line["action"] for line in of_it if line["action"] != "child_said"]
    assert 0 == of_it[-1]["code"]


def test_only_two_ways_to_run_exist(service: Service) -> None:
    """Described in OpenAPI, refused otherwise."""
    schema = service.client.get("/openapi.json").json()["components"]["schemas"]["ConstraintsIn"]["properties"]
    refused = service.client.post(
        "/api/v1/estimate", json={"constraints": {"isolation": "container"}, "target": {"id": "capitals"}}
    )

    assert ["thread", "process"] == schema["isolation"]["enum"]
    assert (422, True) == (refused.status_code, "isolation" in refused.text)


def test_pause_resume_and_cancel_reach_a_process(
    service: Service, pace: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two seconds of being asked, as users see it."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    constraints = {"isolation": "process", "concurrency": 1}
    pace[0] = 0.1
    one = service.submitted(prefix="steered", algorithms=OTHER, constraints=constraints, count=300)
    took, calls = [], 0
    for ask, status in (("pause", "paused"), ("cancel", "cancelled")):
        service.until(one, "running", seconds=30.0)
        until = time.monotonic() + 30.0
        while service.status(one)["metrics"]["lm_calls"] <= calls and time.monotonic() < until:
            time.sleep(0.05)
        began = time.monotonic()
        service.client.post(f"/api/v1/optimizations/{one}/{ask}")
        service.until(one, status)
        took.append(time.monotonic() - began)
        calls = service.status(one)["metrics"]["lm_calls"]
        if ask == "pause":
            service.client.post(f"/api/v1/optimizations/{one}/resume")

    pace[0] = 0.0

    assert max(took) < 2.0, took
    assert calls < 300
