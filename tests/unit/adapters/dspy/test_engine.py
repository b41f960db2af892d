"""The ledger as a DSPy language model."""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from dspy import lm15
from dspy_fakes import FakeCalls, chat_response

from dspy_optimization.adapters.dspy.engine import AsyncLedgerEngine, Capabilities, LedgerEngine, language_model
from dspy_optimization.errors import (
    BudgetSpent,
    InfrastructureFailed,
    InvalidRequestError,
    ModelRequestError,
    StoreError,
)
from dspy_optimization.evaluation.model import ModelResponse, Role
from loops import run


def counting():
    """Return calls whose answers are 1, 2, 3, … but the same for the same question and draw."""
    seen = {}

    class Counting(FakeCalls):
        def call(self, role, request):
            self.asked.append((role, request))
            key = (str(request.body), request.sample)
            with self._lock:
                number = seen.setdefault(key, len(seen) + 1)
            return chat_response(f"[[ ## answer ## ]]\n{number}\n\n[[ ## completed ## ]]")

    return Counting()


def model(calls, role=Role.TASK, **parameters):
    return language_model(calls, role, parameters, "test")


def ask(lm, question="why", **config):
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(), disable_history=True):
        return dspy.Predict("question -> answer")(question=question, config=config)


def test_body_is_an_openai_chat_body():
    """Messages and sampling parameters arrive as given; model, stream and n do not."""
    calls = FakeCalls()
    parameters = {"temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "top_k": 3, "seed": 7, "stop": ["END"]}
    ask(language_model(calls, Role.TASK, parameters, "openai/gpt"), n=2)
    body = dict(calls.asked[0][1].body)
    messages = body.pop("messages")

    assert parameters | {"temperature": 0.5} == body
    assert ["system", "user"] == [message["role"] for message in messages]


def test_roles_go_to_their_own_model():
    """An engine asks for the role it was made for, and one of another role shares the rest."""
    calls = FakeCalls()
    lm = model(calls, Role.TASK, temperature=0.3)
    other = lm.for_role(Role.REFLECTION)
    ask(lm)
    ask(other)

    assert [Role.TASK, Role.REFLECTION] == [role for role, _ in calls.asked]
    assert calls.asked[0][1] == calls.asked[1][1]
    assert lm is lm.for_role(Role.TASK)
    assert lm.engine is lm.engine.for_role(Role.TASK)


def test_n_answers_are_n_draws():
    """n=3 asks three different questions of the ledger."""
    calls = counting()
    answers = ask(model(calls, temperature=1.0), n=3).completions.answer

    assert ["", "#1", "#2"] == calls.samples
    assert ["1", "2", "3"] == answers


def test_same_rollout_same_answer():
    """A rollout id names a draw: asked again it is the same one, another is another."""
    calls = counting()
    lm = model(calls, temperature=1.0)
    answers = [ask(lm, rollout_id=rollout).answer for rollout in (1, 2, 1, None)]

    assert ["1", "2", "1", "3"] == answers
    assert ["1", "2", "1", ""] == calls.samples


def test_rollout_of_the_model_counts_like_one_of_the_call():
    """Optimizers put rollout ids on copies of the LM; a call's own id goes first."""
    calls = counting()
    lm = model(calls, temperature=1.0).copy(rollout_id=4)
    ask(lm)
    ask(lm, n=2, rollout_id=5)

    assert ["4", "5", "5#1"] == calls.samples


def test_rollouts_cost_nothing_at_temperature_0():
    """At temperature 0 the answer is a function of the request, so no draw enters the key, and nobody is warned."""
    calls = counting()
    lm = model(calls, temperature=0.0)
    answers = {ask(lm, rollout_id=rollout).answer for rollout in range(3)}

    assert {"1"} == answers
    assert [""] * 3 == calls.samples


def test_rollouts_count_when_no_temperature_is_stated():
    """A server's default temperature is above 0."""
    calls = counting()
    ask(model(calls), rollout_id=1)

    assert ["1"] == calls.samples


def test_threads_do_not_mix_draws():
    """Two hundred calls in eight threads each carry their own rollout and draws."""
    calls = counting()
    lm = model(calls, temperature=1.0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ask(lm, f"q{number}", rollout_id=number, n=2), range(100)))
    pairs = {(request.body["messages"][-1]["content"].split()[5], request.sample) for _, request in calls.asked}

    assert {(f"q{number}", sample) for number in range(100) for sample in (f"{number}", f"{number}#1")} == pairs


