"""The service over HTTP, as its users meet it: a whole optimization, refusals, bad input, tenants."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres
from dspy_optimization.adapters.postgres.key_store import PostgresKeys, tenant_of
from dspy_optimization.serving import ServiceRole
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole
from service_world import AGENT, Service, model_server, request_body, running, service_settings, words

pytestmark = pytest.mark.xdist_group("service")


def fresh(postgres: EmbeddedPostgres, name: str) -> str:
    """Return the URL of a new database."""
    database = f"{name}_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    return postgres.url_of(database)


@pytest.fixture(scope="module")
def service(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for no keys."""
    url = fresh(postgres, "service")
    with model_server() as model:
        settings = service_settings(url, model.base_url, tmp_path_factory.mktemp("data"), queue_size=500)
        with running(settings) as found:
            yield found


@pytest.fixture(scope="module")
def ended(service: Service) -> str:
    """An optimization that has ended."""
    optimization_id = service.submitted(prefix="ended")
    service.until(optimization_id, "completed")
    return optimization_id


def test_from_request_to_artifact(service: Service, ended: str) -> None:
    """Handed in, carried out by a worker, proven, downloaded."""
    found = service.status(ended)
    results = found["results"]
    archive = zipfile.ZipFile(io.BytesIO(service.client.get(f"/api/v1/optimizations/{ended}/artifact").content))
    report = service.client.get(f"/api/v1/optimizations/{ended}/report")

    assert ("completed", 1.0, None) == (found["status"], found["progress"], found["error"])
    assert "improved" == results["verdict"]
    assert results["confidence_interval"][0] > 0 < results["absolute_improvement"]
    assert {"success_rate", "avg_cost_per_task", "avg_latency_ms", "quality_score", "exact_match"} <= set(
        results["baseline_performance"]
    )
    assert 24 == results["baseline_performance"]["exact_match"]["n"]
    assert 0 < results["statistical_significance"] < 0.05
    assert found["metrics"]["cost_usd"]["total"] == 0.0
    assert {"agent/agent.json", "agent/program.json", "evidence.json", "report.html"} <= set(archive.namelist())
    assert "capitals" in report.text
    assert "sandbox" == report.headers["content-security-policy"]


def test_what_was_found_can_be_looked_at(service: Service, ended: str) -> None:
    """Candidates, texts, differences, curve, examples, lineage, events."""
    base = f"/api/v1/optimizations/{ended}"
    candidates = service.client.get(f"{base}/candidates").json()["items"]
    chosen = next(one for one in candidates if one["is_chosen"])
    texts = service.client.get(f"{base}/candidates/{chosen['candidate'][:12]}").json()
    diff = service.client.get(f"{base}/diff").json()
    curve = service.client.get(f"{base}/curve").json()
    examples = service.client.get(f"{base}/examples").json()["items"]
    lineage = service.client.get(f"{base}/lineage").json()
    log = service.client.get(f"{base}/log").json()["items"]

    assert candidates[0]["is_baseline"]
    assert texts["components"]["self"]["demos"]
    assert diff["components"][0]["demos_added"] == texts["components"]["self"]["demos"]
    assert curve["best"][-1]["candidate"] == chosen["candidate"]
    assert curve["baseline_score"] < curve["best"][-1]["score"]
    assert [one["change"] for one in examples] == sorted((one["change"] for one in examples), reverse=True)
    assert {node["id"] for node in lineage["nodes"]} == {one["candidate"] for one in candidates}
    assert ["optimization.accepted", "optimization.started"] == [one["type"] for one in log[:2]]
    assert "optimization.completed" == log[-1]["type"]
    assert [one["id"] for one in log] == sorted(one["id"] for one in log)


