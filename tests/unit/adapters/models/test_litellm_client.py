"""Any model LiteLLM knows, through the real LiteLLM and a real server."""

import os
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from dspy_optimization.adapters.models.litellm_client import COST_MAP_VARIABLE, LiteLLMModel, import_litellm
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
    refused,
    server_error,
    silence,
    too_many_requests,
)
from dspy_optimization.testing.scripted_model import chat_request

KEY = "sk-test-canary-0123456789"
QUESTION = chat_request("hello")

pytestmark = [
    pytest.mark.xdist_group("litellm"),  # one import of it is enough
    pytest.mark.filterwarnings("default::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


@pytest.fixture
def model(server: ModelServer) -> LiteLLMModel:
    return LiteLLMModel("openai/fake", api_key=KEY, base_url=server.base_url, timeout_seconds=5.0)


def test_it_answers_in_the_one_shape(server: ModelServer, model: LiteLLMModel) -> None:
    """With the server's counts; the request arrives as it was given."""
    server.say(answer("there", usage=(7, 3)))
    said = model.complete(chat_request("hello", max_tokens=9))
    sent = server.requests[-1].body

    assert said.body["choices"][0]["message"]["content"] == "there"
    assert (said.prompt_tokens, said.completion_tokens) == (7, 3)
    assert (sent["model"], sent["max_tokens"], sent["messages"]) == ("fake", 9, QUESTION.body["messages"])


@pytest.mark.parametrize(
    ("reply", "kind", "retryable"),
    [
        (too_many_requests("7"), ModelBusyError, True),
        (server_error(), ModelError, True),
        (garbage(), ModelError, True),
        (hang_up(), ModelError, True),
        (refused(401, f"Incorrect API key provided: {KEY}"), ModelAuthError, False),
        (refused(402, "pay first"), ModelAuthError, False),
        (refused(400, f"maximum context length {KEY}", code="context_length_exceeded"), ModelRequestError, False),
        (refused(404, "no such model"), ModelError, False),
    ],
)
def test_what_goes_wrong_has_its_error_and_never_the_key(
    server: ModelServer, model: LiteLLMModel, reply: Reply, kind: type[ModelError], retryable: bool
) -> None:
    """One attempt each: LiteLLM's own retries are off."""
    server.say(reply)
    before = server.calls
    with pytest.raises(ModelError) as caught:
        model.complete(QUESTION)

    assert (type(caught.value), caught.value.retryable, server.calls - before) == (kind, retryable, 1)
    assert "canary" not in f"{caught.value} {model!r}"
    if kind is ModelBusyError:
        assert caught.value.retry_after_seconds == 7.0


def test_silence_is_waited_for_no_longer_than_stated(server: ModelServer) -> None:
    """And may be tried again."""
    server.say(silence())
    model = LiteLLMModel("openai/fake", api_key=KEY, base_url=server.base_url, timeout_seconds=0.3)
    with pytest.raises(ModelError, match=r"within 0\.3 s, found none") as caught:
        model.complete(QUESTION)
    assert caught.value.retryable is True


@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_what_litellm_itself_raises_is_an_error_of_ours(kind: Callable[[str], Exception]) -> None:
    """Before anything is sent: no certificate, an option it does not take."""
    real = import_litellm()
    broken = ModuleType("broken")
    broken.exceptions = real.exceptions

    def completion(**_: object) -> object:
        raise kind("nothing there")

    broken.completion = completion
    with pytest.raises(ModelError, match="nothing there"):
        LiteLLMModel("openai/x", load=lambda: broken).complete(QUESTION)


def test_an_error_without_a_status_may_be_tried_again() -> None:
    """LiteLLM has such errors too."""
    real = import_litellm()
    broken = ModuleType("broken")
    broken.exceptions = real.exceptions

    def completion(**_: object) -> object:
        raise real.exceptions.openai.OpenAIError("odd")

    broken.completion = completion
    with pytest.raises(ModelError, match="OpenAIError") as caught:
        LiteLLMModel("openai/x", load=lambda: broken).complete(QUESTION)
    assert caught.value.retryable is True


def test_it_never_waits_for_a_network_to_be_imported() -> None:
    """Without the variable LiteLLM 1.106 hangs offline; it does not advertise either."""
    litellm = import_litellm()

    assert os.environ[COST_MAP_VARIABLE] == "True"
    assert litellm.suppress_debug_info is True


@pytest.mark.parametrize("model", ["", "gpt-4o-mini", "openai/", "/x"])
def test_a_string_without_a_provider_is_refused(model: str) -> None:
    """At once, not at the first call."""
    with pytest.raises(InvalidRequestError, match="wanted a LiteLLM string such as"):
        LiteLLMModel(model)


def test_identity_and_price_are_as_given() -> None:
    """The place counts; nothing is imported for it."""
    price = Price(prompt_usd=1, completion_usd=2)
    plain = LiteLLMModel("openai/x", price=price)
    placed = LiteLLMModel("openai/x", base_url="http://a/v1")
    plain.close()

    assert (plain.identity, placed.identity) == ("litellm:openai/x", "litellm:openai/x@http://a/v1")
    assert (plain.price, placed.price) == (price, None)
