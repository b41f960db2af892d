"""What requests hold. Unknown fields are an error; what a configuration means is checked further in."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dspy_optimization.agents.objective import Objective
from dspy_optimization.web.asking_again import body_of, is_shown

Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
JsonObject: TypeAlias = dict[str, Any]
MOST = (1 << 53) - 1
"""The largest count and seed: beyond it JSON numbers lose digits elsewhere."""

USUAL_MARGIN = Objective(metric="").margin


class Request(BaseModel):
    """Base of everything that comes in."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TargetIn(Request):
    """What is to be optimized."""

    type: Literal["agent", "workflow", "component"] = "agent"
    id: Text = Field(description="The agent's name.", examples=["support-triage"])
    scope: Literal["individual", "population", "cross_domain"] = "individual"
    version: Text | None = Field(default=None, description="Which version is the baseline; the newest if not given.")
    config: JsonObject | None = Field(
        default=None, description="The agent's configuration, when no agent of that name is registered yet."
    )


class SharesIn(Request):
    """How large the splits are; they sum to 1."""

    train: float = Field(default=0.3, gt=0, lt=1)
    val: float = Field(default=0.3, gt=0, lt=1)
    test: float = Field(default=0.4, gt=0, lt=1)


class DatasetIn(Request):
    """Examples: those of a dataset that is kept, or given here."""

    id: Text | None = Field(default=None, description="The id (version) of a dataset that is kept.")
    examples: list[JsonObject] | None = Field(default=None, max_length=100_000)
    source: Text | None = Field(
        default=None, description="`reasoning_gym:<task>?size=200`", examples=["reasoning_gym:leg_counting?size=200"]
    )
    name: Text = "examples"
    inputs: list[Text] = Field(default=[], max_length=64, description="Empty: as the agent's signature says.")
    expected: list[Text] = Field(default=[], max_length=64)
    cluster: Text | None = Field(default=None, description="The field whose examples belong together.")
    split: Text = Field(default="split", description="The field that may name the split.")
    shares: SharesIn = SharesIn()
    seed: int = Field(default=0, ge=0, le=MOST)


class ObjectiveIn(Request):
    """A metric with what it is wanted for."""

    metric: Text = Field(examples=["success_rate"])
    direction: Literal["maximize", "minimize"] | None = None
    weight: float | None = Field(default=None, gt=0, le=1e6)
    target_value: float | None = None
    guardrail: bool = False
    margin: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Of a guardrail; the usual one may stand anywhere.",
    )

    @model_validator(mode="after")
    def _without_what_means_nothing(self) -> Self:
        if not self.guardrail and self.margin == USUAL_MARGIN:
            self.margin = None
        return self


class ConstraintsIn(Request):
    """Within which bounds."""

    max_optimization_time: float | None = Field(default=None, gt=0, le=1e9, description="Seconds of work.")
    min_improvement_threshold: float = Field(default=0.0, ge=0, le=1e9)
    max_resource_usage: float | None = Field(
        default=None, gt=0, le=1, description="Share of the task model's concurrency that it may use."
    )
    max_cost_usd: float | None = Field(default=None, gt=0, le=1e9)
    max_lm_calls: int | None = Field(default=None, ge=1, le=MOST)
    max_tokens: int | None = Field(default=None, ge=1, le=MOST)
    seed: int = Field(default=0, ge=0, le=MOST)
    concurrency: int = Field(default=8, ge=1, le=1024)
    requires_approval: bool = Field(
        default=False,
        description="Only false: approval comes with deployments, and nothing is deployed yet.",
        json_schema_extra={"const": False},
    )
    requires_gpu: bool = False
    priority: Literal["high", "normal", "low"] = Field(
        default="normal",
        description="high: only with a key that may administer, for it goes before what others wait for.",
    )
    deadline: datetime | None = Field(default=None, description="When it has to have ended; with a time zone.")
    isolation: Literal["thread", "process"] = Field(
        default="thread",
        description="process: a process of its own, so that agents, tools and metrics which crash harm no other.",
    )

    @field_validator("requires_approval")
    @classmethod
    def _is_not_there_yet(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "wanted: false, for approval comes with deployments, and nothing is deployed yet; found: true; "
                "possible: leave it out"
            )
        return value


