"""Experiments over HTTP, with keys: started on what an optimization really ended with, served to users, decided.

Users come within seconds: their window is short, and when something happened is told, not waited for.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole
from service_world import AGENT, model_server, request_body, running, service_settings
from web_world import OTHER, Keyed

pytestmark = pytest.mark.xdist_group("service")

QUICK = {
    "traffic_split": 0.5,
    "window": {"seconds": 3.0, "grace_seconds": 3.0},
    "terms": {"minimum_hours": 0.0, "minimum_units": 100},
    "primary": {"mde": 0.1, "expected": 0.5},
}
BATCH = 50


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = postgres.url_of(name)
    with model_server() as model:
        settings = service_settings(url, model.base_url, tmp_path_factory.mktemp("data"), require_keys=True)
        with Database.open(url) as database, running(settings) as service:
            keys = PostgresKeys(database)
            keys.add_tenant(OTHER, "other")
            yield Keyed(
                service=service,
                database=database,
                url=url,
                keys={
                    **{role.value: keys.create(LOCAL_TENANT, role, role.value) for role in AccessRole},
                    "other": keys.create(OTHER, AccessRole.RESEARCHER, "other"),
                },
            )


def post(world: Keyed, path: str, body: Any = None, who: str = "researcher") -> Any:
    return world.ask(f"/api/v1{path}", who, "POST", json=body)


def get(world: Keyed, path: str, who: str = "researcher") -> Any:
    answer = world.ask(f"/api/v1{path}", who)
    assert 200 == answer.status_code, answer.text
    return answer.json()


def until(world: Keyed, path: str, is_so: Callable[[Any], bool], seconds: float = 180.0) -> Any:
    """Ask until the answer is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = get(world, path)
        if is_so(found):
            return found
        time.sleep(0.2)
    raise AssertionError(f"still {found}")


@pytest.fixture(scope="module")
def optimized(world: Keyed) -> str:
    """An optimization that ended with a better agent."""
    accepted = post(world, "/optimize", request_body()).json()["optimization_id"]
    found = until(world, f"/optimizations/{accepted}/status", lambda one: one["status"] == "completed")
    assert "improved" == found["results"]["verdict"]
    return str(accepted)


def started(world: Keyed, optimization: str, **changes: Any) -> dict[str, Any]:
    answer = post(world, "/experiments", {"optimization_id": optimization, **QUICK, **changes})
    assert 201 == answer.status_code, answer.text
    return dict(answer.json())


def live_through(world: Keyed, users: int, solved: dict[str, Callable[[int], bool]]) -> dict[str, str]:
    """Let users come while it runs, each told of in a batch; return which version each got."""
    got: dict[str, str] = {}
    counts = dict.fromkeys(solved, 0)
    batch: list[dict[str, Any]] = []
    for number in range(users):
        answer = post(world, "/agents/capitals/assign", {"unit_id": f"user-{number}"})
        assert 200 == answer.status_code, answer.text
        served = answer.json()
        if served["exposure_id"] is None:
            break
        got[served["unit_id"]] = variant = served["variant"]
        batch.append(
            {
                "event_id": f"solved-{number}",
                "exposure_id": served["exposure_id"],
                "happened_at": datetime.now(UTC).isoformat(),
                "success": solved[variant](counts[variant]),
            }
        )
        counts[variant] += 1
        if len(batch) == BATCH:
            assert {"accepted": BATCH, "refused": []} == post(world, "/outcomes", {"outcomes": batch}).json()
            batch = []
    if batch:
        assert {"accepted": len(batch), "refused": []} == post(world, "/outcomes", {"outcomes": batch}).json()
    return got


