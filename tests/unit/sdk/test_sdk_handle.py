"""One optimization: waiting, asking, looking."""

from pathlib import Path

import pytest
from sdk_service import AT, ID, Reply, Service, Time, problem

from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.sdk import Client, NotFinishedError, OptimizationHandle, OptimizationStatus

STATUS = {"optimization_id": ID, "status": "running", "progress": 0.25, "metrics": {"cost_usd": {"total": 1}}}
RESULTS = {
    "baseline_performance": {"exact_match": {"value": 0.5, "n": 40, "low": 0.4, "high": 0.6}},
    "optimized_performance": {"exact_match": {"value": 0.8, "n": 40, "low": None, "high": None}},
    "absolute_improvement": 0.3,
    "confidence_interval": [0.1, 0.5],
    "verdict": "improved",
    "pareto_front": [{"candidate": "c1", "means": {"exact_match": {"value": 1, "n": 9, "low": None, "high": None}}}],
    "pick": {"policy": "knee", "candidate": "c1", "reason": "the knee", "eligible": 3},
    "optimization_details": {
        "key_improvements": [{"component": "c", "part": "demos", "worth": {"value": 0.1, "n": 9, "low": 0, "high": 1}}]
    },
    "artifact": {"agent_version": "v2", "checksum": "v2", "mlflow_run_id": None},
}
HERE = f"/optimizations/{ID}"


@pytest.fixture
def handle(client: Client) -> OptimizationHandle:
    """The handle of an optimization."""
    return client.optimization(ID)


def test_waiting_for_the_result(handle: OptimizationHandle, service: Service, told_time: Time) -> None:
    """Asked again and again, read with all its parts."""
    done = {**STATUS, "status": "completed", "progress": 1.0, "results": RESULTS}
    service.on(f"GET {HERE}/status", STATUS, STATUS, done)

    result = handle.result()

    assert [2.0, 2.0] == told_time.slept
    assert ("improved", (0.1, 0.5), 0.8) == (
        result.verdict,
        result.confidence_interval,
        result.optimized_performance["exact_match"].value,
    )
    assert 0.1 == result.optimization_details.key_improvements[0].worth.value
    assert result.artifact is not None
    assert "v2" == result.artifact.agent_version
    assert result.pareto_front is not None
    assert 1.0 == result.pareto_front[0].means["exact_match"].value
    assert ("knee", 3) == (result.pick and result.pick.policy, result.pick and result.pick.eligible)


def test_waiting_ends_in_time(handle: OptimizationHandle, service: Service, told_time: Time) -> None:
    """Not later than said, and the optimization goes on."""
    service.on(f"GET {HERE}/status", STATUS)

    with pytest.raises(NotFinishedError, match="within 5 s; found: running, 25%") as error:
        handle.wait(5)

    assert (ID, [2.0, 2.0, 1.0]) == (error.value.optimization_id, told_time.slept)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("paused", r"found: paused: the model is away; possible: resume\(\)"),
        ("failed", r"found: failed: the model is away; possible: mend it, then retry\(\)"),
        ("cancelled", "found: cancelled: the model is away; possible: start another one"),
    ],
)
def test_there_may_be_no_result(handle: OptimizationHandle, service: Service, status: str, said: str) -> None:
    """Waiting ends where nothing more happens by itself, and says what would."""
    service.on(f"GET {HERE}/status", {**STATUS, "status": status, "error": "the model is away", "results": None})

    assert status == handle.wait().status
    with pytest.raises(NotFinishedError, match=said):
        handle.result()


def test_asking_it_to_stop_or_go_on(handle: OptimizationHandle, service: Service) -> None:
    """Each is one POST."""
    for step in ("cancel", "pause", "resume", "retry"):
        service.on(
            f"POST {HERE}/{step}",
            Reply(body={"optimization_id": ID, "status": "running", "is_done": False}, status=202),
        )

    answers = [handle.cancel(), handle.pause(), handle.resume(), handle.retry()]

    assert [(OptimizationStatus.RUNNING, False)] * 4 == [(one.status, one.is_done) for one in answers]
    assert ["cancel", "pause", "resume", "retry"] == [one.path.rpartition("/")[2] for one in service.received]

    service.on(f"POST {HERE}/pause", problem(409, "wanted: running; found: completed; possible: nothing"))
    with pytest.raises(ConflictError, match="found: completed"):
        handle.pause()


