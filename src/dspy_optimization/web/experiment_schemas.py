"""What requests and answers about experiments hold."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import Field, WithJsonSchema

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.experiments.assignment import Override
from dspy_optimization.experiments.conducting import Shown
from dspy_optimization.experiments.decision import Decision
from dspy_optimization.experiments.evidence import Evidence
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.forecast import Forecast
from dspy_optimization.experiments.guardrail import DEFAULT_MARGIN, Guardrail, GuardrailKind
from dspy_optimization.experiments.plan import (
    DAY_HOURS,
    HOUR,
    LONGEST_HOURS,
    MAX_GUARDRAILS,
    ExperimentPlan,
    MissingOutcome,
    Terms,
    UnitRule,
    Window,
)
from dspy_optimization.experiments.plan_reading import MAX_OVERRIDES
from dspy_optimization.experiments.proposal import USUAL_SPLIT, ExperimentProposal, MetricProposal
from dspy_optimization.experiments.split import Variant
from dspy_optimization.web.answers import Answer
from dspy_optimization.web.schemas import MOST, JsonObject, Request, Text

_LARGEST_EXPONENT = 700.0
"""e to the power of more is no number of JSON."""
PATH = "/api/v1/experiments"


# What is out of range the plan refuses, in its own words; the documentation shows the range.
Share: TypeAlias = Annotated[
    float, Field(strict=True), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
]
ZeroToOne: TypeAlias = Annotated[
    float, Field(strict=True), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})
]
AboveZero: TypeAlias = Annotated[float, Field(strict=True), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Hours: TypeAlias = Annotated[
    float, Field(strict=True), WithJsonSchema({"type": "number", "minimum": 0, "maximum": LONGEST_HOURS})
]
Units: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=MOST)]


class PrimaryIn(Request):
    """What decides; what is not given is as the optimization has it."""

    metric: Text | None = Field(
        default=None,
        description="What the `score` of outcomes is of; the primary objective of the optimization if not given.",
        examples=["solved"],
    )
    mde: Share | None = Field(
        default=None,
        description="The smallest difference that matters; the min_improvement_threshold of the optimization if not "
        "given, 0.05 where there is none.",
    )
    expected: ZeroToOne | None = Field(
        default=None, description="Mean of the baseline; as on the sealed split if not given. A wrong one costs time."
    )
    unit_rule: UnitRule = Field(default=UnitRule.MEAN, description="How the outcomes of a unit become one number.")
    missing: MissingOutcome = Field(
        default=MissingOutcome.EXCLUDE,
        description="What a unit counts for that nothing was told of: zero where silence is a result.",
    )


class GuardrailIn(Request):
    """What must not get worse; less is better in all of them."""

    name: Text
    kind: GuardrailKind
    limit: AboveZero | None = Field(
        default=None, description="Milliseconds or dollars; of latency, latency_tail and cost."
    )
    metric: Text | None = Field(default=None, description="Of shortfall: whose score, of the named `scores`.")
    margin: Annotated[
        float,
        Field(strict=True),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 10}),
    ] = Field(default=DEFAULT_MARGIN, description="By how large a share of the baseline's mean it may be worse.")
    allowance: ZeroToOne = Field(
        default=0.0, description="By how much besides; what hardly ever happens needs one, or nothing is ever proven."
    )
    expected: Annotated[
        float, Field(strict=True), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    ] = 0.5


class WindowIn(Request):
    """Which outcomes of a unit count."""

    seconds: Annotated[
        float,
        Field(strict=True),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": DAY_HOURS * HOUR}),
    ] = Field(default=DAY_HOURS * HOUR, description="From the exposure on.")
    grace_seconds: Annotated[
        float, Field(strict=True), WithJsonSchema({"type": "number", "minimum": 0, "maximum": DAY_HOURS * HOUR})
    ] = Field(default=Window().grace_seconds, description="How long their news may take.")


class TermsIn(Request):
    """When something may be said."""

    alpha: Share | None = Field(default=None, description="As in the settings of the service if not given.")
    minimum_units: Units = Field(default=Terms().minimum_units, description="Of each version.")
    minimum_hours: Hours = Field(default=Terms().minimum_hours, description="Since the first exposure.")
    extended_validation: bool = Field(default=False, strict=True, description="A winner waits for seven days.")
    maximum_hours: Annotated[
        float,
        Field(strict=True),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_HOURS}),
    ] = Field(default=LONGEST_HOURS, description="Since the start; then it ends, whatever is known.")


class OverrideIn(Request):
    """Units that always get one version and are not in the experiment."""

    attribute: Text = Field(description="`unit_id`, or the name of an attribute.", examples=["office"])
    values: list[Text] = Field(min_length=1, max_length=1_000)
    variant: Variant


class PlanIn(Request):
    """What is to be compared; without an optimization only the numbers are reckoned."""

    optimization_id: UUID | None = None
    baseline_config: Text | JsonObject | None = Field(
        default=None,
        description="The version that is live: its configuration, or its fingerprint. It has to be the one that the "
        "optimization started from, and is if not given.",
    )
    optimized_config: Text | JsonObject | None = Field(
        default=None,
        description="The version on trial: its configuration, or its fingerprint. It has to be the one that the "
        "optimization ended with, and is if not given.",
    )
    traffic_split: Share = Field(default=USUAL_SPLIT, description="Share of the units that get the optimized version.")
    primary: PrimaryIn = PrimaryIn()
    guardrails: list[GuardrailIn] | None = Field(
        default=None, max_length=MAX_GUARDRAILS, description="Those of the optimization if not given; [] for none."
    )
    window: WindowIn = WindowIn()
    terms: TermsIn = TermsIn()
    overrides: list[OverrideIn] = Field(default=[], max_length=MAX_OVERRIDES)
    units_per_day: AboveZero | None = Field(
        default=None, description="Of both versions, for the forecast alone; some examples if not given."
    )


class ExperimentIn(PlanIn):
    """An experiment to start."""

    optimization_id: UUID = Field(description="One with the verdict `improved`.")


class StopIn(Request):
    """Why it ends."""

    because: Annotated[str, Field(min_length=1, max_length=900)] = Field(examples=["the campaign is over"])


class ExtendIn(Request):
    """More time."""

    until_hours: Annotated[
        float,
        Field(strict=True),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_HOURS}),
    ] = Field(description="Since the start, more than now: 336 and 672 are 14 and 28 days.", examples=[336])


class SplitIn(Request):
    """More traffic for the optimized version."""

    traffic_split: Share = Field(description="More than now: a split only rises.", examples=[0.5])


class DetectableOut(Answer):
    """What one amount of traffic allows, at a power of 0.8."""

    units_per_day: float
    effect: float | None = Field(description="The smallest difference seen in seven days; null: none that is possible.")
    days_needed: float | None = Field(description="Until the mde is found; null: it never is.")


class ForecastOut(Answer):
    """What the experiment can find."""

    expected: float
    mde: float
    traffic_split: float
    alpha: float
    units_needed: int | None = Field(description="Of both versions, for the mde; null: there is not so much to gain.")
    fixed_units: int | None = Field(description="The same for one test at a fixed end, without looks in between.")
    detectable: list[DetectableOut]
    sentence: str


class PlannedOut(Answer):
    """A plan that nothing was started of."""

    plan: dict[str, Any] | None = Field(description="Null without an optimization.")
    forecast: ForecastOut


class DecisionOut(Answer):
    """What was decided at the newest look, and why."""

    state: str
    winner: str = Field(description="baseline unless the optimized version is proven better; no claim in itself.")
    confidence: float = Field(description="1 - p of the claim that the winner beats the other.")
    deployment_recommended: bool
    ends: bool
    decided_at: datetime
    reason: str


class ExperimentOut(Answer):
    """An experiment at a glance."""

    experiment_id: UUID
    optimization_id: UUID
    agent: str
    status: str
    traffic_split: float
    created_at: datetime
    started_at: datetime | None
    until: datetime | None = Field(description="When no answer becomes an answer; `extend` moves it.")
    ended_at: datetime | None
    ended_because: str | None
    alerted_at: datetime | None = Field(description="When it was told that seven days proved nothing.")
    decision: DecisionOut | None = Field(description="Null before the first look.")
    monitoring_url: str


class ExperimentStarted(ExperimentOut):
    """An experiment that takes units in."""

    plan_hash: str
    plan: dict[str, Any]
    forecast: ForecastOut


class ArmOut(Answer):
    """One version in the experiment."""

    variant: str
    version: str
    exposed: int = Field(description="Units, those still in their window too.")
    n: int = Field(description="Units whose window has closed and that have a score.")
    silent: int = Field(description="Units whose window has closed without any outcome.")
    mean: float | None


class ComparisonOut(Answer):
    """Optimized minus baseline. Everything holds at all looks together."""

    metric: str
    difference: float | None = Field(description="Inflated where it is what ended the experiment.")
    interval: list[float] | None
    level: float
    p_value: float = Field(description="Two-sided; never rises.")
    p_superior: float
    p_harmful: float
    e_value_superior: float = Field(description="Of now; 2 / alpha proves it.")
    e_value_harmful: float
    is_superior: bool
    is_harmful: bool


class SampleRatioOut(Answer):
    """Whether units went where they should, at one split."""

    of: str = Field(description="exposures, or outcomes: units with a score.")
    share: float
    n_baseline: int
    n_optimized: int
    p_value: float | None = Field(description="Chi-square of this look, for display.")
    is_mismatch: bool


class GuardrailOut(Answer):
    """What is known of one guardrail; less is better."""

    name: str
    margin: float
    allowance: float
    n_baseline: int
    n_optimized: int
    mean_baseline: float | None
    mean_optimized: float | None
    is_breached: bool
    is_non_inferior: bool
    is_comparable: bool
    is_proven: bool


class EtaOut(Answer):
    """When it may be decided, if it goes on like this."""

    units_at_decision: int | None = Field(description="Of both versions; null while nothing speaks for the optimized.")
    hours_to_decision: float | None
    at: datetime | None


class SplitOut(Answer):
    """From when on units were drawn under a split."""

    at: datetime
    traffic_split: float


class ExperimentDetail(ExperimentOut):
    """An experiment with its evidence."""

    plan_hash: str
    plan: dict[str, Any]
    splits: list[SplitOut]
    looked_at: datetime | None = Field(description="The moment that the evidence is of.")
    arms: list[ArmOut]
    comparison: ComparisonOut
    sample_ratios: list[SampleRatioOut]
    guardrails: list[GuardrailOut]
    eta: EtaOut


class LogOut(Answer):
    """What was recorded, and what of it does not count."""

    units: int
    repeated_exposures: int
    late_exposures: int
    crossovers: int
    events: int
    counted_events: int
    repeated_outcomes: int
    conflicting_outcomes: int
    early_outcomes: int
    outside_window: int
    late_outcomes: int
    unknown_exposures: int


def proposal_of(
    body: PlanIn, optimization_id: OptimizationId, versions: Mapping[Variant, Fingerprint], alpha: float
) -> ExperimentProposal:
    """Return what is wanted. Raises `InvalidRequestError` where a part of it cannot be.

    Args:
        body: as it came in.
        optimization_id: the one it names.
        versions: what its configurations are.
        alpha: where it says none.
    """
    return ExperimentProposal(
        optimization_id=optimization_id,
        versions=versions,
        traffic_split=body.traffic_split,
        primary=metric_of(body.primary),
        guardrails=None if body.guardrails is None else tuple(_guardrail(one) for one in body.guardrails),
        window=window_of(body.window),
        terms=terms_of(body.terms, alpha),
        overrides=tuple(
            Override(attribute=one.attribute, values=frozenset(one.values), variant=one.variant)
            for one in body.overrides
        ),
    )


def metric_of(given: PrimaryIn) -> MetricProposal:
    """Return what is to decide."""
    return MetricProposal(
        metric=given.metric,
        mde=given.mde,
        expected=given.expected,
        unit_rule=given.unit_rule,
        missing=given.missing,
    )


def window_of(given: WindowIn) -> Window:
    """Return the window. Raises `InvalidRequestError`."""
    return Window(seconds=given.seconds, grace_seconds=given.grace_seconds)


def terms_of(given: TermsIn, alpha: float) -> Terms:
    """Return the terms, with this alpha where none is given. Raises `InvalidRequestError`."""
    return Terms(
        alpha=alpha if given.alpha is None else given.alpha,
        minimum_units=given.minimum_units,
        minimum_hours=given.minimum_hours,
        extended_validation=given.extended_validation,
        maximum_hours=given.maximum_hours,
    )


def _guardrail(given: GuardrailIn) -> Guardrail:
    return Guardrail(
        name=given.name,
        kind=given.kind,
        limit=given.limit,
        metric=given.metric,
        margin=given.margin,
        allowance=given.allowance,
        expected=given.expected,
    )


def forecast_out(found: Forecast) -> ForecastOut:
    """Return the answer."""
    return ForecastOut(
        expected=found.expected,
        mde=found.mde,
        traffic_split=found.share,
        alpha=found.alpha,
        units_needed=found.units_needed,
        fixed_units=found.fixed_units,
        detectable=[
            DetectableOut(units_per_day=one.units_per_day, effect=one.effect, days_needed=one.days_needed)
            for one in found.detectable
        ],
        sentence=found.sentence,
    )


def plan_out(plan: ExperimentPlan) -> dict[str, Any]:
    """Return the plan as it is shown: without what says who gets what beforehand."""
    return {name: value for name, value in plan.to_json().items() if name not in {"tenant", "salt"}}


def experiment_out(one: Experiment) -> ExperimentOut:
    """Return the answer at a glance."""
    return ExperimentOut(
        experiment_id=one.plan.experiment_id,
        optimization_id=one.plan.optimization_id,
        agent=one.plan.agent,
        status=one.status.value,
        traffic_split=one.split.share,
        created_at=one.created_at,
        started_at=one.started_at,
        until=one.until,
        ended_at=one.ended_at,
        ended_because=one.ended_because,
        alerted_at=one.alerted_at,
        decision=None if one.decision is None else _decision(one.decision),
        monitoring_url=f"{PATH}/{one.plan.experiment_id}",
    )


def experiment_started(one: Experiment, found: Forecast) -> ExperimentStarted:
    """Return the answer to a start."""
    return ExperimentStarted(
        **experiment_out(one).model_dump(),
        plan_hash=one.plan.hash,
        plan=plan_out(one.plan),
        forecast=forecast_out(found),
    )


def experiment_detail(shown: Shown) -> ExperimentDetail:
    """Return the answer with the evidence."""
    one, evidence = shown
    return ExperimentDetail(
        **experiment_out(one).model_dump(),
        plan_hash=one.plan.hash,
        plan=plan_out(one.plan),
        splits=[SplitOut(at=change.at, traffic_split=change.split.share) for change in one.splits],
        looked_at=None if one.decision is None else one.decision.decided_at,
        arms=_arms(one.plan, evidence),
        comparison=_comparison(one.plan, evidence),
        sample_ratios=[SampleRatioOut.model_validate(ratio.to_json()) for ratio in evidence.ratios],
        guardrails=[
            GuardrailOut(
                name=guardrail.name,
                margin=guardrail.margin,
                allowance=guardrail.allowance,
                n_baseline=guardrail.n_baseline,
                n_optimized=guardrail.n_optimized,
                mean_baseline=guardrail.mean_baseline,
                mean_optimized=guardrail.mean_optimized,
                is_breached=guardrail.is_breached,
                is_non_inferior=guardrail.is_non_inferior,
                is_comparable=guardrail.is_comparable,
                is_proven=guardrail.is_proven,
            )
            for guardrail in evidence.guardrails
        ],
        eta=_eta(one, evidence),
    )


def _decision(one: Decision) -> DecisionOut:
    return DecisionOut(
        state=one.state.value,
        winner=one.winner.value,
        confidence=one.confidence,
        deployment_recommended=one.deployment_recommended,
        ends=one.ends,
        decided_at=one.decided_at,
        reason=one.reason,
    )


def _arms(plan: ExperimentPlan, evidence: Evidence) -> list[ArmOut]:
    return [
        ArmOut(
            variant=Variant.BASELINE.value,
            version=plan.baseline,
            exposed=evidence.exposed_baseline,
            n=evidence.n_baseline,
            silent=evidence.silent_baseline,
            mean=evidence.mean_baseline,
        ),
        ArmOut(
            variant=Variant.OPTIMIZED.value,
            version=plan.optimized,
            exposed=evidence.exposed_optimized,
            n=evidence.n_optimized,
            silent=evidence.silent_optimized,
            mean=evidence.mean_optimized,
        ),
    ]


def _comparison(plan: ExperimentPlan, evidence: Evidence) -> ComparisonOut:
    return ComparisonOut(
        metric=plan.primary.metric,
        difference=evidence.difference,
        interval=None if evidence.interval is None else list(evidence.interval),
        level=1.0 - plan.terms.alpha,
        p_value=evidence.p_value,
        p_superior=evidence.p_superior,
        p_harmful=evidence.p_harmful,
        e_value_superior=_e_value(evidence.log_e_superior),
        e_value_harmful=_e_value(evidence.log_e_harmful),
        is_superior=evidence.is_superior,
        is_harmful=evidence.is_harmful,
    )


def _eta(one: Experiment, evidence: Evidence) -> EtaOut:
    hours = None if one.has_ended else evidence.hours_to_decision
    # Beyond its own end an experiment decides nothing.
    is_near = hours is not None and hours <= LONGEST_HOURS
    return EtaOut(
        units_at_decision=None if one.has_ended else evidence.units_at_decision,
        hours_to_decision=hours,
        at=evidence.as_of + timedelta(hours=hours) if hours is not None and is_near else None,
    )


def _e_value(log_e: float) -> float:
    return math.exp(min(log_e, _LARGEST_EXPONENT))
