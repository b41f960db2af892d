"""An agent as somebody has it at hand: its configuration, a file of it, or its name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import yaml

from dspy_optimization.errors import InvalidRequestError

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE_BYTES = 1 << 20


@runtime_checkable
class Configuration(Protocol):
    """An agent's configuration as the library has it (`AgentConfig`)."""

    def to_json(self) -> Mapping[str, object]:
        """Return it as plain JSON."""
        ...


AgentSource: TypeAlias = Mapping[str, object] | Configuration | Path | str


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAgent:
    """An agent's name, with its configuration where somebody gave it."""

    name: str
    config: Mapping[str, object] | None = None
    """None: it is registered at the service."""


def named_agent(source: AgentSource) -> NamedAgent:
    """Return which agent is meant. Text that ends like an agent file is one; other text is a registered name.

    Raises:
        InvalidRequestError: the file cannot be read or holds no agent, or the configuration has no name.
    """
    if isinstance(source, Path):
        return _configured(_agent_file(source), str(source))
    if isinstance(source, str):
        if source.lower().endswith(SUFFIXES):
            return _configured(_agent_file(Path(source)), source)
        return NamedAgent(name=source)
    return _configured(source if isinstance(source, Mapping) else source.to_json(), "agent")


def _configured(config: Mapping[str, object], where: str) -> NamedAgent:
    name = config.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(
            f"{where}: wanted: a configuration with a name; found: the keys {', '.join(map(str, config)) or 'none'}; "
            "possible: {name: my-agent, kind: predict, signature: …}"
        )
    return NamedAgent(name=name, config=config)


def _agent_file(path: Path) -> Mapping[str, object]:
    """Return the configuration in a file; of an `agent.yaml` with data and objectives only `agent` is taken."""
    document = _document(path)
    agent = document.get("agent", document)
    if isinstance(agent, str):
        return _agent_file(path.parent / agent)
    if not isinstance(agent, Mapping):
        raise InvalidRequestError(
            f"{path}: agent: wanted: a mapping, or the file of one; found: {type(agent).__name__}; possible: {{name: "
            "my-agent, kind: predict, signature: …}"
        )
    return agent if agent.get("name") else {**agent, "name": path.stem}


def _document(path: Path) -> Mapping[str, object]:
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidRequestError(
            f"{path}: wanted: an agent file; found: {path.suffix or 'no suffix'}; possible: {', '.join(SUFFIXES)}"
        )
    text = read_text(path, MAX_FILE_BYTES)
    try:
        document: object = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidRequestError(
            f"{path}: wanted: {path.suffix.lower().lstrip('.')}; found: {error}; possible: mend it there"
        ) from error
    if not isinstance(document, Mapping):
        raise InvalidRequestError(
            f"{path}: wanted: a mapping; found: {type(document).__name__}; possible: `dspy-opt init` writes one"
        )
    return document


def read_text(path: Path, max_bytes: int) -> str:
    """Return the text of a UTF-8 file. Raises `InvalidRequestError` naming it."""
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidRequestError(
            f"{path}: wanted: a file that can be read; found: {error.strerror}; possible: check the path and its rights"
        ) from error
    if len(raw) > max_bytes:
        raise InvalidRequestError(f"{path}: wanted: at most {max_bytes:,} bytes; found: more; possible: a smaller file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{path}: wanted: UTF-8; found: the byte 0x{raw[error.start]:02x}; possible: save it as UTF-8"
        ) from error
