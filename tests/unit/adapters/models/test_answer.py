"""An answer of any server in the one shape the engine keeps."""

import json

import pytest

from dspy_optimization.adapters.models.answer import parsed, response
from dspy_optimization.errors import ModelError
from dspy_optimization.events import Json
from dspy_optimization.testing.scripted_model import chat_request

QUESTION = chat_request("hello")
MESSAGE: dict[str, Json] = {"role": "assistant", "content": "hi"}
USAGE: dict[str, Json] = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 99}


def test_exactly_one_choice_is_kept() -> None:
    """With the counts of the server and a sum that is one."""
    payload: Json = {"id": "x", "choices": [{"index": 4, "message": MESSAGE}, {"message": MESSAGE}], "usage": USAGE}
    answer = response(payload, QUESTION, 0.5, who="x")

    assert answer.body["choices"] == [{"index": 0, "message": MESSAGE}]
    assert answer.body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert (answer.prompt_tokens, answer.completion_tokens, answer.latency_seconds) == (3, 2, 0.5)
    assert (answer.answered_by, answer.cost_usd) == (None, None)


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None, "completion_tokens": -1}, {"prompt_tokens": True}, "many"]
)
def test_missing_counts_are_estimated_high_and_marked(usage: Json) -> None:
    """Never zero: a bill must not be too small."""
    answer = response({"choices": [{"message": MESSAGE}], "usage": usage}, QUESTION, 0.1, who="x")

    assert answer.prompt_tokens >= 2
    assert answer.completion_tokens >= 1
    assert answer.body["usage"]["estimated"] is True


def test_an_empty_text_is_an_answer() -> None:
    """What a model says is the agent's affair; only a missing text becomes an empty one."""
    answer = response({"choices": [{"message": {"content": None, "tool_calls": []}}]}, QUESTION, 0.1, who="x")

    assert answer.body["choices"][0]["message"] == {"role": "assistant", "content": "", "tool_calls": []}


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": "x"},
        {"choices": [None]},
        {"choices": [{"text": "old"}]},
        {"choices": [{"message": MESSAGE, "finish_reason": "error"}]},
    ],
)
def test_an_answer_without_a_message_may_be_tried_again(payload: Json) -> None:
    """The server did not do its part."""
    with pytest.raises(ModelError, match="wanted one choice with a message, found") as caught:
        response(payload, QUESTION, 0.1, who="x")
    assert caught.value.retryable is True


@pytest.mark.parametrize("raw", ["", "<html>", '{"a": NaN}', '{"a": Infinity}', '{"a"', "[" * 100_000])
def test_what_is_no_json_may_be_tried_again(raw: str) -> None:
    """With the beginning of what came."""
    with pytest.raises(ModelError, match="wanted a JSON answer, found") as caught:
        parsed(raw, who="x")
    assert caught.value.retryable is True


def test_texts_no_database_takes_are_cleaned() -> None:
    """NUL and lone surrogates; pairs are one character and stay."""
    raw = '{"a\\u0000": ["x\\u0000y", "\\ud800z", "\\ud83d\\ude00", 1, null]}'
    value = parsed(raw, who="x")

    assert value == {"a": ["xy", "�z", "😀", 1, None]}
    assert json.dumps(value, ensure_ascii=False).encode()


def test_an_echoed_key_is_not_repeated() -> None:
    """A gateway may send back what it was sent."""
    with pytest.raises(ModelError) as caught:
        parsed("<p>my-own-secret</p>", who="x", secret="my-own-secret")
    assert "my-own-secret" not in str(caught.value)
