"""The guardrails of an optimization, as an experiment on its result watches them."""

from collections.abc import Sequence

from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.agents.operational_metrics import Quantity
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.gate import ObjectiveResult, ValidatedResult
from dspy_optimization.experiments.guardrail import Guardrail, GuardrailKind

CAP = 5.0
"""Beyond so many times the baseline's mean more milliseconds or dollars are no worse."""
_NAMED = "guardrails of your own in the request, or [] for none"


def guardrails_of(objectives: Sequence[Objective], validated: ValidatedResult) -> tuple[Guardrail, ...]:
    """Return one guardrail for each objective that is one, as strict as the optimization had it.

    Amounts are capped at five times what the baseline took on the sealed split. A metric whose score must not fall by
    a share of the baseline's becomes a shortfall that may not grow by as much.

    Raises:
        InvalidRequestError: live traffic cannot tell of one of them, or nothing may be lost of it at all.
    """
    return tuple(
        _guardrail(objective, validated.objectives[objective.metric]) for objective in objectives if objective.guardrail
    )


def _guardrail(objective: Objective, measured: ObjectiveResult) -> Guardrail:
    name, margin, mean = objective.metric, objective.margin, measured.baseline.value
    if margin == 0.0:
        raise InvalidRequestError(
            f"guardrails: wanted: a margin above 0 for {name}; found: 0, as in the optimization, and that nothing at "
            f"all is lost can never be proven; possible: {_NAMED}"
        )
    match name:
        case Quantity.LATENCY_SECONDS:
            return _amount(name, GuardrailKind.LATENCY, margin, 1_000.0 * mean)
        case Quantity.COST_USD:
            return _amount(name, GuardrailKind.COST, margin, mean)
    if objective.direction is not Direction.MAXIMIZE or not 0.0 < mean <= 1.0:
        raise InvalidRequestError(
            f"guardrails: wanted: what an outcome can tell of {name}: latency, cost, or a score in [0, 1], higher is "
            f"better; found: {objective.direction.value} and a baseline of {mean:.4g}; possible: {_NAMED}"
        )
    shortfall = 1.0 - mean
    tolerated = margin * mean
    # margin (shortfall + pad) is the tolerance: with less shortfall than score the rest is an allowance.
    share = margin if shortfall <= mean else tolerated / shortfall
    return Guardrail(
        name=name,
        kind=GuardrailKind.SHORTFALL,
        metric=name,
        margin=share,
        allowance=max(tolerated - share * shortfall, 0.0),
        expected=max(shortfall, 1e-3),
    )


def _amount(name: str, kind: GuardrailKind, margin: float, mean: float) -> Guardrail:
    if mean <= 0.0:
        raise InvalidRequestError(
            f"guardrails: wanted: a limit for {name}; found: none can be drawn from the optimization, whose baseline "
            f"took 0 of it; possible: {_NAMED}"
        )
    return Guardrail(name=name, kind=kind, limit=CAP * mean, margin=margin, expected=1.0 / CAP)
