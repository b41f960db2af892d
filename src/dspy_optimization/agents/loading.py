"""Reading and writing agent configurations. What is read is untrusted: nothing in it is executed or believed."""

from pathlib import Path

from dspy_optimization.agents.agent_reading import FORMAT, AgentReader
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig, Component, Field, ModelChoice, Signature
from dspy_optimization.agents.document import read_document
from dspy_optimization.agents.kind_rules import REFUSED_ANYWHERE
from dspy_optimization.agents.untrusted import checked_json
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

__all__ = ["AllowList", "agent_from_json", "agent_to_json", "load_agent_file"]

MAX_AGENT_BYTES = 1 << 20

_DATA_PLACES = ("demos", "inputs", "outputs")


def load_agent_file(path: Path, allowed: AllowList) -> AgentConfig:
    """Return the agent a YAML or JSON file describes; without a `name` the file's own name counts.

    Raises:
        InvalidRequestError: names the file, the place in it, what stands there and what is possible.
    """
    data = read_document(path, max_bytes=MAX_AGENT_BYTES)
    if isinstance(data, dict) and data.get("name") is None:
        data = {**data, "name": path.stem}
    return agent_from_json(data, allowed=allowed, where=path.name)


def agent_to_json(config: AgentConfig) -> dict[str, Json]:
    """Return the configuration as plain JSON; what has its default is left out."""
    data: dict[str, Json] = {"format": FORMAT, "name": config.name, "kind": config.kind.value}
    if config.signature is not None:
        data["signature"] = _signature_to_json(config.signature)
    if config.model != ModelChoice():
        data["model"] = _model_to_json(config.model)
    if config.components:
        data["components"] = {name: _component_to_json(part) for name, part in sorted(config.components.items())}
    if config.demos:
        data["demos"] = [dict(demo) for demo in config.demos]
    if config.tools:
        data["tools"] = list(config.tools)
    if config.steps:
        data["steps"] = [
            {"name": step.name, "agent": agent_to_json(step.agent), "inputs": dict(step.inputs)}
            for step in config.steps
        ]
    if config.entrypoint is not None:
        data["entrypoint"] = config.entrypoint
    if config.http is not None:
        data["http"] = {"url": config.http.url, "timeout_seconds": config.http.timeout_seconds}
    if config.adapter != "chat":
        data["adapter"] = config.adapter
    if config.options:
        data["options"] = dict(config.options)
    return data


def agent_from_json(data: object, *, allowed: AllowList, where: str = "agent") -> AgentConfig:
    """Return the configuration that plain JSON describes, checked in every part.

    Args:
        data: as `agent_to_json` writes it, or shorter (see the docs of the file format).
        allowed: the tools, entrypoints, metrics and hosts it may name.
        where: how messages call the document.
    Raises:
        InvalidRequestError: names the place, what stands there and what is possible.
    """
    plain = checked_json(data, where, max_bytes=MAX_AGENT_BYTES)
    _refuse_keys(plain, where)
    return AgentReader(allowed).agent(plain, where)


def _signature_to_json(signature: Signature) -> Json:
    def fields(of: tuple[Field, ...]) -> Json:
        return [{"name": one.name, "type": one.type, "description": one.description} for one in of]

    return {
        "instructions": signature.instructions,
        "inputs": fields(signature.inputs),
        "outputs": fields(signature.outputs),
    }


def _model_to_json(model: ModelChoice) -> Json:
    name: dict[str, Json] = {} if model.name is None else {"name": model.name}
    return {"role": model.role, **name, **dict(model.parameters)}


def _component_to_json(part: Component) -> Json:
    value: dict[str, Json] = {} if part.value is None else part.value.to_json()
    if part.how is not None:
        value["settings"] = part.how.to_json()
    return {**value, "frozen": part.frozen}


def _refuse_keys(value: Json, where: str) -> None:
    """Refuse what would choose, reach or replace a model, wherever it stands.

    Demos and fields are left out: there `headers` is a word of the user's domain and reaches nothing.
    """
    if isinstance(value, list):
        for number, one in enumerate(value):
            _refuse_keys(one, f"{where}[{number}]")
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        if key in REFUSED_ANYWHERE:
            raise InvalidRequestError(f"{where}: {key} is refused: {REFUSED_ANYWHERE[key]}; possible: remove it")
        if key not in _DATA_PLACES:
            _refuse_keys(one, f"{where}.{key}")
