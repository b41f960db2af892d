"""Programs built from configurations, one builder a kind."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import urlsplit

import dspy
import httpx

from dspy_optimization.adapters.dspy.asking import REASONING, fix_kind
from dspy_optimization.adapters.dspy.chains import MultiChain
from dspy_optimization.adapters.dspy.components import apply, check_names, components, detach_models, read_candidate
from dspy_optimization.adapters.dspy.http_agent import HttpBox, HttpProgram
from dspy_optimization.adapters.dspy.interpreter import missing_sandbox
from dspy_optimization.adapters.dspy.model_use import ModelUse
from dspy_optimization.adapters.dspy.pipeline import BuiltStep, Pipeline
from dspy_optimization.adapters.dspy.signatures import dspy_signature
from dspy_optimization.adapters.dspy.tries import BestOfN, Refine, Reward, Trying
from dspy_optimization.agents.allow_list import AllowList, CodeUse, ForeignCode
from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.pipeline_reading import agent_fields, check_references, step_inputs
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

REACT_ITERATIONS = 20
PROGRAM_OF_THOUGHT_ITERATIONS = 3
CODE_ACT_ITERATIONS = 5

Interpreter = Callable[[], Any]
"""Makes a `dspy.CodeInterpreter`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What configurations may be built from."""

    allowed: AllowList = field(default_factory=AllowList)
    programs: Mapping[str, Any] = field(default_factory=dict)
    """Live `dspy.Module`s by the name an `entrypoint` configuration calls them, such as `live:qa`."""
    interpreter: Interpreter | None = None
    """Runs what `program_of_thought` and `code_act` write; None: DSPy's sandbox under Deno."""
    json_fallback: bool = False
    """See `model_use.adapter_named`."""
    http_transport: httpx.BaseTransport | None = None
    """None: real sockets."""


def build_program(config: AgentConfig, parts: Parts) -> Any:
    """Return the `dspy.Module` of a configuration, saying what the configuration's components and demos say.

    It carries no LM: run it under `ModelUse.of(config).context(lm)`. Kinds DSPy has are DSPy's own modules, so the
    state of one loads into the other.

    Raises:
        InvalidRequestError: something is missing, unknown, not allowed or cannot run on this machine.
    """
    program = _BUILDERS[config.kind](config, parts)
    detach_models(program)
    found = components(program)
    check_names(config.components, found, f"components of {config.name}")
    if config.demos:
        apply(program, _with_demos(read_candidate(program), config.demos, found))
    apply(program, Candidate(components={n: part.value for n, part in config.components.items() if part.value}))
    said = read_candidate(program).components
    how = {n: part.how for n, part in config.components.items() if part.how is not None}
    apply(program, Candidate(components={n: replace(said[n], settings=settings) for n, settings in how.items()}))
    return program


def agent_settings(config: AgentConfig, component: ComponentName) -> ComponentSettings:
    """Return whom the agent asks, and with which parameters, where a component does not say so itself."""
    own = ComponentSettings(model=config.model.name, parameters=config.model.parameters)
    for step in config.steps:
        if component == step.name or component.startswith(f"{step.name}."):
            inner = agent_settings(step.agent, ComponentName(component.removeprefix(step.name).removeprefix(".")))
            named = own.model if inner.model is None else inner.model
            return ComponentSettings(model=named, parameters={**own.parameters, **inner.parameters})
    return own


def frozen_components(config: AgentConfig) -> frozenset[ComponentName]:
    """Return the components no algorithm may change, those of a pipeline's steps included."""
    own = {name for name, part in config.components.items() if part.frozen}
    for step in config.steps:
        for name in frozen_components(step.agent):
            own.add(ComponentName(step.name if name == "self" else f"{step.name}.{name}"))
    return frozenset(own)


