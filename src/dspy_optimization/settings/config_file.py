"""The configuration file: language models by role, and what untrusted files may refer to.

    models:
      task: embedded                        # the local model; no key
      reflection:
        model: openai/gpt-4o-mini           # any LiteLLM string
        api_key_env: OPENAI_API_KEY         # the name of the variable, never the key
        requests_per_minute: 500
        fallbacks: [house]
      judge: house
    named_models:
      house:
        model: {base_url: "http://10.0.0.5:8000/v1", model: qwen3-8b}
        price: {prompt_usd_per_million: 0, completion_usd_per_million: 0}
        max_concurrency: 32
    allow:
      tools: [my_tools:search]
      metrics: [my_metrics:score]
      entrypoints: [my_agents:triage]
      algorithms: [my_search:Mine]          # what may be registered beside the installed ones
      http_hosts: [agents.example.org]
    service:
      algorithm_limits: {gepa: 2}           # so many at once that name the algorithm, over all workers

A role that is not named is answered by the task model, the task by the embedded one.
"""

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dspy_optimization.agents.untrusted import closest, listed
from dspy_optimization.algorithms.registry import GROUP
from dspy_optimization.errors import InvalidRequestError

FILE_BYTES = 1024 * 1024
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:([A-Za-z_]\w*|\*)", re.ASCII)
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, strict=True)]
Text = Annotated[str, Field(min_length=1, strict=True)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PriceBlock(_Block):
    """Dollars per million tokens; 0 for a model of one's own."""

    prompt_usd_per_million: Dollars
    completion_usd_per_million: Dollars


class PlaceBlock(_Block):
    """A model string, or a server and what it calls the model."""

    model: Text
    base_url: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class ModelBlock(_Block):
    """One model as somebody wants it used; a plain text is a block that holds only `model`."""

    model: PlaceBlock
    api_key_env: Text | None = None
    price: PriceBlock | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    timeout_seconds: Seconds = 120.0
    deadline_seconds: Seconds = 300.0
    max_attempts: Annotated[int, Field(ge=1, le=100, strict=True)] = 5
    fallbacks: list["ModelBlock"] = []

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError(
                "wanted the name of an environment variable, found something else (not shown: it may be the key itself)"
            )
        return value


class RolesBlock(_Block):
    """Who answers in which role."""

    task: ModelBlock | None = None
    reflection: ModelBlock | None = None
    judge: ModelBlock | None = None


class AllowBlock(_Block):
    """What agent files, requests and datasets may refer to; everything else is refused."""

    tools: list[Text] = []
    entrypoints: list[Text] = []
    metrics: list[Text] = []
    algorithms: list[Text] = []
    http_hosts: list[Text] = []

    @field_validator("tools", "entrypoints", "metrics", "algorithms")
    @classmethod
    def _are_references(cls, value: list[str]) -> list[str]:
        for entry in value:
            if not _REFERENCE.fullmatch(entry):
                raise ValueError(f"wanted my_package.my_module:function or my_package.my_module:*, found {entry!r}")
        return value

    @field_validator("http_hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        for entry in value:
            if not _HOST.fullmatch(entry):
                raise ValueError(
                    f"wanted a host such as agents.example.org, 10.0.0.5:8080, *.example.org or *, found {entry!r}"
                )
        return value


class ServiceBlock(_Block):
    """What only the service needs; the rest of it stands in the environment."""

    algorithm_limits: dict[Text, Annotated[int, Field(ge=1, le=10_000, strict=True)]] = {}

    @field_validator("algorithm_limits")
    @classmethod
    def _are_installed(cls, value: dict[str, int]) -> dict[str, int]:
        known = sorted(point.name for point in entry_points(group=GROUP))
        for name in value:
            if name not in known:
                raise ValueError(
                    f"wanted an algorithm, found {name!r}{closest(name, known)}; possible: {listed(known)}"
                )
        return value


class ConfigFile(_Block):
    """The whole file."""

    models: RolesBlock = RolesBlock()
    named_models: dict[str, ModelBlock] = {}
    allow: AllowBlock = AllowBlock()
    service: ServiceBlock = ServiceBlock()

    @model_validator(mode="before")
    @classmethod
    def _without_empty_sections(cls, value: Any) -> Any:
        # "allow:" with nothing below it is how one empties a section in YAML
        return {name: block for name, block in value.items() if block is not None} if isinstance(value, dict) else value


class _Loader(yaml.SafeLoader):
    """YAML that refuses the same key twice, where others silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_document(path: Path) -> Any:
    """Return what the YAML file holds, an empty block for an empty file.

    Raises:
        InvalidRequestError: no such file, too long, or no YAML; says the line, repeats nothing of the file.
    """
    try:
        if path.stat().st_size > FILE_BYTES:
            raise InvalidRequestError(f"DSPY_CONFIG_PATH: wanted a file of at most 1 MiB, found a longer one at {path}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise InvalidRequestError(f"DSPY_CONFIG_PATH: wanted a YAML file, found at {path}: {reason}") from error
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, only stricter
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "somewhere"
        raise InvalidRequestError(f"{path}: wanted YAML, found at {line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path}: wanted YAML, found something else ({type(error).__name__})") from error
    return {} if document is None else document
