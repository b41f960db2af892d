"""Agents that run on DSPy."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import dspy
import pytest
from dspy_agents import HERE, KINDS, QUESTION, config, parts
from dspy_fakes import FakeCalls

from dspy_optimization.adapters.dspy.components import read_candidate
from dspy_optimization.adapters.dspy.engine import Capabilities
from dspy_optimization.adapters.dspy.runnable import KEPT_PROGRAMS, DspyAgents, Surroundings
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.config import Component, Field, ModelChoice
from dspy_optimization.agents.example import Usage
from dspy_optimization.errors import (
    CancelRequested,
    InfrastructureError,
    InfrastructureFailed,
    InvalidRequestError,
    ModelRequestError,
)
from dspy_optimization.evaluation.agent import AgentBuilder, RunnableAgent
from dspy_optimization.evaluation.model import Price, Role

PARTS = parts()


def build(made, given=PARTS, **surroundings):
    return DspyAgents(given, Surroundings(**surroundings)).build(made)


def saying(text, name="self"):
    return Candidate(components={name: ComponentValue(instructions=text)})


def live(program):
    return build(config("entrypoint", signature=None, entrypoint="live:x"), parts(programs={"live:x": program}))


def test_it_is_what_the_engine_asks_for():
    """Agent and builder fit the protocols of evaluation."""
    builder: AgentBuilder = DspyAgents(PARTS)
    agent: RunnableAgent = builder.build(KINDS["predict"])

    assert KINDS["predict"] == agent.config
    assert "baseline" == agent.baseline.origin
    assert frozenset() == agent.frozen


def test_the_candidate_is_what_is_asked():
    """Instructions and demos of the candidate stand in the prompt; the baseline's do not."""
    agent = build(replace(KINDS["predict"], demos=({"question": "old", "answer": "old"},)))
    calls = FakeCalls()
    demo = {"question": "2+2", "answer": "4"}
    agent.run(
        Candidate(components={"self": ComponentValue(instructions="Be brief.", demos=(demo,))}),
        {"question": "why?"},
        calls,
    )
    prompt = str(calls.asked[0][1].body["messages"])

    assert "Be brief." in prompt
    assert "2+2" in prompt
    assert "old" not in prompt
    assert "Answer the question." not in prompt


def test_the_bill_of_a_run():
    """Calls, tokens, seconds and dollars of the run alone."""
    agent = build(KINDS["entrypoint"], prices={Role.TASK: Price(prompt_usd=100.0, completion_usd=200.0)})
    answer = agent.run(agent.baseline, {"question": "why?"}, FakeCalls())

    assert (
        Usage(cost_usd=0.004, latency_seconds=0.5, prompt_tokens=20, completion_tokens=10, lm_calls=2) == answer.usage
    )


def test_a_model_chosen_by_name_costs_its_own_price():
    """And it is asked in the task role, whatever role stands beside the name: that is where the engine puts it."""
    named = replace(KINDS["entrypoint"], model=ModelChoice(role="reflection", name="far"))
    prices = {Role.TASK: Price(prompt_usd=1.0, completion_usd=1.0)}
    far = {"far": Price(prompt_usd=100.0, completion_usd=200.0)}
    calls = FakeCalls()

    agent = build(named, prices=prices, named_prices=far)
    unknown = build(named, prices=prices)

    assert 0.004 == agent.run(agent.baseline, {"question": "why?"}, calls).usage.cost_usd
    assert 0.0 == unknown.run(unknown.baseline, {"question": "why?"}, FakeCalls()).usage.cost_usd
    assert {Role.TASK} == {role for role, _ in calls.asked}


def test_steps_tell_what_every_component_did():
    """Inputs and outputs of each step, in order."""
    agent = build(KINDS["entrypoint"])
    answer = agent.run(agent.baseline, {"question": "why?"}, FakeCalls())

    assert [
        ("draft", {"question": "why?"}, {"draft": "some draft"}),
        (
            "answer.predict",
            {"question": "why?", "draft": "some draft"},
            {"reasoning": "some reasoning", "answer": "some answer"},
        ),
    ] == [(step.component, step.inputs, step.outputs) for step in answer.steps]


def test_an_unreadable_answer_is_a_failure_that_names_component_and_field():
    """The reason is what a reflecting model needs; what was paid is still counted."""
    signature = replace(QUESTION, outputs=(Field(name="answer", type="int"),))
    agent = build(config("chain_of_thought", signature=signature))
    answer = agent.run(
        agent.baseline, {"question": "2+2"}, FakeCalls(lambda p, w: {"reasoning": "r", "answer": "four"})
    )

    assert answer.failure.startswith("predict: the field answer could not be read: ")
    assert "the model wrote: [[ ## reasoning ## ]] r [[ ## answer ## ]] four" in answer.failure
    assert (1, {}) == (answer.usage.lm_calls, answer.outputs)
    assert answer.steps[0].failure is not None


