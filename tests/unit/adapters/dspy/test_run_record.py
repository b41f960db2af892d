"""What a run did, in words."""

import threading

import dspy
import pytest
from dspy_agents import TwoSteps
from dspy_fakes import FakeCalls

from dspy_optimization.adapters.dspy.run_record import LONGEST_FAILURE, CountedCalls, RunRecord, failure_in_words
from dspy_optimization.agents.example import Usage
from dspy_optimization.evaluation.model import ModelRequest, Price, Role

SIGNATURE = dspy.Signature("question -> answer: int, why")


def parse_failure(adapter, answer, signature=SIGNATURE):
    with pytest.raises(dspy.AdapterParseError) as caught:
        adapter.parse(signature, answer)
    return failure_in_words(caught.value)


CHAT = dspy.ChatAdapter()
FAILURES = [
    (CHAT, "it is four", "the answer is not in the format that ChatAdapter reads; wanted the fields answer, why"),
    (CHAT, "[[ ## answer ## ]]\n4", "the answer lacks the field why; wanted"),
    (CHAT, "[[ ## answer ## ]]\nfour\n[[ ## why ## ]]\nx", "the field answer could not be read: "),
    (dspy.JSONAdapter(), '{"why": "x"}', "the answer lacks the field answer; wanted"),
    (dspy.JSONAdapter(), '{"answer": "four", "why": "x"}', "the field answer could not be read: "),
    (dspy.JSONAdapter(), "[]", "the answer is not in the format that JSONAdapter reads"),
    (dspy.XMLAdapter(), "<answer>4</answer>", "the answer lacks the field why; wanted"),
    (dspy.XMLAdapter(), "<answer>4", "the answer is not in the format that XMLAdapter reads"),
]


@pytest.mark.parametrize(("adapter", "answer", "said"), FAILURES)
def test_parse_failures_name_the_field(adapter, answer, said):
    """Which field, what was wanted and what came: enough to write a better prompt from."""
    text = parse_failure(adapter, answer)

    assert said in text
    assert f"the model wrote: {' '.join(answer.split())}" in text


def test_two_missing_fields_are_both_named():
    """The plural is no detail for a model that reads it."""
    text = parse_failure(CHAT, "[[ ## c ## ]]\nx", dspy.Signature("q -> a, b, c"))

    assert text.startswith("the answer lacks the fields a, b; wanted the fields a, b, c; the model wrote: ")


def test_long_answers_and_errors_are_cut():
    """A failure fits into a prompt."""
    text = parse_failure(CHAT, "x" * 100_000)

    assert text.endswith(" …")
    assert len(text) < LONGEST_FAILURE
    assert LONGEST_FAILURE == len(failure_in_words(ValueError("y" * 100_000)))


def test_other_errors_say_their_kind():
    """A tool's own error is told as it is."""
    assert "KeyError: 'x'" == failure_in_words(KeyError("x"))


def test_calls_add_up():
    """Tokens, seconds and dollars of every call, by the price of its role."""
    calls = CountedCalls(FakeCalls(), {Role.TASK: Price(prompt_usd=1.0, completion_usd=2.0)})
    request = ModelRequest(body={"messages": [{"content": "Respond with JSON object `a`"}]})
    threads = [threading.Thread(target=calls.call, args=(role, request)) for role in (Role.TASK, Role.TASK, Role.JUDGE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = Usage(
        cost_usd=pytest.approx(2 * (10 * 1.0 + 5 * 2.0) / 1e6),
        latency_seconds=0.75,
        prompt_tokens=30,
        completion_tokens=15,
        lm_calls=3,
    )

    assert wanted == calls.usage


def test_only_components_are_steps():
    """Predictors a program makes for itself are no components and no steps."""
    record = RunRecord(CountedCalls(FakeCalls(), {}))
    record.on_module_start("1", dspy.Predict("q -> a"), {"kwargs": {"q": "x"}})
    record.on_module_start("2", TwoSteps(), {"kwargs": {"question": "x"}})
    record.on_module_end("1", None, ValueError("x"))

    assert () == record.steps()
    assert "ValueError: x" == record.failure(ValueError("x"))
