"""Programs built from configurations."""

from dataclasses import replace

import dspy
import pytest
from dspy.primitives.local_interpreter import LocalInterpreter
from dspy_agents import HERE, KINDS, QUESTION, TwoSteps, config, parts, pipeline, scripted
from dspy_fakes import FakeCalls

from dspy_optimization.adapters.dspy import programs
from dspy_optimization.adapters.dspy.components import components
from dspy_optimization.adapters.dspy.programs import build_program, frozen_components
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.config import AgentConfig, AgentKind, Component, Field, ModelChoice, PipelineStep
from dspy_optimization.agents.loading import agent_from_json, agent_to_json
from dspy_optimization.errors import InvalidRequestError

SANDBOXED = parts(interpreter=LocalInterpreter, programs={"live:two": TwoSteps()})

NAMES = {
    "predict": {"self"},
    "chain_of_thought": {"predict"},
    "react": {"react", "extract.predict"},
    "program_of_thought": {"code_generate.predict", "code_regenerate.predict", "generate_output.predict"},
    "code_act": {"codeact", "extractor.predict"},
    "best_of_n": {"module.predict"},
    "refine": {"module"},
    "multi_chain": {"chain.predict", "compare.predict"},
    "pipeline": {"first", "second.predict"},
    "entrypoint": {"draft", "answer.predict"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_components(kind):
    """Components are the program's predictors, under the names DSPy gives them."""
    program = build_program(KINDS[kind], SANDBOXED)

    assert NAMES[kind] == set(components(program))
    assert all(predictor.lm is None for predictor in components(program).values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs(kind):
    """Every kind answers an input, with its steps and its bill."""
    agent = DspyAgents(SANDBOXED).build(KINDS[kind])
    calls = FakeCalls(scripted)
    inputs = {"question": "why?"} | ({"limit": 3} if kind == "pipeline" else {})
    answer = agent.run(agent.baseline, inputs, calls)
    last = "short" if kind == "pipeline" else "answer"

    assert (None, f"some {last}") == (answer.failure, answer.outputs.get(last))
    assert len(calls.asked) == answer.usage.lm_calls > 0
    assert {step.component for step in answer.steps} <= NAMES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_round_trips_through_json(kind):
    """A configuration read back from JSON builds an agent that says the same."""
    agents = DspyAgents(SANDBOXED)
    read = agent_from_json(agent_to_json(KINDS[kind]), allowed=SANDBOXED.allowed)

    assert KINDS[kind] == read
    assert agents.build(KINDS[kind]).baseline == agents.build(read).baseline


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_its_components_say(kind):
    """A candidate written into the configuration is the baseline of the agent built from it."""
    agents = DspyAgents(SANDBOXED)
    agent = agents.build(KINDS[kind])
    changed = Candidate(
        components={
            name: ComponentValue(instructions=f"Do {name}.", demos=value.demos)
            for name, value in agent.baseline.components.items()
        }
    )

    assert changed == agents.build(KINDS[kind].with_candidate(changed)).baseline


def test_demos_go_where_they_show_something():
    """The agent's demos reach the components that have an input and an output in them; a component's own go first."""
    demo = {"question": "2+2", "answer": "4"}
    own = ComponentValue(instructions="x", demos=({"question": "1", "answer": "1"},))
    react = replace(KINDS["react"], demos=(demo,))
    plain = replace(KINDS["predict"], demos=(demo,), components={"self": Component(value=own)})
    baseline = DspyAgents(SANDBOXED).build(react).baseline

    assert {"react": (), "extract.predict": (demo,)} == {n: v.demos for n, v in baseline.components.items()}
    assert own == DspyAgents(SANDBOXED).build(plain).baseline.components["self"]


def test_demos_a_program_brings_go_before_the_agents():
    """An entrypoint's own demos stay; components without any get the agent's."""
    live = TwoSteps()
    live.draft.demos = [dspy.Example(question="own", draft="own")]
    made = config(
        "entrypoint", signature=None, entrypoint="live:x", demos=({"question": "q", "draft": "d", "answer": "a"},)
    )
    found = DspyAgents(parts(programs={"live:x": live})).build(made).baseline.components

    assert ({"question": "own", "draft": "own"},) == found["draft"].demos
    assert ({"question": "q", "draft": "d", "answer": "a"},) == found["answer.predict"].demos


def test_program_of_thought_keeps_the_instructions():
    """DSPy drops the signature's instructions there; every part of ours begins with them."""
    baseline = DspyAgents(SANDBOXED).build(KINDS["program_of_thought"]).baseline

    assert all(value.instructions.startswith("Answer the question.\n\n") for value in baseline.components.values())


def test_a_missing_sandbox_is_found_when_building(monkeypatch):
    """Without Deno the kinds that run code are refused before the first example, with what to install."""
    monkeypatch.setattr(programs, "missing_sandbox", lambda: "it needs Deno 2, found none")
    for kind in ("program_of_thought", "code_act"):
        with pytest.raises(InvalidRequestError, match=f"the kind {kind} runs the code .* needs Deno 2, found none"):
            build_program(KINDS[kind], parts())


def test_the_sandbox_is_dspys_own_where_it_runs(monkeypatch):
    """With Deno, code runs in WebAssembly."""
    monkeypatch.setattr(programs, "missing_sandbox", lambda: None)

    assert dspy.PythonInterpreter is build_program(KINDS["program_of_thought"], parts())._interpreter_factory


def test_live_programs_are_copied():
    """A program handed in is never changed, and its LM stays outside."""
    live = TwoSteps()
    live.set_lm(dspy.LM("openai/somebody-elses"))
    built = build_program(config("entrypoint", signature=None, entrypoint="live:x"), parts(programs={"live:x": live}))

    assert built is not live
    assert [True, True] == [predictor.lm is not None for predictor in live.predictors()]
    assert [None, None] == [predictor.lm for predictor in built.predictors()]


def test_models_of_entrypoints_are_taken_away():
    """An entrypoint's own LM would pass by the ledger."""
    built = build_program(config("entrypoint", signature=None, entrypoint=f"{HERE}:with_own_model"), parts())

    assert [None, None] == [predictor.lm for predictor in built.predictors()]


def test_pipeline_steps_are_asked_in_their_own_way():
    """Each step has its adapter, role and parameters; values flow by reference."""
    steps = pipeline().steps
    judged = replace(
        steps[0], agent=replace(steps[0].agent, model=ModelChoice(role="judge", parameters={"temperature": 0.1}))
    )
    agent = DspyAgents(parts()).build(replace(pipeline(), steps=(judged, steps[1]), model=ModelChoice(role="task")))
    calls = FakeCalls()
    answer = agent.run(agent.baseline, {"question": "why?", "limit": 3}, calls)

    assert ["judge", "task"] == [role.value for role, _ in calls.asked]
    assert [0.1, None] == [request.body.get("temperature") for _, request in calls.asked]
    assert [False, True] == ["response_format" in request.body for _, request in calls.asked]
    assert {"text": "some answer", "limit": 3} == answer.steps[1].inputs


def test_a_step_without_known_fields_gets_everything():
    """An entrypoint step that maps nothing is given the pipeline's own inputs."""
    step = PipelineStep(name="both", agent=config("entrypoint", signature=None, entrypoint=f"{HERE}:two_steps"))
    agent = DspyAgents(parts()).build(AgentConfig(name="p", kind=AgentKind.PIPELINE, steps=(step,)))
    answer = agent.run(agent.baseline, {"question": "why?"}, FakeCalls())

    assert "some answer" == answer.outputs["answer"]
    assert {"both.draft", "both.answer.predict"} == set(agent.baseline.components)


def test_a_reference_to_nothing_fails_the_example():
    """An input the data lacks is the example's failure, with what there is."""
    agent = DspyAgents(parts()).build(pipeline())
    answer = agent.run(agent.baseline, {"question": "why?"}, FakeCalls())

    assert "ProgramError: the step second needs input.limit for its input limit; input has question" == answer.failure


def test_frozen_parts_of_steps_are_frozen_in_the_pipeline():
    """A step's own marks count under the step's name."""
    steps = pipeline().steps
    first = replace(steps[0], agent=replace(steps[0].agent, components={"self": Component(frozen=True)}))
    second = replace(steps[1], agent=replace(steps[1].agent, components={"predict": Component(frozen=True)}))

    assert {"first", "second.predict"} == frozen_components(replace(pipeline(), steps=(first, second)))


BAD = {
    "no signature": (config("predict", signature=None), "needs a signature"),
    "reserved input": (
        config("predict", signature=replace(QUESTION, inputs=(Field(name="config"),))),
        "DSPy does not use itself, found config",
    ),
    "name pydantic refuses": (
        config("predict", signature=replace(QUESTION, inputs=(Field(name="_hidden"),))),
        "a signature is wanted that DSPy can hold",
    ),
    "unknown component": (config("predict", components={"nobody": Component(frozen=True)}), "possible: self"),
    "tool not allowed": (config("react", tools=("os:system",)), "os:system is not on the allow-list"),
    "tool that is no function": (config("code_act", tools=(f"{HERE}:Shouter",)), "a plain function is wanted"),
    "reward missing": (config("best_of_n"), "options.reward: an allow-listed"),
    "reward not allowed": (config("refine", options={"reward": "os:system"}), "not on the allow-list"),
    "unknown inner kind": (
        config("refine", options={"reward": f"{HERE}:length_reward", "module": "react"}),
        "possible: predict, chain_of_thought",
    ),
    "no steps": (config("pipeline", signature=None), "needs steps"),
    "step of a DSPy name": (
        replace(pipeline(), steps=(PipelineStep(name="forward", agent=config("predict")),)),
        "possible: forward_step",
    ),
    "later step": (replace(pipeline(), steps=tuple(reversed(pipeline().steps))), "does not come earlier"),
    "other model in a step": (
        replace(pipeline(), steps=(PipelineStep(name="a", agent=config("predict", model=ModelChoice(name="gpt"))),)),
        "a step names the pipeline's own model or none, found gpt",
    ),
    "no entrypoint": (config("entrypoint", signature=None), "needs an entrypoint"),
    "entrypoint that is no program": (
        config("entrypoint", signature=None, entrypoint=f"{HERE}:no_program"),
        "is to return a dspy.Module, found str",
    ),
    "entrypoint that raises": (
        config("entrypoint", signature=None, entrypoint=f"{HERE}:raising"),
        "found OSError: disk gone",
    ),
    "entrypoint not allowed": (config("entrypoint", signature=None, entrypoint="os:getcwd"), "not on the allow-list"),
    "no address": (config("http"), "needs http.url"),
    "unknown role": (config("predict", model=ModelChoice(role="boss")), "possible: task, reflection, judge"),
    "unknown adapter": (config("predict", adapter="yaml"), "possible: chat, json, xml"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_built_says_why(case):
    """Wanted, found, possible; never a traceback."""
    wrong, message = BAD[case]
    with pytest.raises(InvalidRequestError) as caught:
        DspyAgents(SANDBOXED).build(wrong)

    assert message in str(caught.value)