def test_answers_that_were_cut_off_are_told_apart():
    """An answer that max_tokens ended is mended by more tokens, not by another prompt."""

    class Cutting(FakeCalls):
        def call(self, role, request):
            answer = super().call(role, request)
            answer.body["choices"][0]["finish_reason"] = "length"
            return answer

    agent = build(KINDS["predict"])
    cut = agent.run(agent.baseline, {"question": "q"}, Cutting(lambda prompt, wanted: "I think that"))
    whole = agent.run(agent.baseline, {"question": "q"}, Cutting())

    assert cut.failure.startswith("self: an answer was cut off at max_tokens; the answer is not in the format")
    assert whole.failure is None


def test_an_unreadable_answer_is_paid_once():
    """DSPy asks a second time, for JSON; here that is a choice."""
    once, twice = FakeCalls(lambda p, w: "nothing"), FakeCalls(lambda p, w: "nothing")
    build(KINDS["predict"]).run(saying("x"), {"question": "q"}, once)
    build(KINDS["predict"], json_fallback=True).run(saying("x"), {"question": "q"}, twice)

    assert (1, 2) == (len(once.asked), len(twice.asked))


def test_a_refused_request_is_the_candidates_failure():
    """A prompt the model refuses is a score with its reason."""

    class Refusing(FakeCalls):
        def call(self, role, request):
            raise ModelRequestError("prompt is too long: 9000 tokens")

    answer = build(KINDS["predict"]).run(saying("x"), {"question": "q"}, Refusing())

    assert answer.failure.startswith("self: ContextWindowExceededError: ")
    assert "9000 tokens" in answer.failure


class Raising(dspy.Module):
    def __init__(self, error):
        super().__init__()
        self.draft = dspy.Predict("question -> draft")
        self.error = error

    def forward(self, question):
        self.draft(question=question)
        raise self.error


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("x"), ZeroDivisionError("by zero"), OSError("gone")])
def test_whatever_a_program_raises_is_its_score(error):
    """User code raises what it likes; the kind and the words are kept, and the steps before."""
    answer = live(Raising(error)).run(saying("x", "draft"), {"question": "q"}, FakeCalls())

    assert f"{type(error).__name__}: {error}" == answer.failure
    assert 1 == len(answer.steps)


@pytest.mark.parametrize(
    "error",
    [InfrastructureError("the index is away"), dspy.LMRateLimitError("429"), dspy.LMTimeoutError("too slow")],
)
def test_failures_of_the_world_are_never_scores(error):
    """A broken service, or a rate limit of an LM a program brought along, ends the search instead."""
    with pytest.raises(InfrastructureFailed) as caught:
        live(Raising(error)).run(saying("x", "draft"), {"question": "q"}, FakeCalls())

    assert str(error) in str(caught.value)


def test_bugs_below_dspy_are_raised():
    """What DSPy calls unexpected is a bug of the engine, which nobody is scored for."""

    class Buggy(FakeCalls):
        def call(self, role, request):
            raise AttributeError("a bug of ours")

    with pytest.raises(dspy.LMUnexpectedError, match="a bug of ours"):
        build(KINDS["predict"]).run(saying("x"), {"question": "q"}, Buggy())


@pytest.mark.parametrize("kind", ["predict", "react", "best_of_n", "refine", "multi_chain", "entrypoint"])
def test_stops_pass_through_every_kind(kind):
    """A cancelled search ends inside whatever agent is running."""

    class Cancelled(FakeCalls):
        def call(self, role, request):
            raise CancelRequested

    agent = build(KINDS[kind])
    with pytest.raises(CancelRequested):
        agent.run(agent.baseline, {"question": "q"}, Cancelled())


class Returning(dspy.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, question):
        return self.value


def test_answers_may_be_mappings_and_nothing_else():
    """A program that returns a string has failed; the message says what is wanted."""
    empty = Candidate(components={})

    assert {"a": 1} == live(Returning({"a": 1})).run(empty, {"question": "q"}, FakeCalls()).outputs
    assert (
        "TypeError: the program is to return a dspy.Prediction, found str"
        == live(Returning("x")).run(empty, {"question": "q"}, FakeCalls()).failure
    )