def test_looking_at_the_search(handle: OptimizationHandle, service: Service) -> None:
    """Candidates and their texts, differences, the curve, examples, the family."""
    outcome = {"score": 1, "outputs": {"a": 1}, "failure": None}
    service.on(
        f"GET {HERE}/candidates", {"items": [{"candidate": "f", "score": 1, "parents": ["p"], "recorded_at": AT}]}
    )
    service.on(
        f"GET {HERE}/candidates/f",
        {"candidate": "f", "components": {"c": {"instructions": "Do.", "demos": [{"a": 1}]}}},
    )
    service.on(
        f"GET {HERE}/diff",
        {"from": "a", "to": "b", "components": [{"component": "c", "words": [{"edit": "added", "text": "x"}]}]},
    )
    service.on(f"GET {HERE}/curve", {"points": [], "best": [{"paid_calls": 1, "score": 0.5, "candidate": "f"}]})
    service.on(
        f"GET {HERE}/examples",
        {"items": [{"example_id": "e", "inputs": {}, "baseline": outcome, "optimized": outcome, "change": "same"}]},
    )
    service.on(f"GET {HERE}/lineage", {"nodes": [{"id": "f"}], "edges": [{"from": "a", "to": "b"}]})
    service.on(
        f"GET {HERE}",
        {
            "optimization_id": ID,
            "target": {"type": "agent", "id": "a"},
            "status": "queued",
            "progress": 0,
            "created_at": AT,
            "request": {"algorithms": ["gepa"]},
        },
    )

    assert ("p",) == next(handle.candidates()).parents
    assert ({"a": 1},) == handle.candidate("f").components["c"].demos
    assert "added" == handle.diff("a", "b").components[0].words[0].edit
    assert {"from": "a", "to": "b"} == service.asked(f"GET {HERE}/diff")[0].query
    assert 0.5 == handle.curve(points=10).best[0].score
    assert 1.0 == next(handle.examples()).baseline.score
    assert [("a", "b")] == [(edge.parent, edge.child) for edge in handle.lineage().edges]
    assert ["gepa"] == handle.summary().request["algorithms"]


def test_the_log_is_read_to_its_end(handle: OptimizationHandle, service: Service) -> None:
    """Full pages are followed by another one."""
    entries = [{"id": n, "type": "progress", "at": AT, "data": {}} for n in range(1, 202)]
    service.on(f"GET {HERE}/log", {"items": entries[:200]}, {"items": entries[200:]})

    assert list(range(1, 202)) == [one.id for one in handle.log()]
    assert ["0", "200"] == [one.query["after"] for one in service.received]


def test_the_report_is_written(handle: OptimizationHandle, service: Service, tmp_path: Path) -> None:
    """Wholly or not at all, though the connection breaks once."""
    page = Reply(body=b"<html>", media_type="text/html")
    service.on(f"GET {HERE}/report", Reply(body=b"<ht", media_type="text/html", drops=True), page)

    path = handle.report(tmp_path / "report.html")

    assert ("<html>", ["report.html"]) == (path.read_text(), [one.name for one in tmp_path.iterdir()])
    with pytest.raises(InvalidRequestError, match="No such file"):
        handle.report(tmp_path / "missing" / "report.html")


def test_picking_another_candidate(handle: OptimizationHandle, service: Service) -> None:
    """One POST with a key, so that it may be sent again; what comes back says at which level it is tested."""
    other = ID.replace("8000", "8001")
    accepted = {
        "optimization_id": other, "status": "queued", "picked_from": ID, "candidate": "c2", "test_split_use": 2,
        "alpha": 0.008, "sentence": "This will be use 2.",
    }  # fmt: skip
    service.on(f"POST {HERE}/pick", Reply(status=503, body={}), Reply(status=202, body=accepted))

    picked = handle.pick("c2")

    first, again = service.asked(f"POST {HERE}/pick")
    assert {"candidate": "c2"} == first.body == again.body
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] != ""
    assert (other, 2, 0.008) == (picked.optimization.id, picked.accepted.test_split_use, picked.accepted.alpha)


def test_the_front_is_read_with_all_its_parts(handle: OptimizationHandle, service: Service) -> None:
    """Points, the baseline beside them, and how it grew."""
    point = {
        "candidate": "c1", "means": {"tokens": {"value": 3, "n": 9, "low": 1, "high": 5, "method": "t"}},
        "probability_on_front": 0.9, "dominated_by": {"c2": 0.1}, "alike": ["c2"], "on_front": True,
    }  # fmt: skip
    service.on(
        f"GET {HERE}/front",
        {
            "measured_on": "val", "goals": ["tokens"], "points": [point], "baseline": {**point, "candidate": "b"},
            "chosen": point, "course": [{"paid_calls": 5, "volume": 0.5, "candidate": "c1"}], "size": 1,
        },
    )  # fmt: skip

    front = handle.front()

    assert ("b", "c1", 0.1) == (front.baseline.candidate, front.chosen.candidate, front.points[0].dominated_by["c2"])
    assert ("t", 5.0) == (front.points[0].means["tokens"].method, front.points[0].means["tokens"].high)
    assert [(5, 0.5)] == [(step.paid_calls, step.volume) for step in front.course]
