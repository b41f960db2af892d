"""How components are asked: what a candidate settles beside its texts reaches the model, and nothing else does."""

import asyncio
from dataclasses import replace

import dspy
import pytest
from dspy_agents import ALLOWED, KINDS, QUESTION, REWARD, config, parts, scripted
from dspy_fakes import FakeCalls
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.adapters.dspy.components import apply, components, freeze, read_candidate
from dspy_optimization.adapters.dspy.latch import LatchedRun
from dspy_optimization.adapters.dspy.runnable import DspyAgents, Surroundings
from dspy_optimization.adapters.dspy.student import student_of
from dspy_optimization.agents.candidate import Candidate, canonical_json
from dspy_optimization.agents.component_settings import PARAMETERS, ComponentSettings, ModuleKind
from dspy_optimization.agents.config import AgentConfig, Component, Field, ModelChoice, PipelineStep, Signature
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Price, Role

TOOLS = ("add", "spell", "lower")
NAMES = tuple(f"{__name__}:{name}" for name in TOOLS)
INPUTS = {"question": "why?", "limit": 3}


def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


def spell(word: str) -> list[str]:
    """Spell a word,
    letter by letter."""
    return list(word)


def lower(word: str) -> str:
    return word.lower()


PARTS = parts()
PARTS = replace(PARTS, allowed=replace(ALLOWED, tools=ALLOWED.tools | set(NAMES)), interpreter=lambda: None)


def build(made, **surroundings):
    return DspyAgents(PARTS, Surroundings(**{"models": frozenset({"large", "small"})} | surroundings)).build(made)


def with_settings(agent, **by_component):
    """Return the baseline with settings; `__` in a name is a dot."""
    said = {name.replace("__", "."): value for name, value in by_component.items()}
    changed = {
        name: replace(value, settings=said.get(name, value.settings))
        for name, value in agent.baseline.components.items()
    }
    return Candidate(components=changed)


def asked(agent, candidate=None, answers=scripted):
    """Return the bytes of every request of one run, with whom it went to."""
    calls = FakeCalls(answers)
    given = {name: INPUTS[name] for name in ("question", "limit") if name == "question" or "limit" in _inputs(agent)}
    prediction = agent.run(agent.baseline if candidate is None else candidate, given, calls)
    assert prediction.failure is None, prediction.failure
    return [(role, request.model, request.sample, canonical_json(dict(request.body))) for role, request in calls.asked]


def _inputs(agent):
    return "limit" if agent.config.steps else ""


def bodies(agent, candidate=None, answers=scripted):
    return [one[-1] for one in asked(agent, candidate, answers)]


@pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
@pytest.mark.parametrize("instructions", ["Answer the question.", ""])
def test_a_prediction_that_reasons_asks_like_a_chain_of_thought(adapter, instructions):
    """Byte for byte what an agent of kind chain_of_thought with the same texts and demos sends."""
    signature = replace(QUESTION, instructions=instructions)
    demos = ({"question": "2+2", "reasoning": "add", "answer": "4"}, {"question": "3", "answer": "5"})
    plain = build(config("predict", signature=signature, adapter=adapter))
    chain = build(config("chain_of_thought", signature=signature, adapter=adapter))
    value = replace(plain.baseline.components["self"], demos=demos)
    reasons = Candidate(components={"self": replace(value, settings=ComponentSettings(kind="chain_of_thought"))})

    assert bodies(chain, Candidate(components={"predict": value})) == bodies(plain, reasons)
    assert bodies(plain) != bodies(plain, reasons)


@pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
def test_a_chain_of_thought_that_does_not_reason_asks_like_a_prediction(adapter):
    """Byte for byte what an agent of kind predict sends; the answer then has no reasoning."""
    plain = build(config("predict", adapter=adapter))
    chain = build(config("chain_of_thought", adapter=adapter))
    demos = ({"question": "2+2", "reasoning": "add", "answer": "4"},)
    value = replace(chain.baseline.components["predict"], demos=demos)
    hasty = Candidate(components={"predict": replace(value, settings=ComponentSettings(kind="predict"))})

    assert bodies(plain, Candidate(components={"self": value})) == bodies(chain, hasty)
    assert {"answer": "some answer"} == chain.run(hasty, {"question": "why?"}, FakeCalls()).outputs


