"""What operators see, what everybody may know of health, and what a database that is away gives away: nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from dspy_optimization.adapters.models import ModelSpec
from dspy_optimization.adapters.postgres.database import VERSION_TABLE
from dspy_optimization.compute.devices import Library, load_torch
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.model import Role
from dspy_optimization.web import readiness
from dspy_optimization.web.readiness import Readiness
from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")

SECRET_PLACE = "dspy@db.inside.example:5432/engine"
AWAY = StoreError(f"the database at {SECRET_PLACE} is away: connection refused; bring it back, then resume")


@pytest.fixture(autouse=True)
def _looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell nobody what was found before a test."""
    monkeypatch.setattr(Readiness, "shared_seconds", 0.0)


def ready(keyed: Keyed, who: str | None = None) -> tuple[int, dict[str, str]]:
    answer = keyed.service.client.get("/ready") if who is None else keyed.ask("/ready", who)
    assert answer.json()["ready"] is (answer.status_code == 200)
    return answer.status_code, answer.json()["checks"]


@pytest.fixture
def schema_of(keyed: Keyed) -> Iterator[Any]:
    """Say that the database is at another revision."""

    def change(revision: str) -> None:
        with psycopg.connect(keyed.url) as connection:
            connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = %s", [revision])

    newest = keyed.database.schema().newest
    assert newest is not None
    yield change
    change(newest)


def test_each_check_has_its_name(keyed: Keyed) -> None:
    """The model of this service takes no connection; everything else is well."""
    status, checks = ready(keyed)
    models = checks.pop("models")

    assert 503 == status
    assert dict.fromkeys(("database", "migrations", "lease", "queue", "webhooks"), "ok") == checks
    assert all(role.value in models for role in Role)
    assert "127.0.0.1" not in models


@pytest.mark.parametrize("revision", ["0001", "9999"])
def test_a_schema_of_another_release_is_not_ready(keyed: Keyed, schema_of: Any, revision: str) -> None:
    """Older or newer than this code; it says which, and what is wanted."""
    schema_of(revision)
    status, checks = ready(keyed)

    assert 503 == status
    assert f"found: {revision};" in checks["migrations"]
    assert f"wanted: schema {keyed.database.schema().newest}" in checks["migrations"]
    assert "ok" == checks["database"]


def test_every_server_of_a_model_is_asked_once(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles that share one are named together; a server that answers is not named."""
    asked = []

    class Taken:
        def close(self) -> None:
            pass

    def connect(place: tuple[str, int], timeout: float) -> Taken:
        asked.append(place)
        if place[1] == 81:
            raise OSError(111, "Connection refused")
        return Taken()

    models = {
        Role.TASK: ModelSpec(model="a", base_url="http://one:81/v1"),
        Role.JUDGE: ModelSpec(model="b", base_url="http://one:81/v2"),
        Role.REFLECTION: ModelSpec(model="c", base_url="https://two/v1"),
    }
    serving: Any = type("Serving", (), {"settings": replace(keyed.service.settings, models=models)})
    monkeypatch.setattr(readiness.socket, "create_connection", connect)

    told = readiness._models(serving).told

    assert "the server takes no connection, of the model for task and judge (Connection refused)" == told
    assert [("one", 81), ("two", 443)] == asked


@pytest.mark.parametrize(
    ("who", "shows"), [(None, False), ("viewer", False), ("researcher", False), ("administrator", True)]
)
def test_where_the_database_is_only_operators_are_told(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch, who: str | None, shows: bool
) -> None:
    """On /ready and in what any route answers while it is away."""

    def away(*_: object) -> None:
        raise AWAY

    # The keys can still be read, so that it is known who asks.
    monkeypatch.setattr("dspy_optimization.adapters.dbos.DbosQueue.claimed_by", away)
    monkeypatch.setattr("dspy_optimization.adapters.postgres.database.Database.schema", away)
    _, checks = ready(keyed, who)
    if who is not None:
        refused = keyed.ask("/api/v1/system", who)

        assert (503, shows) == (refused.status_code, SECRET_PLACE in refused.text)
        assert "retry-after" in refused.headers
    assert [shows, shows] == [SECRET_PLACE in checks[name] for name in ("queue", "migrations")]


def test_nobody_is_told_while_it_cannot_be_known_who_asks(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the database the keys are away too."""

    def away(*_: object) -> None:
        raise AWAY

    monkeypatch.setattr("dspy_optimization.adapters.postgres.key_store.PostgresKeys.principal", away)
    found = [keyed.ask(path, "administrator") for path in ("/api/v1/system", "/api/v1/optimizations")]

    assert [503, 503] == [one.status_code for one in found]
    assert not any(SECRET_PLACE in one.text or "inside" in one.text for one in found)
    assert {"application/problem+json"} == {one.headers["content-type"] for one in found}


@pytest.mark.parametrize(("who", "shows"), [("viewer", False), ("researcher", False), ("administrator", True)])
def test_hosts_are_for_operators(keyed: Keyed, who: str, shows: bool) -> None:
    """Everybody sees that workers live, and how busy the queue is."""
    found = keyed.ask("/api/v1/system", who).json()
    (worker,) = [one for one in found["workers"] if one["is_this"]]

    assert [shows, shows] == [worker[name] is not None for name in ("host", "process_id")]
    assert worker["is_alive"] is True
    assert {"cpu", "gpu"} == {one["lane"] for one in found["queue"]["lanes"]}


@pytest.mark.parametrize(
    ("who", "permissions"),
    [("viewer", ["read"]), ("researcher", ["read", "run"]), ("administrator", ["administer", "read", "run"])],
)
def test_who_asks_is_told_what_the_key_allows(keyed: Keyed, who: str, permissions: list[str]) -> None:
    """So that a page need not offer what would be refused."""
    found = keyed.ask("/api/v1/me", who).json()

    assert (who, permissions) == (found["role"], found["permissions"])


LANE = "/api/v1/system/lanes/gpu"


@pytest.fixture
def lane(keyed: Keyed) -> Iterator[Any]:
    """Change a lane of which eight run at once, three in each worker; put everything back."""
    began = {"concurrency": 8, "worker_concurrency": 3}
    assert 200 == keyed.ask(LANE, "administrator", "PATCH", json=began).status_code
    yield lambda body: keyed.ask(LANE, "administrator", "PATCH", json=body)
    keyed.ask(LANE, "administrator", "PATCH", json={"concurrency": 10, "worker_concurrency": None})


def _shown(keyed: Keyed) -> tuple[int, int | None]:
    (gpu,) = [one for one in keyed.ask("/api/v1/system").json()["queue"]["lanes"] if one["lane"] == "gpu"]
    return gpu["concurrency"], gpu["worker_concurrency"]


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"concurrency": 5}, (5, 3)),
        ({"worker_concurrency": 8}, (8, 8)),
        ({"worker_concurrency": None}, (8, None)),
        ({"concurrency": 2, "worker_concurrency": 1}, (2, 1)),
        ({"concurrency": 20, "worker_concurrency": 15}, (20, 15)),
        ({"concurrency": 1, "worker_concurrency": None}, (1, None)),
    ],
)
def test_what_is_given_of_a_lane_changes_and_the_rest_stays(
    keyed: Keyed, lane: Any, body: dict[str, int | None], changed: tuple[int, int | None]
) -> None:
    """In the answer, for everybody who looks, and for Prometheus, where any number is no number."""
    answered = lane(body)
    found = answered.json()
    metrics = keyed.service.client.get("/metrics").text
    told = [line for line in metrics.splitlines() if line.startswith('dspy_opt_queue_worker_concurrency{lane="gpu"}')]

    assert (200, changed) == (answered.status_code, (found["concurrency"], found["worker_concurrency"]))
    assert changed == _shown(keyed)
    assert ([] if changed[1] is None else [float(changed[1])]) == [float(line.split()[-1]) for line in told]


