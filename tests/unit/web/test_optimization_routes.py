"""Optimizations over HTTP: what is no longer shown, who may go first, asking again, which field is wrong."""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dspy_optimization.events import Json
from dspy_optimization.optimization.request import OptimizationStatus as Status
from dspy_optimization.web.dashboard import pages
from dspy_optimization.web.problems import field_error
from evidence_world import keep
from service_world import AGENT, request_body, words
from web_world import RETENTION_DAYS, Keyed

pytestmark = pytest.mark.xdist_group("service")

LONG_AGO = datetime.now(UTC) - timedelta(days=RETENTION_DAYS + 1)
LATELY = datetime.now(UTC) - timedelta(days=RETENTION_DAYS - 1)
OPTIMIZATIONS = "/api/v1/optimizations"


def handed_in(keyed: Keyed, who: str = "researcher", **changes: Any) -> str:
    accepted = keyed.ask("/api/v1/optimize", who, "POST", json=request_body(**changes))
    assert 202 == accepted.status_code, accepted.text
    return str(accepted.json()["optimization_id"])


def every(keyed: Keyed, limit: int, **params: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        given = {**params, "limit": limit, **({} if cursor is None else {"cursor": cursor})}
        page = keyed.ask(OPTIMIZATIONS, params=given).json()
        found += [one["optimization_id"] for one in page["items"]]
        assert len(page["items"]) <= limit
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
def test_lists_leave_out_what_is_not_shown_any_longer(keyed: Keyed, sort: str) -> None:
    """Whatever the page size; also what failed; what stands still stays, however old."""
    status = Status.COMPLETED
    gone = [keep(keyed.database, 1, 3, ended=LONG_AGO, status=status) for _ in range(7)]
    gone.append(keep(keyed.database, 1, 3, ended=LONG_AGO, status=Status.FAILED))
    gone.append(keep(keyed.database, 1, 3, ended=LONG_AGO, status=Status.CANCELLED))
    kept = [
        keep(keyed.database, 1, 3, ended=LATELY, status=status),
        keep(keyed.database, 1, 3, ended=LATELY, status=Status.FAILED),
        keep(keyed.database, 1, 3, ended=LONG_AGO, status=Status.PAUSED),
        keep(keyed.database, 1, 3, ended=LONG_AGO, status=Status.RUNNING),
    ]
    for limit in (1, 2, 50):
        shown = every(keyed, limit, sort=sort)

        assert {str(one.id) for one in kept} <= set(shown)
        assert set() == {str(one.id) for one in gone} & set(shown)
        assert len(shown) == len(set(shown))


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED, Status.FAILED])
def test_what_is_not_shown_any_longer_is_410_everywhere(keyed: Keyed, status: Status) -> None:
    """Every page of it, and steering it."""
    gone = keep(keyed.database, 2, 3, ended=LONG_AGO, status=status)
    pages_of_it = (
        "",
        "/status",
        "/candidates",
        "/curve",
        "/diff",
        "/examples",
        "/lineage",
        "/log",
        "/report",
        "/artifact",
    )
    looks = [keyed.ask(f"{OPTIMIZATIONS}/{gone.id}{page}") for page in pages_of_it]
    steps = [
        keyed.ask(f"{OPTIMIZATIONS}/{gone.id}/{step}", method="POST") for step in ("pause", "cancel", "resume", "retry")
    ]

    assert {410} == {one.status_code for one in (*looks, *steps)}


def test_approval_is_refused_until_something_is_deployed(keyed: Keyed) -> None:
    """A promise that nobody keeps is not taken; false is what everybody has."""
    refused = keyed.ask("/api/v1/estimate", method="POST", json=request_body(constraints={"requires_approval": True}))
    taken = keyed.ask("/api/v1/estimate", method="POST", json=request_body(constraints={"requires_approval": False}))
    (error,) = refused.json()["errors"]

    assert (422, "constraints.requires_approval") == (refused.status_code, error["field"])
    assert all(word in error["message"] for word in ("wanted: false", "deployments", "found: true", "possible: "))
    assert 200 == taken.status_code


@pytest.mark.parametrize(("who", "shows"), [("researcher", False), ("administrator", True)])
def test_where_models_are_estimates_tell_operators_alone(keyed: Keyed, who: str, shows: bool) -> None:
    """Everybody sees which model it is."""
    models = keyed.ask("/api/v1/estimate", who, "POST", json=request_body()).json()["models"]

    assert {f"openai:fake@{'http://127.0.0.1:9/v1' if shows else '…'}"} == set(models.values())


@pytest.mark.parametrize("address", ["/api/v1/optimize", "/api/v1/estimate"])
def test_only_who_operates_may_go_first(keyed: Keyed, address: str) -> None:
    """The priority high takes what others wait for; the refusal names the field, and what is possible."""
    body = request_body(constraints={"priority": "high"})
    refused = keyed.ask(address, method="POST", json=body)
    taken = keyed.ask(address, "administrator", "POST", json=body)
    low = keyed.ask(address, method="POST", json=request_body(constraints={"priority": "low"}))

    assert 403 == refused.status_code
    assert "constraints.priority: wanted: a key that may administer" in refused.json()["detail"]
    assert "possible: normal, low" in refused.json()["detail"]
    assert [refused.json()["detail"].find("found: the role researcher") > 0] == [True]
    assert {202, 200} >= {taken.status_code, low.status_code}


