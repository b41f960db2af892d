"""Schedules over HTTP, with keys: what is kept and shown to whom, and firing all the way to a verdict."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, TenantId
from service_world import model_server, request_body, running, service_settings

pytestmark = pytest.mark.xdist_group("service")

OTHER = TenantId(uuid4())
YEARLY = "0 3 1 1 *"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A service that asks for keys, and its database."""

    url: str
    client: httpx.Client
    keys: dict[str, str]

    def ask(self, method: str, path: str, who: str = "researcher", **content: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[who]}", "Content-Type": "application/json"}
        return self.client.request(method, f"/api/v1{path}", headers=headers, **content)

    def added(self, name: str, cron: str = YEARLY, who: str = "researcher", **changes: Any) -> dict[str, Any]:
        body = {"name": name, "cron": cron, "request": request_body(prefix=name), **changes}
        answer = self.ask("POST", "/schedules", who, json=body)
        assert 201 == answer.status_code, answer.text
        return dict(answer.json())

    def look(self, schedule: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/schedules/{schedule}").json())

    def until(self, schedule: str, seconds: float = 20.0, **wanted: Any) -> dict[str, Any]:
        """Wait until the schedule says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.look(schedule)
            if all(found[name] == value for name, value in wanted.items()):
                return found
            time.sleep(0.05)
        raise AssertionError(f"wanted {wanted}, found {found}")

    def let_be_due(self, schedule: str, at: datetime) -> None:
        """Move when it is due next: time is not waited for."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            moved = connection.execute("UPDATE schedule_due SET due_at = %s WHERE schedule_id = %s", [at, schedule])
            assert 1 == moved.rowcount


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = postgres.url_of(name)
    with model_server() as model:
        settings = service_settings(url, model.base_url, tmp_path_factory.mktemp("data"), require_keys=True)
        with Database.open(url) as database, running(settings) as service:
            keys = PostgresKeys(database)
            keys.add_tenant(OTHER, "other")
            yield World(
                url=url,
                client=service.client,
                keys={
                    "viewer": keys.create(LOCAL_TENANT, AccessRole.VIEWER, "v"),
                    "researcher": keys.create(LOCAL_TENANT, AccessRole.RESEARCHER, "r"),
                    "administrator": keys.create(LOCAL_TENANT, AccessRole.ADMINISTRATOR, "a"),
                    "other": keys.create(OTHER, AccessRole.RESEARCHER, "o"),
                },
            )


def test_a_schedule_is_kept_as_it_was_given(world: World) -> None:
    """Shown whole by its address, without its request in lists, with its next five due times on the clocks it names."""
    body = {"name": "weekly", "cron": " 30  2 * * 1", "timezone": "Europe/Berlin", "request": request_body()}
    answer = world.ask("POST", "/schedules", json=body)
    found = world.ask("GET", answer.headers["location"].removeprefix("/api/v1"), "viewer").json()
    listed = [one for one in world.ask("GET", "/schedules", "viewer").json()["items"] if one["id"] == found["id"]]
    upcoming = [datetime.fromisoformat(one).astimezone(ZoneInfo("Europe/Berlin")) for one in found["upcoming"]]

    assert 201 == answer.status_code
    assert answer.json() == found
    assert body["request"] == found["request"]
    assert ("weekly", "30 2 * * 1", "Europe/Berlin") == (found["name"], found["cron"], found["timezone"])
    assert listed == [{name: value for name, value in found.items() if name not in {"request", "upcoming"}}]
    assert 5 == len(upcoming)
    assert found["upcoming"][0] == found["next_due_at"]
    assert {(0, 2, 30)} == {(one.weekday(), one.hour, one.minute) for one in upcoming}
    assert (None, None, None, False) == tuple(
        found[name] for name in ("last_due_at", "last_optimization_id", "last_error", "is_paused")
    )


def test_what_is_due_is_handed_in_and_carried_out(world: World) -> None:
    """Missed due times count as one, the newest; the optimization says which schedule made it."""
    made = world.added("hourly", "0 * * * *")
    world.let_be_due(made["id"], datetime.now(UTC) - timedelta(days=3))
    found = world.until(made["id"], last_optimization_status="completed")
    detail = world.ask("GET", f"/optimizations/{found['last_optimization_id']}").json()
    world.ask("POST", f"/schedules/{made['id']}/pause")
    every = world.ask("GET", "/optimizations", params={"limit": 200}).json()["items"]
    ours = [
        one
        for one in every
        if (world.ask("GET", f"/optimizations/{one['optimization_id']}").json()["schedule"] or {}).get("id")
        == made["id"]
    ]
    due_at = datetime.fromisoformat(detail["schedule"]["due_at"])

    assert "improved" == detail["verdict"]
    assert (made["id"], "hourly") == (detail["schedule"]["id"], detail["schedule"]["name"])
    assert timedelta(0) <= datetime.fromisoformat(detail["created_at"]) - due_at < timedelta(minutes=61)
    assert found["last_error"] is None
    assert datetime.fromisoformat(found["next_due_at"]) > due_at
    assert len(ours) <= 2, "three days of hours are one optimization; an hour may have begun meanwhile"


def test_paused_ones_wait(world: World) -> None:
    """They are due at no time; resumed, they go on with the next one and make up for nothing."""
    made = world.added("paused", "* * * * *")
    paused = world.ask("POST", f"/schedules/{made['id']}/pause").json()
    again = world.ask("POST", f"/schedules/{made['id']}/pause")
    shown = world.look(made["id"])
    resumed = world.ask("POST", f"/schedules/{made['id']}/resume").json()
    world.ask("DELETE", f"/schedules/{made['id']}")

    assert (True, None) == (paused["is_paused"], paused["next_due_at"])
    assert 200 == again.status_code
    assert [] == shown["upcoming"]
    assert not resumed["is_paused"]
    assert datetime.fromisoformat(resumed["next_due_at"]) > datetime.now(UTC) - timedelta(seconds=1)


def test_fired_by_hand(world: World) -> None:
    """At once, paused or not, without a change of its times; not while its last one goes on."""
    made = world.added("by-hand")
    world.ask("POST", f"/schedules/{made['id']}/pause")
    fired = world.ask("POST", f"/schedules/{made['id']}/fire")
    refused = world.ask("POST", f"/schedules/{made['id']}/fire")
    optimization = fired.json()["optimization_id"]
    detail = world.ask("GET", f"/optimizations/{optimization}").json()
    found = world.until(made["id"], last_optimization_status="completed")
    again = world.ask("POST", f"/schedules/{made['id']}/fire")

    assert 202 == fired.status_code
    assert f"/api/v1/optimizations/{optimization}" == fired.headers["location"]
    assert {"id": made["id"], "name": "by-hand", "due_at": None} == detail["schedule"]
    assert 409 == refused.status_code
    assert f"{optimization} is " in refused.json()["detail"]
    assert (optimization, None, None) == (found["last_optimization_id"], found["last_due_at"], found["next_due_at"])
    assert 202 == again.status_code
    assert again.json()["optimization_id"] != optimization


def test_another_tenant_sees_nothing(world: World) -> None:
    """Not in lists, every address unknown, and a name of its own."""
    made = world.added("mine")
    answers = [
        world.ask(method, f"/schedules/{made['id']}{path}", "other")
        for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/fire"), ("DELETE", ""))
    ]
    listed = world.ask("GET", "/schedules", "other").json()["items"]
    world.added("mine", who="other")

    assert [404] * 5 == [one.status_code for one in answers]
    assert [] == listed
    assert not world.look(made["id"])["is_paused"]


def test_who_may_change(world: World) -> None:
    """A viewer looks; nobody without a key does anything."""
    made = world.added("looked-at")
    body = {"name": "v", "cron": YEARLY, "request": request_body()}
    refused = [
        world.ask("POST", "/schedules", "viewer", json=body),
        *(world.ask("POST", f"/schedules/{made['id']}/{what}", "viewer") for what in ("pause", "resume", "fire")),
        world.ask("DELETE", f"/schedules/{made['id']}", "viewer"),
    ]

    assert [403] * 5 == [one.status_code for one in refused]
    assert 401 == world.client.get("/api/v1/schedules").status_code


def test_high_priority_is_for_administrators(world: World) -> None:
    """As for an optimization: neither added nor fired by others."""
    body = {"name": "urgent", "cron": YEARLY, "request": request_body(constraints={"priority": "high"})}
    refused = world.ask("POST", "/schedules", json=body)
    made = world.ask("POST", "/schedules", "administrator", json=body)
    fired = [world.ask("POST", f"/schedules/{made.json()['id']}/fire", who) for who in ("researcher", "administrator")]

    assert (403, 201) == (refused.status_code, made.status_code)
    assert [403, 202] == [one.status_code for one in fired]
    assert "constraints.priority" in fired[0].json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"cron": "* * * *"}, 422, "cron: wanted: five fields"),
        ({"cron": "* * * * * *"}, 422, "found: 6"),
        ({"cron": "0 0 30 2 *"}, 422, "never due"),
        ({"cron": "61 * * * *"}, 422, "cron: wanted"),
        ({"cron": "R * * * *"}, 422, "as the minute"),
        ({"timezone": "Europe/Berln"}, 422, "Europe/Berlin"),
        ({"name": ""}, 422, "name"),
        ({"name": "half \ud800"}, 422, "name"),
        ({"every": "minute"}, 422, "every"),
        ({"request": {}}, 422, "request.target"),
        ({"request": request_body(objectives=[{"metric": "exact_mach"}])}, 422, "request"),
        ({"request": request_body(constraints={"max_lm_calls": 3})}, 422, "request.max_lm_calls: wanted"),
        (
            {"request": request_body(constraints={"deadline": "2999-01-01T00:00:00Z"})},
            422,
            "request.constraints.deadline",
        ),
        ({"request": request_body(dataset={"id": "0" * 64})}, 404, "request"),
        ({"request": request_body(target={"id": "nobody"})}, 404, "the agent nobody"),
        ({"request": request_body(constraints={"requires_gpu": True})}, 507, "GPU"),
    ],
)
def test_what_is_refused(world: World, changes: dict[str, Any], status: int, said: str) -> None:
    """At once, with the field as it stands in a schedule, and nothing is kept."""
    body = {"name": "refused", "cron": YEARLY, "request": request_body(), **changes}
    answer = world.ask("POST", "/schedules", content=json.dumps(body))
    names = {one["name"] for one in world.ask("GET", "/schedules", params={"limit": 200}).json()["items"]}

    assert status == answer.status_code, answer.text
    assert said in answer.text
    assert "refused" not in names


