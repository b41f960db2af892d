"""An agent under live traffic through the client, and what becomes of requests while the service is away."""

import pytest
from sdk_service import ID, Reply, Service, Time, problem

from dspy_optimization.errors import EngineError, InvalidRequestError
from dspy_optimization.sdk import AccessError, Assignment, Client

ASSIGN = "POST /agents/support/assign"
SERVED = {
    "agent": "support",
    "unit_id": "u1",
    "variant": "optimized",
    "reason": "hashed",
    "version": "better",
    "live_version": "live",
    "experiment_id": ID,
    "exposure_id": ID,
    "links": {},
}
AWAY = Reply(body={}, drops=True)


def test_a_unit_is_assigned_and_told_of(client: Client, service: Service) -> None:
    """What the service says, and what becomes of it."""
    service.on(ASSIGN, SERVED)
    service.on("POST /outcomes", {"accepted": 1, "refused": []})
    agent = client.agent("support")
    served = agent.assign("u1", {"plan": "pro"})
    told = agent.report(served, success=True, event_id="e1", latency_ms=120.0)

    assert ("optimized", "better", ID, False) == (
        served.variant, served.version, served.exposure_id, served.is_fallback,
    )  # fmt: skip
    assert {"unit_id": "u1", "attributes": {"plan": "pro"}} == service.asked(ASSIGN)[0].body
    assert (1, ()) == (told.accepted, told.refused)
    event = {"event_id": "e1", "exposure_id": ID, "success": True, "latency_ms": 120.0}
    assert {"outcomes": [event]} == service.asked("POST /outcomes")[0].body


def test_the_live_version_answers_while_the_service_is_away(client: Client, service: Service, told_time: Time) -> None:
    """The last one that was heard of; the service is left alone for a while, and then asked again."""
    service.on(ASSIGN, SERVED, AWAY, SERVED)
    agent = client.agent("support", pause_seconds=5.0)
    agent.assign("u1")
    lost = [agent.assign("u1") for _ in range(3)]
    asked = len(service.asked(ASSIGN))
    told_time.slept.append(6.0)
    again = agent.assign("u1")

    assert {("baseline", "fallback", "live", None)} == {
        (one.variant, one.reason, one.version, one.exposure_id) for one in lost
    }
    assert (2, "better") == (asked, again.version)


@pytest.mark.parametrize("reply", [AWAY, problem(503, "not now"), problem(401, "no key"), problem(404, "none")])
def test_nothing_is_raised_unless_it_is_asked_for(client: Client, service: Service, reply: Reply) -> None:
    """Whatever the service says; who was never told a version serves its own."""
    service.on(ASSIGN, reply)
    agent = client.agent("support")
    served = agent.assign("u1")
    with pytest.raises(EngineError):
        agent.assign("u1", strict=True)

    assert (True, None, None) == (served.is_fallback, served.version, served.exposure_id)


def test_a_missing_key_is_said_to_who_asks_for_it(client: Client, service: Service) -> None:
    """As its own error."""
    service.on(ASSIGN, problem(401, "no key"))
    with pytest.raises(AccessError, match="no key"):
        client.agent("support").assign("u1", strict=True)


def test_outcomes_wait_for_the_service(client: Client, service: Service, told_time: Time) -> None:
    """Each with when it happened and its own id, told together with the next one."""
    service.on("POST /outcomes", AWAY, {"accepted": 3, "refused": []})
    agent = client.agent("support", pause_seconds=5.0)
    first = agent.report(ID, score=0.5)
    second = agent.report(ID, score=0.6)
    waiting = agent.waiting
    told_time.slept.append(6.0)
    third = agent.report(ID, score=0.7)
    bodies = [one.body for one in service.asked("POST /outcomes")]

    assert (0, 0, 2, 3, 0) == (first.accepted, second.accepted, waiting, third.accepted, agent.waiting)
    assert 2 == len(bodies)
    sent = bodies[1]
    assert isinstance(sent, dict)
    outcomes = sent["outcomes"]
    assert isinstance(outcomes, list)
    assert [0.5, 0.6, 0.7] == [one["score"] for one in outcomes if isinstance(one, dict)]
    assert ["2026-03-01T12:00:00+00:00"] * 2 == [one.get("happened_at") for one in outcomes if isinstance(one, dict)][
        :2
    ]
    assert 3 == len({one["event_id"] for one in outcomes if isinstance(one, dict)})


def test_nobody_tells_of_units_outside(client: Client, service: Service) -> None:
    """No exposure, nothing to tell."""
    agent = client.agent("support")
    told = agent.report(Assignment(variant="baseline", reason="not_running", version="live"), score=1.0)

    assert (0, ()) == (told.accepted, told.refused)
    assert [] == service.received


def test_what_is_refused_is_told_and_not_sent_again(client: Client, service: Service) -> None:
    """Each outcome by itself, or all of them."""
    refusal = {"position": 0, "event_id": "e1", "status": 422, "detail": "score: wanted"}
    service.on("POST /outcomes", {"accepted": 0, "refused": [refusal]}, problem(422, "no"), problem(422, "no"))
    agent = client.agent("support")
    told = agent.report(ID, score=7.0, event_id="e1")
    agent.report(ID, score=7.0)
    with pytest.raises(InvalidRequestError):
        agent.report(ID, score=7.0, strict=True)

    assert ["score: wanted"] == [one.detail for one in told.refused]
    assert 0 == agent.waiting


def test_who_asks_for_errors_keeps_what_it_told(client: Client, service: Service) -> None:
    """Only what waited before waits on."""
    service.on("POST /outcomes", AWAY, AWAY, {"accepted": 1, "refused": []})
    agent = client.agent("support", pause_seconds=0.0)
    agent.report(ID, score=0.1)
    with pytest.raises(EngineError):
        agent.report(ID, score=0.2, strict=True)

    assert 1 == agent.waiting
    assert 1 == agent.flush().accepted
