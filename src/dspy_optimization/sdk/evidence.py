"""What the service shows of a search: candidates and their texts, scores on val, who came from whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.events import Json
from dspy_optimization.sdk.answers import FrontPoint, Pick
from dspy_optimization.sdk.reading import JSON_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A candidate, measured once."""

    candidate: str
    """Its fingerprint."""
    algorithm: str | None = None
    split: str | None = None
    score: float | None = None
    n_examples: int | None = None
    complete: bool = False
    """Whether it was measured on the whole split."""
    iteration: int | None = None
    paid_calls: int | None = None
    recorded_at: datetime | None = None
    parents: tuple[str, ...] = ()
    is_baseline: bool = False
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentValue:
    """What a candidate says in one component."""

    instructions: str | None = None
    demos: tuple[Mapping[str, Json], ...] = ()
    settings: Mapping[str, Json] = field(default_factory=dict)
    """model, parameters, kind and tools, as far as the candidate says so; the rest is as the agent says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateTexts:
    """A candidate with its texts."""

    candidate: str
    components: Mapping[str, ComponentValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of text with one fate."""

    edit: str
    """kept, added or removed."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDiff:
    """One way a component is asked, before and after, in words."""

    name: str
    """model, parameters, kind or tools."""
    before: str = field(metadata={JSON_NAME: "from"})
    after: str = field(metadata={JSON_NAME: "to"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentDiff:
    """One component before and after."""

    component: str
    frozen: bool = False
    instructions_changed: bool = False
    words: tuple[Piece, ...] = ()
    demos_added: tuple[Mapping[str, Json], ...] = ()
    demos_removed: tuple[Mapping[str, Json], ...] = ()
    demos_kept: int | None = None
    demos_reordered: bool = False
    settings: tuple[SettingDiff, ...] = ()
    """Those that differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What differs between two candidates, or two versions of an agent."""

    before: str = field(metadata={JSON_NAME: "from"})
    after: str = field(metadata={JSON_NAME: "to"})
    components: tuple[ComponentDiff, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One candidate measured on val."""

    paid_calls: int
    score: float
    candidate: str
    algorithm: str | None = None
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BestStep:
    """From so many paid calls on this was the best candidate."""

    paid_calls: int
    score: float
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How the score on val rose while calls were paid."""

    points: tuple[CurvePoint, ...] = ()
    best: tuple[BestStep, ...] = ()
    baseline_score: float | None = None
    total: int | None = None
    """Points there are; `points` may hold fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStep:
    """From so many paid calls on the front dominated this much."""

    paid_calls: int
    volume: float
    """Share of what can be dominated, 0 to 1."""
    candidate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Who is beaten by nobody on val, and how sure that is."""

    measured_on: str = "val"
    goals: tuple[str, ...] = ()
    """The objectives that make the front; the first one is the primary one."""
    points: tuple[FrontPoint, ...] = ()
    """The best in the primary objective first."""
    baseline: FrontPoint
    chosen: FrontPoint
    pick: Pick | None = None
    size: int | None = None
    """Points there are; `points` may hold fewer."""
    candidates: int | None = None
    """Measured on all of val."""
    n: int | None = None
    """Val examples."""
    clusters: int | None = None
    resamples: int | None = None
    reference: Mapping[str, float] = field(default_factory=dict)
    """Objective → where the reference point of the hypervolume lies."""
    course: tuple[VolumeStep, ...] = ()
    """How the hypervolume rose while calls were paid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one candidate made of an example."""

    score: float | None = None
    outputs: Mapping[str, Json] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleComparison:
    """One val example under baseline and optimized agent."""

    example_id: str
    inputs: Mapping[str, Json] = field(default_factory=dict)
    expected: Mapping[str, Json] = field(default_factory=dict)
    baseline: Outcome = field(default_factory=Outcome)
    optimized: Outcome = field(default_factory=Outcome)
    change: str
    """worse, better or same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One candidate in the family."""

    id: str
    label: str | None = None
    score: float | None = None
    algorithm: str | None = None
    generation: int | None = None
    is_baseline: bool = False
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Who came from whom."""

    parent: str = field(metadata={JSON_NAME: "from"})
    child: str = field(metadata={JSON_NAME: "to"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The family of candidates."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One fact of the event log."""

    id: int
    type: str
    at: datetime
    data: Mapping[str, Json] = field(default_factory=dict)