def test_nested_calls_keep_their_draws():
    """A call made while another is answered does not disturb its draws."""

    class Nesting(FakeCalls):
        def call(self, role, request):
            answer = super().call(role, request)
            if role is Role.TASK:
                ask(inner, rollout_id=9)
            return answer

    calls = Nesting()
    inner = model(calls, Role.JUDGE, temperature=1.0)
    ask(model(calls, temperature=1.0), n=2, rollout_id=1)

    assert ["1", "9", "1#1", "9"] == calls.samples


def test_explicit_requests_are_draws_too():
    """DSPy 3.5 sends requests instead of dictionaries; the rollout id still arrives."""
    calls = FakeCalls(lambda prompt, wanted: "hello")
    request = lm15.Request(
        model="test",
        messages=(lm15.Message.user("Respond with JSON object"),),
        config=lm15.Config(temperature=1.0),
    )
    answer = model(calls)(request, rollout_id=3)

    assert "hello" == answer.message.parts[0].text
    assert ["3"] == calls.samples


def test_calls_outside_of_an_lm_are_first_draws():
    """An engine asked directly has no draw to name."""
    calls = FakeCalls(lambda prompt, wanted: "hello")
    engine = LedgerEngine(calls, Role.TASK, capabilities=Capabilities())
    request = lm15.Request(model="m", messages=(lm15.Message.user("Respond with JSON object"),))
    events = list(engine.stream(request))
    engine.close()

    assert [""] == calls.samples
    assert ["start", "end"] == [events[0].type, events[-1].type]


def test_programs_that_await_are_answered():
    """acall goes through the same calls, with the same draws, without blocking its loop."""
    calls = counting()
    lm = model(calls, temperature=1.0)

    async def both():
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(), disable_history=True):
            predict = dspy.Predict("question -> answer")
            return await asyncio.gather(
                predict.acall(question="a", config={"rollout_id": 1}),
                predict.acall(question="b", config={"rollout_id": 2, "n": 2}),
            )

    run(both())

    assert {"1", "2", "2#1"} == set(calls.samples)


def test_json_adapter_asks_with_a_schema():
    """JSONAdapter constrains the answer by a JSON schema instead of hoping (dspy#8440, #8632)."""
    calls = FakeCalls(lambda prompt, wanted: {"answer": 4, "why": "because"})
    with dspy.context(lm=model(calls), adapter=dspy.JSONAdapter(), disable_history=True):
        answer = dspy.Predict("question -> answer: int, why")(question="2+2")
    form = calls.asked[0][1].body["response_format"]

    assert 4 == answer.answer
    assert "json_schema" == form["type"]
    assert {"answer", "why"} == set(form["json_schema"]["schema"]["properties"])


def test_a_model_without_schemas_is_not_sent_one():
    """A server that cannot constrain answers is asked for any JSON object."""
    calls = FakeCalls(lambda prompt, wanted: {"answer": "4"})
    lm = language_model(calls, Role.TASK, {}, "m", capabilities=Capabilities(response_schema=False))
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter(), disable_history=True):
        dspy.Predict("question -> answer")(question="2+2")

    assert {"type": "json_object"} == calls.asked[0][1].body["response_format"]


def test_tools_are_sent_where_the_model_calls_functions():
    """Native function calling sends tools and reads tool calls."""

    def weather(city: str) -> str:
        """Say the weather."""
        return city

    class Calling(FakeCalls):
        def call(self, role, request):
            self.asked.append((role, request))
            answer = chat_response("")
            answer.body["choices"][0]["message"]["tool_calls"] = [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
            ]
            return answer

    calls = Calling()
    lm = language_model(calls, Role.TASK, {}, "m", capabilities=Capabilities(function_calling=True))
    signature = dspy.Signature(
        {
            "question": (str, dspy.InputField()),
            "tools": (list[dspy.Tool], dspy.InputField()),
            "calls": (dspy.ToolCalls, dspy.OutputField()),
        }
    )
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter(), disable_history=True):
        answer = dspy.Predict(signature)(question="sun?", tools=[dspy.Tool(weather)])

    assert ["weather"] == [tool["function"]["name"] for tool in calls.asked[0][1].body["tools"]]
    assert {"city": "Ulm"} == answer.calls.tool_calls[0].args


