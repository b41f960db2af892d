"""Decisions in words: one or two sentences, with the numbers they rest on."""

import math
from typing import assert_never

from dspy_optimization.experiments.decision import DecisionState
from dspy_optimization.experiments.evidence import Evidence, GuardrailEvidence, RatioEvidence
from dspy_optimization.experiments.plan import ExperimentPlan


def said(plan: ExperimentPlan, evidence: Evidence, state: DecisionState, *, hours: float, is_over: bool) -> str:
    """Return a decision in words.

    Args:
        plan: what was fixed beforehand.
        evidence: of this look.
        state: what was decided.
        hours: since the start.
        is_over: whether the plan's longest time has passed.
    """
    match state:
        case DecisionState.INVALID:
            ratio = evidence.mismatches[0]
            return (
                f"Invalid: {_ratio(ratio)}, which chance does not explain, so the groups cannot be compared and "
                "nothing is said of the versions. All traffic goes back to the baseline; look for what loses or moves "
                "units before a new experiment."
            )
        case DecisionState.GUARDRAIL_BREACH:
            return f"Rolled back: {_breaches(evidence)}. All traffic goes back to the baseline."
        case DecisionState.HARM:
            return (
                f"Rolled back: the optimized version is worse, {_numbers(plan, evidence)} "
                f"(p = {_p(evidence.p_harmful)}). All traffic goes back to the baseline."
            )
        case DecisionState.WINNER:
            return (
                f"The optimized version is better: {_numbers(plan, evidence)} (p = {_p(evidence.p_superior)}). "
                f"Deployment is recommended{_proven(evidence)}."
            )
        case DecisionState.SIGNIFICANT_WAITING:
            missing = "; ".join(open_points(plan, evidence))
            end = (
                f"Not recommended for deployment when its {hours:.0f} hours ended, for want of: {missing}."
                if is_over
                else f"Not yet recommended for deployment, for want of: {missing}."
            )
            return f"The optimized version is better: {_numbers(plan, evidence)} (p = {_p(evidence.p_superior)}). {end}"
        case DecisionState.RUNNING:
            return f"Nothing is proven yet after {hours:.0f} h: {_numbers(plan, evidence)}. {_outlook(evidence)}"
        case DecisionState.INCONCLUSIVE:
            end = (
                "The longest time has passed and the experiment has ended"
                if is_over
                else "Extend it (free of statistical cost), raise the split, or stop it"
            )
            return (
                f"No answer after {hours:.0f} h: {_numbers(plan, evidence)}; this does not say that the baseline is "
                f"better. {end}."
            )
        case _:
            assert_never(state)


def open_points(plan: ExperimentPlan, evidence: Evidence) -> list[str]:
    """Return what a proven winner still lacks before it may be deployed, in words; empty when nothing."""
    terms = plan.terms
    points = []
    fewest = min(evidence.n_baseline, evidence.n_optimized)
    if fewest < terms.minimum_units:
        points.append(f"{terms.minimum_units} units of each version ({fewest} so far)")
    if evidence.hours_exposed < terms.waiting_hours:
        points.append(f"{terms.waiting_hours:g} h since the first exposure ({evidence.hours_exposed:.0f} so far)")
    unproven = [guardrail for guardrail in evidence.guardrails if not guardrail.is_proven]
    if unproven:
        names = ", ".join(guardrail.name + _hindrance(guardrail) for guardrail in unproven)
        points.append(f"proof that {names} {'is' if len(unproven) == 1 else 'are'} within the margin")
    if terms.fdr_alpha is not None and not evidence.is_within_fdr:
        points.append(f"the level {terms.fdr_alpha:.2g} that bounds false wins over many experiments")
    return points


def _hindrance(guardrail: GuardrailEvidence) -> str:
    if not guardrail.is_comparable:
        return " (the versions tell of it unequally often)"
    if guardrail.mean_baseline == 0.0 and guardrail.allowance == 0.0:
        return " (the baseline shows none of it, and a share of nothing cannot be proven: plan an allowance)"
    return ""


def _numbers(plan: ExperimentPlan, evidence: Evidence) -> str:
    if evidence.mean_baseline is None or evidence.mean_optimized is None or evidence.difference is None:
        found = "no outcome" if not evidence.n_baseline + evidence.n_optimized else "outcomes of one version only"
        return (
            f"{found} so far, of {evidence.exposed_baseline} units exposed to the baseline and "
            f"{evidence.exposed_optimized} to the optimized version"
        )
    level = 1.0 - plan.terms.alpha
    interval = (
        "no one difference fits the whole time"
        if evidence.interval is None
        else f"{level:.4g} interval {evidence.interval[0]:+.3g} to {evidence.interval[1]:+.3g}"
    )
    return (
        f"{plan.primary.metric} {evidence.mean_optimized:.3g} on {evidence.n_optimized} units against "
        f"{evidence.mean_baseline:.3g} on {evidence.n_baseline}, difference {evidence.difference:+.3g} ({interval})"
    )


def _outlook(evidence: Evidence) -> str:
    if evidence.units_at_decision is None:
        return "When it may be decided cannot be told yet."
    when = "" if evidence.hours_to_decision is None else f", in {math.ceil(evidence.hours_to_decision)} h"
    return f"If it goes on like this it is decided at about {evidence.units_at_decision} units{when}."


def _ratio(ratio: RatioEvidence) -> str:
    total = ratio.n_baseline + ratio.n_optimized
    found = ratio.n_optimized / total if total else 0.0
    what = "units" if ratio.of == "exposures" else "units with an outcome"
    return f"{found:.2%} of {total} {what} are of the optimized version where {ratio.share:.2%} should be"


def _breaches(evidence: Evidence) -> str:
    parts = []
    for guardrail in evidence.guardrails:
        if not guardrail.is_breached:
            continue
        means = ""
        if guardrail.mean_baseline is not None and guardrail.mean_optimized is not None:
            means = f" ({guardrail.mean_optimized:.3g} against {guardrail.mean_baseline:.3g}, less is better)"
        parts.append(f"{guardrail.name} is worse by more than {_tolerance(guardrail)}{means}")
    return "; ".join(parts)


def _tolerance(guardrail: GuardrailEvidence) -> str:
    besides = f" and {guardrail.allowance:.3g}" if guardrail.allowance else ""
    return f"{guardrail.margin:.0%} of the baseline's{besides}"


def _proven(evidence: Evidence) -> str:
    names = ", ".join(guardrail.name for guardrail in evidence.guardrails)
    return f", with {names} proven to be within the margin" if names else ""


def _p(value: float) -> str:
    return f"{value:.2g}"
