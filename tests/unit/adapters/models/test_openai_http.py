"""A model behind an OpenAI-compatible base_url, against a real server."""

import gc
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from dspy_optimization.adapters.models.openai_http import OpenAIChat
from dspy_optimization.errors import (
    InvalidRequestError,
    ModelAuthError,
    ModelBusyError,
    ModelError,
    ModelRequestError,
)
from dspy_optimization.evaluation.model import Price
from dspy_optimization.testing.model_server import (
    ModelServer,
    Reply,
    answer,
    garbage,
    hang_up,
    json_reply,
    refused,
    server_error,
    silence,
    too_many_requests,
)
from dspy_optimization.testing.scripted_model import chat_request

KEY = "sk-test-canary-0123456789"
QUESTION = chat_request("hello")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


@pytest.fixture
def model(server: ModelServer) -> Iterator[OpenAIChat]:
    with closing(OpenAIChat(server.base_url, "fake", api_key=KEY, timeout_seconds=5.0)) as opened:
        yield opened


def test_it_sends_the_request_and_returns_the_answer(server: ModelServer, model: OpenAIChat) -> None:
    """The body as given, with the model; the key as a bearer token."""
    server.say(answer("grüß dich", usage=(7, 3)))
    said = model.complete(QUESTION)
    sent = server.requests[0]

    assert said.body["choices"][0]["message"]["content"] == "grüß dich"
    assert (said.prompt_tokens, said.completion_tokens) == (7, 3)
    assert said.latency_seconds > 0
    assert sent.body == {**QUESTION.body, "model": "fake"}
    assert sent.headers["authorization"] == f"Bearer {KEY}"


def test_identity_and_price_are_as_given(server: ModelServer) -> None:
    """Two places, two identities; a slash or a whole path at the end makes no difference."""
    price = Price(prompt_usd=1, completion_usd=2)
    addresses = ["http://a/v1", "http://a/v1/", "http://a/v1/chat/completions", "http://b/v1"]
    models = [OpenAIChat(address, "m", price=price) for address in addresses]
    for each in models:
        each.close()

    assert [each.identity for each in models] == ["openai:m@http://a/v1"] * 3 + ["openai:m@http://b/v1"]
    assert models[0].price == price


@pytest.mark.parametrize(
    ("reply", "kind", "retryable"),
    [
        (too_many_requests("2"), ModelBusyError, True),
        (server_error(), ModelError, True),
        (server_error(503), ModelBusyError, True),
        (garbage(), ModelError, True),
        (Reply(content=b""), ModelError, True),
        (hang_up(), ModelError, True),
        (json_reply(200, {"choices": []}), ModelError, True),
        (json_reply(200, {"error": {"message": "upstream", "code": 429}}), ModelBusyError, True),
        (json_reply(200, {"error": "upstream"}), ModelError, True),
        (refused(401, f"Incorrect API key provided: {KEY}"), ModelAuthError, False),
        (refused(429, "quota", code="insufficient_quota"), ModelAuthError, False),
        (refused(400, f"context length exceeded {KEY}"), ModelRequestError, False),
        (Reply(status=307, headers={"location": f"http://elsewhere/?key={KEY}"}), ModelError, False),
        (Reply(content=b"\x1f\x8bbroken", headers={"content-encoding": "gzip"}), ModelError, True),
    ],
)
def test_what_goes_wrong_has_its_error_and_never_the_key(
    server: ModelServer, model: OpenAIChat, reply: Reply, kind: type[ModelError], retryable: bool
) -> None:
    """One attempt each."""
    server.say(reply)
    with pytest.raises(ModelError) as caught:
        model.complete(QUESTION)

    assert (type(caught.value), caught.value.retryable, server.calls) == (kind, retryable, 1)
    shown = " ".join([str(caught.value), repr(caught.value), repr(model), repr(caught.value.__cause__)])
    assert "canary" not in shown
    assert "possible: " in str(caught.value)


def test_retry_after_comes_with_the_error(server: ModelServer, model: OpenAIChat) -> None:
    """In seconds."""
    server.say(too_many_requests("2.5"))
    with pytest.raises(ModelBusyError, match=r"asks to wait 2\.5 s") as caught:
        model.complete(QUESTION)
    assert caught.value.retry_after_seconds == 2.5


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (("llama", "qwen"), "the server lists llama, qwen"),
        (tuple(f"m{number:02d}" for number in range(25)), "m19 and 5 more"),
        ((), "is http://127.0.0.1:"),
    ],
)
def test_an_unknown_model_gets_the_list_of_known_ones(models: tuple[str, ...], expected: str) -> None:
    """Or the question whether the address is right."""
    with (
        ModelServer(refused(404, "no such model"), models=models) as server,
        closing(OpenAIChat(server.base_url, "lama")) as model,
        pytest.raises(ModelError) as caught,
    ):
        model.complete(QUESTION)

    assert "no such model" in str(caught.value)
    assert expected in str(caught.value)


