"""The scripted model, its agent and the fixed clock."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dspy_optimization.errors import ModelError
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.scripted_agent import COMPONENT, ScriptedAgent, candidate_of, question, said
from dspy_optimization.testing.scripted_model import ScriptedModel, chat_request, chat_response


def test_every_question_has_an_answer_of_its_own() -> None:
    """Same question, same text; tokens are counted, questions remembered."""
    model = ScriptedModel()
    first, again, other = (model.complete(chat_request(text)) for text in ("a", "a", "b"))

    assert first == again
    assert said(first) != said(other)
    assert (first.completion_tokens, first.prompt_tokens > 1) == (3, True)
    assert model.requests == (chat_request("a"), chat_request("a"), chat_request("b"))
    model.close()
    assert model.closed


def test_slots_are_kept() -> None:
    """More than that never are in flight; without slots as many as ask."""
    for slots, most in ((2, 2), (None, 6)):
        model = ScriptedModel(latency_seconds=0.05, slots=slots)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda number, model=model: model.complete(chat_request(str(number))), range(6)))

        assert (model.most_in_flight, model.in_flight) == (most, 0)


def test_a_model_fails_as_it_is_told() -> None:
    """What the answer raises comes out, and the slot is free again."""

    def fail(request: ModelRequest) -> str:
        raise ModelError("gone")

    model = ScriptedModel(fail)
    with pytest.raises(ModelError, match="gone"):
        model.complete(chat_request("a", max_tokens=None))

    assert (model.in_flight, len(model.requests)) == (0, 1)


def test_an_answer_without_text_says_nothing() -> None:
    """Other shapes are silence."""
    assert said(chat_response("x")) == "x"
    assert said(ModelResponse(body={}, prompt_tokens=0, completion_tokens=0, latency_seconds=0.0)) == ""


def test_the_agent_asks_what_the_candidate_says() -> None:
    """Instruction first, then the inputs."""

    class Calls:
        def call(self, role: Role, request: ModelRequest) -> ModelResponse:
            assert role is Role.TASK
            return chat_response(str([message["content"] for message in request.body["messages"]]))

    agent = ScriptedAgent(instructions="Be brief.")
    prediction = agent.run(candidate_of("Be kind."), question("why").inputs, Calls())

    assert agent.baseline.components[COMPONENT].instructions == "Be brief."
    assert prediction.outputs == {"answer": "['Be kind.', '{\"question\":\"why\"}']"}


def test_the_clock_moves_only_when_it_is_told() -> None:
    """Time of day and seconds move together."""
    clock = FixedClock(datetime(2026, 5, 1, tzinfo=UTC))
    clock.sleep(90.0)

    assert (clock.now(), clock.seconds(), clock.slept) == (datetime(2026, 5, 1, 0, 1, 30, tzinfo=UTC), 90.0, [90.0])
