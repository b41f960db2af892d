"""Schedules through the client: what is sent, what comes back."""

from datetime import UTC, datetime

import pytest
from sdk_service import AT, ID, Reply, Service, problem

from dspy_optimization.errors import ConflictError
from dspy_optimization.sdk import Client, OptimizationRequest, OptimizationStatus

SCHEDULE = {
    "id": ID,
    "name": "nightly",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "is_paused": False,
    "next_due_at": AT,
    "created_at": AT,
    "last_due_at": None,
    "last_fired_at": None,
    "last_optimization_id": None,
    "last_optimization_status": None,
    "last_error": None,
    "a_field_of_tomorrow": 1,
}


def test_a_schedule_is_created(client: Client, service: Service) -> None:
    """The request goes along as `optimize` would send it; what is kept comes back."""
    detail = {**SCHEDULE, "request": {"target": {"id": "orders"}}, "upcoming": [AT, AT]}
    service.on("POST /schedules", Reply(body=detail, status=201))
    request = OptimizationRequest(agent="orders", examples="v1")

    made = client.schedules.create("nightly", "0 3 * * *", request, timezone="Europe/Berlin")

    (received,) = service.received
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert {"name": "nightly", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "request": request.to_json()} == (
        received.body
    )
    assert (ID, noon, (noon, noon)) == (made.id, made.next_due_at, made.upcoming)
    assert {"target": {"id": "orders"}} == made.request


def test_all_are_listed(client: Client, service: Service) -> None:
    """Page after page."""
    ended = {**SCHEDULE, "name": "b", "last_optimization_id": ID, "last_optimization_status": "completed"}
    service.on("GET /schedules", {"items": [SCHEDULE], "next_cursor": "more"}, {"items": [ended], "next_cursor": None})
    found = list(client.schedules)

    assert ["nightly", "b"] == [one.name for one in found]
    assert (ID, OptimizationStatus.COMPLETED) == (found[1].last_optimization_id, found[1].last_optimization_status)


def test_steering(client: Client, service: Service) -> None:
    """Every verb asks its own address."""
    service.on(f"GET /schedules/{ID}", SCHEDULE)
    service.on(f"POST /schedules/{ID}/pause", {**SCHEDULE, "is_paused": True, "next_due_at": None})
    service.on(f"POST /schedules/{ID}/resume", SCHEDULE)
    accepted = {"optimization_id": ID, "status": "queued", "links": {}}
    service.on(f"POST /schedules/{ID}/fire", Reply(body=accepted, status=202))
    service.on(f"DELETE /schedules/{ID}", Reply(body=b"", status=204))
    paused, resumed = client.schedules.pause(ID), client.schedules.resume(ID)
    client.schedules.delete(ID)

    assert "nightly" == client.schedules.get(ID).name
    assert (True, None, False) == (paused.is_paused, paused.next_due_at, resumed.is_paused)
    assert ID == client.schedules.fire(ID).id
    assert 1 == len(service.asked(f"DELETE /schedules/{ID}"))


def test_a_refusal_is_sent_once(client: Client, service: Service) -> None:
    """What is no GET is not sent again by itself."""
    service.on(f"POST /schedules/{ID}/fire", problem(409, "wanted: that the last optimization has ended"))
    service.on(f"DELETE /schedules/{ID}", problem(503, "not now", headers={"Retry-After": "1"}))

    with pytest.raises(ConflictError, match="has ended"):
        client.schedules.fire(ID)
    with pytest.raises(Exception, match="not now"):
        client.schedules.delete(ID)

    assert [1, 1] == [
        len(service.asked(f"{what} /schedules/{ID}{more}")) for what, more in (("POST", "/fire"), ("DELETE", ""))
    ]
