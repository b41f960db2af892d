"""How many tokens a question may take."""

import pytest

from dspy_optimization.evaluation.model import ModelRequest
from dspy_optimization.evaluation.token_estimate import completion_limit, prompt_tokens, request_tokens, text_tokens
from dspy_optimization.testing.scripted_model import chat_request


@pytest.mark.parametrize(
    ("text", "real"),
    # Real counts by OpenAI's o200k_base, from its public examples: English about 4 characters a token.
    [("The quick brown fox jumps over the lazy dog.", 10), ("", 0)],
)
def test_the_estimate_is_not_below_the_truth(text: str, real: int) -> None:
    """High, but not by more than a factor of four."""
    assert real <= text_tokens(text) <= max(4 * real, 1)


def test_lone_surrogates_can_be_counted() -> None:
    """Texts come from anywhere."""
    assert text_tokens("\ud800") == 1


def test_tools_and_schema_count_as_prompt() -> None:
    """They are sent too."""
    plain = {"messages": [{"role": "user", "content": "hi"}]}

    assert prompt_tokens(plain) < prompt_tokens({**plain, "tools": [{"type": "function"}]})


@pytest.mark.parametrize(
    ("body", "expected"),
    [({"max_tokens": 7}, 7), ({"max_completion_tokens": 9, "max_tokens": 7}, 9), ({}, 1024), ({"max_tokens": 0}, 1024)],
)
def test_the_answer_is_bounded_by_what_the_request_says(body: dict[str, int], expected: int) -> None:
    """Else by a default."""
    assert completion_limit(body) == expected


def test_a_request_counts_prompt_and_answer() -> None:
    """What a rate limit has to hold free."""
    request = chat_request("hello", max_tokens=10)

    assert request_tokens(request) == prompt_tokens(request.body) + 10
    assert request_tokens(ModelRequest(body={})) == 8 + 1024