def test_a_better_version_wins(world: Keyed, optimized: str) -> None:
    """From the result of an optimization to the recommendation; told as an event with the fields of the contract."""
    versions = get(world, f"/optimizations/{optimized}/status")["results"]["artifact"]["agent_version"]
    made = started(world, optimized)
    path = f"/experiments/{made['experiment_id']}"
    twice = [post(world, "/agents/capitals/assign", {"unit_id": "user-0"}).json() for _ in range(2)]
    second = post(world, "/experiments", {"optimization_id": optimized})
    got = live_through(world, 600, {"baseline": lambda n: n % 10 < 5, "optimized": lambda n: n % 10 < 8})
    repeated = post(
        world,
        "/outcomes",
        {"event_id": "solved-0", "exposure_id": twice[0]["exposure_id"], "score": 1.0},
    )
    ended = until(world, path, lambda one: one["status"] != "running")
    log = get(world, f"{path}/log")
    events = get(world, f"/optimizations/{optimized}/log?limit=200")["items"]
    (told,) = [one["data"] for one in events if one["type"] == "experiment.result"]
    after = post(world, "/agents/capitals/assign", {"unit_id": "user-0"}).json()

    assert ("running", f"/api/v1{path}") == (made["status"], made["monitoring_url"])
    assert 64 == len(made["plan_hash"])
    assert versions == made["plan"]["optimized"]
    assert 409 == second.status_code
    assert made["experiment_id"] in second.json()["detail"]
    assert 200 == repeated.status_code
    assert ("decided", "winner") == (ended["status"], ended["decision"]["state"]), ended["decision"]["reason"]
    assert ended["decision"]["deployment_recommended"]
    baseline, better = ended["arms"]
    assert 200 <= baseline["exposed"] + better["exposed"] <= len(got)
    assert min(baseline["n"], better["n"]) >= 100
    assert (baseline["version"], better["version"]) == (made["plan"]["baseline"], versions)
    assert better["mean"] > baseline["mean"]
    low, high = ended["comparison"]["interval"]
    assert 0.0 < low < ended["comparison"]["difference"] < high
    assert ended["comparison"]["p_value"] < 0.05
    assert not any(one["is_mismatch"] for one in ended["sample_ratios"])
    assert ["hashed", "kept"] == [one["reason"] for one in twice]
    assert [got["user-0"]] * 2 == [one["variant"] for one in twice]
    assert twice[0]["exposure_id"] == twice[1]["exposure_id"]
    assert (len(got), 0) == (log["units"], log["late_exposures"])
    assert 1 == log["conflicting_outcomes"] + log["repeated_outcomes"]
    assert {
        "experiment_id": made["experiment_id"],
        "optimization_id": optimized,
        "winner": "optimized",
        "confidence": ended["decision"]["confidence"],
        "deployment_recommended": True,
        "timestamp": told["timestamp"],
    } == told
    assert ("baseline", "not_running", None) == (after["variant"], after["reason"], after["exposure_id"])
    assert made["plan"]["baseline"] == after["version"]


def test_harm_is_rolled_back(world: Keyed, optimized: str) -> None:
    """By itself, while users come; then nobody gets the worse version any more."""
    made = started(world, optimized, terms={})
    path = f"/experiments/{made['experiment_id']}"
    live_through(world, 150, {"baseline": lambda n: n % 10 < 9, "optimized": lambda n: n % 10 < 1})
    ended = until(world, path, lambda one: one["status"] != "running")
    after = [post(world, "/agents/capitals/assign", {"unit_id": f"late-{n}"}).json() for n in range(20)]
    events = get(world, f"/optimizations/{optimized}/log?limit=200")["items"]
    told = [one["data"] for one in events if one["type"] == "experiment.result"]

    assert ("rolled_back", "harm") == (ended["status"], ended["decision"]["state"])
    assert "All traffic goes back to the baseline" in ended["ended_because"]
    assert {"baseline"} == {one["variant"] for one in after}
    assert [("baseline", False)] == [
        (one["winner"], one["deployment_recommended"]) for one in told if one["experiment_id"] == made["experiment_id"]
    ]


