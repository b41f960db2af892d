"""Webhooks over HTTP, with keys: what is shown to whom, and a message all the way from an event to a receiver."""

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.adapters.webhooks import verify
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, TenantId
from service_world import running, service_settings
from webhook_world import Receiver, Reply, add_optimization, event_of, tell

pytestmark = pytest.mark.xdist_group("service")

OTHER = TenantId(uuid4())
WEBHOOKS = "/api/v1/webhooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A service that asks for keys; hosts on the loopback interface are open to webhooks."""

    database: Database
    client: httpx.Client
    keys: dict[str, str]

    def ask(self, method: str, path: str = "", who: str = "researcher", **content: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[who]}"}
        return self.client.request(method, f"{WEBHOOKS}{path}", headers=headers, **content)


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    folder: Path = tmp_path_factory.mktemp("data")
    settings = service_settings(
        postgres.url_of(name),
        "http://127.0.0.1:9/v1",
        folder,
        require_keys=True,
        secret_key=base64.b64encode(bytes(32)).decode(),
    )
    settings = replace(settings, allow=AllowList(http_hosts=frozenset({"127.0.0.1"})))
    with Database.open(postgres.url_of(name)) as database, running(settings) as service:
        keys = PostgresKeys(database)
        keys.add_tenant(OTHER, "other")
        yield World(
            database=database,
            client=service.client,
            keys={
                "viewer": keys.create(LOCAL_TENANT, AccessRole.VIEWER, "v"),
                "researcher": keys.create(LOCAL_TENANT, AccessRole.RESEARCHER, "r"),
                "other": keys.create(OTHER, AccessRole.RESEARCHER, "o"),
            },
        )


def until_delivered(world: World, webhook: str, attempts: int = 1) -> dict[str, Any]:
    end = time.monotonic() + 15.0
    while time.monotonic() < end:
        items = world.ask("GET", f"/{webhook}/deliveries", params={"state": "delivered"}).json()["items"]
        if items and items[0]["attempts"] >= attempts:
            return dict(items[0])
        time.sleep(0.05)
    raise AssertionError(world.ask("GET", f"/{webhook}/deliveries").text)


def test_from_an_event_to_a_receiver(world: World) -> None:
    """Added, told, signed, listed, sent once more when asked, removed."""
    with Receiver() as receiver:
        made = world.ask("POST", json={"url": receiver.url, "description": "mine"})
        assert 201 == made.status_code
        webhook = made.json()
        tell(world.database, LOCAL_TENANT, event_of(add_optimization(world.database, LOCAL_TENANT)))
        delivery = until_delivered(world, webhook["id"])
        again = world.ask("POST", f"/deliveries/{delivery['id']}/redeliver")
        until_delivered(world, webhook["id"])
        assert 204 == world.ask("DELETE", f"/{webhook['id']}").status_code

    assert [
        "experiment.alert",
        "experiment.result",
        "optimization.cancelled",
        "optimization.completed",
        "optimization.failed",
        "optimization.paused",
    ] == sorted(webhook["events"])
    assert ("optimization.completed", 200, None, None) == (
        delivery["event"],
        delivery["last_status"],
        delivery["last_error"],
        delivery["next_attempt_at"],
    )
    assert (202, "waiting") == (again.status_code, again.json()["state"])
    assert [delivery["message_id"]] * 2 == receiver.ids
    for one in receiver.received:
        verify(one.headers, one.body, webhook["secret"], datetime.now(UTC))
    assert 404 == world.ask("GET", f"/{webhook['id']}/deliveries").status_code


def test_a_secret_is_shown_once(world: World) -> None:
    """In the answer to adding it, and nowhere else; nor is what a receiver answered."""
    with Receiver(Reply(status=500, content=b"from-inside")) as receiver:
        webhook = world.ask("POST", json={"url": receiver.url, "events": ["optimization.failed"] * 2}).json()
        tell(world.database, LOCAL_TENANT, event_of(add_optimization(world.database, LOCAL_TENANT)))
        listed = world.ask("GET", who="viewer")

        assert webhook["secret"].startswith("whsec_")
        assert "secret" not in listed.text
        assert {**{k: v for k, v in webhook.items() if k != "secret"}} in listed.json()["items"]
        assert ["optimization.failed"] == webhook["events"]
        assert [] == world.ask("GET", f"/{webhook['id']}/deliveries").json()["items"]


def test_another_tenant_sees_nothing(world: World) -> None:
    """Not in lists, and everything by id is unknown."""
    with Receiver() as receiver:
        webhook = world.ask("POST", json={"url": receiver.url}).json()["id"]
        tell(world.database, LOCAL_TENANT, event_of(add_optimization(world.database, LOCAL_TENANT)))
        delivery = until_delivered(world, webhook)["id"]

        assert [] == world.ask("GET", who="other").json()["items"]
        assert [404, 404, 404] == [
            world.ask("GET", f"/{webhook}/deliveries", "other").status_code,
            world.ask("POST", f"/deliveries/{delivery}/redeliver", "other").status_code,
            world.ask("DELETE", f"/{webhook}", "other").status_code,
        ]
        assert 1 == len(receiver.received)


def test_who_may_change(world: World) -> None:
    """A viewer looks; nobody without a key does anything."""
    refused = [
        world.ask("POST", "", "viewer", json={"url": "https://127.0.0.1"}),
        world.ask("DELETE", f"/{uuid4()}", "viewer"),
        world.ask("POST", f"/deliveries/{uuid4()}/redeliver", "viewer"),
    ]

    assert [403] * 3 == [one.status_code for one in refused]
    assert 401 == world.client.get(WEBHOOKS).status_code


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"url": "http://10.0.0.1/hook"}, "not public"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "not public"),
        ({"url": "https://[::1]:8004"}, "not public"),
        ({"url": "ftp://127.0.0.1"}, "possible: https://"),
        ({"url": "https://a:b@127.0.0.1"}, "leave it out"),
        ({"url": "nonsense"}, "possible: https://"),
        ({"url": "https://127.0.0.1", "events": ["progress"]}, "optimization.paused"),
        ({"url": "https://127.0.0.1", "events": []}, "events"),
        ({"url": "https://127.0.0.1", "secret": "mine"}, "secret"),
        ({}, "url"),
    ],
)
def test_what_is_refused(world: World, body: dict[str, Any], said: str) -> None:
    """At once, and with what is possible."""
    answer = world.ask("POST", json=body)

    assert 422 == answer.status_code
    assert said in answer.text


def test_pages(world: World) -> None:
    """A cursor goes on where the page before ended; others are refused."""
    webhook = world.ask("POST", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    optimization = add_optimization(world.database, LOCAL_TENANT)
    for _ in range(3):
        tell(world.database, LOCAL_TENANT, event_of(optimization))
    first = world.ask("GET", f"/{webhook}/deliveries", params={"limit": 2}).json()
    second = world.ask("GET", f"/{webhook}/deliveries", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    wrong = [
        world.ask("GET", f"/{webhook}/deliveries", params={"cursor": cursor}).status_code
        for cursor in (
            "x",
            "WzEsMl0",
            "WyJhIiwiYiJd",
            "WyIyMDI2LTAxLTAxIiwiMDE5OWMxZDItMDAwMC03MDAwLTgwMDAtMDAwMDAwMDAwMGFhIl0",
        )
    ]
    world.ask("DELETE", f"/{webhook}")

    assert 3 == len({one["id"] for one in first["items"] + second["items"]})
    assert second["next_cursor"] is None
    assert [422] * 4 == wrong