def test_what_is_tried_several_times_can_reason_too():
    """The kind of the module that best_of_n and refine try is the candidate's choice."""
    hasty = build(config("best_of_n", options={"n": 2, "reward": REWARD, "module": "predict"}))
    chain = build(config("best_of_n", options={"n": 2, "reward": REWARD, "module": "chain_of_thought"}))

    reasons = with_settings(hasty, module=ComponentSettings(kind="chain_of_thought"))

    assert asked(chain) == asked(hasty, reasons)


def calling(prompt, wanted):
    """Call the first tool that is offered, then end."""
    if "next_tool_name" not in wanted:
        return scripted(prompt, wanted)
    if "observation_0" in prompt[prompt.rindex("trajectory") :]:
        return {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}}
    offered = [name for name in TOOLS if f") {name}" in prompt or f"({name}" in prompt]
    arguments = {"add": {"first": 1, "second": 2}, "spell": {"word": "Hm"}, "lower": {"word": "Hm"}}
    name = offered[0] if offered else "finish"
    return {"next_thought": "look", "next_tool_name": name, "next_tool_args": arguments.get(name, {})}


@pytest.mark.parametrize("chosen", [("add",), ("lower", "add"), ("spell", "lower", "add"), TOOLS])
@pytest.mark.parametrize("instructions", ["Answer the question.", ""])
def test_fewer_tools_ask_like_an_agent_that_never_had_the_others(chosen, instructions):
    """Byte for byte what a react agent configured with those tools sends, its instructions and choices included."""
    signature = replace(QUESTION, instructions=instructions)
    every = build(config("react", signature=signature, tools=NAMES))
    few = build(config("react", signature=signature, tools=tuple(f"{__name__}:{name}" for name in chosen)))

    candidate = with_settings(every, react=ComponentSettings(tools=chosen))

    assert bodies(few, None, calling) == bodies(every, candidate, calling)


def test_no_tools_leave_the_model_nothing_but_to_finish():
    """An empty list is a choice of its own."""
    every = build(config("react", tools=NAMES))
    alone = dspy.ReAct(dspy.Signature("question -> answer", QUESTION.instructions), tools=[])

    program = every.student(with_settings(every, react=ComponentSettings(tools=())))

    assert alone.react.signature.instructions == program.react.signature.instructions
    assert ["finish"] == list(program.tools)


def test_code_act_has_its_tools_restricted():
    """The list in its instructions and what the sandbox is given are those of an agent with fewer tools."""
    every, few = build(config("code_act", tools=NAMES)), build(config("code_act", tools=NAMES[:1]))
    none = every.student(with_settings(every, codeact=ComponentSettings(tools=())))

    program = every.student(with_settings(every, codeact=ComponentSettings(tools=("add",))))

    assert few.student().codeact.signature.instructions == program.codeact.signature.instructions
    assert ["add"] == list(program.tools)
    assert none.codeact.signature.instructions.endswith("following functions:")
    assert every.baseline.components["codeact"].instructions == read_candidate(none).components["codeact"].instructions


def test_rewritten_instructions_keep_what_they_say_of_other_things():
    """Where a candidate holds DSPy's list of tools it is shortened; where it does not, its words stay."""
    every = build(config("react", tools=NAMES))
    said = every.baseline.components["react"].instructions
    longer = Candidate(
        components={
            **every.baseline.components,
            "react": replace(
                every.baseline.components["react"],
                instructions=f"Think hard.\n{said}\nBe brief.",
                settings=ComponentSettings(tools=("spell",)),
            ),
        }
    )
    own = replace(longer.components["react"], instructions="Use what you have.")

    program = every.student(longer)

    shown = program.react.signature.instructions
    assert shown.startswith("Think hard.")
    assert shown.endswith("Be brief.")
    assert ("(1) spell" in shown, "add" in shown.split("must be one of")[1]) == (True, False)
    assert longer == read_candidate(program)
    words = every.student(Candidate(components={"react": own})).react.signature.instructions
    assert "Use what you have." == words


def test_an_optimizer_that_rewrites_the_shorter_list_gives_back_the_longer_one():
    """So that another choice of tools can be made of what it found."""
    every = build(config("react", tools=NAMES))
    program = every.student(with_settings(every, react=ComponentSettings(tools=("lower",))))
    predictor = program.react
    predictor.signature = predictor.signature.with_instructions(f"{predictor.signature.instructions}\nBe brief.")

    found = read_candidate(program)
    other = replace(found.components["react"], settings=ComponentSettings(tools=("add",)))

    assert f"{every.baseline.components['react'].instructions}\nBe brief." == found.components["react"].instructions
    shown = every.student(Candidate(components={"react": other})).react.signature.instructions
    assert ("(1) add" in shown, "lower" in shown.split("must be one of")[1]) == (True, False)


