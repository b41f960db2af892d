"""Registering an algorithm over HTTP, using it in threads and in processes of their own, and taking it away."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_service import fresh

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.sdk import Client
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, TenantId
from service_world import model_server, request_body, running, service_settings
from web_world import OTHER, Keyed

pytestmark = pytest.mark.xdist_group("service")

PLACE = "/api/v1/algorithms/custom"
ALLOWED = frozenset({"bad_algorithms:Trying", "bad_algorithms:Cheating", "bad_algorithms:Exiting"})
MINE = {"entrypoint": "bad_algorithms:Trying"}


@pytest.fixture(scope="module")
def keyed(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A service with keys whose owner allows three plug-ins."""
    url = fresh(postgres, "custom")
    folder: Path = tmp_path_factory.mktemp("data")
    with model_server() as model, Database.open(url) as database:
        settings = replace(
            service_settings(url, model.base_url, folder, require_keys=True), allow=AllowList(algorithms=ALLOWED)
        )
        keys = PostgresKeys(database)
        keys.add_tenant(TenantId(OTHER), "other")
        made = {role.value: keys.create(LOCAL_TENANT, role, role.value) for role in AccessRole}
        made["other"] = keys.create(TenantId(OTHER), AccessRole.ADMINISTRATOR, "other")
        with running(settings) as service:
            yield Keyed(service=service, database=database, url=url, keys=made)


def test_an_algorithm_from_registering_to_its_end(keyed: Keyed) -> None:
    """Checked, kept, listed, used in a thread and in a process, seen by one tenant, removed."""
    made = keyed.ask(PLACE, "administrator", "POST", json={**MINE, "name": "mine"}, timeout=300.0)
    assert 201 == made.status_code, made.text
    told = made.json()
    assert ("mine", None, {"kept"}) == (told["name"], told["problem"], {one["outcome"] for one in told["checks"]})

    listed = {one["name"]: one for one in keyed.ask("/api/v1/algorithms/available").json()["items"]}
    assert (True, "bad_algorithms:Trying", told["version"]) == tuple(
        listed["mine"][key] for key in ("custom", "source", "version")
    )
    assert (False, "dspy-optimization") == (listed["gepa"]["custom"], listed["gepa"]["source"])
    assert "any number, weighed into one score" == listed["mine"]["objectives_supported"]
    assert [told] == keyed.ask(PLACE).json()["items"]
    assert [] == keyed.ask(PLACE, "other").json()["items"]
    assert "mine" not in {one["name"] for one in keyed.ask("/api/v1/algorithms/available", "other").json()["items"]}
    body = request_body(algorithms=[{"mine": {"texts": 2}}])
    assert 404 == keyed.ask("/api/v1/optimize", "other", "POST", json=body).status_code

    for isolation in ("thread", "process"):
        body = request_body(algorithms=[{"mine": {"texts": 2}}], constraints={"concurrency": 4, "isolation": isolation})
        accepted = keyed.ask("/api/v1/optimize", "researcher", "POST", json=body)
        assert 202 == accepted.status_code, accepted.text
        ended = _ended(keyed, accepted.json()["optimization_id"])
        assert ("completed", None) == (ended["status"], ended.get("error"))

    assert 204 == keyed.ask(f"{PLACE}/mine", "administrator", "DELETE").status_code
    gone = keyed.ask(f"{PLACE}/mine", "administrator", "DELETE")
    assert (404, True) == (gone.status_code, "possible: none yet" in gone.json()["detail"])
    refused = keyed.ask("/api/v1/optimize", "researcher", "POST", json=request_body(algorithms=["mine"]))
    assert (404, True) == (refused.status_code, "no algorithm is called 'mine'" in refused.json()["detail"])


def test_what_cannot_be_registered(keyed: Keyed) -> None:
    """Who may not, what is not allowed, what has a name already, what breaks a rule, what ends its process."""
    refusals = {
        ("researcher", "bad_algorithms:Trying", None): (403, "a key that allows to administer"),
        ("administrator", "os:system", None): (422, "possible: bad_algorithms:Cheating, bad_algorithms:Exiting"),
        ("administrator", "bad_algorithms:Trying", "gepa"): (409, "gepa is installed"),
        ("administrator", "bad_algorithms:Cheating", None): (422, "records what was measured: wanted: results that"),
        ("administrator", "bad_algorithms:Exiting", None): (422, "it ended its process itself, with exit status 3"),
    }
    for (who, entrypoint, name), (status, detail) in refusals.items():
        body = {"entrypoint": entrypoint, **({} if name is None else {"name": name})}

        answer = keyed.ask(PLACE, who, "POST", json=body, timeout=300.0)

        assert (status, True) == (answer.status_code, detail in answer.json()["detail"]), answer.text
    assert [] == keyed.ask(PLACE).json()["items"]


def test_the_same_with_the_client(keyed: Keyed) -> None:
    """The SDK has the same nouns."""
    with Client(keyed.service.base_url, api_key=keyed.keys["administrator"]) as client:
        made = client.add_algorithm("bad_algorithms:Trying")
        listed = [one.name for one in client.custom_algorithms()]
        usable = {one.name: one.custom for one in client.algorithms()}
        client.remove_algorithm("trying")

        assert ("trying", ["trying"], True) == (made.name, listed, usable["trying"])
        assert {"kept"} == {one.outcome for one in made.checks}
        assert () == client.custom_algorithms()


def _ended(keyed: Keyed, optimization_id: str) -> dict[str, object]:
    end = time.monotonic() + 90.0
    while time.monotonic() < end:
        found: dict[str, object] = keyed.ask(f"/api/v1/optimizations/{optimization_id}").json()
        if found["status"] in {"completed", "failed", "cancelled", "paused"}:
            return found
        time.sleep(0.2)
    raise AssertionError(f"wanted an end, found {found}")
