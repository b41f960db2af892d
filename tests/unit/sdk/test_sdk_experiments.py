"""Experiments through the client: what is sent, what comes back."""

import pytest
from sdk_service import AT, ID, Reply, Service, problem

from dspy_optimization.errors import ConflictError
from dspy_optimization.sdk import Client, ExperimentStatus

EXPERIMENT = {
    "experiment_id": ID,
    "optimization_id": ID,
    "agent": "support",
    "status": "running",
    "traffic_split": 0.1,
    "created_at": AT,
    "started_at": AT,
    "until": AT,
    "ended_at": None,
    "ended_because": None,
    "alerted_at": None,
    "decision": None,
    "monitoring_url": f"/api/v1/experiments/{ID}",
    "a_field_of_tomorrow": 1,
}
FORECAST = {
    "units_needed": 3_000,
    "detectable": [{"units_per_day": 100.0, "effect": 0.1, "days_needed": 31.0}],
    "sentence": "3,000 units find it.",
}
DECISION = {
    "state": "winner",
    "winner": "optimized",
    "confidence": 0.99,
    "deployment_recommended": True,
    "ends": True,
    "decided_at": AT,
    "reason": "The optimized version is better.",
}


def test_one_is_started(client: Client, service: Service) -> None:
    """What is given goes along, and nothing that is not."""
    answer = {**EXPERIMENT, "plan": {"version": 1}, "plan_hash": "a" * 64, "forecast": FORECAST}
    service.on("POST /experiments", Reply(body=answer, status=201))
    made = client.experiments.start(ID, guardrails=(), primary={"mde": 0.02}, window={"seconds": 60})

    (received,) = service.received
    wanted = {
        "optimization_id": ID,
        "traffic_split": 0.1,
        "guardrails": [],
        "primary": {"mde": 0.02},
        "window": {"seconds": 60},
    }
    assert wanted == received.body
    assert (ID, ExperimentStatus.RUNNING, None) == (made.experiment_id, made.status, made.decision)
    assert made.forecast is not None
    assert (3_000, 0.1) == (made.forecast.units_needed, made.forecast.detectable[0].effect)


def test_one_is_planned(client: Client, service: Service) -> None:
    """Without an optimization the numbers alone."""
    service.on("POST /experiments/plan", {"plan": None, "forecast": FORECAST})
    planned = client.experiments.plan(traffic_split=0.5, units_per_day=100)

    assert {"traffic_split": 0.5, "units_per_day": 100} == service.received[0].body
    assert (None, 3_000) == (planned.plan, planned.forecast.units_needed)


def test_one_is_shown_with_its_evidence(client: Client, service: Service) -> None:
    """As typed values."""
    arm = {"variant": "baseline", "version": "b", "exposed": 310, "n": 300, "silent": 2, "mean": 0.5}
    comparison = {"metric": "solved", "difference": 0.2, "interval": [0.05, 0.35], "p_value": 0.001}
    detail = {
        **EXPERIMENT,
        "status": "decided",
        "decision": DECISION,
        "arms": [arm, {**arm, "variant": "optimized"}],
        "comparison": comparison,
        "sample_ratios": [{"of": "exposures", "share": 0.5, "n_baseline": 310, "n_optimized": 310}],
        "guardrails": [{"name": "slow", "is_breached": False, "is_proven": True}],
        "eta": {"units_at_decision": None, "hours_to_decision": None, "at": None},
    }
    service.on(f"GET /experiments/{ID}", detail)
    found = client.experiments.get(ID)

    assert found.status.has_ended
    assert found.decision is not None
    assert found.comparison is not None
    assert (True, 0.99) == (found.decision.deployment_recommended, found.decision.confidence)
    assert ((0.05, 0.35), [300, 300]) == (found.comparison.interval, [one.n for one in found.arms])
    assert ["slow"] == [one.name for one in found.guardrails]


def test_steering_and_lists(client: Client, service: Service) -> None:
    """Every verb asks its own address."""
    service.on(f"POST /experiments/{ID}/stop", {**EXPERIMENT, "status": "stopped"})
    service.on(f"POST /experiments/{ID}/extend", EXPERIMENT)
    service.on(f"POST /experiments/{ID}/split", problem(409, "a split only rises"))
    service.on("GET /experiments", {"items": [EXPERIMENT], "next_cursor": None})

    assert ExperimentStatus.STOPPED is client.experiments.stop(ID, "over").status
    assert ID == client.experiments.extend(ID, 336).experiment_id
    with pytest.raises(ConflictError, match="only rises"):
        client.experiments.raise_split(ID, 0.05)
    assert [ID] == [one.experiment_id for one in client.experiments]
    assert [{"because": "over"}, {"until_hours": 336}, {"traffic_split": 0.05}, None] == [
        one.body for one in service.received
    ]