def test_what_was_restricted_can_be_given_back():
    """A candidate that says nothing of tools, kind and model asks as the agent does, whatever was asked before."""
    every, chain = build(config("react", tools=NAMES)), build(KINDS["chain_of_thought"])
    for agent, name, told in (
        (every, "react", ComponentSettings(tools=("add",), model="large")),
        (chain, "predict", ComponentSettings(kind="predict", parameters={"top_p": 0.5})),
    ):
        fresh = agent.student()
        program = agent.student(with_settings(agent, **{name: told}))
        apply(program, agent.baseline)

        assert agent.baseline == read_candidate(program)
        assert repr(components(fresh)[name].signature) == repr(components(program)[name].signature)
        assert type(components(fresh)[name]) is type(components(program)[name])
    assert list(every.student().tools) == [*TOOLS, "finish"]


def test_parameters_reach_one_component_only():
    """The request is what an agent with these parameters sends; the agent's own parameters stay beneath them."""
    base = config("predict", model=ModelChoice(parameters={"temperature": 0.9, "max_tokens": 50}))
    agent = build(base)
    cold = ComponentSettings(parameters={"temperature": 0.1, "top_k": 4})
    told = build(replace(base, model=ModelChoice(parameters={"temperature": 0.1, "max_tokens": 50, "top_k": 4})))

    assert bodies(told) == bodies(agent, with_settings(agent, self=cold))
    pipeline = build(KINDS["pipeline"])
    plain = bodies(pipeline)
    first, second = bodies(pipeline, with_settings(pipeline, first=cold))
    assert (plain[1], True) == (second, '"temperature":0.1' in first)
    assert plain[0] != first


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_every_parameter_reaches_the_request(name):
    """As the same parameter of the agent's own model does."""
    span = PARAMETERS[name]
    value = span.typed((span.low + span.high) / 2)
    agent = build(KINDS["predict"])
    told = build(replace(KINDS["predict"], model=ModelChoice(parameters={name: value})))

    assert bodies(told) == bodies(agent, with_settings(agent, self=ComponentSettings(parameters={name: value})))


def test_two_components_ask_two_models_with_two_temperatures():
    """Each call goes to the model its component names, on the account of the tasks, whatever role its step has."""
    agent = build(
        replace(
            KINDS["pipeline"],
            steps=tuple(
                replace(step, agent=replace(step.agent, model=ModelChoice(role="judge")))
                for step in KINDS["pipeline"].steps
            ),
        )
    )
    candidate = with_settings(
        agent,
        first=ComponentSettings(model="large", parameters={"temperature": 0.25}),
        second__predict=ComponentSettings(model="small", parameters={"temperature": 0.75}),
    )

    told = asked(agent, candidate)

    assert [(Role.JUDGE, None)] * 2 == [one[:2] for one in asked(agent)]
    assert [(Role.TASK, "large"), (Role.TASK, "small")] == [one[:2] for one in told]
    assert [True, True] == ['"temperature":0.25' in told[0][-1], '"temperature":0.75' in told[1][-1]]


def test_a_named_model_has_its_price_in_what_an_answer_costs():
    """`Usage.cost_usd` of a run adds up what each component's model costs."""
    agent = build(
        KINDS["pipeline"],
        prices={Role.TASK: Price(prompt_usd=1.0, completion_usd=0.0)},
        named_prices={"large": Price(prompt_usd=100.0, completion_usd=0.0)},
    )
    dear = with_settings(agent, first=ComponentSettings(model="large"))

    costs = [
        agent.run(one, {"question": "why?", "limit": 3}, FakeCalls()).usage.cost_usd for one in (agent.baseline, dear)
    ]

    assert [pytest.approx(20e-6), pytest.approx(1010e-6)] == costs


