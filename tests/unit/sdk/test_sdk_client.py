"""The client: what it sends, which answers it gives, and what importing it costs."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sdk_service import AT, ID, Reply, Service, Time, problem

from dspy_optimization.errors import InfrastructureError, InvalidRequestError, NotFoundError
from dspy_optimization.sdk import (
    Client,
    Constraints,
    Dataset,
    Examples,
    OptimizationRequest,
    OptimizationStatus,
    Target,
)

AGENT = {"name": "orders", "kind": "predict"}
ACCEPTED = {
    "optimization_id": ID,
    "status": "queued",
    "estimated_completion": AT,
    "estimated_cost_usd": 0.5,
    "links": {},
}
SUMMARY = {
    "optimization_id": ID,
    "target": {"type": "agent", "id": "orders", "version": "v1"},
    "status": "completed",
    "progress": 1,
    "algorithms": ["gepa"],
    "created_at": AT,
    "confidence_interval": [0.1, 0.2],
    "a_field_of_tomorrow": {"x": 1},
}


def test_importing_it_imports_nothing_of_the_engine() -> None:
    """Whoever only talks to a service pays for httpx and websockets alone."""
    program = (
        "import sys, dspy_optimization.sdk\n"
        "heavy = {'dspy', 'gepa', 'torch', 'sqlalchemy', 'litellm', 'numpy', 'pydantic', 'fastapi', 'mlflow'}\n"
        "ours = {'dspy_optimization', 'dspy_optimization.errors', 'dspy_optimization.events'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "loaded = {m for m in sys.modules if m.startswith('dspy_optimization') and '.sdk' not in m}\n"
        "print(sorted(loaded - ours))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert "[]\n[]\n" == done.stdout


def test_an_optimization_is_handed_in(client: Client, service: Service) -> None:
    """Everything that was given arrives as the contract has it, with the key of whoever asks."""
    service.on("POST /optimize", Reply(body=ACCEPTED, status=202))

    handle = client.optimize(
        AGENT,
        [{"message": "Order 1", "order": "1"}],
        [
            "exact_match",
            {"metric": "cost_usd", "guardrail": True},
            {"type": "judge", "name": "tone", "rubric": "polite"},
        ],
        algorithms={"gepa": {"breadth": 3}},
        constraints=Constraints(max_lm_calls=10, seed=0, deadline=datetime(2026, 3, 2, tzinfo=UTC)),
    )

    (received,) = service.received
    assert ID == handle.id
    assert {
        "target": {"type": "agent", "id": "orders", "config": AGENT},
        "dataset": {"examples": [{"message": "Order 1", "order": "1"}]},
        "objectives": [{"metric": "exact_match"}, {"metric": "cost_usd", "guardrail": True}, {"metric": "tone"}],
        "metrics": [{"type": "judge", "name": "tone", "rubric": "polite"}],
        "algorithms": [{"gepa": {"breadth": 3}}],
        "constraints": {"max_lm_calls": 10, "seed": 0, "deadline": "2026-03-02T00:00:00+00:00"},
    } == received.body
    assert "Bearer dso_secret" == received.headers["authorization"]
    assert "key-1" == received.headers["idempotency-key"]


def test_a_key_of_ones_own_is_sent(client: Client, service: Service) -> None:
    """The caller may say what counts as the same request."""
    service.on("POST /optimize", Reply(body=ACCEPTED, status=202))

    client.submit(OptimizationRequest(agent="orders", examples="d1"), idempotency_key="mine")

    assert "mine" == service.received[0].headers["idempotency-key"]


def test_targets_and_examples_say_more(client: Client, service: Service) -> None:
    """A component of one version, examples that are clustered."""
    service.on("POST /estimate", {"calls": 12, "minutes": 1})

    estimate = client.estimate(
        Target(agent="orders", component="classify", scope="population", version="v1"),
        Examples(items=[{"a": 1}], inputs=("a",), cluster="customer", shares={"train": 0.3, "val": 0.3, "test": 0.4}),
        algorithms="auto",
    )

    body = service.received[0].body
    assert isinstance(body, dict)
    assert (12, 1.0) == (estimate.calls, estimate.minutes)
    assert {"type": "component", "id": "orders/classify", "scope": "population", "version": "v1"} == body["target"]
    assert {
        "examples": [{"a": 1}],
        "inputs": ["a"],
        "cluster": "customer",
        "shares": {"train": 0.3, "val": 0.3, "test": 0.4},
    } == body["dataset"]
    assert ["auto"] == body["algorithms"]


@pytest.mark.parametrize("examples", ["d1", Dataset(id="d1", name="orders")])
def test_a_dataset_is_named(client: Client, service: Service, examples: Dataset | str) -> None:
    """By its id or by what the service said of it."""
    service.on("POST /optimize", Reply(body=ACCEPTED, status=202))

    client.optimize("orders", examples)

    assert {"id": "d1"} == service.received[0].body["dataset"]


def test_lists_are_read_to_their_end(client: Client, service: Service) -> None:
    """Page after page, and only as far as somebody looks."""
    service.on(
        "GET /optimizations",
        {"items": [SUMMARY, SUMMARY], "next_cursor": "two"},
        {"items": [SUMMARY], "next_cursor": None},
    )
    found = client.optimizations(status=OptimizationStatus.COMPLETED, target="orders")

    first = next(found)
    pages_so_far = len(service.received)
    rest = list(found)

    assert (1, 2, 2) == (pages_so_far, len(rest), len(service.received))
    assert (OptimizationStatus.COMPLETED, 1.0, (0.1, 0.2)) == (first.status, first.progress, first.confidence_interval)
    assert {"status": "completed", "target": "orders", "sort": "-created_at", "limit": "200", "cursor": "two"} == dict(
        service.received[1].query
    )


def test_a_list_that_turns_in_a_circle_is_left(client: Client, service: Service) -> None:
    """The same cursor again would never end."""
    service.on("GET /optimizations", {"items": [SUMMARY], "next_cursor": "two"})

    with pytest.raises(InfrastructureError, match="cursor of this one again"):
        list(client.optimizations())


def test_answers_are_frozen_and_know_their_types(client: Client, service: Service) -> None:
    """What is unknown is passed over, a word of tomorrow is `unknown`, what is missing is said."""
    service.on("GET /optimizations", {"items": [{**SUMMARY, "status": "thinking"}], "next_cursor": None})

    (summary,) = client.optimizations()

    assert (OptimizationStatus.UNKNOWN, datetime(2026, 3, 1, 12, tzinfo=UTC)) == (summary.status, summary.created_at)
    with pytest.raises(FrozenInstanceError):
        summary.progress = 0.0

    service.on("GET /optimizations", {"items": [{**SUMMARY, "progress": "much"}], "next_cursor": None})
    with pytest.raises(InfrastructureError, match=r"\[0\].progress: wanted: float; found: str 'much'; possible"):
        list(client.optimizations())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimization_id": None}, "optimization_id: wanted: str; found: nothing"),
        ({"created_at": "yesterday"}, "created_at: wanted: a time in ISO 8601; found: 'yesterday'"),
        ({"created_at": 5}, "created_at: wanted: a time; found: int '5'"),
        ({"target": "orders"}, "target: wanted: an object; found: str 'orders'"),
        ({"target": {"id": "orders"}}, r"target\.type: wanted: a value; found: nothing"),
        ({"algorithms": "gepa"}, "algorithms: wanted: a list"),
        ({"algorithms": [1]}, r"algorithms\[0\]: wanted: str"),
        ({"confidence_interval": [1]}, "confidence_interval: wanted: 2 values"),
        ({"lm_calls": True}, "lm_calls: wanted: int; found: bool"),
        ({"request": []}, "request: wanted: an object"),
    ],
)
def test_answers_that_are_none(client: Client, service: Service, changed: dict[str, object], said: str) -> None:
    """Each is an error that names the field."""
    service.on(f"GET /optimizations/{ID}", {**SUMMARY, **changed})

    with pytest.raises(InfrastructureError, match=said):
        client.optimization(ID).summary()


def test_what_the_service_has(client: Client, service: Service) -> None:
    """Algorithms, metrics, models, itself."""
    option = {"name": "breadth", "type": "int", "default": 3, "description": "How many."}
    lane = {"lane": "cpu", "waiting": 1, "running": 2, "concurrency": 3, "worker_concurrency": 2}
    any_number = {"lane": "gpu", "waiting": 0, "running": 0, "concurrency": 3, "worker_concurrency": None}
    service.on("GET /algorithms/available", {"items": [{"name": "gepa", "options": [option], "needs": ["reflection"]}]})
    service.on("GET /metrics/available", {"items": [{"name": "exact_match", "description": "", "options": ["field"]}]})
    service.on("GET /models", {"items": [{"role": "task", "model": "smollm2", "price": None}]})
    service.on(
        "POST /models/task/test", {"role": "task", "ok": True, "latency_seconds": 1, "answer": "4", "error": None}
    )
    service.on(
        "GET /system",
        {"queue": {"lanes": [lane, any_number], "bound": 100}, "workers": [{"id": "w", "is_alive": True}]},
    )

    assert 3 == client.algorithms()[0].options[0].default
    assert ("field",) == client.metrics()[0].options
    assert "smollm2" == client.models()[0].model
    assert (True, 1.0) == (client.test_model("task").ok, client.test_model("task").latency_seconds)
    assert [2, None] == [one.worker_concurrency for one in client.system().queue.lanes]
    assert (3, 100, True) == (
        client.system().queue.lanes[0].concurrency,
        client.system().queue.bound,
        client.system().workers[0].is_alive,
    )


def test_agents(client: Client, service: Service) -> None:
    """Registered, listed, compared."""
    version = {"name": "orders", "version": "v1", "created_at": AT}
    service.on("POST /agents", Reply(body=version, status=201))
    service.on("GET /agents", {"items": [version], "next_cursor": None})
    service.on("GET /agents/orders/versions", {"items": [version, version], "next_cursor": None})
    service.on("GET /agents/orders/versions/v1", {**version, "config": AGENT})
    service.on("GET /agents/orders/diff", {"from": "v1", "to": "v2", "components": [{"component": "classify"}]})

    assert "v1" == client.agents.register(AGENT).version
    assert AGENT == service.received[0].body
    assert (1, 2) == (len(list(client.agents)), len(list(client.agents.versions("orders"))))
    assert AGENT == client.agents.get("orders", "v1").config
    diff = client.agents.diff("orders", "v1", "v2")
    assert ("v1", "v2", "classify") == (diff.before, diff.after, diff.components[0].component)
    with pytest.raises(InvalidRequestError, match="found: the name 'orders'"):
        client.agents.register("orders")


def test_datasets(client: Client, service: Service) -> None:
    """Kept, listed, looked into, checked."""
    dataset = {"id": "d1", "name": "tickets", "n_train": 3, "n_val": 3, "n_test": 4}
    service.on("POST /datasets", Reply(body=dataset, status=201))
    service.on("GET /datasets", {"items": [dataset], "next_cursor": None})
    service.on("GET /datasets/d1", {**dataset, "seed": 0})
    service.on("GET /datasets/d1/examples", {"items": [{"id": "e", "split": "val", "inputs": {"a": 1}}]})
    finding = {"severity": "warning", "code": "few", "message": "few", "examples": ["e"]}
    service.on("POST /datasets/check", {"usable": True, "sentence": "It can.", "findings": [finding]})

    created = client.datasets.create("tickets", Examples(items=[{"a": 1}], seed=0), agent="orders")

    assert {"examples": [{"a": 1}], "seed": 0, "name": "tickets", "agent": "orders"} == service.received[0].body
    assert (created, 0) == (next(iter(client.datasets)), client.datasets.get("d1").seed)
    assert {"a": 1} == next(client.datasets.examples("d1", "val")).inputs
    assert "few" == client.datasets.check("d1", "orders").findings[0].code


def test_where_the_service_is_comes_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPY_OPT_URL and DSPY_OPT_API_KEY; what is given goes before."""
    monkeypatch.setenv("DSPY_OPT_URL", f"{service.url}/")
    monkeypatch.setenv("DSPY_OPT_API_KEY", "dso_environment")
    service.on("GET /models", {"items": []})

    with Client() as client, Client(api_key="dso_given") as other:
        client.models()
        other.models()

    assert ["Bearer dso_environment", "Bearer dso_given"] == [one.headers["authorization"] for one in service.received]