@pytest.fixture(scope="module")
def steady(world: Keyed, optimized: str) -> dict[str, Any]:
    """An experiment that one user is in, and that no look finds anything new of; it has been looked at."""
    made = started(world, optimized, window={"grace_seconds": 86_400.0}, terms={})
    served = post(world, "/agents/capitals/assign", {"unit_id": "user-0"}).json()
    path = f"/experiments/{made['experiment_id']}"
    until(world, path, lambda one: one["decision"] is not None)
    return {"path": path, "exposure_id": served["exposure_id"], "exposed_by": datetime.now(UTC)}


def everything(world: Keyed, path: str) -> tuple[Any, ...]:
    return get(world, "/experiments"), get(world, path), get(world, f"{path}/log")


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"traffic_split": 0}, 422, "traffic_split"),
        ({"traffic_split": 1}, 422, "traffic_split"),
        ({"traffic_split": 1.5}, 422, "traffic_split"),
        ({"traffic_split": -0.1}, 422, "traffic_split"),
        ({"traffic_split": "NaN"}, 422, "traffic_split"),
        ({"traffic_split": 1e-9}, 422, "at least one bucket"),
        ({"baseline_config": "f" * 64}, 422, "baseline_config: wanted: version"),
        ({"optimized_config": dict(AGENT)}, 422, "optimized_config: wanted: version"),
        ({"baseline_config": dict(AGENT), "optimized_config": dict(AGENT)}, 422, "another version than the baseline"),
        ({"optimized_config": {"kind": "nonsense"}}, 422, "optimized_config"),
        ({"optimization_id": str(uuid4())}, 404, "optimization"),
        ({"optimization_id": "x"}, 422, "optimization_id"),
        ({"window": {"seconds": 0}}, 422, "window: seconds"),
        ({"window": {"seconds": 90_000}}, 422, "window: seconds"),
        ({"terms": {"maximum_hours": 1}}, 422, "maximum_hours"),
        ({"terms": {"alpha": 1}}, 422, "alpha"),
        ({"primary": {"mde": 0}}, 422, "mde"),
        ({"guardrails": [{"name": "slow", "kind": "latency"}]}, 422, "limit"),
        ({"guardrails": [{"name": "a", "kind": "error_rate"}] * 2}, 422, "name of its own"),
        ({"units_per_day": 0}, 422, "units_per_day"),
        ({"nonsense": 1}, 422, "nonsense"),
        ({}, 409, "wait until it ends, or stop it"),
    ],
)
def test_starts_that_are_refused(
    world: Keyed, optimized: str, steady: dict[str, Any], changes: dict[str, Any], status: int, said: str
) -> None:
    """Each with a sentence, and nothing has changed."""
    before = everything(world, steady["path"])
    refused = post(world, "/experiments", {"optimization_id": optimized, **changes})

    assert (status, "application/problem+json") == (refused.status_code, refused.headers["content-type"])
    assert said in refused.text, refused.text
    assert before == everything(world, steady["path"])


def test_numbers_that_are_none_in_json(world: Keyed, optimized: str, steady: dict[str, Any]) -> None:
    """NaN is not JSON, and is refused where Python would read it; of a batch only the one that holds it."""
    before = everything(world, steady["path"])
    headers = {"Content-Type": "application/json"}
    start = world.ask(
        "/api/v1/experiments",
        method="POST",
        headers=headers,
        content=f'{{"optimization_id": "{optimized}", "traffic_split": NaN}}',
    )
    exposure = steady["exposure_id"]
    single = world.ask(
        "/api/v1/outcomes",
        method="POST",
        headers=headers,
        content=f'{{"event_id": "a", "exposure_id": "{exposure}", "score": NaN}}',
    )
    batch = world.ask(
        "/api/v1/outcomes",
        method="POST",
        headers=headers,
        content=f'{{"outcomes": [{{"event_id": "b", "exposure_id": "{exposure}", "score": NaN}}]}}',
    )

    assert [422, 422, 200] == [one.status_code for one in (start, single, batch)]
    assert ["traffic_split", "score"] == [one.json()["errors"][0]["field"] for one in (start, single)]
    assert (0, 0, "b", 422) == (
        batch.json()["accepted"],
        *(batch.json()["refused"][0][name] for name in ("position", "event_id", "status")),
    )
    assert before == everything(world, steady["path"])


