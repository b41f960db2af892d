"""A front with two objectives, and a person who picks another candidate: over HTTP, and by the client."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.sdk import Client
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer
from service_world import Service, running, service_settings, spell, words

pytestmark = pytest.mark.xdist_group("service")

DEMO = {"word": "some999", "answer": "SOME999"}
OBJECTIVES = [{"metric": "exact_match"}, {"metric": "tokens", "direction": "minimize"}]


def showing(demos: int) -> dict[str, Any]:
    """A candidate that shows so many demos; what it says stays the agent's."""
    return {"components": {"self": {"demos": [DEMO] * demos}}, "origin": f"{demos} demos"}


def counted(received: Received) -> Reply:
    """Answer as `spell` does, and count the tokens of what was asked."""
    body = json.loads(spell(received).content)
    length = len(json.dumps(received.body["messages"]))
    return answer(body["choices"][0]["message"]["content"], usage=(length // 4, 5))


@pytest.fixture(scope="module")
def service(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    database = f"picking_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    with ModelServer(counted) as model:
        folder = tmp_path_factory.mktemp("data")
        with running(service_settings(postgres.url_of(database), model.base_url, folder)) as found:
            yield found


@pytest.fixture(scope="module")
def ended(service: Service) -> str:
    """Three candidates of which the dearest ones are no better than the first."""
    optimization_id = service.submitted(
        dataset={"examples": words(120, "pick"), "name": "picking"},
        objectives=OBJECTIVES,
        algorithms=[{"given": {"candidates": [showing(1), showing(3), showing(6)]}}],
        policy={"type": "lexicographic", "order": ["exact_match"], "tolerance": 0},
    )
    service.until(optimization_id, "completed")
    return optimization_id


def test_the_front_is_told_with_the_result(service: Service, ended: str) -> None:
    """In the status and on a page of its own; asking for the same again names the policy too."""
    results = service.status(ended)["results"]
    front = service.client.get(f"/api/v1/optimizations/{ended}/front").json()
    detail = service.client.get(f"/api/v1/optimizations/{ended}").json()

    chosen = front["chosen"]
    # What it gains in one objective it pays for in the other, and the gate says so.
    assert ("indecisive", True) == (results["verdict"], "But tokens is worse" in results["reason"])
    assert ("val", ["exact_match", "tokens"], 4) == (front["measured_on"], front["goals"], front["candidates"])
    assert results["pareto_front"] == front["points"]
    assert 2 == len(front["points"]) == front["size"]
    assert [True, False] == [one["is_chosen"] for one in front["points"]]
    assert [False, True] == [one["is_baseline"] for one in front["points"]]
    assert {"exact_match", "tokens"} == set(chosen["means"])
    assert chosen["means"]["exact_match"]["low"] < chosen["means"]["exact_match"]["value"]
    assert ("lexicographic", chosen["candidate"]) == (results["pick"]["policy"], results["pick"]["candidate"])
    assert "1 demos" == chosen["origin"]
    assert front["course"][0]["paid_calls"] > 0
    policy = {"type": "lexicographic", "order": ["exact_match"], "tolerance": 0.0}
    assert policy == detail["body"]["policy"] == detail["request"]["policy"]
    again = service.client.post("/api/v1/estimate", json=detail["body"])
    assert 200 == again.status_code, again.text


def test_a_person_picks_another_one(service: Service, ended: str) -> None:
    """Told at which level, carried out, named in the family; the same key makes nothing new."""
    found = service.client.get(f"/api/v1/optimizations/{ended}/candidates").json()["items"]
    lineage = service.client.get(f"/api/v1/optimizations/{ended}/lineage").json()["nodes"]
    six = next(one["id"] for one in lineage if one["label"] == "6 demos")
    assert six in {one["candidate"] for one in found}
    path, key = f"/api/v1/optimizations/{ended}/pick", {"Idempotency-Key": "pick-six"}

    first = service.client.post(path, json={"candidate": six[:16]}, headers=key)
    again = service.client.post(path, json={"candidate": six[:16]}, headers=key)
    other = service.client.post(path, json={"candidate": six}, headers=key)

    assert (202, 202, 409) == (first.status_code, again.status_code, other.status_code), first.text
    accepted = first.json()
    assert accepted == {**again.json(), "status": accepted["status"]}
    assert (ended, six, 2) == (accepted["picked_from"], accepted["candidate"], accepted["test_split_use"])
    assert accepted["links"]["self"] == first.headers["Location"]
    assert f"use 2 of the test split, tested at a level of {accepted['alpha']:.3g}" in accepted["sentence"]
    new = accepted["optimization_id"]
    done = service.until(new, "completed")
    results = done["results"]
    assert ("indecisive", "given", 2) == (
        results["verdict"], results["algorithm_used"], results["optimization_details"]["test_split_use"],
    )  # fmt: skip
    assert f"a person picked it from optimization {ended}" == results["pick"]["reason"]
    labels = [one["label"] for one in service.client.get(f"/api/v1/optimizations/{new}/lineage").json()["nodes"]]
    assert f"picked from optimization {ended}" in labels
    assert ended == service.client.get(f"/api/v1/optimizations/{new}").json()["request"]["policy"]["optimization"]


def test_the_client_does_the_same(service: Service, ended: str) -> None:
    """Front, pick, and the errors as classes."""
    with Client(service.base_url) as client:
        handle = client.optimization(ended)
        front = handle.front()
        chosen = front.chosen.candidate
        three = next(one.id for one in handle.lineage().nodes if one.label == "3 demos")
        picked = handle.pick(three[:20], idempotency_key="pick-three")
        results = picked.optimization.result(60.0)

        assert (chosen, ["exact_match", "tokens"]) == (front.points[0].candidate, list(front.goals))
        assert front.points[0].means["tokens"].value > front.points[1].means["tokens"].value
        assert (three, ended) == (picked.accepted.candidate, picked.accepted.picked_from)
        assert picked.accepted.alpha < 0.05
        assert results.pick is not None
        assert ("picked", three) == (results.pick.policy, results.pick.candidate)
        with pytest.raises(NotFoundError, match="on the front"):
            handle.pick("zz")
        with pytest.raises(ConflictError, match="the chosen one"):
            handle.pick(chosen)
        with pytest.raises(ConflictError, match="the baseline"):
            handle.pick(front.baseline.candidate)


def test_wrong_policies_are_refused_with_what_is_possible(service: Service) -> None:
    """Before anything is kept."""
    wrong = [
        ("kneee", 'did you mean "knee"'),
        ({"type": "knee", "order": []}, "'order' is no known key"),
        ({"type": "lexicographic", "order": ["latency"]}, "possible: exact_match, tokens"),
        ({"type": "max_cost", "metric": "tokens", "at_most": 0}, "above 0"),
        ({"type": "target_values"}, "a target_value, found none"),
        (7, "policy"),
    ]
    for policy, said in wrong:
        refused = service.client.post(
            "/api/v1/optimize",
            json={
                "target": {"id": "capitals"},
                "dataset": {"examples": words(120, "pick")},
                "objectives": OBJECTIVES,
                "policy": policy,
            },
        )

        assert 422 == refused.status_code, refused.text
        assert said in refused.json()["detail"], refused.text


def test_what_cannot_be_picked_over_http(service: Service, ended: str) -> None:
    """404 and 409 and 422, each saying what is possible."""
    unknown = service.client.post(f"/api/v1/optimizations/{uuid4()}/pick", json={"candidate": "a"})
    nobody = service.client.post(f"/api/v1/optimizations/{ended}/pick", json={"candidate": "zz"})
    empty = service.client.post(f"/api/v1/optimizations/{ended}/pick", json={"candidate": ""})

    assert (404, 404, 422) == (unknown.status_code, nobody.status_code, empty.status_code)
    assert "possible, on the front" in nobody.json()["detail"]
