"""What is sent again, how long is waited before, and which error remains."""

from datetime import UTC, datetime

import httpx
import pytest
from sdk_service import ID, Reply, Service, Time, problem

from dspy_optimization.errors import (
    CapacityError,
    ConflictError,
    EngineError,
    ExpiredError,
    InfrastructureError,
    InvalidRequestError,
    NoGpuError,
    NotFoundError,
    QueueFullError,
)
from dspy_optimization.sdk import AccessError, Client, Retries
from dspy_optimization.sdk.retries import retry_after_seconds

ACCEPTED = Reply(body={"optimization_id": ID, "status": "queued"}, status=202)
EMPTY = {"items": [], "next_cursor": None}


@pytest.mark.parametrize("status", [429, 503])
def test_what_may_pass_is_asked_again(client: Client, service: Service, told_time: Time, status: int) -> None:
    """After what the service asked for and a little more."""
    service.on("GET /models", problem(status, "busy", headers={"Retry-After": "7"}), problem(status, "busy"), EMPTY)

    client.models()

    assert [7.25, 1.0] == told_time.slept
    assert 3 == len(service.received)


def test_a_submission_is_sent_again_under_the_same_key(client: Client, service: Service, told_time: Time) -> None:
    """A full queue, a broken connection: it is one optimization all the same."""
    service.on(
        "POST /optimize", problem(503, "full", headers={"Retry-After": "999"}), Reply(body="{", drops=True), ACCEPTED
    )

    client.optimize("orders", "d1")

    assert ["key-1"] * 3 == [one.headers["idempotency-key"] for one in service.received]
    assert [30.25, 1.0] == told_time.slept


def test_other_posts_are_sent_once(client: Client, service: Service, told_time: Time) -> None:
    """Nobody knows what the first one did."""
    service.on("POST /models/task/test", problem(503, "busy", headers={"Retry-After": "1"}))
    service.on(f"POST /optimizations/{ID}/cancel", Reply(body={}, drops=True))

    with pytest.raises(InfrastructureError, match="busy"):
        client.test_model("task")
    with pytest.raises(InfrastructureError, match="wanted: an answer of the service"):
        client.optimization(ID).cancel()

    assert (2, []) == (len(service.received), told_time.slept)


def test_a_refusal_is_not_asked_again(client: Client, service: Service, told_time: Time) -> None:
    """It would be the same."""
    service.on("GET /models", problem(500, "a defect"), EMPTY)

    with pytest.raises(InfrastructureError, match="a defect"):
        client.models()

    assert [] == told_time.slept


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AccessError),
        (403, AccessError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, ExpiredError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (429, CapacityError),
        (500, InfrastructureError),
        (503, InfrastructureError),
        (507, NoGpuError),
    ],
)
def test_every_refusal_is_an_error_of_the_tree(
    client: Client, service: Service, status: int, kind: type[EngineError]
) -> None:
    """With the words of the service."""
    service.on("GET /models", problem(status, "wanted: this; found: that; possible: those"))

    with pytest.raises(EngineError) as error:
        client.models()

    assert (kind, "wanted: this; found: that; possible: those") == (type(error.value), str(error.value))


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("about:blank", QueueFullError),
        ("urn:dspy-opt:queue-full", QueueFullError),
        ("urn:dspy-opt:database", InfrastructureError),
    ],
)
def test_a_full_queue_says_when_to_come_again(
    client: Client, service: Service, type_: str, kind: type[EngineError]
) -> None:
    """And a database that is away does not pass for one, where the service tells them apart."""
    service.on("POST /optimize", problem(503, "full", headers={"Retry-After": "3"}, type=type_))

    with pytest.raises(EngineError) as error:
        client.optimize("orders", "d1")

    assert kind is type(error.value)
    assert (3.0 if kind is QueueFullError else None) == getattr(error.value, "retry_after_seconds", None)


def test_all_wrong_fields_are_told(client: Client, service: Service) -> None:
    """Not the first one only."""
    errors = [{"field": "target.id", "message": "missing"}, {"field": "objectives", "message": "empty"}]
    service.on("POST /estimate", problem(422, "target.id: missing", errors=errors))

    with pytest.raises(InvalidRequestError, match=r"target\.id: missing; objectives: empty"):
        client.estimate("orders", "d1")


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply(body=b"<html>hello", media_type="text/html"), InfrastructureError, "wanted: JSON .* found: text/html"),
        (Reply(body=b"<html>no", status=404, media_type="text/html"), NotFoundError, "status 404 saying '<html>no'"),
        (Reply(body=b"{", status=404), NotFoundError, "status 404"),
        (Reply(status=302, headers={"Location": "http://elsewhere"}), InfrastructureError, "status 302"),
        (Reply(body=[1]), InfrastructureError, "wanted: items; found: none"),
    ],
)
def test_another_service_is_recognized(
    client: Client, service: Service, reply: Reply, kind: type[EngineError], said: str
) -> None:
    """Whatever answers there, it becomes an error that says what came."""
    service.on("GET /models", reply)

    with pytest.raises(kind, match=said):
        client.models()


def test_nobody_is_there(told_time: Time) -> None:
    """After all attempts it is said what to look at."""
    with (
        Client("http://127.0.0.1:9", surroundings=told_time.surroundings()) as client,
        pytest.raises(
            InfrastructureError, match=r"wanted: .*127\.0\.0\.1:9; found: .*refused.*`dspy-opt serve` running"
        ),
    ):
        client.models()

    assert [0.25, 0.5, 1.0, 2.0] == told_time.slept


def test_a_transport_of_ones_own_is_used() -> None:
    """Such as httpx's own for tests."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=EMPTY))

    with Client(transport=transport) as client:
        assert () == client.models()


@pytest.mark.parametrize(
    ("attempt", "wanted", "chance", "seconds"),
    [(1, None, 0.0, 0.25), (1, None, 1.0, 0.5), (3, None, 1.0, 2.0), (99, None, 1.0, 8.0), (1, 4.0, 1.0, 4.25)],
)
def test_delays(attempt: int, wanted: float | None, chance: float, seconds: float) -> None:
    """Doubled up to a bound, half of it by chance; never less than what the service asked for."""
    assert seconds == Retries().delay_seconds(attempt, retry_after_seconds=wanted, chance=chance)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        ("soon", None),
        ("-1", None),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """RFC 9110, 10.2.3."""
    assert seconds == retry_after_seconds(header, datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_no_attempt_at_all_is_refused() -> None:
    """One is the least."""
    with pytest.raises(InvalidRequestError, match="1 sends once"):
        Retries(attempts=0)