def test_a_broken_tool_is_an_observation():
    """ReAct goes on after a tool failed; its words stand in the trajectory."""
    made = replace(KINDS["react"], tools=(f"{HERE}:broken_tool",))
    turns = iter(["broken_tool", "finish"])

    def answers(prompt, wanted):
        values = {"next_thought": "t", "next_tool_args": {"word": "x"}}
        return {n: next(turns) if n == "next_tool_name" else values.get(n, f"some {n}") for n in wanted}

    agent = build(made)
    answer = agent.run(agent.baseline, {"question": "q"}, FakeCalls(answers))

    assert (None, "some answer") == (answer.failure, answer.outputs["answer"])
    assert "no dictionary" in answer.outputs["trajectory"]["observation_0"]


def test_an_agent_that_never_finishes_answers_with_what_it_has():
    """The iterations of a ReAct agent are bounded by max_iters."""
    values = {"next_thought": "t", "next_tool_name": "look_up", "next_tool_args": {"word": "x"}}
    calls = FakeCalls(lambda prompt, wanted: {name: values.get(name, "v") for name in wanted})
    agent = build(KINDS["react"])
    answer = agent.run(agent.baseline, {"question": "q"}, calls)

    assert (None, "v") == (answer.failure, answer.outputs["answer"])
    assert 4 == len(calls.asked)


def test_one_agent_runs_many_candidates_in_many_threads():
    """Twelve candidates in eight threads: every prompt is the one of its own candidate, and so is every bill."""
    agent = build(KINDS["entrypoint"])
    candidates = [saying(f"Draft number {number}!", "draft") for number in range(12)]

    def answers(prompt, wanted):
        told = prompt[prompt.index("Draft number") :].partition("!")[0] if wanted == ["draft"] else "final"
        return dict.fromkeys(wanted, told)

    calls = FakeCalls(answers)
    work = [(number, question) for number in range(12) for question in range(4)]
    random.Random(1).shuffle(work)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: agent.run(candidates[one[0]], {"question": str(one[1])}, calls), work))

    assert [f"Draft number {number}" for number, _ in work] == [answer.steps[0].outputs["draft"] for answer in found]
    assert {2} == {answer.usage.lm_calls for answer in found}


def test_programs_are_kept_and_forgotten():
    """A thread keeps the programs of a few candidates, and no more."""
    agent = build(KINDS["predict"])
    for number in range(KEPT_PROGRAMS + 5):
        agent.run(saying(f"c{number}"), {"question": "q"}, FakeCalls())
    kept = agent._kept.programs
    first = next(iter(kept.values()))
    agent.run(saying("c5"), {"question": "q"}, FakeCalls())

    assert KEPT_PROGRAMS == len(kept)
    assert first is next(reversed(kept.values()))


def test_candidates_name_components_of_the_agent():
    """A candidate of another agent is refused before anything is asked."""
    calls = FakeCalls()
    with pytest.raises(InvalidRequestError, match="found other; possible: self"):
        build(KINDS["predict"]).run(saying("x", "other"), {"question": "q"}, calls)

    assert [] == calls.asked


def test_parts_a_candidate_does_not_name_stay_the_baseline():
    """A candidate of one component leaves the others as they are."""
    agent = build(KINDS["entrypoint"])
    calls = FakeCalls()
    agent.run(saying("Draft!", "draft"), {"question": "q"}, calls)
    baseline = agent.baseline.components["answer.predict"].instructions

    assert baseline in str(calls.asked[1][1].body["messages"]).replace("\\n", "\n").replace(" " * 8, "")


def test_students_hide_frozen_components():
    """What an optimizer gets is a fresh program that says the candidate, frozen parts out of sight."""
    agent = build(replace(KINDS["entrypoint"], components={"draft": Component(frozen=True)}))
    student = agent.student(saying("Better.", "answer.predict"))

    assert {"draft"} == agent.frozen
    assert ["answer.predict"] == [name for name, _ in student.named_predictors()]
    assert "Better." == read_candidate(student).components["answer.predict"].instructions
    assert agent.baseline.components["draft"] == read_candidate(student).components["draft"]
    assert agent.student() is not student
    assert agent.baseline == read_candidate(agent.student())


def test_frozen_components_exist():
    """A typing error in a frozen mark is no silent permission."""
    steps = KINDS["pipeline"].steps
    wrong = replace(steps[0], agent=replace(steps[0].agent, components={"slef": Component(frozen=True)}))
    with pytest.raises(InvalidRequestError, match="found slef; possible: self"):
        build(replace(KINDS["pipeline"], steps=(wrong, steps[1])))


