"""What requests and answers about live traffic hold: who gets which version, and what became of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self, TypeAlias
from urllib.parse import quote
from uuid import UUID

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.conducting import Refusal, Served, Told
from dspy_optimization.web.answers import Answer
from dspy_optimization.web.problems import status_of
from dspy_optimization.web.schemas import JsonObject, Request

MOST_OUTCOMES = 1_000


def _text(value: object) -> object:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"wanted: a moment in ISO 8601; found: {type(value).__name__}; possible: 2026-03-01T12:00:00Z")
    return value


# The nouns refuse what is out of range, in their own words; the documentation shows the range.
Score: TypeAlias = Annotated[float, Field(strict=True), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Amount: TypeAlias = Annotated[float, Field(strict=True), WithJsonSchema({"type": "number", "minimum": 0})]
EventId: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class AssignIn(Request):
    """Who asks."""

    unit_id: Annotated[str, Field(max_length=512)] | None = Field(
        default=None,
        description="A user or a session, always the same text for the same one; without one the baseline is served, "
        "outside of the experiment.",
        examples=["user-4711"],
    )
    attributes: JsonObject = Field(
        default={},
        max_length=64,
        description="What is known before it is served, for the overrides of the experiment.",
    )


class AssignOut(Answer):
    """What is to be served."""

    agent: str
    unit_id: str | None
    variant: str
    reason: str = Field(description="hashed, kept, overridden, no_unit or not_running.")
    version: str = Field(description="Of the agent; `links.version` has its configuration.")
    live_version: str = Field(description="What everybody gets who is in no experiment.")
    experiment_id: UUID | None = Field(description="Null: no experiment runs on the agent.")
    exposure_id: UUID | None = Field(description="Under which outcomes are told; null: not in an experiment.")
    links: dict[str, str]


class OutcomeFields(Request):
    """What became of a unit."""

    happened_at: Annotated[datetime, BeforeValidator(_text)] | None = Field(
        default=None, description="With its time zone; the time of receipt if not given."
    )
    score: Score | None = Field(default=None, description="Of the primary metric, higher is better.")
    success: bool | None = Field(default=None, strict=True, description="In place of a score: true is 1, false is 0.")
    failed: bool = Field(default=False, strict=True, description="The agent gave no usable answer.")
    cost_usd: Amount | None = None
    latency_ms: Amount | None = None
    scores: dict[str, Score] = Field(default={}, max_length=32, description="Of other metrics, for guardrails.")
    feedback: Annotated[str, Field(max_length=10_000)] | None = Field(
        default=None, description="Words of a person; kept, not counted."
    )


class OutcomeIn(OutcomeFields):
    """One outcome."""

    event_id: EventId
    exposure_id: UUID


class OutcomesIn(OutcomeFields):
    """One outcome, or a batch of them: either `event_id` and `exposure_id` with what happened, or `outcomes` alone."""

    event_id: EventId | None = Field(
        default=None, description="Your own: the same one told again changes nothing.", examples=["order-17-solved"]
    )
    exposure_id: UUID | None = Field(default=None, description="As assign answered.")
    outcomes: list[dict[str, Any]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_OUTCOMES,
        description="Each with the fields of a single one; those that cannot be taken in are named in the answer.",
    )

    @model_validator(mode="after")
    def _is_one_or_many(self) -> Self:
        given = self.model_fields_set
        if self.outcomes is not None and given != {"outcomes"}:
            raise ValueError(
                f"wanted: one outcome, or outcomes alone; found: outcomes and {', '.join(sorted(given - {'outcomes'}))}"
                "; possible: put it into the list"
            )
        if self.outcomes is None and (self.event_id is None or self.exposure_id is None):
            raise ValueError("wanted: event_id and exposure_id, or outcomes; found: neither; possible: both ids")
        return self


class RefusedOut(Answer):
    """An outcome that was not taken in."""

    position: int = Field(description="In the batch, from 0.")
    event_id: str | None
    status: int = Field(description="What it would have been answered with alone: 404 or 422.")
    detail: str


class OutcomesOut(Answer):
    """What became of outcomes that were told."""

    accepted: int = Field(description="Those that were known already count too.")
    refused: list[RefusedOut]


def told(one: OutcomeFields, event_id: str, exposure_id: UUID) -> Told:
    """Return an outcome as it is told."""
    return Told(
        event_id=event_id,
        exposure_id=exposure_id,
        happened_at=one.happened_at,
        score=one.score,
        success=one.success,
        failed=one.failed,
        cost_usd=one.cost_usd,
        latency_ms=one.latency_ms,
        scores=one.scores,
        feedback=one.feedback,
    )


def read_outcome(position: int, given: Mapping[str, Any]) -> OutcomeIn | RefusedOut:
    """Return one outcome of a batch, or why it is none."""
    try:
        return OutcomeIn.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "outcome"
        event_id = given.get("event_id")
        return RefusedOut(
            position=position,
            event_id=event_id if isinstance(event_id, str) else None,
            status=status_of(InvalidRequestError("")),
            detail=f"{where}: {first['msg']}",
        )


def refused_out(position: int, refusal: Refusal) -> RefusedOut:
    """Return the answer about an outcome that stood at this position."""
    return RefusedOut(
        position=position,
        event_id=refusal.event_id,
        status=status_of(refusal.error),
        detail=str(refusal.error),
    )


def assign_out(agent: str, served: Served) -> AssignOut:
    """Return the answer."""
    assignment = served.assignment
    links = {"version": f"/api/v1/agents/{quote(agent, safe='')}/versions/{served.version}"}
    if served.experiment_id is not None:
        links["experiment"] = f"/api/v1/experiments/{served.experiment_id}"
    return AssignOut(
        agent=agent,
        unit_id=assignment.unit_id,
        variant=assignment.variant.value,
        reason=assignment.reason.value,
        version=served.version,
        live_version=served.live_version,
        experiment_id=served.experiment_id,
        exposure_id=assignment.exposure_id,
        links=links,
    )