def test_a_key_is_not_shown() -> None:
    """Neither by the client nor by what it says of a wrong one."""
    with Client("http://localhost:1", "dso_secret") as client:
        assert "Client('http://localhost:1')" == repr(client)
    with pytest.raises(InvalidRequestError) as error:
        Client("http://localhost:1", "dso_secret\n")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["localhost:8004", "ftp://localhost", "http://", "http://localhost?x=1"])
def test_an_address_is_checked(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequestError, match="base_url: wanted: http"):
        Client(url)


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_an_id_is_one_piece_of_a_path(client: Client, service: Service, id_: str) -> None:
    """It cannot lead to another address."""
    with pytest.raises(InvalidRequestError, match="wanted: an id or a name"):
        client.optimization(id_)
    service.on("GET /optimizations", problem(404, "none"))
    with pytest.raises(NotFoundError):
        client.optimization("../../system").status()
    assert [] == service.asked("GET /system")


@pytest.mark.parametrize("value", [float("nan"), datetime(2026, 3, 1, tzinfo=UTC), {1, 2}])
def test_what_is_no_json_is_not_sent(client: Client, service: Service, value: object) -> None:
    """It is said before anything leaves."""
    with pytest.raises(InvalidRequestError, match="wanted: text, numbers"):
        client.optimize("orders", [{"a": value}])
    assert [] == service.received


def test_files(client: Client, service: Service, tmp_path: Path, told_time: Time) -> None:
    """An agent file and a file of examples, by path or by name."""
    service.on("POST /optimize", Reply(body=ACCEPTED, status=202))
    (tmp_path / "agent.yaml").write_text("agent: {kind: predict}\nobjectives: [exact_match]\n")
    (tmp_path / "examples.jsonl").write_text('{"a": "\u2028"}\n\n{"a": 2}\n', encoding="utf-8")
    (tmp_path / "examples.json").write_text(json.dumps([{"a": 1}]))

    client.optimize(tmp_path / "agent.yaml", tmp_path / "examples.jsonl")
    client.optimize(str(tmp_path / "agent.yaml"), str(tmp_path / "examples.json"))

    first, second = (one.body for one in service.received)
    assert {"type": "agent", "id": "agent", "config": {"kind": "predict", "name": "agent"}} == first["target"]
    assert ([{"a": "\u2028"}, {"a": 2}], [{"a": 1}]) == (first["dataset"]["examples"], second["dataset"]["examples"])
    assert ["key-1", "key-2"] == [one.headers["idempotency-key"] for one in service.received]