def test_outcomes_that_are_refused(world: Keyed, steady: dict[str, Any]) -> None:
    """Alone with a problem; of a batch each is named, and the good one is taken in."""
    exposure, before = steady["exposure_id"], everything(world, steady["path"])
    earlier = (steady["exposed_by"] - timedelta(hours=1)).isoformat()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"event_id": "a", "exposure_id": str(uuid4()), "score": 1}, 404, "a recorded exposure"),
        ({"event_id": "b", "exposure_id": exposure, "score": 1, "happened_at": earlier}, 422, "after its exposure"),
        ({"event_id": "c", "exposure_id": exposure, "score": 1, "happened_at": later}, 422, "that has happened"),
        ({"event_id": "d", "exposure_id": exposure, "score": 1.01}, 422, "score"),
        ({"event_id": "e", "exposure_id": exposure, "score": -0.1}, 422, "score"),
        ({"event_id": "f", "exposure_id": exposure, "score": "0.5"}, 422, "score"),
        ({"event_id": "g", "exposure_id": exposure, "score": 1, "success": True}, 422, "score or success"),
        ({"event_id": "h", "exposure_id": exposure}, 422, "at least one thing"),
        ({"event_id": "i", "exposure_id": "x", "score": 1}, 422, "exposure_id"),
        ({"exposure_id": exposure, "score": 1}, 422, "event_id"),
        ({"event_id": "k", "exposure_id": exposure, "score": 1, "happened_at": "2026-03-01T12:00:00"}, 422, "zone"),
        (
            {"event_id": "l", "exposure_id": exposure, "score": 1, "happened_at": "0001-01-01T00:00:00+14:00"},
            422,
            "a moment that exists in UTC",
        ),
        ({"event_id": "m", "exposure_id": exposure, "scores": {"safety": 7}}, 422, "safety"),
        ({"event_id": "n", "exposure_id": exposure, "score": 1, "latency_ms": -1}, 422, "latency_ms"),
        ({"event_id": "o", "exposure_id": exposure, "score": 1, "colour": "red"}, 422, "colour"),
    ]
    alone = [post(world, "/outcomes", body) for body, _, _ in wrong]
    unchanged = everything(world, steady["path"])
    good = {"event_id": "good", "exposure_id": exposure, "success": True, "feedback": "fine"}
    batch = post(world, "/outcomes", {"outcomes": [*(body for body, _, _ in wrong), good]}).json()
    both = post(world, "/outcomes", {**good, "outcomes": [good]})
    many = post(world, "/outcomes", {"outcomes": [good] * 1_001})
    log = get(world, f"{steady['path']}/log")

    assert [status for _, status, _ in wrong] == [one.status_code for one in alone]
    for answer, (_, _, said) in zip(alone, wrong, strict=True):
        assert said in answer.text
    assert before == unchanged
    assert 1 == batch["accepted"]
    assert list(range(len(wrong))) == [one["position"] for one in batch["refused"]]
    assert [status for _, status, _ in wrong] == [one["status"] for one in batch["refused"]]
    assert [422, 422] == [both.status_code, many.status_code]
    assert (1, 1) == (log["events"], log["counted_events"])


