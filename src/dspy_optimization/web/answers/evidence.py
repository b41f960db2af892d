"""Answers about a search: candidates, differences, curves, examples, lineage, events."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from dspy_optimization.web.answers.base import Answer


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


class CandidateDetail(Answer):
    """A candidate with its texts."""

    candidate: str
    components: dict[str, ComponentOut]


class PieceOut(Answer):
    """A piece of text with one fate."""

    edit: str
    text: str


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
