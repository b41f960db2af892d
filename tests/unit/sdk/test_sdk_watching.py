"""Following an optimization: nothing is told twice and nothing left out, whatever breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdk_service import ID, Line, Service, Time, message, problem

from dspy_optimization.errors import InfrastructureError, NotFoundError
from dspy_optimization.sdk import AccessError, Client, UpdateType
from dspy_optimization.sdk.server_sent import ServerSent, server_sent
from dspy_optimization.sdk.updates import Position, Update

ALL = [1, 2, 3, 4, 5, 6]


def test_everything_is_told_up_to_the_end(client: Client, service: Service) -> None:
    """First the state, then all news, typed."""
    updates = list(client.optimization(ID).watch())

    assert [0, *ALL] == [one.id for one in updates]
    assert (0.2, 0.5, 2, None) == (
        updates[2].progress,
        updates[2].best_score,
        updates[2].current_iteration,
        updates[2].algorithm,
    )
    assert (UpdateType.RESULT, True, False) == (updates[-1].type, updates[-1].is_last, updates[-2].is_last)
    assert [("socket", None)] == service.opened


def test_a_dropped_socket_goes_on_where_it_broke(client: Client, service: Service, told_time: Time) -> None:
    """Torn off, restarted, closed without an end."""
    service.lines = [Line(messages=2), Line(messages=1, code=1012), Line(messages=0), Line(messages=1, code=1000)]

    updates = list(client.optimization(ID).watch())

    assert [0, *ALL] == [one.id for one in updates]
    assert [("socket", after) for after in (None, "2", "3", "3", "4")] == service.opened
    assert [0.5, 0.5, 1.0, 0.5] == told_time.slept


def test_the_log_is_told_from_anywhere(client: Client, service: Service) -> None:
    """What came after a message that was seen, without the state in between."""
    assert [4, 5, 6] == [one.id for one in client.optimization(ID).watch(after=3)]
    assert ALL == [one.id for one in client.optimization(ID).watch(after=0)]


def test_one_that_ended_long_ago_ends_at_once(client: Client, service: Service) -> None:
    """Its state is all there is."""
    service.log = [message(6, "error", error="the model is away")]
    service.now = 5

    updates = list(client.optimization(ID).watch())

    assert (UpdateType.ERROR, "the model is away") == (updates[-1].type, updates[-1].data["error"])


@pytest.mark.parametrize("refuses", [True, False])
def test_an_end_that_is_known_is_told_again(client: Client, service: Service, refuses: bool) -> None:
    """There is nothing else to wait for."""
    service.refuses_sockets = refuses

    assert [(6, UpdateType.RESULT)] == [(one.id, one.type) for one in client.optimization(ID).watch(after=6)]


@pytest.mark.parametrize(
    ("text", "said"), [("hello", "wanted: JSON in a message; found: 'hello'"), ("[]", "type: wanted")]
)
def test_messages_that_are_none(client: Client, service: Service, text: str, said: str) -> None:
    """Another service, or another version of this one."""
    service.lines = [Line(text=text)]

    with pytest.raises(InfrastructureError, match=said):
        list(client.optimization(ID).watch())


def test_without_sockets_events_are_followed(client: Client, service: Service) -> None:
    """And resumed in the same way."""
    service.refuses_sockets = True
    service.lines = [Line(messages=3), Line(messages=0), Line()]

    assert [0, *ALL] == [one.id for one in client.optimization(ID).watch()]
    assert [("socket", None), ("events", None), ("events", "3"), ("events", "3")] == service.opened


def test_a_socket_that_always_breaks_is_given_up(client: Client, service: Service) -> None:
    """After as many attempts in a row as the client makes."""
    service.lines = [Line(messages=0, code=1011)] * 3

    assert [0, *ALL] == [one.id for one in client.optimization(ID).watch()]
    assert ["socket"] * 3 + ["events"] == [way for way, _ in service.opened]


def test_at_last_the_status_is_asked(client: Client, service: Service, told_time: Time) -> None:
    """Told only when it says something else."""
    service.refuses_sockets = True
    service.lines = [Line(code=404)]
    running = {"optimization_id": ID, "status": "running", "progress": 0.5, "metrics": {"best_score": 0.7}}
    completed = {**running, "status": "completed", "progress": 1.0}
    service.on(f"GET /optimizations/{ID}/status", running, running, completed)

    updates = list(client.optimization(ID).watch(poll_seconds=9))

    assert [(None, 0.5, 0.7), (None, 1.0, 0.7)] == [(one.id, one.progress, one.best_score) for one in updates]
    assert (UpdateType.RESULT, [9, 9]) == (updates[-1].type, told_time.slept)


@pytest.mark.parametrize(("code", "kind"), [(4404, NotFoundError), (4401, AccessError), (4403, AccessError)])
def test_who_may_not_look_is_told(client: Client, service: Service, code: int, kind: type[Exception]) -> None:
    """By the code that closes the socket; it is not tried again."""
    service.lines = [Line(messages=0, code=code)]

    with pytest.raises(kind, match="wanted: a"):
        list(client.optimization(ID).watch())

    assert 1 == len(service.opened)


def test_errors_are_typed_on_every_way(client: Client, service: Service) -> None:
    """Sockets and events that are refused end in what the status says."""
    service.refuses_sockets = True
    service.lines = [Line(code=401)]
    service.on(f"GET /optimizations/{ID}/status", problem(401, "wanted: a key"))

    with pytest.raises(AccessError, match="wanted: a key"):
        list(client.optimization(ID).watch())


def test_a_service_that_went_away_is_an_error(told_time: Time) -> None:
    """After all attempts on all ways."""
    with (
        Client("http://127.0.0.1:9", surroundings=told_time.surroundings()) as client,
        pytest.raises(InfrastructureError, match="dspy-opt serve"),
    ):
        list(client.optimization(ID).watch())


def test_leaving_the_loop_closes_the_socket(client: Client, service: Service) -> None:
    """A generator that is closed leaves nothing open."""
    updates = client.optimization(ID).watch()

    next(updates)
    updates.close()

    assert 1 == len(service.opened)


@given(
    newest=st.integers(1, 8),
    drops=st.lists(st.integers(0, 4), max_size=6),
    state=st.sampled_from(["kept apart", "instead of what was missed", "none"]),
    coming=st.integers(0, 3),
)
def test_every_message_once_and_in_order(newest: int, drops: list[int], state: str, coming: int) -> None:
    """Whatever a service takes the state for: shown beside the log, in place of what was missed, or not at all."""
    position = Position(0)
    log = [
        Update(type=UpdateType.RESULT if n == newest else UpdateType.PROGRESS, id=n, optimization_id=ID)
        for n in range(1, newest + 1)
    ]
    told: list[int | None] = []
    for n in [*drops, 99]:
        if newest in told:
            break
        position.begin()
        after = position.after or 0
        here = min(after + coming, newest) if n != 99 else newest
        missed = [one for one in log[:here] if one.id is not None and one.id > after]
        head = log[here - 1] if here > 0 else Update(type=UpdateType.PROGRESS, id=0, optimization_id=ID)
        match state:
            case "kept apart":
                sent = [head, *missed, *log[here:]]
            case "instead of what was missed":
                sent = [head, *log[here:]]
            case _:
                sent = [*missed, *log[here:]]
        for one in sent[:n]:
            told += [update.id for update in position.take(one)]
        if n == 99:
            told += [update.id for update in position.end()]

    assert told == sorted(set(told))
    assert newest == told[-1]
    if state != "instead of what was missed":
        assert list(range(1, newest + 1)) == told


def test_events_are_read_from_any_pieces() -> None:
    """Comments, several lines of data, ids that stay, characters that are no ends of lines."""
    text = (
        ": hello\r\nid: 1\r\nevent: progress\r\ndata: a\u2028b\r\ndata: c\r\n\r\ndata:x\n\nid\n\nretry: 3\ndata\n\nlost"
    )
    raw = text.encode()

    for size in (1, 7, len(raw)):
        events = list(server_sent(raw[at : at + size] for at in range(0, len(raw), size)))

        assert [
            ServerSent(type="progress", data="a\u2028b\nc", id="1"),
            ServerSent(type="message", data="x", id="1"),
            ServerSent(type="message", data="", id=""),
        ] == events
