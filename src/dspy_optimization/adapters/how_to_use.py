"""The page that lies beside an exported agent: how it is put into use, with the engine and without."""

import json

from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.component_settings import ComponentSettings, ModuleKind
from dspy_optimization.agents.config import AgentConfig, AgentKind, Signature
from dspy_optimization.evaluation.gate import ValidatedResult

_PROGRAMS = {AgentKind.PREDICT: "dspy.Predict", AgentKind.CHAIN_OF_THOUGHT: "dspy.ChainOfThought"}
_LAYOUTS = {"chat": "dspy.ChatAdapter()", "json": "dspy.JSONAdapter()", "xml": "dspy.XMLAdapter()"}
_MODEL = 'openai/your-model", api_base="http://127.0.0.1:8000/v1", api_key="none"'
_SCHEMA_MODEL = '''\
class SchemaLM(dspy.LM):
    """A server that holds answers to a JSON schema; DSPy sends one only to models it knows to heed it."""

    supports_response_schema = True

    @property
    def supported_params(self):
        return super().supported_params | {"response_format"}


'''


_HOLDS_FOR = (
    "It was measured with the model, layout and sampling of the optimization (`report.html` names them). Another "
    "model, or the same one asked another way, is another agent: measure before you rely on it."
)
_FILES = (
    "`agent/agent.json` is the agent as data, `agent/program.json` the same as DSPy's own state, `evidence.json` what "
    "was measured, `report.html` the same for people."
)


def how_to_use(agent: AgentConfig, validated: ValidatedResult | None) -> str:
    """Return the page, in Markdown.

    Args:
        agent: the optimized one.
        validated: what the sealed split allowed to be said; None when it was not opened.
    """
    said = "The sealed test split was not opened: nothing is claimed."
    if validated is not None:
        said = f"Verdict: **{validated.verdict.value}**. {validated.reason}"
    parts = [f"# {agent.name}, optimized", said, _HOLDS_FOR, _FILES]
    if agent.kind is AgentKind.HTTP:
        parts.append(
            "## Use\n\nThe agent is a service of yours. Give it the texts of `components` in `agent/agent.json`, as it "
            "was given them while it was measured."
        )
        return "\n\n".join(parts) + "\n"
    return "\n\n".join([*parts, *_with_the_engine(agent), *_with_dspy_alone(agent)]) + "\n"


def _with_the_engine(agent: AgentConfig) -> list[str]:
    if agent.kind is AgentKind.ENTRYPOINT and str(agent.entrypoint).startswith("live:"):
        return []
    lines = [
        "import dspy",
        "from dspy_optimization import load",
        "",
        *_model(agent, sampling=False),
        "dspy.configure(lm=lm)",
        *_loaded(agent),
        _call(agent.signature),
    ]
    return [
        "## With this engine installed",
        _block(lines),
        "Every byte is checked first; layout and sampling are those of `agent.json`.",
    ]


def _with_dspy_alone(agent: AgentConfig) -> list[str]:
    heading = "## With DSPy alone"
    kind = _PROGRAMS.get(agent.kind)
    if kind is None or agent.signature is None:
        how = f"Build the program as before (`agent.json` says how: kind `{agent.kind.value}`), then let it take what "
        return [heading, how + 'was found: `program.load("agent/program.json")`.', *_by_hand(agent)]
    name = ComponentName("self" if agent.kind is AgentKind.PREDICT else "predict")
    settings = agent.components[name].settings if name in agent.components else ComponentSettings()
    predictor = "program" if agent.kind is AgentKind.PREDICT else "program.predict"
    fields = [
        ", ".join(f"{one.name}: {one.type}" for one in side)
        for side in (agent.signature.inputs, agent.signature.outputs)
    ]
    if agent.kind is AgentKind.PREDICT and settings.kind is ModuleKind.CHAIN_OF_THOUGHT:
        fields[1] = f"reasoning: str, {fields[1]}"
    lines = [
        "import dspy",
        "",
        *_model(agent, sampling=True),
        f"dspy.configure(lm=lm, adapter={_LAYOUTS[agent.adapter]})",
        f"program = {kind}({' -> '.join(fields)!r})",
    ]
    if agent.kind is AgentKind.CHAIN_OF_THOUGHT and settings.kind is ModuleKind.PREDICT:
        lines.append(f'{predictor}.signature = {predictor}.signature.delete("reasoning")')
    lines.append('program.load("agent/program.json")')
    if settings.parameters:
        said = ", ".join(f"{name}={value!r}" for name, value in settings.parameters.items())
        lines.append(f"{predictor}.update_config({said})")
    if settings.model is not None:
        lines.append(f"{predictor}.lm = {_named(agent, settings.model, sampling=True)}")
    lines.append(_call(agent.signature))
    return [heading, _block(lines)]


def _loaded(agent: AgentConfig) -> list[str]:
    names = sorted({part.settings.model for part in agent.components.values()} - {None}, key=str)
    if not names:
        return ['program = load("agent")']
    return [
        'program = load("agent", models={',
        *(f"    {json.dumps(name)}: {_named(agent, str(name), sampling=False)}," for name in names),
        "})",
    ]


def _named(agent: AgentConfig, name: str, *, sampling: bool) -> str:
    return f"{_lm_class(agent)}({json.dumps(f'openai/the-model-called-{name}')}{_arguments(agent, sampling)})"


def _by_hand(agent: AgentConfig) -> list[str]:
    """Return what nobody finds in DSPy's state, so that the program is built with it."""
    said = {name: part.settings for name, part in sorted(agent.components.items()) if not part.settings.empty}
    if not said:
        return []
    lines = [f"- `{name}`: {'; '.join(_sentences(settings))}." for name, settings in said.items()]
    why = (
        "DSPy's state does not say how these components are asked. Without it the program is another one than was "
        "measured, so build it in:"
    )
    return [why, "\n".join(lines)]


def _sentences(settings: ComponentSettings) -> list[str]:
    found = []
    if settings.kind is ModuleKind.CHAIN_OF_THOUGHT:
        found.append("chain of thought: `reasoning: str` is the first output of its signature")
    if settings.kind is ModuleKind.PREDICT:
        found.append("no chain of thought: its signature has no `reasoning`")
    if settings.tools is not None:
        found.append(f"its module is given these tools alone, in this order: {', '.join(settings.tools) or 'none'}")
    if settings.parameters:
        said = ", ".join(f"{name}={value!r}" for name, value in settings.parameters.items())
        found.append(f"`.update_config({said})` on it")
    if settings.model is not None:
        found.append(f"its `.lm`, set after loading and sampled as the others, is the model called {settings.model}")
    return found


def _model(agent: AgentConfig, *, sampling: bool) -> list[str]:
    needed = ["", *_SCHEMA_MODEL.splitlines()] if agent.adapter == "json" else []
    return [*needed, f'lm = {_lm_class(agent)}("{_MODEL}{_arguments(agent, sampling)})']


def _lm_class(agent: AgentConfig) -> str:
    return "SchemaLM" if agent.adapter == "json" else "dspy.LM"


def _arguments(agent: AgentConfig, sampling: bool) -> str:
    stated = agent.model.parameters.items() if sampling else ()
    return "".join(f", {name}={value!r}" for name, value in stated)


def _call(signature: Signature | None) -> str:
    inputs = ("...",) if signature is None else tuple(f'{one.name}="..."' for one in signature.inputs)
    return f"print(program({', '.join(inputs)}))"


def _block(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
