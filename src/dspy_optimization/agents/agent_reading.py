"""Reading one agent configuration, part by part, from JSON that is plain but not yet believed."""

import re
from urllib.parse import SplitResult, urlsplit

from dspy_optimization.agents.allow_list import AllowList, CodeUse
from dspy_optimization.agents.candidate import ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import PARAMETERS, ComponentSettings, ModuleKind
from dspy_optimization.agents.config import (
    AgentConfig,
    AgentKind,
    Component,
    HttpEndpoint,
    ModelChoice,
    PipelineStep,
    Signature,
)
from dspy_optimization.agents.kind_rules import (
    EVERY_KIND,
    OF_SOME_KINDS,
    REFUSED_ANYWHERE,
    RULES,
    KindRule,
    kinds_with,
)
from dspy_optimization.agents.pipeline_reading import check_references
from dspy_optimization.agents.signature_loading import (
    MAX_INSTRUCTIONS_BYTES,
    checked_identifier,
    signature_from_json,
)
from dspy_optimization.agents.untrusted import Block, closest, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

FORMAT = 1
MAX_DEMOS = 64
MAX_STEPS = 64
MAX_TOOLS = 64
MAX_COMPONENTS = 256
MAX_NESTING = 4

_AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COMPONENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]'\"-]{0,199}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}")
_ROLES = ("task", "reflection", "judge")
_ADAPTERS = ("chat", "json", "xml")


class AgentReader:
    """Turns plain JSON into a configuration that names only what the allow-list allows."""

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed

    def agent(self, value: Json, where: str, default_name: str | None = None, depth: int = 0) -> AgentConfig:
        """Return the configuration, or raise `InvalidRequestError` naming the place."""
        if depth > MAX_NESTING:
            raise InvalidRequestError(
                f"{where}: pipelines nest at most {MAX_NESTING} deep, found more; possible: fewer levels"
            )
        block = Block(value, where, (*EVERY_KIND, *OF_SOME_KINDS), REFUSED_ANYWHERE)
        block.whole("format", FORMAT, low=FORMAT, high=FORMAT)
        kind = block.one_of("kind", AgentKind)
        rule = RULES[kind]
        _check_parts(block, kind, rule)
        name = block.text("name", default_name, possible="a name such as support-triage")
        _check_name(name, block.at("name"), "an agent name", _AGENT_NAME)
        signature = None
        if "signature" in block:
            signature = signature_from_json(block.get("signature"), block.at("signature"))
        config = AgentConfig(
            name=name,
            kind=kind,
            signature=signature,
            components=_components(block),
            demos=_demos(block, _demo_fields(kind, rule, signature)),
            model=_model(block.get("model"), block.at("model")),
            tools=self._tools(block),
            steps=self._steps(block, depth),
            entrypoint=self._entrypoint(block),
            http=self._http(block),
            adapter=block.one_of("adapter", _ADAPTERS, "chat"),
            options=self._options(block, kind, rule),
        )
        check_references(config, where)
        return config

    def _tools(self, block: Block) -> tuple[str, ...]:
        tools: list[str] = []
        for number, name in enumerate(block.items("tools", MAX_TOOLS)):
            where = f"{block.at('tools')}[{number}]"
            tools.append(self._code(CodeUse.TOOL, name, where))
            if tools.count(tools[-1]) > 1:
                raise InvalidRequestError(
                    f"{where}: every tool stands once, found {tools[-1]} twice; possible: remove one"
                )
        return tuple(tools)

    def _code(self, use: CodeUse, name: Json, where: str) -> str:
        if not isinstance(name, str):
            raise InvalidRequestError(
                f"{where}: the name of installed code is wanted, found {shown(name)}; possible: package.module:function"
            )
        return self._allowed.check(use, name, where)

    def _entrypoint(self, block: Block) -> str | None:
        if "entrypoint" not in block:
            return None
        return self._code(CodeUse.ENTRYPOINT, block.get("entrypoint"), block.at("entrypoint"))

    def _steps(self, block: Block, depth: int) -> tuple[PipelineStep, ...]:
        steps: list[PipelineStep] = []
        for number, value in enumerate(block.items("steps", MAX_STEPS)):
            one = Block(value, f"{block.at('steps')}[{number}]", ("name", "agent", "inputs"), REFUSED_ANYWHERE)
            name = checked_identifier(one.text("name", possible="a name for the step"), one.at("name"), "a step name")
            agent = self.agent(one.need("agent", "an agent configuration"), one.at("agent"), name, depth + 1)
            inputs = one.mapping("inputs")
            for key, reference in inputs.items():
                if not isinstance(reference, str):
                    raise InvalidRequestError(
                        f"{one.at('inputs')}.{key}: a reference is wanted, found {shown(reference)}; possible: "
                        "input.<field> or <earlier step>.<field>"
                    )
            steps.append(PipelineStep(name=name, agent=agent, inputs={key: str(ref) for key, ref in inputs.items()}))
        return tuple(steps)

    def _http(self, block: Block) -> HttpEndpoint | None:
        if "http" not in block:
            return None
        value = block.get("http")
        known = ("url", "timeout_seconds")
        one = Block({"url": value} if isinstance(value, str) else value, block.at("http"), known, REFUSED_ANYWHERE)
        address = one.text("url", max_bytes=2048, possible="https://host/path")
        self._allowed.check_host(_checked_url(address, one.at("url")), one.at("url"))
        seconds = one.number("timeout_seconds", 60.0, low=0.0, high=3600.0, open_low=True)
        return HttpEndpoint(url=address, timeout_seconds=float(seconds))

    def _options(self, block: Block, kind: AgentKind, rule: KindRule) -> dict[str, Json]:
        where = block.at("options")
        given = block.mapping("options")
        if not rule.options:
            if given:
                raise InvalidRequestError(
                    f"{where}: the kind {kind} has no options, found {', '.join(given)}; possible: leave options out"
                )
            return {}
        options = Block(given, where, rule.options, REFUSED_ANYWHERE)
        for name in rule.needed_options:
            options.need(name, "the reward, an allow-listed package.module:function (inputs, outputs) -> number")
        if "reward" in options:
            self._code(CodeUse.METRIC, options.get("reward"), options.at("reward"))
        options.whole("max_iters", 1, low=1, high=100)
        options.whole("n", 1, low=1, high=100)
        options.whole("m", 2, low=2, high=20)
        options.whole("fail_count", 1, low=0, high=100)
        options.number("threshold", 0.0, low=-1e9, high=1e9)
        options.number("temperature", 0.0, low=0.0, high=2.0)
        options.one_of("module", (AgentKind.PREDICT.value, AgentKind.CHAIN_OF_THOUGHT.value), AgentKind.PREDICT.value)
        return {name: value for name, value in given.items() if value is not None}