def test_models_are_asked_with_the_agents_parameters():
    """The agent's role has the agent's sampling parameters; other roles have none of them."""
    agent = build(
        config("predict", model=ModelChoice(role="judge", parameters={"temperature": 0.3})),
        capabilities=Capabilities(function_calling=True),
    )
    calls = FakeCalls()
    agent.run(agent.baseline, {"question": "q"}, calls)

    assert (Role.JUDGE, 0.3) == (calls.asked[0][0], calls.asked[0][1].body["temperature"])
    assert 0.3 == agent.language_model(calls).kwargs["temperature"]
    assert agent.language_model(calls, Role.REFLECTION).kwargs["temperature"] is None
    assert agent.language_model(calls).supports_function_calling
    assert {} == agent.prices


def test_contexts_are_the_agents_own():
    """A run leaves nothing behind in DSPy's settings and sees nothing of the caller's."""
    agent = build(KINDS["predict"])
    outer = dspy.LM("openai/outer")
    heard = []

    class Listening(dspy.utils.callback.BaseCallback):
        def on_module_start(self, call_id, instance, inputs):
            heard.append(instance)

    with dspy.context(lm=outer, adapter=dspy.XMLAdapter(), callbacks=[Listening()], trace=[]):
        agent.run(agent.baseline, {"question": "q"}, FakeCalls())
        left = (dspy.settings.lm, len(dspy.settings.trace), len(outer.history))
    with agent.context(FakeCalls(), callbacks=[Listening()], num_threads=3) as lm:
        inside = (dspy.settings.lm is lm, dspy.settings.num_threads)

    assert (outer, 0, 0) == left
    assert [] == heard
    assert (True, 3) == inside


def test_a_module_for_anybody_needs_no_engine():
    """The agent as a dspy.Module asks whatever LM is configured, with its own layout and parameters."""
    made = config("chain_of_thought", adapter="json", model=ModelChoice(parameters={"temperature": 0.7}))
    agents = DspyAgents(PARTS)
    module = agents.as_module(made, saying("Be brief.", "predict"))
    calls = FakeCalls()
    lm = build(KINDS["predict"]).language_model(calls)
    with dspy.context(lm=lm):
        answer = module(question="why?")
    module.set_lm(lm)
    with dspy.context(lm=None):
        module(question="why?")

    assert "some answer" == answer.answer
    assert [0.7, None] == [request.body.get("temperature") for _, request in calls.asked]
    assert ["response_format" in request.body for _, request in calls.asked] == [True, True]
    assert "Be brief." in str(calls.asked[0][1].body["messages"])
    assert ["predict"] == [name for name, _ in module.named_predictors()]


@pytest.mark.parametrize(("kind", "bare"), [("predict", dspy.Predict), ("chain_of_thought", dspy.ChainOfThought)])
def test_modules_save_what_bare_dspy_loads(tmp_path, kind, bare):
    """The state is that of the program inside, and is loaded back in either direction."""
    candidate = saying("Be brief.", "self" if kind == "predict" else "predict")
    DspyAgents(PARTS).as_module(KINDS[kind], candidate).save(tmp_path / "state.json")
    plain = bare("question -> answer")
    plain.load(tmp_path / "state.json")
    back = DspyAgents(PARTS).as_module(KINDS[kind])
    back.load(tmp_path / "state.json")

    assert ["Be brief."] == [one.signature.instructions for one in plain.predictors()]
    assert candidate == read_candidate(back.program)


def test_programs_that_ask_from_threads_of_their_own_are_counted():
    """DSPy's own parallelism carries the context; every call is in the bill and every step in the record."""

    class Fanning(dspy.Module):
        def __init__(self):
            super().__init__()
            self.draft = dspy.Predict("question -> draft")

        def forward(self, question):
            pairs = [(self.draft, {"question": f"{question}{n}"}) for n in range(4)]
            drafts = dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
            return dspy.Prediction(answer=" ".join(one.draft for one in drafts))

    agent = live(Fanning())
    answer = agent.run(agent.baseline, {"question": "q"}, FakeCalls())

    assert (4, 4) == (answer.usage.lm_calls, len(answer.steps))


def test_runs_are_functions_of_their_answers():
    """The same answers make the same prediction, seconds included: replay is free and equal."""
    agent = build(KINDS["entrypoint"])
    first, second = (agent.run(agent.baseline, {"question": "q"}, FakeCalls()) for _ in range(2))

    assert first == second


def test_the_wide_handler_hides_no_interrupt():
    """Ctrl-C inside a program is no score."""
    with pytest.raises(KeyboardInterrupt):
        live(Raising(KeyboardInterrupt())).run(saying("x", "draft"), {"question": "q"}, FakeCalls())
