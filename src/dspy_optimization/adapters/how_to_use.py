"""The page that lies beside an exported agent: how it is put into use, with the engine and without."""

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
        'program = load("agent")',
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
        return [heading, how + 'was found: `program.load("agent/program.json")`.']
    fields = [
        ", ".join(f"{one.name}: {one.type}" for one in side)
        for side in (agent.signature.inputs, agent.signature.outputs)
    ]
    lines = [
        "import dspy",
        "",
        *_model(agent, sampling=True),
        f"dspy.configure(lm=lm, adapter={_LAYOUTS[agent.adapter]})",
        f"program = {kind}({' -> '.join(fields)!r})",
        'program.load("agent/program.json")',
        _call(agent.signature),
    ]
    return [heading, _block(lines)]


def _model(agent: AgentConfig, *, sampling: bool) -> list[str]:
    stated = agent.model.parameters.items() if sampling else ()
    arguments = "".join(f", {name}={value!r}" for name, value in stated)
    if agent.adapter != "json":
        return [f'lm = dspy.LM("{_MODEL}{arguments})']
    return ["", *_SCHEMA_MODEL.splitlines(), f'lm = SchemaLM("{_MODEL}{arguments})']


def _call(signature: Signature | None) -> str:
    inputs = ("...",) if signature is None else tuple(f'{one.name}="..."' for one in signature.inputs)
    return f"print(program({', '.join(inputs)}))"


def _block(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
