"""A candidate: one value for every component of an agent."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NewType

from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.events import Json

ComponentName = NewType("ComponentName", str)
Fingerprint = NewType("Fingerprint", str)


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: object) -> str:
    """Return the SHA-256 of the canonical JSON, 64 hexadecimal characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentValue:
    """What one component says and shows to the model, and how it is asked."""

    instructions: str
    demos: tuple[Mapping[str, Json], ...] = ()
    """Field name → value, inputs and outputs together; in the order the model sees them."""
    settings: ComponentSettings = field(default_factory=ComponentSettings)

    def to_json(self) -> dict[str, Json]:
        """Return the value as plain JSON; settings that say nothing are left out."""
        settings = self.settings.to_json()
        texts: dict[str, Json] = {"instructions": self.instructions, "demos": [dict(demo) for demo in self.demos]}
        return {**texts, "settings": settings} if settings else texts


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One value for every component. Equal content, equal candidate."""

    components: Mapping[ComponentName, ComponentValue]
    origin: str = field(default="", compare=False)
    """Where it came from, in words: "baseline", "gepa", …"""
    parents: tuple[Fingerprint, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", MappingProxyType(dict(sorted(self.components.items()))))

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.fingerprint == other.fingerprint

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The SHA-256 of the components; origin and parents do not count."""
        return Fingerprint(content_hash(self.to_json()))

    def to_json(self) -> dict[str, Json]:
        """Return the components as plain JSON."""
        return {name: value.to_json() for name, value in self.components.items()}