def raising(error):
    class Raising:
        def call(self, role, request):
            raise error

    return Raising()


def test_a_refused_request_fails_the_example():
    """What the model refuses for good reaches the program as DSPy's own invalid-request error."""
    with pytest.raises(dspy.LMInvalidRequestError, match="no such option") as caught:
        ask(model(raising(ModelRequestError("no such option"))))

    assert not isinstance(caught.value, dspy.ContextWindowExceededError)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens",
        "the request exceeds the available context size",
        "code: context_length_exceeded",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
def test_a_prompt_that_does_not_fit_is_known_as_such(message):
    """Agents that shorten their trajectory look for the context-window error."""
    with pytest.raises(dspy.ContextWindowExceededError):
        ask(model(raising(ModelRequestError(message))))


def test_stops_pass_through_dspy():
    """A stop is no Exception: nothing between the ledger and the optimizer swallows it."""
    stop = BudgetSpent("max_lm_calls", 3)
    with pytest.raises(BudgetSpent) as caught:
        ask(model(raising(stop)))

    assert stop is caught.value


def test_infrastructure_is_never_an_answer():
    """Should another infrastructure error come through, it stops the search instead of scoring an example."""
    error = StoreError("the database is away")
    with pytest.raises(InfrastructureFailed) as caught:
        ask(model(raising(error)))

    assert error is caught.value.error


@pytest.mark.parametrize("body", [{"choices": [1, 2]}, {"error": {"message": "boom"}}, {"choices": "none"}])
def test_garbage_is_never_an_answer(body):
    """A body that is no chat completion is the model's failure, not the candidate's."""

    class Garbage:
        def call(self, role, request):
            return ModelResponse(body=body, prompt_tokens=0, completion_tokens=0, latency_seconds=0.0)

    with pytest.raises(InfrastructureFailed, match="no OpenAI chat completion"):
        ask(model(Garbage()))


def test_copies_share_the_engine_and_nothing_else():
    """Deep copies of programs are cheap: one engine, parameters and history of their own."""
    lm = model(FakeCalls(), temperature=0.5)
    lm.history.append({"long": "history"})
    program = dspy.Predict("question -> answer")
    program.lm = lm
    copied = program.deepcopy()
    copied.lm.kwargs["rollout_id"] = 3

    assert copied.lm.engine is lm.engine
    assert [] == copied.lm.history
    assert "rollout_id" not in lm.kwargs
    assert lm.engine is copy.deepcopy(lm.engine)
    pair = AsyncLedgerEngine(lm.engine)
    assert pair is copy.deepcopy(pair)


def test_saving_a_program_with_its_model_never_raises(tmp_path):
    """The state names the role; reading it back needs an LM of one's own, and says so."""
    program = dspy.Predict("question -> answer")
    program.lm = model(FakeCalls())
    program.save(tmp_path / "program.json")
    with pytest.raises((InvalidRequestError, ValueError)):
        dspy.Predict("question -> answer").load(tmp_path / "program.json")
    with pytest.raises(InvalidRequestError, match=r"set_lm"):
        LedgerEngine.load_state({"role": "task"})
    with pytest.raises(InvalidRequestError, match=r"judge model"):
        AsyncLedgerEngine.load_state({"role": "judge"})


def test_parameters_are_sampling_parameters():
    """Where a model answers is no matter of a request."""
    with pytest.raises(InvalidRequestError, match=r"found api_base, timeout; possible: .*temperature"):
        language_model(FakeCalls(), Role.TASK, {"timeout": 3, "api_base": "x"}, "m")
    with pytest.raises(InvalidRequestError, match="gpt-5 cannot be asked with"):
        language_model(FakeCalls(), Role.TASK, {"temperature": 0.1}, "openai/gpt-5")


def test_nothing_is_retried_or_cached_by_dspy():
    """One call asked is one call to the ledger: it retries and remembers."""
    calls = counting()
    lm = model(calls, temperature=0.0)
    ask(lm)
    ask(lm)

    assert 2 == len(calls.asked)
