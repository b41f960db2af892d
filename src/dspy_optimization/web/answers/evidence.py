"""Answers about a search: candidates, differences, curves, examples, lineage, events."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from dspy_optimization.web.answers.base import Answer
from dspy_optimization.web.answers.results import FrontPointOut, PickOut


class CandidateOut(Answer):
    """A candidate measured once."""

    candidate: str
    algorithm: str
    split: str
    score: float
    n_examples: int
    complete: bool
    iteration: int
    paid_calls: int
    recorded_at: datetime
    parents: list[str]
    is_baseline: bool
    is_chosen: bool


class ComponentOut(Answer):
    """One component of a candidate."""

    instructions: str | None
    demos: list[dict[str, Any]]
    settings: dict[str, Any] = Field(
        default_factory=dict, description="model, parameters, kind, tools, as far as the candidate says so."
    )


class CandidateDetail(Answer):
    """A candidate with its texts."""

    candidate: str
    components: dict[str, ComponentOut]


class PieceOut(Answer):
    """A piece of text with one fate."""

    edit: str
    text: str


class SettingDiff(Answer):
    """One way a component is asked, before and after, in words."""

    name: str
    from_: str = Field(alias="from")
    to: str

    model_config = ConfigDict(populate_by_name=True)


class ComponentDiff(Answer):
    """One component before and after."""

    component: str
    frozen: bool
    instructions_changed: bool
    words: list[PieceOut]
    demos_added: list[dict[str, Any]]
    demos_removed: list[dict[str, Any]]
    demos_kept: int
    demos_reordered: bool
    settings: list[SettingDiff] = Field(default_factory=list, description="Those that differ.")


class Diff(Answer):
    """What differs between two candidates or agent versions."""

    from_: str = Field(alias="from")
    to: str
    components: list[ComponentDiff]

    model_config = ConfigDict(populate_by_name=True)


class CurvePoint(Answer):
    """One candidate measured on val."""

    paid_calls: int
    score: float
    algorithm: str
    candidate: str
    complete: bool


class BestStep(Answer):
    """From here on this was the best candidate."""

    paid_calls: int
    score: float
    candidate: str


class Curve(Answer):
    """How the score on val rose while calls were paid."""

    points: list[CurvePoint]
    best: list[BestStep]
    baseline_score: float | None
    total: int = Field(description="Points there are; `points` may hold fewer.")


class VolumeStepOut(Answer):
    """From so many paid calls on the front dominated this much."""

    paid_calls: int
    volume: float
    candidate: str


class MeansOfCandidate(Answer):
    """A candidate measured on all of val."""

    candidate: str
    algorithm: str
    is_baseline: bool
    guardrails_hold: bool = Field(description="Whether none is hurt by more than its margin, as far as val can tell.")
    paid_calls: int = Field(description="Paid when the last of its results came.")
    means: dict[str, float] = Field(description="Objective → mean on val, guardrails too.")


class MeansOut(Answer):
    """Everybody measured on all of val so far; the means alone, which say nothing about how sure they are."""

    measured_on: Literal["val"] = Field(default="val", description="Optimistic, as the front is.")
    goals: list[str] = Field(description="The objectives that are no guardrails; the first one is the primary one.")
    n: int = Field(description="Val examples.")
    items: list[MeansOfCandidate] = Field(description="In the order they became complete; of many the newest ones.")
    total: int


class FrontOut(Answer):
    """Who is beaten by nobody on val, and how sure that is."""

    measured_on: Literal["val"] = Field(
        default="val", description="Optimistic: the candidates were searched and chosen on the same examples."
    )
    goals: list[str] = Field(description="The objectives that make the front; the first one is the primary one.")
    points: list[FrontPointOut] = Field(description="The best in the primary objective first.")
    baseline: FrontPointOut
    chosen: FrontPointOut
    pick: PickOut | None
    size: int = Field(description="Points there are; `points` may hold fewer.")
    candidates: int = Field(description="Measured on all of val.")
    n: int = Field(description="Val examples.")
    clusters: int | None
    resamples: int
    reference: dict[str, float] = Field(description="Objective → where the reference point of the hypervolume lies.")
    course: list[VolumeStepOut] = Field(description="How the hypervolume rose while calls were paid, as a share.")


class Outcome(Answer):
    """What one candidate made of an example."""

    score: float
    outputs: dict[str, Any]
    failure: str | None


class ExampleOut(Answer):
    """One val example under both candidates."""

    example_id: str
    inputs: dict[str, Any]
    expected: dict[str, Any]
    baseline: Outcome
    optimized: Outcome
    change: str


class Node(Answer):
    """One candidate in the family."""

    id: str
    label: str
    score: float | None
    algorithm: str
    generation: int
    is_baseline: bool
    is_chosen: bool


class Edge(Answer):
    """Who came from whom."""

    from_: str = Field(alias="from")
    to: str

    model_config = ConfigDict(populate_by_name=True)


class Lineage(Answer):
    """The family of candidates."""

    nodes: list[Node]
    edges: list[Edge]


class EventOut(Answer):
    """A fact about an optimization."""

    id: int
    type: str
    at: datetime
    data: dict[str, Any]
