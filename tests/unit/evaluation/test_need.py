"""Upper bounds of a call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.evaluation.model import ModelRequest, Price
from dspy_optimization.evaluation.need import worst_case
from dspy_optimization.testing.scripted_model import chat_request


@given(st.text(max_size=300))
def test_a_prompt_never_has_more_tokens_than_its_bytes_and_a_template(text: str) -> None:
    """The bound holds for a tokenizer that spends one token on every byte, in every script."""
    need = worst_case(chat_request(text, max_tokens=7), None)

    assert need.prompt_tokens >= len(text.encode()) + 256
    assert need.prompt_tokens + 7 == need.tokens


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 9}, 9),
        ({"max_completion_tokens": 11}, 11),
        ({}, 4096),
        ({"max_tokens": None}, 4096),
    ],
)
def test_the_answer_is_bounded_by_what_the_request_states(body: dict[str, int], expected: int) -> None:
    """Without a stated maximum the default is assumed."""
    assert expected == worst_case(ModelRequest(body=body), None).completion_tokens


def test_the_cost_is_that_of_all_tokens() -> None:
    """Prompt and completion have prices of their own."""
    need = worst_case(chat_request("x", max_tokens=500_000), Price(prompt_usd=0.0, completion_usd=4.0))

    assert need.cost_usd == 2.0


def test_tools_and_schemas_count() -> None:
    """Everything in the body can reach the model."""
    plain = worst_case(chat_request("x"), None).prompt_tokens
    tools = {**chat_request("x").body, "tools": [{"type": "function", "function": {"name": "f" * 1000}}]}

    assert worst_case(ModelRequest(body=tools), None).prompt_tokens > plain + 1000