def _with_demos(
    candidate: Candidate, demos: tuple[Mapping[str, Json], ...], parts: Mapping[ComponentName, Any]
) -> Candidate:
    """Return the candidate with the agent's demos where they show an input and an output of the component."""
    return Candidate(
        components={
            name: replace(
                value, demos=value.demos or tuple(demo for demo in demos if _shows(parts[name].signature, demo))
            )
            for name, value in candidate.components.items()
        }
    )


def _shows(signature: Any, demo: Mapping[str, Json]) -> bool:
    return bool(demo.keys() & signature.input_fields.keys()) and bool(demo.keys() & signature.output_fields.keys())


def _signature(config: AgentConfig) -> Any:
    if config.signature is None:
        raise InvalidRequestError(f"{config.name}: the kind {config.kind} needs a signature, found none")
    return dspy_signature(config.signature)


def _option(config: AgentConfig, name: str, default: Any) -> Any:
    value = config.options.get(name)
    return default if value is None else value


def _predict(config: AgentConfig, _: Parts) -> Any:
    return dspy.Predict(_signature(config))


def _chain_of_thought(config: AgentConfig, _: Parts) -> Any:
    return _chained(_signature(config))


def _chained(signature: Any) -> Any:
    program = dspy.ChainOfThought(signature)
    if REASONING in signature.fields:
        fix_kind(program.predict)
    return program


def _tools(config: AgentConfig, parts: Parts) -> list[Callable[..., object]]:
    return [parts.allowed.load(CodeUse.TOOL, name, f"{config.name}.tools") for name in config.tools]


def _react(config: AgentConfig, parts: Parts) -> Any:
    tools = [dspy.Tool(tool) for tool in _tools(config, parts)]
    return dspy.ReAct(_signature(config), tools=tools, max_iters=_option(config, "max_iters", REACT_ITERATIONS))


def _interpreter(config: AgentConfig, parts: Parts) -> Interpreter:
    if parts.interpreter is not None:
        return parts.interpreter
    missing = missing_sandbox()
    if missing is not None:
        raise InvalidRequestError(
            f"{config.name}: the kind {config.kind} runs the code a model writes in a sandbox: {missing}; "
            "possible: install it, or another kind"
        )
    return cast("Interpreter", dspy.PythonInterpreter)


def _program_of_thought(config: AgentConfig, parts: Parts) -> Any:
    signature = _signature(config)
    iterations = _option(config, "max_iters", PROGRAM_OF_THOUGHT_ITERATIONS)
    with _until_dspy_3_5():
        program = dspy.ProgramOfThought(
            signature, max_iters=iterations, interpreter_factory=_interpreter(config, parts)
        )
    # DSPy writes instructions of its own into every part and forgets the agent's.
    for chain in (program.code_generate, program.code_regenerate, program.generate_output):
        predictor = chain.predict
        text = f"{signature.instructions}\n\n{predictor.signature.instructions}"
        predictor.signature = predictor.signature.with_instructions(text)
    return program


def _code_act(config: AgentConfig, parts: Parts) -> Any:
    tools = _tools(config, parts)
    for name, tool in zip(config.tools, tools, strict=True):
        if not inspect.isfunction(tool):
            raise InvalidRequestError(
                f"{config.name}.tools: code_act sends the source of its tools to the sandbox, so a plain function is "
                f"wanted, found {name}, a {type(tool).__name__}; possible: a function, or the kind react"
            )
    with _until_dspy_3_5():
        return dspy.CodeAct(
            _signature(config),
            tools=tools,
            max_iters=_option(config, "max_iters", CODE_ACT_ITERATIONS),
            interpreter_factory=_interpreter(config, parts),
        )