def test_the_list_goes_page_by_page(service: Service, ended: str) -> None:
    """Every optimization once, the newest first, whatever is added meanwhile."""
    for _ in range(4):
        service.submitted(prefix="page")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2, **({} if cursor is None else {"cursor": cursor})}
        page = service.client.get("/api/v1/optimizations", params=params).json()
        seen += [one["optimization_id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    completed = service.client.get("/api/v1/optimizations", params={"status": "completed", "limit": 200}).json()

    assert len(seen) == len(set(seen)) >= 5
    assert seen == sorted(seen, reverse=True)
    assert ended in {one["optimization_id"] for one in completed["items"]}
    assert {"completed"} == {one["status"] for one in completed["items"]}
    (one,) = [one for one in completed["items"] if one["optimization_id"] == ended]
    assert "improved" == one["verdict"]
    assert one["best_score"] > one["baseline_score"]
    assert one["confidence_interval"][0] > 0


def test_a_key_makes_one_optimization(service: Service) -> None:
    """The same again is the same answer; another body is refused; nothing is made twice by two at once."""
    body, key = request_body(prefix="idem"), {"Idempotency-Key": uuid4().hex}
    first = service.client.post("/api/v1/optimize", json=body, headers=key)
    again = service.client.post("/api/v1/optimize", json=body, headers=key)
    other = service.client.post("/api/v1/optimize", json=request_body(prefix="else"), headers=key)

    assert (202, 202, 409) == (first.status_code, again.status_code, other.status_code)
    assert first.json() == again.json()
    assert "under the key" in other.json()["detail"]


def test_pause_resume_and_cancel(service: Service) -> None:
    """Each at its time, refused at another, with what is possible."""
    slow = service.submitted(prefix="slow", algorithms=[{"bootstrap_random_search": {"candidates": 12}}])
    service.until(slow, "running")
    paused = service.client.post(f"/api/v1/optimizations/{slow}/pause")
    found = service.until(slow, "paused", "completed")
    if found["status"] == "completed":
        pytest.skip("it was faster than the pause")
    refused = service.client.post(f"/api/v1/optimizations/{slow}/pause")
    resumed = service.client.post(f"/api/v1/optimizations/{slow}/resume")
    service.until(slow, "running", "completed")
    cancelled = service.client.post(f"/api/v1/optimizations/{slow}/cancel")
    service.until(slow, "cancelled", "completed")
    late = service.client.post(f"/api/v1/optimizations/{slow}/cancel")

    assert (202, 409, 202) == (paused.status_code, refused.status_code, resumed.status_code)
    assert "possible: resume it" in refused.json()["detail"]
    assert cancelled.status_code in {202, 409}
    assert 409 == late.status_code
    assert "that is final" in late.json()["detail"]


def test_the_request_of_the_readme_is_accepted(service: Service) -> None:
    """`curl -d @docs/request.json`."""
    body = (Path(__file__).parent.parent.parent / "docs" / "request.json").read_bytes()
    response = service.client.post("/api/v1/optimize", content=body, headers={"Content-Type": "application/json"})

    assert 202 == response.status_code, response.text
    service.client.post(f"/api/v1/optimizations/{response.json()['optimization_id']}/cancel")


def test_agents_and_datasets_are_kept(service: Service) -> None:
    """Once by content; an optimization may name them."""
    agent = service.client.post("/api/v1/agents", json={**AGENT, "name": "kept"})
    dataset = service.client.post(
        "/api/v1/datasets", json={"name": "kept", "examples": words(60, "kept"), "agent": "kept"}
    )
    same = service.client.post(
        "/api/v1/datasets", json={"name": "kept", "examples": words(60, "kept"), "agent": "kept"}
    )
    train = service.client.get(f"/api/v1/datasets/{dataset.json()['id']}/examples?limit=200").json()["items"]
    sealed = service.client.get(f"/api/v1/datasets/{dataset.json()['id']}/examples?split=test")
    body = request_body(target={"id": "kept"}, dataset={"id": dataset.json()["id"]})
    accepted = service.client.post("/api/v1/optimize", json=body)
    checked = service.client.post(
        "/api/v1/datasets/check", json={"target": {"id": "kept"}, "dataset": {"id": dataset.json()["id"]}}
    )

    assert (201, 201, 202) == (agent.status_code, dataset.status_code, accepted.status_code)
    assert dataset.json() == same.json()
    assert dataset.json()["n_train"] == len(train)
    assert 422 == sealed.status_code
    assert checked.json()["usable"] is True


def test_what_there_is_to_choose_from(service: Service) -> None:
    """Algorithms with options, metrics, models that can be asked; no key is ever shown."""
    algorithms = {one["name"]: one for one in service.client.get("/api/v1/algorithms/available").json()["items"]}
    models = service.client.get("/api/v1/models").json()["items"]
    asked = service.client.post("/api/v1/models/task/test").json()

    assert {"miprov2", "gepa", "simba", "copro", "bootstrap_fewshot"} <= set(algorithms)
    assert {"name", "type", "default", "description"} == set(algorithms["gepa"]["options"][0])
    proposing = {"genetic", "racing", "gepa", "miprov2", "simba", "copro", "infer_rules"}
    assert proposing == {name for name, one in algorithms.items() if one["needs"] == ["a reflection model"]}
    assert {"task", "reflection", "judge"} == {one["role"] for one in models}
    assert (True, None) == (asked["ok"], asked["error"])


def test_operators_see_the_queue(service: Service) -> None:
    """Lanes, workers, limits that change while it runs, metrics that Prometheus reads."""
    changed = service.client.patch("/api/v1/system/lanes/cpu", json={"concurrency": 7})
    system = service.client.get("/api/v1/system").json()
    metrics = service.client.get("/metrics").text
    service.client.patch("/api/v1/system/lanes/cpu", json={"concurrency": 10})

    assert 7 == changed.json()["concurrency"]
    assert [("cpu", 7), ("gpu", 10)] == sorted((one["lane"], one["concurrency"]) for one in system["queue"]["lanes"])
    assert [True] == [one["is_this"] for one in system["workers"] if one["is_alive"]]
    assert 'dspy_opt_queue_concurrency{lane="cpu"} 7.0' in metrics
    assert "dspy_opt_database_up 1.0" in metrics
    assert service.client.get("/ready").json()["ready"] is True
    assert {"available": False} == {"available": service.client.get("/gpu-status").json()["available"]}
    assert 'dspy_opt_gpu_seconds_total{device="cuda"} 0.0' in metrics


def _large() -> dict[str, Any]:
    return request_body(dataset={"examples": [{"word": "x" * 40_000_000, "answer": "y"}]})


BAD: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/api/v1/optimize", b"{not json", 400, "errors says what else"),
    ("POST", "/api/v1/optimize", b"", 422, "body"),
    ("POST", "/api/v1/optimize", b"[]", 422, "body"),
    ("POST", "/api/v1/optimize", b'"text"', 422, "body"),
    ("POST", "/api/v1/optimize", b"\xff\xfe", 400, "cannot be read"),
    ("POST", "/api/v1/optimize", {}, 422, "target"),
    ("POST", "/api/v1/optimize", request_body(objectives=[]), 422, "objectives"),
    ("POST", "/api/v1/optimize", request_body(surprise=1), 422, "surprise"),
    ("POST", "/api/v1/optimize", request_body(objectives=[{"metric": "exact_mach"}]), 422, "exact_match"),
    ("POST", "/api/v1/optimize", request_body(algorithms=["mipro"]), 404, "miprov2"),
    ("POST", "/api/v1/optimize", request_body(algorithms=[{"gepa": {"breadth": 1}}]), 422, "breadth"),
    ("POST", "/api/v1/optimize", request_body(algorithms=[{"gepa": {}, "simba": {}}]), 422, "an algorithm is wanted"),
    ("POST", "/api/v1/optimize", request_body(dataset={}), 422, "one of id, examples, source"),
    ("POST", "/api/v1/optimize", request_body(dataset={"id": "nope"}), 404, "nope"),
    ("POST", "/api/v1/optimize", request_body(dataset={"source": "/etc/passwd"}), 422, "cannot be named from outside"),
    ("POST", "/api/v1/optimize", request_body(dataset={"source": "reasoning_gym:nope"}), 422, "nope"),
    ("POST", "/api/v1/optimize", request_body(dataset={"examples": words(3)}), 422, "possible"),
    ("POST", "/api/v1/optimize", request_body(dataset={"examples": [{"wort": "a"}] * 60}), 422, "wort"),
    ("POST", "/api/v1/optimize", request_body(target={"id": "unknown"}), 404, "target.config"),
    ("POST", "/api/v1/optimize", request_body(target={"id": "a", "config": {**AGENT, "name": "b"}}), 422, "same name"),
    ("POST", "/api/v1/optimize", request_body(target={"id": "a", "config": {"kind": "oracle"}}), 422, "oracle"),
    ("POST", "/api/v1/optimize", request_body(target={"id": "capitals", "scope": "population"}), 422, "individual"),
    ("POST", "/api/v1/optimize", request_body(constraints={"max_lm_calls": 0}), 422, "max_lm_calls"),
    ("POST", "/api/v1/optimize", request_body(constraints={"max_lm_calls": 5}), 422, "possible"),
    ("POST", "/api/v1/optimize", request_body(constraints={"max_cost_usd": 1.0}), 422, "price"),
    ("POST", "/api/v1/optimize", request_body(constraints={"deadline": "2030-01-01T00:00:00"}), 422, "with its zone"),
    ("POST", "/api/v1/optimize", request_body(constraints={"deadline": "2001-01-01T00:00:00Z"}), 422, "to come"),
    ("POST", "/api/v1/optimize", request_body(constraints={"deadline": "9999-12-31T23:59:59-12:00"}), 422, "in UTC"),
    ("POST", "/api/v1/optimize", request_body(constraints={"requires_gpu": True}), 507, "requires_gpu: false"),
    ("POST", "/api/v1/optimize", b'{"target": {"id": "a\\ud800"}}', 422, "target"),
    ("POST", "/api/v1/estimate", request_body(metrics=[{"type": "judge"}]), 422, "possible"),
    ("GET", "/api/v1/optimizations?cursor=%00", None, 422, "next_cursor"),
    ("GET", "/api/v1/optimizations?cursor=eyJhIjoxfQ", None, 422, "next_cursor"),
    ("GET", "/api/v1/optimizations?limit=0", None, 422, "limit"),
    ("GET", "/api/v1/optimizations?status=done", None, 422, "status"),
    ("GET", "/api/v1/optimizations?statuss=queued", None, 422, "did you mean"),
    ("GET", "/api/v1/optimizations/7", None, 422, "optimization_id"),
    ("GET", f"/api/v1/optimizations/{uuid4()}/status", None, 404, "no such id"),
    ("POST", f"/api/v1/optimizations/{uuid4()}/cancel", None, 404, "no such id"),
    ("POST", f"/api/v1/optimizations/{uuid4()}/resume", None, 404, "no such id"),
    ("GET", f"/api/v1/optimizations/{uuid4()}/artifact", None, 404, "no such id"),
    ("POST", "/api/v1/agents", {"name": "x"}, 422, "kind"),
    ("POST", "/api/v1/agents", {**AGENT, "model": {"api_base": "http://evil"}}, 422, "api_base"),
    ("GET", "/api/v1/agents/nobody/versions", None, 404, "nobody"),
    ("POST", "/api/v1/datasets", {"name": "d", "examples": words(60)}, 422, "which fields"),
    ("PATCH", "/api/v1/system/lanes/cpu", {"concurrency": 0}, 422, "concurrency"),
    ("PATCH", "/api/v1/system/lanes/cpu", {}, 422, "found: neither"),
    ("PATCH", "/api/v1/system/lanes/cpu", {"worker_concurrency": 11}, 422, "from 1 to 10"),
    ("PATCH", "/api/v1/system/lanes/tpu", {"concurrency": 1}, 422, "lane"),
    ("POST", "/api/v1/models/oracle/test", None, 422, "role"),
    ("POST", "/api/v1/login", {"key": "dso_nope"}, 401, "unknown, revoked or expired"),
    ("PUT", "/api/v1/optimizations", None, 405, "possible: GET"),
    ("GET", "/api/v2/optimize", None, 404, "no such address"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "part"), BAD, ids=range(len(BAD)))
def test_bad_input_is_a_problem(service: Service, method: str, path: str, body: Any, status: int, part: str) -> None:
    """The right status and a sentence that helps; nothing is kept."""
    before = service.client.get("/api/v1/optimizations?limit=200").json()["items"]
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    response = service.client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    after = service.client.get("/api/v1/optimizations?limit=200").json()["items"]
    problem = response.json()

    assert status == response.status_code, response.text
    assert "application/problem+json" == response.headers["content-type"]
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert part in response.text
    assert "Traceback" not in response.text
    assert len(before) == len(after)


def test_too_large_and_elsewhere(service: Service) -> None:
    """Refused before anything is read in."""
    large = service.client.post("/api/v1/optimize", json=_large())
    elsewhere = service.client.get("/health", headers={"Host": "evil.example"})
    foreign = service.client.post("/api/v1/optimize", json=request_body(), headers={"Origin": "https://evil.example"})

    assert (413, 421, 403) == (large.status_code, elsewhere.status_code, foreign.status_code)
    assert "32" in large.json()["detail"] or "33554432" in large.json()["detail"]


def test_hostile_bodies(service: Service) -> None:
    """Half a character, a hundred levels, a body without a length: a problem, never a defect; status goes on."""
    half = json.dumps(request_body(dataset={"examples": [{"word": "\ud800", "answer": "x"}] * 60}))
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    nested = json.dumps(request_body(dataset={"examples": [{"word": deep, "answer": "x"}] * 60}))
    key = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/json"}
    large = iter([b'{"target": "'] + [b"x" * 1_000_000] * 40)
    found = [
        service.client.post("/api/v1/optimize", content=half, headers=key),
        service.client.post("/api/v1/optimize", content=nested, headers=key),
        service.client.post("/api/v1/optimize", content=large, headers={"Content-Type": "application/json"}),
    ]
    endless = service.submitted(prefix="endless", algorithms=[{"copro": {"depth": 1_000_000, "breadth": 1_000_000}}])
    status = service.client.get(f"/api/v1/optimizations/{endless}/status")
    service.client.post(f"/api/v1/optimizations/{endless}/cancel")

    # The half character can be kept and stays what it is; the levels cannot.
    assert found[0].status_code in {202, 422}
    assert 422 == found[1].status_code
    assert 413 == found[2].status_code
    assert 200 == status.status_code


def test_tenants_and_roles(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """A key opens its tenant's data and no other's; a viewer changes nothing; without a key nothing is seen."""
    url = fresh(postgres, "keys")
    acme, other = tenant_of("acme"), tenant_of("other")
    with Database.open(url) as database:
        keys = PostgresKeys(database)
        for tenant, name in ((acme, "acme"), (other, "other")):
            keys.add_tenant(tenant, name)
        mine = keys.create(acme, AccessRole.RESEARCHER, "mine")
        theirs = keys.create(other, AccessRole.RESEARCHER, "theirs")
        viewer = keys.create(acme, AccessRole.VIEWER, "viewer")
        revoked = keys.create(LOCAL_TENANT, AccessRole.ADMINISTRATOR, "old")
        keys.revoke(revoked.split("_")[1])
    with (
        model_server() as model,
        running(service_settings(url, model.base_url, tmp_path, require_keys=True)) as service,
    ):

        def ask(key: str | None, method: str, path: str, **more: Any) -> Any:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return service.client.request(method, path, headers=headers, **more)

        made = ask(mine, "POST", "/api/v1/optimize", json=request_body()).json()["optimization_id"]
        paths = [f"/api/v1/optimizations/{made}{end}" for end in ("", "/status", "/candidates", "/log", "/report")]
        missing = ask(theirs, "GET", f"/api/v1/optimizations/{uuid4()}/status")
        foreign = [ask(theirs, "GET", path) for path in paths]
        steered = [
            ask(theirs, "POST", f"/api/v1/optimizations/{made}/{verb}") for verb in ("cancel", "pause", "resume")
        ]

        assert [200] * len(paths) == [ask(mine, "GET", path).status_code for path in paths]
        assert [404] * len(paths) == [response.status_code for response in foreign]
        assert [404] * 3 == [response.status_code for response in steered]
        assert set(missing.json()) == set(foreign[1].json())
        assert made not in ask(theirs, "GET", "/api/v1/optimizations").text
        assert 404 == ask(theirs, "GET", "/api/v1/agents/capitals/versions").status_code
        assert 403 == ask(viewer, "POST", "/api/v1/optimize", json=request_body()).status_code
        assert 200 == ask(viewer, "GET", "/api/v1/optimizations").status_code
        assert 403 == ask(mine, "PATCH", "/api/v1/system/lanes/cpu", json={"concurrency": 1}).status_code
        for key in (None, "nonsense", revoked, mine[:-1] + "A"):
            assert 401 == ask(key, "GET", "/api/v1/optimizations").status_code
        assert 200 == ask(None, "GET", "/health").status_code
        login = service.client.post("/api/v1/login", json={"key": mine})
        assert (204, 200) == (login.status_code, service.client.get("/api/v1/optimizations").status_code)
        assert "HttpOnly" in login.headers["set-cookie"]


def test_the_queue_has_an_end(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """As many as may wait are taken; the rest is told when to come again, and nothing of it is kept."""
    url = fresh(postgres, "bound")
    with model_server() as model:
        settings = service_settings(url, model.base_url, tmp_path, queue_size=3, max_concurrent=1)
        with running(settings, ServiceRole.API) as service:
            answers = [service.client.post("/api/v1/optimize", json=request_body(prefix=f"q{n}")) for n in range(6)]
            kept = service.client.get("/api/v1/optimizations").json()["items"]
            service.client.post(f"/api/v1/optimizations/{kept[0]['optimization_id']}/cancel")
            freed = service.client.post("/api/v1/optimize", json=request_body(prefix="q9"))

    assert [202] * 3 + [503] * 3 == [response.status_code for response in answers]
    assert 3 == len(kept)
    assert int(answers[-1].headers["retry-after"]) > 0
    assert "OPTIMIZATION_QUEUE_SIZE" in answers[-1].json()["detail"]
    assert 202 == freed.status_code