@pytest.mark.parametrize(
    ("body", "field", "part"),
    [
        ({}, "", "found: neither"),
        ({"concurrency": None}, "concurrency", "leave it out"),
        ({"concurrency": 0}, "concurrency", "greater than or equal to 1"),
        ({"concurrency": True}, "concurrency", "valid integer"),
        ({"worker_concurrency": True}, "worker_concurrency", "valid integer"),
        ({"worker_concurrency": 0}, "worker_concurrency", "greater than or equal to 1"),
        ({"worker_concurrency": 10_001}, "worker_concurrency", "less than or equal to 10000"),
        ({"worker_concurrency": "many"}, "worker_concurrency", "valid integer"),
        ({"worker_concurrency": 9}, "worker_concurrency", "from 1 to 8, "),
        ({"concurrency": 2}, "worker_concurrency", "from 1 to 2, "),
        ({"concurrency": 20, "worker_concurrency": 21}, "worker_concurrency", "from 1 to 20, "),
    ],
)
def test_a_lane_is_changed_whole_or_not_at_all(
    keyed: Keyed, lane: Any, body: dict[str, Any], field: str, part: str
) -> None:
    """One worker never more than all of them together; the sentence says how both can be changed."""
    refused = lane(body)
    (error,) = refused.json()["errors"]

    assert (422, field, True) == (refused.status_code, error["field"], part in error["message"])
    assert (8, 3) == _shown(keyed)


@pytest.mark.parametrize("who", ["viewer", "researcher"])
def test_lanes_are_changed_by_operators_alone(keyed: Keyed, lane: Any, who: str) -> None:
    """Others see them."""
    assert 403 == keyed.ask(LANE, who, "PATCH", json={"worker_concurrency": 1}).status_code
    assert (8, 3) == _shown(keyed)


def test_what_works_on_arrays_is_shown(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch can be used, what is chosen and why, and how memory is managed; the GPUs themselves as before."""
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    library = load_torch()
    found = keyed.service.client.get("/gpu-status").json()
    shown = found["compute"]

    assert {"available", "devices", "reason", "compute"} == found.keys()
    assert library.version == shown["torch_version"]
    assert ("numpy" if library.torch is None else "torch") == shown["library"]
    assert (0.8, "expandable_segments:True") == (shown["memory_fraction"], shown["allocator_configuration"])
    assert shown["device"] in {"cpu", "cuda", "mps"}
    assert "torch" in shown["reason"]


def test_without_torch_numpy_is_shown_and_why(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    without = Library(torch=None, reason="torch is not installed: NumPy on the processor, slower")
    monkeypatch.setattr("dspy_optimization.web.routes.system.load_torch", lambda: without)
    shown = keyed.service.client.get("/gpu-status").json()["compute"]

    assert ("cpu", "numpy", None, without.reason) == (
        shown["device"], shown["library"], shown["torch_version"], shown["reason"],
    )  # fmt: skip