def _check_parts(block: Block, kind: AgentKind, rule: KindRule) -> None:
    for key in rule.needs:
        value = block.need(key, f"the kind {kind} needs {', '.join(rule.needs)}")
        if value in ([], {}, ""):
            raise block.wrong(key, f"something in it, for the kind {kind} needs {key},", "at least one")
    for key in OF_SOME_KINDS:
        if key in block and key not in (*rule.needs, *rule.takes):
            raise InvalidRequestError(
                f"{block.where}: the kind {kind} has no {key}, found one; possible: remove it, or one of the kinds "
                f"that have: {', '.join(kinds_with(key))}"
            )


def _check_name(name: str, where: str, what: str, pattern: re.Pattern[str]) -> None:
    if pattern.fullmatch(name) is None:
        raise InvalidRequestError(
            f"{where}: {what} is wanted, found {shown(name)}; possible: letters, digits and . _ -, at most "
            "100 characters, beginning with a letter or a digit"
        )


def _components(block: Block) -> dict[ComponentName, Component]:
    given = block.mapping("components")
    if len(given) > MAX_COMPONENTS:
        raise InvalidRequestError(
            f"{block.at('components')}: at most {MAX_COMPONENTS} components are accepted, found {len(given)}; "
            "possible: name only those that differ"
        )
    return {ComponentName(name): _component(name, value, block.at("components")) for name, value in given.items()}


def _component(name: str, value: Json, parent: str) -> Component:
    where = f"{parent}.{name}"
    if _COMPONENT_NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            f"{parent}: a component name is wanted, found {shown(name)}; possible: the path of a part of the agent, "
            "such as predict, extract.predict or steps[0].predict"
        )
    block = Block(value, where, ("instructions", "demos", "settings", "frozen"), REFUSED_ANYWHERE)
    frozen = block.flag("frozen", False)
    settings = _settings(block.get("settings"), block.at("settings"))
    if "instructions" not in block:
        if "demos" in block:
            block.need("instructions", "a component with demos says its instructions too")
        return Component(how=None if settings.empty else settings, frozen=frozen)
    text = block.text("instructions", max_bytes=MAX_INSTRUCTIONS_BYTES)
    said = ComponentValue(instructions=text, demos=_demos(block, None), settings=settings)
    return Component(value=said, frozen=frozen)


