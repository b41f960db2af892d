"""How one component is asked, beside its texts: model, sampling parameters, module kind, tools."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json


class ModuleKind(StrEnum):
    """What a component is that makes one call."""

    PREDICT = "predict"  # answers at once
    CHAIN_OF_THOUGHT = "chain_of_thought"  # reasons first


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRange:
    """What a sampling parameter may be."""

    low: float
    high: float
    """Both ends belong to it, unless `open_low`."""
    whole: bool = False
    open_low: bool = False

    def holds(self, value: float) -> bool:
        """Say whether a number lies in it."""
        if isinstance(value, bool) or not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        return self.low <= value <= self.high and not (self.open_low and value == self.low)

    def typed(self, value: float) -> float | int:
        """Return the one way the number is written down: 1 and 1.0 are the same temperature."""
        return int(value) if self.whole else float(value) + 0.0  # no negative zero

    def __str__(self) -> str:
        sign = "above" if self.open_low else "from"
        return f"{sign} {self.low:g} to {self.high:g}{', whole' if self.whole else ''}"


PARAMETERS: Mapping[str, ParameterRange] = MappingProxyType(
    {
        "temperature": ParameterRange(low=0.0, high=2.0),
        "top_p": ParameterRange(low=0.0, high=1.0, open_low=True),
        "presence_penalty": ParameterRange(low=-2.0, high=2.0),
        "frequency_penalty": ParameterRange(low=-2.0, high=2.0),
        "max_tokens": ParameterRange(low=1, high=1_000_000, whole=True),
        "top_k": ParameterRange(low=1, high=1_000_000, whole=True),
        "seed": ParameterRange(low=0, high=(1 << 31) - 1, whole=True),
    }
)
"""The sampling parameters an agent or a candidate may state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSettings:
    """How a component is asked, as far as a candidate says so; what it does not say is as the agent says.

    Raises:
        InvalidRequestError: a parameter that is none or out of its range, an unknown kind, a tool twice.
    """

    model: str | None = None
    """A name among the models that the settings list."""
    parameters: Mapping[str, float | int] = field(default_factory=dict)
    """Sampling parameters on top of the agent's; see `PARAMETERS`."""
    kind: ModuleKind | None = None
    tools: tuple[str, ...] | None = None
    """The agent's tools that may be called, as the model calls them, in the order it reads them; () for none."""

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            if name not in PARAMETERS:
                raise InvalidRequestError(
                    f"wanted: sampling parameters; found: {name}; possible: {', '.join(PARAMETERS)}"
                )
            if not PARAMETERS[name].holds(value):
                raise InvalidRequestError(f"wanted: {name} {PARAMETERS[name]}; found: {value}; possible: leave it out")
        if self.kind is not None and self.kind not in [kind.value for kind in ModuleKind]:
            raise InvalidRequestError(
                f"wanted: the kind of a component; found: {self.kind}; possible: {', '.join(ModuleKind)}"
            )
        if self.tools is not None and len(set(self.tools)) < len(self.tools):
            raise InvalidRequestError(
                f"wanted: every tool once; found: {', '.join(self.tools)}; possible: remove the repeated one"
            )
        parameters = {name: PARAMETERS[name].typed(value) for name, value in sorted(self.parameters.items())}
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        if self.kind is not None:
            object.__setattr__(self, "kind", ModuleKind(self.kind))
        if self.tools is not None:
            object.__setattr__(self, "tools", tuple(self.tools))

    def __hash__(self) -> int:
        return hash((self.model, tuple(self.parameters.items()), self.kind, self.tools))

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # nothing in it changes, and programs that carry it are copied thousands of times

    @property
    def empty(self) -> bool:
        """Whether everything is as the agent says."""
        return self == ComponentSettings()

    def to_json(self) -> dict[str, Json]:
        """Return what is said as plain JSON; empty when nothing is."""
        said: dict[str, Json] = {}
        if self.model is not None:
            said["model"] = self.model
        if self.parameters:
            said["parameters"] = dict(self.parameters)
        if self.kind is not None:
            said["kind"] = self.kind.value
        if self.tools is not None:
            said["tools"] = list(self.tools)
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a candidate may settle of one component, beside its texts. Empty: nothing."""

    kinds: tuple[ModuleKind, ...] = ()
    """The component's own first."""
    tools: tuple[str, ...] = ()
    """In the agent's order; a candidate names any of them, in any order."""
    models: tuple[str, ...] = ()
    """Names that the settings list, sorted."""
    parameters: Mapping[str, ParameterRange] = field(default_factory=dict)
    agent: ComponentSettings = field(default_factory=ComponentSettings)
    """What answers where a candidate says nothing; a model of None is that of the agent's role."""

    def check(self, settings: ComponentSettings, where: str) -> None:
        """Refuse settings that this component cannot have.

        Args:
            settings: of a candidate or a configuration.
            where: how the message calls the component.
        Raises:
            InvalidRequestError: names what was found and what is possible.
        """
        if settings.kind is not None and settings.kind not in self.kinds:
            raise _refused(f"{where}: kind", settings.kind, self.kinds, "its kind cannot be changed")
        unknown = [tool for tool in settings.tools or () if tool not in self.tools]
        if unknown or (settings.tools is not None and not self.tools):
            raise _refused(f"{where}: tools", ", ".join(unknown) or "a list", self.tools, "it calls no tools")
        if settings.model is not None and settings.model not in self.models:
            raise _refused(f"{where}: model", settings.model, self.models, "no model can be chosen for it by name")
        for name in settings.parameters:
            if name not in self.parameters:
                raise _refused(f"{where}: parameters", name, self.parameters, "no parameter can be set for it alone")


def _refused(what: str, found: str, possible: Iterable[str], none: str) -> InvalidRequestError:
    listed = ", ".join(possible)
    return InvalidRequestError(
        f"{what}: wanted: one that this component can have; found: {found}; "
        f"possible: {listed if listed else f'leave it out, {none}'}"
    )