def test_a_wrong_path_says_what_it_should_look_like(server: ModelServer) -> None:
    """`/v1` is what people forget."""
    address = server.base_url.removesuffix("/v1")
    with closing(OpenAIChat(address, "fake")) as model, pytest.raises(ModelError, match="usually ends in /v1"):
        model.complete(QUESTION)


def test_a_server_that_lists_nothing_is_no_second_error(server: ModelServer) -> None:
    """It went away between the refusal and the question."""
    with closing(OpenAIChat(server.base_url, "fake")) as model:
        server.close()

        assert "It usually ends in /v1" in model._offered()


@pytest.mark.parametrize("reply", [silence(), answer().after(5.0)])
def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_stated(server: ModelServer, reply: Reply) -> None:
    """And may be tried again."""
    server.say(reply)
    started = time.monotonic()
    with (
        closing(OpenAIChat(server.base_url, "fake", timeout_seconds=0.2)) as model,
        pytest.raises(ModelError, match=r"within 0\.2 s, found none") as caught,
    ):
        model.complete(QUESTION)

    assert time.monotonic() - started < 2.0
    assert caught.value.retryable is True


def test_an_answer_that_trickles_is_cut_off_too(server: ModelServer) -> None:
    """Each byte comes in time, all of them do not."""
    slow = answer("x" * 200)
    server.say(Reply(content=slow.content, pieces=50, pause_seconds=0.05))
    started = time.monotonic()
    with (
        closing(OpenAIChat(server.base_url, "fake", timeout_seconds=0.3)) as model,
        pytest.raises(ModelError, match="wanted an answer within"),
    ):
        model.complete(QUESTION)

    assert time.monotonic() - started < 2.0


def test_an_endless_answer_is_not_read_to_its_end(server: ModelServer, model: OpenAIChat) -> None:
    """Memory is not the server's to fill."""
    server.say(Reply(content=b"x" * (33 * 1024 * 1024)))
    with pytest.raises(ModelError, match="at most 33554432 bytes"):
        model.complete(QUESTION)


def test_nobody_there_says_what_to_do() -> None:
    """Start the server, or mend the address."""
    with (
        closing(OpenAIChat("http://127.0.0.1:9/v1", "fake")) as model,
        pytest.raises(ModelError, match="start the model server or mend base_url") as caught,
    ):
        model.complete(QUESTION)
    assert caught.value.retryable is True


def test_a_closed_model_says_so(model: OpenAIChat) -> None:
    """Instead of a traceback of the library."""
    model.close()

    with pytest.raises(ModelError, match="found the model closed"):
        model.complete(QUESTION)


def test_connections_are_used_again(server: ModelServer, model: OpenAIChat) -> None:
    """Twenty calls, one connection; also after an error that came with an answer."""
    server.say(answer(), script=[server_error()])
    with pytest.raises(ModelError):
        model.complete(QUESTION)
    for _ in range(20):
        model.complete(QUESTION)

    assert len(server._sockets) == 1


def test_a_hundred_threads_share_it(server: ModelServer, model: OpenAIChat) -> None:
    """All at once, each with its own answer; nothing is left open."""
    barrier = threading.Barrier(100)

    def echo(received: object) -> Reply:
        return answer(json.dumps(received.body["messages"])).after(0.02)

    def ask(number: int) -> bool:
        barrier.wait()
        said = model.complete(chat_request(f"number {number}"))
        return f"number {number}" in str(said.body["choices"][0]["message"]["content"])

    server.say(echo)
    with ThreadPoolExecutor(100) as pool:
        right = list(pool.map(ask, range(100)))
    model.close()
    gc.collect()

    assert all(right)
    assert server.calls == 100


def test_proxies_are_used_only_when_asked(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment that does not exist: ignored by default, in the way when trusted."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with closing(OpenAIChat(server.base_url, "fake")) as alone:
        alone.complete(QUESTION)
    with (
        closing(OpenAIChat(server.base_url, "fake", trust_environment=True)) as trusting,
        pytest.raises(ModelError, match="no working connection"),
    ):
        trusting.complete(QUESTION)

    assert server.calls == 1


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://x/v1", "http://", "http://x:99999/v1", "http://u:pw-canary@x/v1", "http://x/v1?k=canary",
     "http://[::1/v1"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """At once, without repeating a password."""
    with pytest.raises(InvalidRequestError, match="base_url: wanted an address") as caught:
        OpenAIChat(address, "m")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "line\nbreak-canary", "ümlaut-canary", " canary"])
def test_a_key_no_header_can_carry_is_refused(key: str) -> None:
    """Without repeating it."""
    with pytest.raises(InvalidRequestError, match="the model key: wanted printable ASCII") as caught:
        OpenAIChat("http://x/v1", "m", api_key=key)
    assert "canary" not in str(caught.value)


def test_a_model_needs_a_name() -> None:
    """The server has to be told one."""
    with pytest.raises(InvalidRequestError, match="model: wanted a name"):
        OpenAIChat("http://x/v1", "  ")