def test_a_name_is_one_schedule(world: World) -> None:
    """409 names it; once it is removed the name is free, and what it made stays."""
    made = world.added("twice")
    taken = world.ask("POST", "/schedules", json={"name": "twice", "cron": YEARLY, "request": request_body()})
    optimization = world.ask("POST", f"/schedules/{made['id']}/fire").json()["optimization_id"]
    removed = world.ask("DELETE", f"/schedules/{made['id']}")

    assert 409 == taken.status_code
    assert "'twice' is taken" in taken.json()["detail"]
    assert (204, 404) == (removed.status_code, world.ask("GET", f"/schedules/{made['id']}").status_code)
    assert made["id"] == world.ask("GET", f"/optimizations/{optimization}").json()["schedule"]["id"]
    assert made["id"] != world.added("twice")["id"]


def test_pages(world: World) -> None:
    """The newest first, every one once; other cursors are refused."""
    names = [world.added(f"page-{n}")["name"] for n in range(3)]
    seen, cursor = [], None
    while True:
        page = world.ask("GET", "/schedules", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    wrong = [world.ask("GET", "/schedules", params={"cursor": one}).status_code for one in ("x", "WzFd", "Ingi")]

    assert list(reversed(names)) == seen[:3]
    assert len(seen) == len(set(seen))
    assert [422] * 3 == wrong
