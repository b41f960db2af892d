"""What operators see, what everybody may know of health, and what a database that is away gives away: nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from dspy_optimization.adapters.models import ModelSpec
from dspy_optimization.adapters.postgres.database import VERSION_TABLE
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.model import Role
from dspy_optimization.web.routes import system
from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")

SECRET_PLACE = "dspy@db.inside.example:5432/engine"
AWAY = StoreError(f"the database at {SECRET_PLACE} is away: connection refused; bring it back, then resume")


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
    assert dict.fromkeys(("database", "migrations", "lease", "queue"), "ok") == checks
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
    monkeypatch.setattr(system.socket, "create_connection", connect)

    told = system._models(serving)

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