FULL: dict[str, Any] = {
    "objectives": [
        {"metric": "exact_match", "weight": 2.0, "target_value": 0.9},
        {"metric": "token_f1", "weight": 0.5},
        {"metric": "latency", "guardrail": True, "margin": 0.25},
    ],
    "metrics": ["exact_match", {"type": "token_f1"}],
    "algorithms": ["labeled_fewshot", {"bootstrap_random_search": {"candidates": 2}}],
    "constraints": {
        "max_lm_calls": 5000, "max_optimization_time": 900.0, "min_improvement_threshold": 0.01, "seed": 5,
        "concurrency": 3, "priority": "low", "deadline": "2099-01-01T00:00:00Z", "requires_approval": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("part", ["request", "body"])
@pytest.mark.parametrize("changes", [{}, FULL], ids=["plain", "full"])
def test_what_is_shown_can_be_asked_for_again(keyed: Keyed, part: str, changes: dict[str, Any]) -> None:
    """The request of a detail, as it is and as the body that curl sends: the same is wanted again."""
    first = keyed.ask(f"{OPTIMIZATIONS}/{handed_in(keyed, **changes)}").json()
    again = keyed.ask("/api/v1/optimize", method="POST", json=first[part])
    assert 202 == again.status_code, again.text
    second = keyed.ask(f"{OPTIMIZATIONS}/{again.json()['optimization_id']}").json()
    own = ("id", "created_at")

    assert first["optimization_id"] != second["optimization_id"]
    assert {name: one for name, one in first["request"].items() if name not in own} == {
        name: one for name, one in second["request"].items() if name not in own
    }
    assert first["body"] == second["body"]


def test_a_request_that_was_changed_into_nonsense_is_refused(keyed: Keyed) -> None:
    """422, whatever is wrong with it; a margin that means nothing is still a mistake."""
    shown = keyed.ask(f"{OPTIMIZATIONS}/{handed_in(keyed)}").json()["request"]
    changed: list[dict[str, Json]] = [
        {"algorithms": "gepa"}, {"constraints": []}, {"constraints": {"limits": 3}}, {"objectives": [1]},
        {"created_at": [], "id": {}}, {"unknown": 1}, {"target": None},
    ]  # fmt: skip
    found = [keyed.ask("/api/v1/optimize", method="POST", json={**shown, **one}) for one in changed]
    odd = request_body(objectives=[{"metric": "exact_match", "margin": 0.2}])

    assert [422] * len(changed) == [one.status_code for one in found]
    assert "a margin on a guardrail only" in keyed.ask("/api/v1/optimize", method="POST", json=odd).json()["detail"]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node is installed")
def test_what_the_dashboard_copies_as_curl_works(keyed: Keyed, tmp_path: Path) -> None:
    """The words it puts on the clipboard, run by a shell."""
    detail = keyed.ask(f"{OPTIMIZATIONS}/{handed_in(keyed, **FULL)}").json()
    script = tmp_path / "copy.mjs"
    code = (Path(pages.__file__).parent / "static" / "js" / "request.js").read_text(encoding="utf-8")
    script.write_text(
        f"globalThis.location = {{ origin: {json.dumps(keyed.service.base_url)} }};\n{code}\n"
        f"console.log(asCurl({json.dumps(detail['body'])}));\n",
        encoding="utf-8",
    )
    copied = subprocess.run(["node", script], capture_output=True, text=True, check=True, timeout=60).stdout
    words_of_it = subprocess.run(
        ["sh", "-c", f"set -- {copied.strip().removeprefix('curl')}\nfor one; do printf '%s\\0' \"$one\"; done"],
        capture_output=True, text=True, check=True, timeout=60, env={"DSPY_OPT_API_KEY": keyed.keys["researcher"]},
    ).stdout.split("\0")  # fmt: skip
    headers = dict(one.split(": ", 1) for name, one in pairwise(words_of_it) if name == "-H")
    sent = keyed.service.client.post(words_of_it[1], headers=headers, content=words_of_it[words_of_it.index("-d") + 1])

    assert 202 == sent.status_code, sent.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"constraints": {"deadline": "2001-01-01T00:00:00Z"}}, "constraints.deadline"),
        ({"constraints": {"max_cost_usd": 1.0}}, "constraints.max_cost_usd"),
        ({"objectives": [{"metric": "exact_match"}, {"metric": "nonsense"}]}, "objectives.1"),
        ({"objectives": [{"metric": "exact_match", "margin": 0.2}]}, "objectives.0.margin"),
        ({"target": {"id": "capitals", "config": {**AGENT, "kind": "magic"}}}, "target.config.kind"),
        ({"dataset": {"examples": words(60), "id": "both"}}, "dataset"),
    ],
)
def test_refusals_of_the_engine_name_the_field(keyed: Keyed, change: dict[str, Any], field: str) -> None:
    """As those of a body's form do."""
    refused = keyed.ask("/api/v1/optimize", method="POST", json=request_body(**change))
    (error,) = refused.json()["errors"]

    assert (422, field) == (refused.status_code, error["field"])
    assert error["message"]
    assert refused.json()["detail"].endswith(error["message"])


@pytest.mark.parametrize(
    "sentence", ["wanted: a; found: b", "no field here: x", "body: wanted: values", "--host: wanted", "", "a", ": b"]
)
def test_sentences_that_are_about_no_field(sentence: str) -> None:
    """They begin otherwise."""
    assert field_error(sentence) is None