def _settings(value: Json, where: str) -> ComponentSettings:
    """Return how a component is asked; whether the agent can do it shows when it is built."""
    if value is None:
        return ComponentSettings()
    block = Block(value, where, ("model", "parameters", "kind", "tools"), REFUSED_ANYWHERE)
    return ComponentSettings(
        model=_model_name(block, "model") if "model" in block else None,
        parameters=_parameters(
            Block(block.mapping("parameters"), block.at("parameters"), tuple(PARAMETERS), REFUSED_ANYWHERE)
        ),
        kind=block.one_of("kind", ModuleKind) if "kind" in block else None,
        tools=_tool_names(block) if "tools" in block else None,
    )


def _tool_names(block: Block) -> tuple[str, ...]:
    """Return the names, each once; they choose among what the agent was allowed, so nothing is loaded by them."""
    names: list[str] = []
    for number, name in enumerate(block.items("tools", MAX_TOOLS)):
        where = f"{block.at('tools')}[{number}]"
        if not isinstance(name, str):
            raise InvalidRequestError(
                f"{where}: the name of one of the agent's tools is wanted, found {shown(name)}; possible: the name "
                "of the function, such as search"
            )
        if name in names:
            raise InvalidRequestError(f"{where}: every tool stands once, found {name} twice; possible: remove one")
        names.append(name)
    return tuple(names)


def _model_name(block: Block, key: str) -> str:
    name = block.text(key, possible="a name among the models of the settings")
    if _MODEL_NAME.fullmatch(name) is None:
        raise block.wrong(key, "the name of a model", "a name among the models of the settings")
    return name


def _parameters(block: Block) -> dict[str, float | int]:
    parameters: dict[str, float | int] = {}
    for key, span in PARAMETERS.items():
        if key not in block:
            continue
        if span.whole:
            parameters[key] = block.whole(key, None, low=int(span.low), high=int(span.high))
        else:
            parameters[key] = block.number(key, None, low=span.low, high=span.high, open_low=span.open_low)
    return parameters


def _demo_fields(kind: AgentKind, rule: KindRule, signature: Signature | None) -> tuple[str, ...] | None:
    """Return what the demos of an agent may hold; None: anything, for the kind has fields of its own."""
    if signature is None or not rule.closed_demos:
        return None
    reasoning = ("reasoning",) if kind is AgentKind.CHAIN_OF_THOUGHT else ()
    return (*(field.name for field in signature.inputs + signature.outputs), *reasoning)


def _demos(block: Block, fields: tuple[str, ...] | None) -> tuple[dict[str, Json], ...]:
    demos: list[dict[str, Json]] = []
    for number, value in enumerate(block.items("demos", MAX_DEMOS)):
        where = f"{block.at('demos')}[{number}]"
        if not isinstance(value, dict) or not value:
            raise InvalidRequestError(
                f"{where}: a demo is wanted, found {type(value).__name__} {shown(value)}; possible: "
                "{question: ..., answer: ...}"
            )
        for name in value:
            if fields is not None and name not in fields:
                raise InvalidRequestError(
                    f"{where}: {shown(name)} is no field of the signature{closest(name, fields)}; possible: "
                    f"{', '.join(fields)}"
                )
        demos.append(value)
    return tuple(demos)


def _model(value: Json, where: str) -> ModelChoice:
    if value is None:
        return ModelChoice()
    if isinstance(value, str):
        value = {"role" if value in _ROLES else "name": value}
    block = Block(value, where, ("role", "name", *PARAMETERS), REFUSED_ANYWHERE)
    role = block.one_of("role", _ROLES, "task")
    name = _model_name(block, "name") if "name" in block else None
    return ModelChoice(role=role, name=name, parameters=_parameters(block))


def _checked_url(address: str, where: str) -> SplitResult:
    """Return the parts of an address that names a host and no credentials."""
    url = _parts(address)
    if url is None or url.scheme not in ("http", "https") or re.search(r"[^!-~]|\\", address):
        raise InvalidRequestError(
            f"{where}: an address is wanted, found {shown(address)}; possible: http://host:port/path or "
            "https://host/path"
        )
    if url.username is not None or url.password is not None:
        raise InvalidRequestError(
            f"{where}: an address without a user and a password is wanted, found one with them; possible: "
            f"{url.scheme}://{url.hostname}/... and the key in the settings"
        )
    return url


def _parts(address: str) -> SplitResult | None:
    try:
        url = urlsplit(address)
        usable = bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if usable else None