def test_draws_keep_their_temperature():
    """Several tries at temperature 0 would be one: whoever draws says at which temperature, the component does not."""
    agent = build(config("best_of_n", options={"n": 2, "reward": REWARD}))
    predict = build(KINDS["predict"])
    cold = with_settings(predict, self=ComponentSettings(parameters={"temperature": 0.0}, model="large"))
    program = predict.student(cold)
    calls = FakeCalls()

    with predict.context(calls) as lm, dspy.context(lm=lm.copy(rollout_id=7, temperature=1.0)):
        program(question="why?")
    with predict.context(calls):
        program(question="why?")

    assert [("7", 1.0, "large"), ("", 0.0, "large")] == [
        (request.sample, request.body["temperature"], request.model) for _, request in calls.asked
    ]
    with pytest.raises(InvalidRequestError, match=r"parameters: wanted: .*; found: temperature; possible: top_p"):
        agent.run(with_settings(agent, module=ComponentSettings(parameters={"temperature": 0.0})), INPUTS, FakeCalls())


@pytest.mark.parametrize(
    ("kind", "component", "told", "message"),
    [
        ("predict", "self", {"tools": ("add",)}, "tools: .*found: add; possible: leave it out, it calls no tools"),
        ("predict", "self", {"tools": ()}, "tools: .*found: a list; possible: leave it out"),
        ("react", "react", {"kind": "predict"}, "kind: .*found: predict; possible: leave it out"),
        ("react", "extract.predict", {"kind": "predict"}, "kind: .*possible: leave it out"),
        ("react", "react", {"tools": ("look_up", "nothing")}, "tools: .*found: nothing; possible: look_up"),
        ("react", "react", {"tools": ("finish",)}, "tools: .*found: finish; possible: look_up"),
        ("react", "extract.predict", {"tools": ("look_up",)}, "it calls no tools"),
        ("predict", "self", {"model": "huge"}, "model: .*found: huge; possible: large, small"),
        ("multi_chain", "chain.predict", {"kind": "predict"}, "its kind cannot be changed"),
    ],
)
def test_what_an_agent_cannot_do_is_refused_before_anything_is_asked(kind, component, told, message):
    """Both of a candidate and of a configuration that states it from the start."""
    agent = build(KINDS[kind])
    settings = ComponentSettings(**told)
    calls = FakeCalls()
    candidate = with_settings(agent, **{component: settings})

    with pytest.raises(InvalidRequestError, match=message):
        agent.run(candidate, {"question": "why?"}, calls)
    with pytest.raises(InvalidRequestError, match=message):
        agent.student(candidate)
    with pytest.raises(InvalidRequestError, match=message):
        build(replace(KINDS[kind], components={component: Component(how=settings)}))
    assert [] == calls.asked


def test_a_black_box_has_no_choices():
    """What it does inside is its own business."""
    from dspy_optimization.agents.config import AgentKind, HttpEndpoint

    box = AgentConfig(
        name="box",
        kind=AgentKind.HTTP,
        http=HttpEndpoint(url="https://agent.example/run"),
        components={"prompt": Component()},
    )
    agent = build(box)

    assert ((), (), (), {}) == (
        agent.choices["prompt"].kinds,
        agent.choices["prompt"].tools,
        agent.choices["prompt"].models,
        agent.choices["prompt"].parameters,
    )
    for told in ({"model": "large"}, {"parameters": {"temperature": 0.5}}, {"kind": "predict"}):
        with pytest.raises(InvalidRequestError, match="leave it out"):
            build(replace(box, components={"prompt": Component(how=ComponentSettings(**told))}))


def test_models_that_may_not_be_chosen_are_no_choice():
    """Under a dollar cap a model without a price is out of reach, also for an agent that names it."""
    agents = DspyAgents(PARTS, Surroundings(models=frozenset({"large", "small"})))
    stated = replace(KINDS["predict"], components={"self": Component(how=ComponentSettings(model="large"))})

    agent = agents.build(KINDS["predict"], without_models=frozenset({"large"}))

    assert ("small",) == agent.choices["self"].models
    with pytest.raises(InvalidRequestError, match="found: large; possible: small"):
        agents.build(stated, without_models=frozenset({"large"}))