class OptimizeIn(Request):
    """One optimization. The `request` of `GET /api/v1/optimizations/{id}` is taken as well, and asks for it again."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "target": {
                        "id": "orders",
                        "config": {
                            "name": "orders",
                            "kind": "predict",
                            "signature": {
                                "instructions": "Which order is the message about?",
                                "inputs": [{"name": "message"}],
                                "outputs": [{"name": "order"}],
                            },
                        },
                    },
                    "dataset": {
                        "examples": [{"message": "Order 10234 came broken, I paid 20 dollars.", "order": "10234"}]
                    },
                    "objectives": [{"metric": "exact_match"}],
                    "algorithms": ["auto"],
                    "constraints": {"max_lm_calls": 2000, "seed": 0},
                }
            ]
        },
    )

    target: TargetIn
    dataset: DatasetIn
    objectives: list[ObjectiveIn] = Field(min_length=1, max_length=16)
    metrics: list[Text | JsonObject] = Field(default=[], max_length=64)
    algorithms: list[Text | dict[str, JsonObject]] = Field(default=["miprov2", "gepa"], max_length=16)
    constraints: ConstraintsIn = ConstraintsIn()
    policy: Text | JsonObject | None = Field(
        default=None,
        description="Which candidate goes to the gate: weights (if not given), target_values {least}, lexicographic "
        "{order, tolerance}, knee, max_cost {metric, at_most}; `{type: …}`, or the name alone.",
        examples=[{"type": "max_cost", "metric": "cost_usd", "at_most": 0.01}],
    )

    @model_validator(mode="before")
    @classmethod
    def _of_what_was_shown(cls, data: object) -> object:
        return body_of(data) if is_shown(data) else data


class PickIn(Request):
    """Another candidate to take to the gate."""

    candidate: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="Its fingerprint, or a beginning of it that no other one has."
    )


class DatasetNew(DatasetIn):
    """A dataset to keep."""

    id: None = None
    agent: Text | JsonObject | None = Field(
        default=None, description="An agent whose signature says which fields are inputs: its name, or it."
    )


class DatasetCheck(Request):
    """A dataset and the agent it is for."""

    dataset: DatasetIn
    target: TargetIn
    objectives: list[ObjectiveIn] = Field(default=[ObjectiveIn(metric="exact_match")], min_length=1, max_length=16)


class LaneIn(Request):
    """How many optimizations of a lane run at once: one of the numbers or both; what is not given stays as it is."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "minProperties": 1,
            "examples": [{"concurrency": 8, "worker_concurrency": 2}, {"worker_concurrency": None}],
        },
    )

    concurrency: Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 10_000})] = Field(
        default_factory=lambda: None, strict=True, ge=1, le=10_000, description="Over all workers together."
    )
    worker_concurrency: int | None = Field(
        default_factory=lambda: None,
        strict=True,
        ge=1,
        le=10_000,
        description="In each worker, at most as many as all of them together; null: any number.",
    )

    @field_validator("concurrency")
    @classmethod
    def _is_a_number(cls, value: int | None) -> int:
        if value is None:
            raise ValueError("wanted: from 1 to 10000; found: null; possible: leave it out, and it stays as it is")
        return value

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("wanted: concurrency, worker_concurrency or both; found: neither")
        return self


class PartitionIn(Request):
    """How many optimizations that name an algorithm run at once."""

    concurrency: int | None = Field(strict=True, ge=1, le=10_000, description="Null: any number.")


class LoginIn(Request):
    """A key that the browser keeps as a cookie no script can read."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=200)]
