"""Lists of agents and datasets: sizes and dates, page by page, in as few questions as there are pages."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service_world import AGENT, words
from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")


def agent(name: str, instructions: str = "Say it.") -> dict[str, Any]:
    return {**AGENT, "name": name, "signature": {**AGENT["signature"], "instructions": instructions}}


def every(keyed: Keyed, path: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = keyed.ask(path, params={"limit": limit, **({} if cursor is None else {"cursor": cursor})}).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def when(text: str) -> float:
    return abs((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_datasets_with_sizes_and_dates(keyed: Keyed, limit: int) -> None:
    """The newest first; what the list says is what each says of itself."""
    keyed.ask("/api/v1/agents", method="POST", json=agent("sized"))
    made = [
        keyed.ask(
            "/api/v1/datasets",
            method="POST",
            json={"name": f"d{limit}{n}", "examples": words(40 + n, f"w{limit}{n}"), "agent": "sized"},
        ).json()
        for n in range(3)
    ]
    listed = every(keyed, "/api/v1/datasets", limit)
    mine = [one for one in listed if one["id"] in {each["id"] for each in made}]

    assert list(reversed(made)) == mine
    assert mine == [keyed.ask(f"/api/v1/datasets/{one['id']}").json() for one in mine]
    assert [42, 41, 40] == [one["n_train"] + one["n_val"] + one["n_test"] for one in mine]
    assert all(when(one["created_at"]) < 60.0 for one in mine)
    assert len(listed) == len({one["id"] for one in listed})


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_agents_and_versions_with_dates(keyed: Keyed, limit: int) -> None:
    """Each agent once, by name, with its newest version; all versions of one, the newest first."""
    versions = [
        keyed.ask("/api/v1/agents", method="POST", json=agent("b-agent", f"Say it {limit} {n}.")).json()
        for n in range(3)
    ]
    keyed.ask("/api/v1/agents", method="POST", json=agent("a-agent"))
    again = keyed.ask("/api/v1/agents", method="POST", json=agent("b-agent", f"Say it {limit} 0.")).json()
    agents = every(keyed, "/api/v1/agents", limit)
    listed = every(keyed, "/api/v1/agents/b-agent/versions", limit)

    assert versions[0] == again
    assert list(reversed(versions)) == listed[:3]
    assert sorted(one["name"] for one in agents) == [one["name"] for one in agents]
    assert versions[2] == next(one for one in agents if one["name"] == "b-agent")
    assert all(when(one["created_at"]) < 60.0 for one in listed)
    assert len(agents) == len({one["name"] for one in agents})


def test_what_is_kept_for_ever_is_sent_once(keyed: Keyed) -> None:
    """Versions, datasets and details of optimizations carry tags of their content; `latest` moves on."""
    keyed.ask("/api/v1/agents", method="POST", json=agent("tagged", "One."))
    first = keyed.ask("/api/v1/agents/tagged/versions/latest")
    same = keyed.ask("/api/v1/agents/tagged/versions/latest", headers={"If-None-Match": first.headers["etag"]})
    keyed.ask("/api/v1/agents", method="POST", json=agent("tagged", "Two."))
    moved = keyed.ask("/api/v1/agents/tagged/versions/latest", headers={"If-None-Match": first.headers["etag"]})
    dataset = keyed.ask("/api/v1/datasets").json()["items"][0]["id"]
    kept = keyed.ask(f"/api/v1/datasets/{dataset}")
    known = keyed.ask(f"/api/v1/datasets/{dataset}", headers={"If-None-Match": kept.headers["etag"]})

    assert (200, 304, b"", 200) == (first.status_code, same.status_code, same.content, moved.status_code)
    assert first.headers["etag"] != moved.headers["etag"]
    assert 304 == known.status_code
    assert 404 == keyed.ask(f"/api/v1/datasets/{dataset}", "other", headers={"If-None-Match": "*"}).status_code


@pytest.mark.parametrize("path", ["/api/v1/agents", "/api/v1/agents/nobody/versions", "/api/v1/datasets/nothing"])
def test_what_another_tenant_keeps_is_not_there(keyed: Keyed, path: str) -> None:
    """As if it had never been."""
    keyed.ask("/api/v1/agents", method="POST", json=agent("mine"))
    found = keyed.ask(path, "other")

    assert "mine" not in found.text
    assert found.status_code in {200, 404}


@pytest.mark.parametrize("path", ["agents", "agents/capitals/versions", "datasets"])
@pytest.mark.parametrize("cursor", ["WzFd", "bnVsbA", "LTE", "eA", "MWU5OQ"])
def test_cursors_that_nobody_gave(keyed: Keyed, path: str, cursor: str) -> None:
    """A list, null, a negative number, no JSON, a number that is none: 422, and never a defect."""
    keyed.ask("/api/v1/agents", method="POST", json=agent("capitals"))

    assert 422 == keyed.ask(f"/api/v1/{path}?cursor={cursor}").status_code


def test_without_a_key_no_secret_is_taken_in(keyed: Keyed) -> None:
    """This service has a database of its own and no key for secrets: it says which setting is missing."""
    refused = keyed.ask("/api/v1/webhooks", method="POST", json={"url": "https://1.1.1.1/hook"})

    assert 409 == refused.status_code
    assert "DSPY_OPT_SECRET_KEY is not set; possible: whoever operates the service sets it" in refused.json()["detail"]
    assert [] == keyed.ask("/api/v1/webhooks").json()["items"]