def test_choices_say_what_the_agent_does_by_itself():
    """Kind first, every tool, and the parameters of the agent, a pipeline's beneath its step's."""
    pipeline = replace(
        KINDS["pipeline"],
        model=ModelChoice(parameters={"temperature": 0.5, "top_p": 0.5}),
        steps=(
            replace(
                KINDS["pipeline"].steps[0],
                agent=replace(KINDS["pipeline"].steps[0].agent, model=ModelChoice(parameters={"temperature": 0.1})),
            ),
            KINDS["pipeline"].steps[1],
        ),
    )
    choices = build(pipeline).choices
    react = build(config("react", tools=NAMES)).choices

    assert (ModuleKind.PREDICT, ModuleKind.CHAIN_OF_THOUGHT) == choices["first"].kinds
    assert (ModuleKind.CHAIN_OF_THOUGHT, ModuleKind.PREDICT) == choices["second.predict"].kinds
    assert {"temperature": 0.1, "top_p": 0.5} == choices["first"].agent.parameters
    assert {"temperature": 0.5, "top_p": 0.5} == choices["second.predict"].agent.parameters
    assert (TOOLS, TOOLS) == (react["react"].tools, react["react"].agent.tools)
    assert ("large", "small") == react["extract.predict"].models
    assert [set(choices), set(react)] == [{"first", "second.predict"}, {"react", "extract.predict"}]


def test_reasoning_that_somebody_asked_for_cannot_be_taken_away():
    """An output of that name belongs to the agent, not to the chain of thought."""
    outputs = (Field(name="reasoning"), Field(name="answer"))
    signature = replace(QUESTION, outputs=outputs)

    kinds = [
        build(config(kind, signature=signature)).choices[name].kinds
        for kind, name in (("predict", "self"), ("chain_of_thought", "predict"))
    ]

    assert [(), ()] == kinds


def test_steps_of_a_pipeline_have_tools_and_state_their_own_settings():
    """A step's configuration says how its components are asked; the pipeline's candidate may say otherwise."""
    thinker = replace(
        config("react", name="thinker", tools=NAMES),
        components={"react": Component(how=ComponentSettings(tools=("add",), parameters={"temperature": 0.5}))},
    )
    made = AgentConfig(
        name="agent",
        kind=KINDS["pipeline"].kind,
        steps=(PipelineStep(name="think", agent=thinker, inputs={"question": "input.question"}),),
    )
    agent = build(made)

    said = agent.baseline.components["think.react"]

    assert ComponentSettings(tools=("add",), parameters={"temperature": 0.5}) == said.settings
    assert TOOLS == agent.choices["think.react"].tools
    program = agent.student(with_settings(agent, think__react=ComponentSettings(tools=("lower", "spell"))))
    assert ["lower", "spell", "finish"] == list(program.think.tools)


def test_frozen_components_keep_what_they_were_told():
    """Hidden from optimizers, they are still asked in their own way, and read back."""
    agent = build(
        replace(
            KINDS["chain_of_thought"],
            components={
                "predict": Component(
                    how=ComponentSettings(kind="predict", model="large", parameters={"temperature": 0.5}), frozen=True
                )
            },
        )
    )
    calls = FakeCalls()
    program = agent.student()

    with agent.context(calls):
        program(question="why?")

    (request,) = [one for _, one in calls.asked]
    assert ("large", 0.5) == (request.model, request.body["temperature"])
    assert [agent.baseline, []] == [read_candidate(program), program.named_predictors()]
    react = build(config("react", tools=NAMES))
    hidden = freeze(react.student(with_settings(react, react=ComponentSettings(tools=("add",)))), ["react"])
    apply(hidden, with_settings(react, react=ComponentSettings(tools=("lower",))))
    assert ["lower", "finish"] == list(hidden.tools)


def test_programs_of_optimizers_keep_what_they_do_not_change():
    """Copies, resets and new texts leave model, parameters, kind and tools as they are."""
    agent = build(KINDS["pipeline"])
    told = with_settings(
        agent,
        first=ComponentSettings(kind="chain_of_thought", model="large"),
        second__predict=ComponentSettings(parameters={"temperature": 0.5}),
    )
    program = student_of(agent.student(told), LatchedRun(None), prices={}, adapter=dspy.ChatAdapter())
    copied = program.deepcopy().reset_copy()
    for _, predictor in copied.named_predictors():
        predictor.signature = predictor.signature.with_instructions("New words.")
        predictor.demos = [dspy.Example(question="q", reasoning="r", answer="a", text="t", limit=1, short="s")]

    found = read_candidate(copied)

    assert {name: value.settings for name, value in told.components.items()} == {
        name: value.settings for name, value in found.components.items()
    }
    assert ["New words."] * 2 == [value.instructions for value in found.components.values()]
    assert {"question", "reasoning", "answer"} == set(found.components["first"].demos[0])


