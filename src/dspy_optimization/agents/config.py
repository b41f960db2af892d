"""What is optimized: one immutable, versioned configuration of an agent, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dspy_optimization.agents.candidate import (
    Candidate,
    ComponentName,
    ComponentValue,
    Fingerprint,
    content_hash,
)
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json


class AgentKind(StrEnum):
    """How an agent works."""

    PREDICT = "predict"  # one call
    CHAIN_OF_THOUGHT = "chain_of_thought"  # one call that reasons first
    REACT = "react"  # thinks, calls tools, thinks again
    PROGRAM_OF_THOUGHT = "program_of_thought"  # writes code, the sandbox runs it
    CODE_ACT = "code_act"  # writes code that calls tools
    BEST_OF_N = "best_of_n"  # n tries, the reward function picks
    REFINE = "refine"  # n tries, each told what was wrong with the last
    MULTI_CHAIN = "multi_chain"  # several chains of thought, then one comparison
    PIPELINE = "pipeline"  # a graph of named steps, each itself one of these
    ENTRYPOINT = "entrypoint"  # an installed, allow-listed `module:function` that returns a program
    HTTP = "http"  # a black box that takes the candidate's texts and an input


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One typed input or output of a signature."""

    name: str
    type: str = "str"
    """str, int, float, bool, list[str], dict, …, or Literal['a', 'b']; from a closed grammar, never evaluated."""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What an agent is asked to do with which inputs, for which outputs."""

    instructions: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What a configuration says of one named optimizable part."""

    value: ComponentValue | None = None
    """None: as the kind and the signature give it."""
    how: ComponentSettings | None = None
    """How it is asked, where the texts stay as they are given; None wherever `value` says so itself."""
    frozen: bool = False
    """True: no algorithm may change it."""

    def __post_init__(self) -> None:
        if self.value is not None and self.how is not None:
            raise InvalidRequestError(
                "a component: wanted: settings beside the texts of its value; found: settings at two places; "
                "possible: those of the value"
            )

    @property
    def settings(self) -> ComponentSettings:
        """How it is asked, as far as the configuration says so."""
        if self.value is not None:
            return self.value.settings
        return ComponentSettings() if self.how is None else self.how


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which model answers: a role of the settings, or a name among those the settings list."""

    role: str = "task"
    name: str | None = None
    parameters: Mapping[str, float | int] = field(default_factory=dict)
    """temperature, max_tokens, top_p, …: only allow-listed sampling parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStep:
    """One named step of a pipeline."""

    name: str
    agent: "AgentConfig"
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input of the step → `input.<field>` of the pipeline or `<step>.<field>` of an earlier step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEndpoint:
    """Where a black-box agent answers: POST {inputs, components} → {outputs}."""

    url: str
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """One configuration of an agent. Untrusted until `agents.loading` has read it; holds no code and no keys."""

    name: str
    kind: AgentKind
    signature: Signature | None = None
    """None for `entrypoint`, whose program brings its own, and for `pipeline` (its steps have theirs)."""
    components: Mapping[ComponentName, Component] = field(default_factory=dict)
    demos: tuple[Mapping[str, Json], ...] = ()
    """Demos every component without its own starts with."""
    model: ModelChoice = field(default_factory=ModelChoice)
    tools: tuple[str, ...] = ()
    """Allow-listed `module:function` names."""
    steps: tuple[PipelineStep, ...] = ()
    entrypoint: str | None = None
    http: HttpEndpoint | None = None
    adapter: str = "chat"
    """How prompts are laid out: chat, json or xml."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """What only some kinds have: max_iters (react, code_act), n and reward (best_of_n, refine), m (multi_chain)."""

    def to_json(self) -> dict[str, Json]:
        """Return the configuration as plain JSON that `agents.loading.agent_from_json` reads back equal."""
        from dspy_optimization.agents.loading import agent_to_json

        return agent_to_json(self)

    @property
    def named_models(self) -> frozenset[str]:
        """The models that it, its components and its steps choose by name."""
        said = {settings.model for settings in (part.settings for part in self.components.values())}
        steps = frozenset[str]().union(*(step.agent.named_models for step in self.steps))
        return steps | {name for name in (self.model.name, *said) if name is not None}

    @property
    def version(self) -> Fingerprint:
        """The content hash: equal content, equal version."""
        return Fingerprint(content_hash(self.to_json()))

    def with_candidate(self, candidate: Candidate) -> "AgentConfig":
        """Return this agent with the candidate's value in every component it names; frozen marks stay."""
        frozen = {name: part.frozen for name, part in self.components.items()}
        parts = dict(self.components) | {
            name: Component(value=value, frozen=frozen.get(name, False)) for name, value in candidate.components.items()
        }
        return replace(self, components=parts)