def _tried(config: AgentConfig, parts: Parts) -> Any:
    inner = _option(config, "module", AgentKind.PREDICT.value)
    builders: Mapping[str, Any] = {"predict": dspy.Predict, "chain_of_thought": _chained}
    if inner not in builders:
        raise InvalidRequestError(
            f"{config.name}.options.module: a kind to try is wanted, found {inner}; possible: {', '.join(builders)}"
        )
    name = _option(config, "reward", None)
    if not isinstance(name, str):
        raise InvalidRequestError(
            f"{config.name}.options.reward: an allow-listed package.module:function is wanted, found {name}"
        )
    reward = cast("Reward", parts.allowed.load(CodeUse.METRIC, name, f"{config.name}.options.reward"))
    trying = Trying(
        n=_option(config, "n", 3),
        threshold=_option(config, "threshold", None),
        fail_count=_option(config, "fail_count", None),
    )
    kind = Refine if config.kind is AgentKind.REFINE else BestOfN
    return kind(builders[inner](_signature(config)), reward, trying)


def _multi_chain(config: AgentConfig, _: Parts) -> Any:
    m, temperature = _option(config, "m", 3), _option(config, "temperature", 0.7)
    with _until_dspy_3_5():
        return MultiChain(_signature(config), m=m, temperature=temperature)


def _pipeline(config: AgentConfig, parts: Parts) -> Any:
    check_references(config, config.name)
    if not config.steps:
        raise InvalidRequestError(f"{config.name}: the kind pipeline needs steps, found none")
    steps = []
    for step in config.steps:
        if step.agent.model.name not in (None, config.model.name):
            raise InvalidRequestError(
                f"{config.name}.steps.{step.name}: one optimization asks one model a role, so a step names the "
                f"pipeline's own model or none, found {step.agent.model.name}; possible: another role"
            )
        references = step_inputs(step)
        steps.append(
            BuiltStep(
                name=step.name,
                program=build_program(step.agent, parts),
                use=ModelUse.of(step.agent, json_fallback=parts.json_fallback),
                inputs=references if references or agent_fields(step.agent) is not None else None,
            )
        )
    return Pipeline(steps)


def _entrypoint(config: AgentConfig, parts: Parts) -> Any:
    name = config.entrypoint
    if name is None:
        raise InvalidRequestError(f"{config.name}: the kind entrypoint needs an entrypoint, found none")
    if name in parts.programs:
        return parts.programs[name].deepcopy()
    function = parts.allowed.load(CodeUse.ENTRYPOINT, name, f"{config.name}.entrypoint")
    with ForeignCode(f"{config.name}: the entrypoint {name} cannot build its program", "mend that function"):
        program = function()
    if not isinstance(program, dspy.Module):
        raise InvalidRequestError(
            f"{config.name}: the entrypoint {name} is to return a dspy.Module, found {type(program).__name__}"
        )
    return program.deepcopy()


def _http(config: AgentConfig, parts: Parts) -> Any:
    if config.http is None:
        raise InvalidRequestError(f"{config.name}: the kind http needs http.url, found none")
    parts.allowed.check_host(urlsplit(config.http.url), f"{config.name}.http.url")
    box = HttpBox(config.http, transport=parts.http_transport)
    signature = _signature(config) if config.signature is not None else dspy.Signature("input -> output", "")
    return HttpProgram(box, tuple(config.components), signature)


def _until_dspy_3_5() -> AbstractContextManager[object]:
    """Silence what DSPy says about its own use of what 3.5 removes: the version is pinned, users cannot mend it."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)


_BUILDERS: Mapping[AgentKind, Callable[[AgentConfig, Parts], Any]] = {
    AgentKind.PREDICT: _predict,
    AgentKind.CHAIN_OF_THOUGHT: _chain_of_thought,
    AgentKind.REACT: _react,
    AgentKind.PROGRAM_OF_THOUGHT: _program_of_thought,
    AgentKind.CODE_ACT: _code_act,
    AgentKind.BEST_OF_N: _tried,
    AgentKind.REFINE: _tried,
    AgentKind.MULTI_CHAIN: _multi_chain,
    AgentKind.PIPELINE: _pipeline,
    AgentKind.ENTRYPOINT: _entrypoint,
    AgentKind.HTTP: _http,
}
