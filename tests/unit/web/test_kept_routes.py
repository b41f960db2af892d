"""Lists of agents and datasets: sizes and dates, page by page, in as few questions as there are pages."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dspy_optimization.statistics import detectable_share
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


def test_a_kept_dataset_is_checked_without_a_word_of_its_test_split(keyed: Keyed) -> None:
    """By its check, an estimate and handing it in; who sends the same examples is shown which ones."""
    examples = [
        {"word": f"w{n:03} lorem {n}", "answer": f"{'SEALED' if split == 'test' else 'OPEN'}{n:03}", "split": split}
        for n, split in enumerate(("train", "val", "test") * 40)
    ]
    examples[5] = {"word": "a duplicate that stands in test", "answer": "SEALED-A", "split": "test"}
    examples[0] = {"word": "a duplicate that stands in test", "answer": "OPEN-B", "split": "train"}
    examples[8] = {"word": "kept twice", "answer": "SEALED-C", "split": "test"}
    examples[11] = {"word": "Kept  twice", "answer": "SEALED-C", "split": "test"}
    typed = {"name": "answer", "type": "Literal['x','y']"}
    strict = {**AGENT, "signature": {**AGENT["signature"], "outputs": [typed]}}
    made = keyed.ask("/api/v1/datasets", method="POST", json={"agent": dict(AGENT), "examples": examples}).json()

    def told(dataset: dict[str, Any], config: dict[str, Any]) -> str:
        target = {"id": "capitals", "config": config}
        wanted = {"dataset": dataset, "target": target, "objectives": [{"metric": "exact_match"}]}
        checked = keyed.ask("/api/v1/datasets/check", method="POST", json=wanted)
        refused = [keyed.ask(f"/api/v1/{path}", method="POST", json=wanted) for path in ("estimate", "optimize")]
        assert [200, 422, 422] == [one.status_code for one in (checked, *refused)]
        assert {"leak_equal", "contradiction", "duplicate"} <= {one["code"] for one in checked.json()["findings"]}
        return " ".join(one.text for one in (checked, *refused))

    kept = [told({"id": made["id"]}, config) for config in (dict(AGENT), strict)]
    sent = told({"examples": examples}, dict(AGENT))

    for text in kept:
        assert "a duplicate that stands in test" not in text
        assert "kept twice" not in text.lower()
        assert "SEALED" not in text
        assert "in test" in text
    assert "a duplicate that stands in test" in sent
    assert "found 'OPEN" in kept[1]


def test_check_and_estimate_tell_the_same_of_a_dataset(keyed: Keyed) -> None:
    """At the level that a first use of the test split has, which is half of the whole one; warnings in words."""
    target = {"id": "capitals", "config": dict(AGENT)}
    wanted = {"target": target, "dataset": {"examples": words(150, "even")}, "objectives": [{"metric": "exact_match"}]}

    checked = keyed.ask("/api/v1/datasets/check", method="POST", json=wanted).json()
    estimate = keyed.ask("/api/v1/estimate", method="POST", json=wanted).json()

    assert checked["sentence"] == estimate["dataset"]
    assert detectable_share(checked["n_test"], discordant_share=0.3, alpha=0.025) == checked["detectable_gain"]
    assert "; a warning: a test split that shows a gain of 20 percentage points is wanted" in checked["sentence"]


def test_a_capped_estimate_invents_no_judge(keyed: Keyed) -> None:
    """What rounding leaves over goes to the role that asks most; the roles sum to the cap."""
    wanted = {
        "target": {"id": "capitals", "config": dict(AGENT)},
        "dataset": {"examples": words(120, "capped")},
        "objectives": [{"metric": "exact_match"}],
        "algorithms": ["gepa", "miprov2"],
        "constraints": {"max_lm_calls": 1999},
    }

    by_role = keyed.ask("/api/v1/estimate", method="POST", json=wanted).json()["calls_by_role"]

    assert (0, 1999) == (by_role["judge"], sum(by_role.values()))
    assert by_role["reflection"] > 0