def test_changes_that_are_refused(world: Keyed, steady: dict[str, Any]) -> None:
    """A split only rises, time only grows; whoever may only look, and whoever is of another tenant, changes nothing."""
    path, before = steady["path"], everything(world, steady["path"])
    answers = [
        (post(world, f"{path}/split", {"traffic_split": 0.5}), 409),
        (post(world, f"{path}/split", {"traffic_split": 0.1}), 409),
        (post(world, f"{path}/split", {"traffic_split": 1}), 422),
        (post(world, f"{path}/extend", {"until_hours": 100}), 409),
        (post(world, f"{path}/extend", {"until_hours": 1_000}), 409),
        (post(world, f"{path}/extend", {"until_hours": 0}), 422),
        (post(world, f"{path}/stop", {"because": ""}), 422),
        (post(world, f"{path}/stop", {"because": " \u0000"}), 422),
        (post(world, f"/experiments/{uuid4()}/stop", {"because": "x"}), 404),
        *((post(world, f"{path}/{step}", body, "viewer"), 403) for step, body in STEPS),
        *((post(world, f"{path}/{step}", body, "other"), 404) for step, body in STEPS),
        (post(world, "/agents/capitals/assign", {"unit_id": "x"}, "viewer"), 403),
        (post(world, "/agents/capitals/assign", {"unit_id": "x"}, "other"), 404),
        (post(world, "/agents/capitals/assign", {"unit_id": 7}), 422),
        (post(world, "/agents/nobody/assign", {"unit_id": "x"}), 404),
        (post(world, "/outcomes", {"event_id": "x", "exposure_id": steady["exposure_id"], "score": 1}, "other"), 404),
        (world.ask(f"/api/v1{path}", "other"), 404),
        (world.ask(f"/api/v1{path}/log", "other"), 404),
    ]

    assert [status for _, status in answers] == [answer.status_code for answer, _ in answers]
    assert {"application/problem+json"} == {answer.headers["content-type"] for answer, _ in answers}
    assert before == everything(world, path)
    assert [] == get(world, "/experiments", "other")["items"]


STEPS = (("split", {"traffic_split": 0.9}), ("extend", {"until_hours": 336}), ("stop", {"because": "x"}))


def test_plans_are_reckoned_and_nothing_is_started(world: Keyed, optimized: str) -> None:
    """With an optimization the plan as it would be, without one the numbers."""
    before = get(world, "/experiments")
    of_it = post(world, "/experiments/plan", {"optimization_id": optimized, "units_per_day": 1_000}).json()
    numbers = post(world, "/experiments/plan", {"primary": {"expected": 0.8, "mde": 0.05}, "traffic_split": 0.5}).json()
    refused = post(world, "/experiments/plan", {"traffic_split": 0})
    measured = get(world, f"/optimizations/{optimized}/status")["results"]["baseline_performance"]["exact_match"]

    assert measured["value"] == of_it["plan"]["primary"]["expected"] == of_it["forecast"]["expected"]
    assert 1 == len(of_it["forecast"]["detectable"])
    assert "salt" not in of_it["plan"]
    assert (None, 3) == (numbers["plan"], len(numbers["forecast"]["detectable"]))
    assert 2_000 < numbers["forecast"]["units_needed"] < 5_000
    assert 422 == refused.status_code
    assert before == get(world, "/experiments")


def test_steps_that_are_allowed(world: Keyed, steady: dict[str, Any]) -> None:
    """A larger split, more time, the end; all of it shown, and listed without the evidence."""
    path = steady["path"]
    raised = post(world, f"{path}/split", {"traffic_split": 0.75}).json()
    extended = post(world, f"{path}/extend", {"until_hours": 336}).json()
    shown = get(world, path)
    stopped = post(world, f"{path}/stop", {"because": "the campaign is over"}).json()
    again = post(world, f"{path}/stop", {"because": "x"})
    first = get(world, "/experiments?limit=1", "viewer")
    second = get(world, f"/experiments?limit=1&cursor={first['next_cursor']}", "viewer")

    assert 0.75 == raised["traffic_split"]
    assert timedelta(hours=336) == datetime.fromisoformat(extended["until"]) - datetime.fromisoformat(
        extended["started_at"]
    )
    assert [0.5, 0.75] == [one["traffic_split"] for one in shown["splits"]]
    assert ("stopped", "researcher: the campaign is over") == (stopped["status"], stopped["ended_because"])
    assert 409 == again.status_code
    assert [stopped] == first["items"]
    assert stopped["experiment_id"] != second["items"][0]["experiment_id"]
