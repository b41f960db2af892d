"""The decision rule: what the evidence allows to be done, asked in one order.

    1. units did not go where they should          invalid              back to the baseline
    2. a guardrail is proven breached              guardrail_breach     back to the baseline
    3. optimized is proven worse                   harm                 back to the baseline, whatever units and hours
    4. optimized is proven better, and units,
       hours, guardrails, false discovery allow    winner               deployment recommended
       else                                        significant_waiting
    5. nothing is proven, and the time is up       inconclusive         never "the baseline is better"
       else                                        running

Source: research notes 3b; Schultzberg, Ankargren and Franberg 2024 for deploying on guardrails proven non-inferior.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dspy_optimization.experiments.decision import ROLLBACKS, Alert, Decision, DecisionState
from dspy_optimization.experiments.evidence import Evidence, hours_between
from dspy_optimization.experiments.plan import REVIEW_HOURS, ExperimentPlan
from dspy_optimization.experiments.split import Variant
from dspy_optimization.experiments.wording import open_points, said


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How long an experiment has been running, and may be."""

    started_at: datetime
    until_hours: float
    """Since the start, after which no answer is an answer; grows by extending."""
    is_alerted: bool = False
    """Whether a person was told already that nothing was found in seven days."""


class Look(NamedTuple):
    """A decision, and what a person has to be told with it."""

    decision: Decision
    alert: Alert | None


def decide(plan: ExperimentPlan, evidence: Evidence, clock: Clock) -> Look:
    """Return what the evidence allows to be done now.

    Seven days without anything proven are told once, whether or not the time is up with them. The experiment ends with
    a rollback, with a winner, and after the plan's longest time whatever is known by then.

    Args:
        plan: what was fixed beforehand.
        evidence: of this look.
        clock: since when, until when, and whether the seven days were told.
    """
    hours = hours_between(clock.started_at, evidence.as_of)
    is_over = hours >= plan.terms.maximum_hours
    state = _state(plan, evidence, is_time_up=is_over or hours >= clock.until_hours)
    is_better = state in {DecisionState.WINNER, DecisionState.SIGNIFICANT_WAITING}
    decision = Decision(
        state=state,
        winner=Variant.OPTIMIZED if is_better else Variant.BASELINE,
        confidence=1.0 - (evidence.p_superior if is_better else evidence.p_harmful),
        deployment_recommended=state is DecisionState.WINNER,
        ends=is_over or state is DecisionState.WINNER or state in ROLLBACKS,
        decided_at=evidence.as_of,
        reason=said(plan, evidence, state, hours=hours, is_over=is_over),
    )
    is_unanswered = state in {DecisionState.RUNNING, DecisionState.INCONCLUSIVE}
    is_due = is_unanswered and hours >= REVIEW_HOURS and not clock.is_alerted
    return Look(decision, Alert.NOT_SIGNIFICANT_IN_7_DAYS if is_due else None)


def _state(plan: ExperimentPlan, evidence: Evidence, *, is_time_up: bool) -> DecisionState:
    if evidence.mismatches:
        return DecisionState.INVALID
    if any(guardrail.is_breached for guardrail in evidence.guardrails):
        return DecisionState.GUARDRAIL_BREACH
    if evidence.is_harmful:
        return DecisionState.HARM
    if evidence.is_superior:
        return DecisionState.SIGNIFICANT_WAITING if open_points(plan, evidence) else DecisionState.WINNER
    return DecisionState.INCONCLUSIVE if is_time_up else DecisionState.RUNNING