def test_a_program_asks_the_models_its_caller_names():
    """Outside of an optimization a name stands for an LM that somebody gives, with the agent's own parameters."""
    made = replace(
        KINDS["pipeline"],
        model=ModelChoice(parameters={"temperature": 0.25}),
        components={"first": Component(how=ComponentSettings(model="large", parameters={"top_p": 0.5}))},
    )
    agents = DspyAgents(PARTS, Surroundings(models=None))
    own, large = FakeCalls(), FakeCalls()
    lms = [agents.build(KINDS["predict"]).language_model(calls) for calls in (own, large)]
    lms = [_anybodys(lm) for lm in lms]

    with dspy.context(lm=lms[0]):
        agents.as_module(made, models={"large": lms[1]})(question="why?", limit=3)
        with pytest.raises(InvalidRequestError, match="the name large; found: none; possible: load"):
            agents.as_module(made)(question="why?", limit=3)

    assert [1, 1] == [len(own.asked), len(large.asked)]
    assert (0.25, 0.5) == tuple(large.asked[0][1].body[name] for name in ("temperature", "top_p"))
    assert "top_p" not in own.asked[0][1].body


def _anybodys(lm):
    """Return the LM as one that is no part of any optimization."""
    made = dspy.LM("openai/anything", engine=lm.engine, async_engine=None, cache=False)
    assert type(made) is dspy.LM
    return made


def settings_for(choices):
    """Return every way a component may be asked."""
    tools = st.none()
    if choices.tools:
        tools = st.none() | st.lists(st.sampled_from(choices.tools), unique=True).map(tuple)
    ranges = {
        name: st.integers(int(span.low), int(span.high)) if span.whole else st.floats(span.low, span.high)
        for name, span in choices.parameters.items()
        if not span.open_low
    }
    return st.builds(
        ComponentSettings,
        model=st.none() | st.sampled_from(choices.models),
        kind=st.sampled_from([None, *choices.kinds]),
        tools=tools,
        parameters=st.fixed_dictionaries({}, optional=ranges),
    )


ROUND_TRIPS = [build(KINDS["pipeline"]), build(config("react", tools=NAMES)), build(KINDS["refine"])]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_a_program_is_told_is_what_it_says(data):
    """Candidate → program → candidate is the identity, also over a program that was told something else."""
    agent = data.draw(st.sampled_from(ROUND_TRIPS))

    def candidate():
        return Candidate(
            components={
                name: replace(value, settings=data.draw(settings_for(agent.choices[name])))
                for name, value in agent.baseline.components.items()
            }
        )

    told, before = candidate(), candidate()
    program = agent.student(before)
    apply(program, told)

    assert told == read_candidate(program)
    assert read_candidate(agent.student(told)) == read_candidate(program)
    assert told == build(agent.config.with_candidate(told)).baseline


def test_signatures_of_other_inputs_change_kind_alike():
    """Also with several typed fields."""
    signature = Signature(
        instructions="Sort it.",
        inputs=(Field(name="question"), Field(name="tags", type="list[str]")),
        outputs=(Field(name="label", type="Literal['a', 'b']"), Field(name="sure", type="bool")),
    )
    plain, chain = (build(config(kind, signature=signature)) for kind in ("predict", "chain_of_thought"))
    reasons = with_settings(plain, self=ComponentSettings(kind="chain_of_thought"))
    answers = {"reasoning": "so", "label": "a", "sure": "True"}

    def requests(agent, candidate):
        calls = FakeCalls(lambda _, wanted: {name: answers[name] for name in wanted})
        agent.run(candidate, {"question": "why?", "tags": ["x"]}, calls)
        return [canonical_json(dict(request.body)) for _, request in calls.asked]

    assert requests(chain, chain.baseline) == requests(plain, reasons)


def test_programs_that_wait_for_answers_ask_alike():
    """A predictor called with `acall` asks the same model with the same parameters."""
    agent = build(KINDS["predict"])
    told = with_settings(agent, self=ComponentSettings(model="large", parameters={"top_p": 0.5}))
    program = agent.student(told)
    calls = FakeCalls()

    with agent.context(calls):
        asyncio.run(program.acall(question="why?"))

    (awaited,) = [(request.model, canonical_json(dict(request.body))) for _, request in calls.asked]
    assert ("large", bodies(agent, told)[0]) == awaited
