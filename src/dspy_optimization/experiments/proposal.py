"""What somebody wants compared on live traffic, and the plan it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.gate import ValidatedResult
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.experiments.assignment import ExperimentId, Override
from dspy_optimization.experiments.guardrail import Guardrail
from dspy_optimization.experiments.guardrail_defaults import guardrails_of
from dspy_optimization.experiments.plan import (
    ExperimentPlan,
    MissingOutcome,
    PrimaryMetric,
    Terms,
    UnitRule,
    Window,
)
from dspy_optimization.experiments.split import Variant, experiment_split
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import TenantId

USUAL_SPLIT = 0.1
USUAL_MDE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricProposal:
    """What is to decide; what is not said is as the optimization has it."""

    metric: str | None = None
    """None: its primary objective."""
    mde: float | None = None
    """None: its min_improvement_threshold where that is one, else 0.05."""
    expected: float | None = None
    """None: what the baseline reached on the sealed split, 0.5 of a metric that was not measured there."""
    unit_rule: UnitRule = UnitRule.MEAN
    missing: MissingOutcome = MissingOutcome.EXCLUDE


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentProposal:
    """What somebody wants compared."""

    optimization_id: OptimizationId
    versions: Mapping[Variant, Fingerprint] = field(default_factory=dict)
    """As the caller names them, to be the ones of the optimization; none is needed."""
    traffic_split: object = USUAL_SPLIT
    """Share of the units that get the optimized version, in (0, 1)."""
    primary: MetricProposal = field(default_factory=MetricProposal)
    guardrails: tuple[Guardrail, ...] | None = None
    """None: those of the optimization."""
    window: Window = field(default_factory=Window)
    terms: Terms = field(default_factory=Terms)
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMaking:
    """What a plan needs besides what is proposed."""

    experiment_id: ExperimentId
    tenant: TenantId
    agent: str
    """Its name."""
    salt: str


def plan_of(
    proposal: ExperimentProposal, optimization: Optimization, result: OptimizationResult | None, making: PlanMaking
) -> ExperimentPlan:
    """Return the plan of what is proposed.

    Args:
        proposal: as it was handed in.
        optimization: the one it names.
        result: of that optimization; None: it has none.
        making: whose plan it will be.
    Raises:
        InvalidRequestError: the optimization has no validated gain, the versions are not its own, or the plan refuses
            something.
    """
    split = experiment_split(proposal.traffic_split)
    validated = _validated_gain(optimization, result)
    if result is None or validated is None:
        raise no_gain(optimization, result)
    versions = {
        Variant.BASELINE: optimization.request.target.version,
        Variant.OPTIMIZED: result.artifact.agent_version,
    }
    _check_versions(proposal, versions)
    objectives = optimization.request.objectives
    return ExperimentPlan(
        experiment_id=making.experiment_id,
        tenant=making.tenant,
        optimization_id=optimization.request.id,
        agent=making.agent,
        baseline=versions[Variant.BASELINE],
        optimized=versions[Variant.OPTIMIZED],
        primary=primary_of(proposal.primary, optimization, validated),
        guardrails=guardrails_of(objectives, validated) if proposal.guardrails is None else proposal.guardrails,
        window=proposal.window,
        terms=proposal.terms,
        split=split,
        salt=making.salt,
        overrides=proposal.overrides,
    )


def primary_of(proposal: MetricProposal, optimization: Optimization, validated: ValidatedResult) -> PrimaryMetric:
    """Return what decides, with what the optimization knows of it.

    Raises:
        InvalidRequestError: its own primary objective is nothing that an outcome can be scored by.
    """
    name = validated.primary if proposal.metric is None else proposal.metric
    objective = next((one for one in optimization.request.objectives if one.metric == name), None)
    measured = _score_mean(objective, validated)
    if objective is not None and measured is None:
        raise InvalidRequestError(
            f"primary.metric: wanted: a metric that scores outcomes in [0, 1], higher is better; found: {name}, "
            f"{objective.direction.value}, with a baseline of {validated.objectives[name].baseline.value:.4g}; "
            "possible: another name, of what your outcomes will tell as `score`"
        )
    threshold = optimization.request.constraints.min_improvement_threshold
    usual_mde = threshold if name == validated.primary and 0.0 < threshold < 1.0 else USUAL_MDE
    usual_mean = 0.5 if measured is None else measured
    return PrimaryMetric(
        metric=name,
        mde=usual_mde if proposal.mde is None else proposal.mde,
        expected=usual_mean if proposal.expected is None else proposal.expected,
        unit_rule=proposal.unit_rule,
        missing=proposal.missing,
    )


def no_gain(optimization: Optimization, result: OptimizationResult | None) -> InvalidRequestError:
    """Return the error of an optimization that proved nothing to compare."""
    found = f"it is {optimization.status.value}"
    if result is not None and optimization.status is OptimizationStatus.COMPLETED:
        verdict = None if result.validated is None else result.validated.verdict.value
        found = "its sealed split was never opened" if verdict is None else f"its verdict is {verdict}"
    return InvalidRequestError(
        f"optimization_id: wanted: an optimization with the verdict improved; found: {optimization.request.id}, and "
        f"{found}; possible: one whose status says so in results.verdict"
    )


def _validated_gain(optimization: Optimization, result: OptimizationResult | None) -> ValidatedResult | None:
    """Return the evidence of a gain; None where there is none."""
    if optimization.status is not OptimizationStatus.COMPLETED or result is None or result.validated is None:
        return None
    return result.validated if result.validated.verdict is Verdict.IMPROVED else None


def _check_versions(proposal: ExperimentProposal, versions: Mapping[Variant, Fingerprint]) -> None:
    named = proposal.versions
    if len(named) == len(Variant) and len(set(named.values())) == 1:
        raise InvalidRequestError(
            f"optimized_config: wanted: another version than the baseline; found: {named[Variant.OPTIMIZED]} as both; "
            f"possible: {versions[Variant.OPTIMIZED]}, which the optimization ended with, or leave both out"
        )
    for variant, version in named.items():
        if version != versions[variant]:
            whose = "it ended with" if variant is Variant.OPTIMIZED else "it started from"
            raise InvalidRequestError(
                f"{variant.value}_config: wanted: version {versions[variant]}, which the optimization says {whose}; "
                f"found: {version}; possible: that one, or leave it out"
            )


def _score_mean(objective: Objective | None, validated: ValidatedResult) -> float | None:
    """Return the baseline's mean where it can be one of outcomes; None where it cannot."""
    if objective is None or objective.direction is not Direction.MAXIMIZE:
        return None
    mean = validated.objectives[objective.metric].baseline.value
    return mean if 0.0 <= mean <= 1.0 else None
