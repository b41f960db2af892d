"""Changes of a deployment in words: one or two sentences, with the numbers they rest on."""

import math

from dspy_optimization.deployments.breaker import Trip, TripCause
from dspy_optimization.deployments.gain import RealisedGain
from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.experiments.evidence import Evidence
from dspy_optimization.experiments.plan import ExperimentPlan


def share(value: float) -> str:
    """Return a share as a page shows it: 10 %, 0.01 %."""
    return f"{100.0 * value:.4g} %"


def begun(plan: RolloutPlan) -> str:
    """Return the start of a rollout in words."""
    later = ", ".join(share(stage.split.share) for stage in plan.stages[1:])
    then = f", then {later}" if later else ""
    return (
        f"{_short(plan.traffic.optimized)} gets {share(plan.stages[0].split.share)} of the units{then}; the others "
        f"keep {_short(plan.traffic.baseline)}."
    )


def dwelling(plan: RolloutPlan, stage: int, hours: float) -> str:
    """Return in words why a stage goes on: its time is not over."""
    one = plan.stages[stage]
    return f"{share(one.split.share)} for {hours:.3g} of at least {one.dwell_hours:g} h, nothing is wrong."


def unseen(plan: RolloutPlan, stage: int) -> str:
    """Return in words that nobody has looked at a stage yet."""
    return f"{share(plan.stages[stage].split.share)}: no look at this stage yet."


def short_of_units(plan: RolloutPlan, stage: int, evidence: Evidence, hours: float) -> str:
    """Return in words why a stage goes on: too few units."""
    one = plan.stages[stage]
    window = plan.traffic.window.seconds / 3_600.0
    return (
        f"{share(one.split.share)} for {hours:.3g} h: {evidence.n_optimized} of at least {one.minimum_units} units of "
        f"the new version count so far, of {evidence.exposed_optimized} exposed; each does once its window of "
        f"{window:.3g} h is over."
    )


def stalled(plan: RolloutPlan, stage: int, evidence: Evidence) -> str:
    """Return in words that a person has to see to a stage that does not fill."""
    one = plan.stages[stage]
    return (
        f"Only {evidence.n_optimized} of {one.minimum_units} units of the new version have counted in "
        f"{plan.patience_hours:.4g} h at {share(one.split.share)}. Go on by hand, roll back, or wait; who was exposed "
        "in an earlier stage counts there, so where few new users come, sessions are the better units."
    )


def raised(plan: RolloutPlan, stage: int, evidence: Evidence) -> str:
    """Return the passing of a stage in words, `stage` being the one that has passed."""
    before, after = plan.stages[stage].split.share, plan.stages[stage + 1].split.share
    hold_back = (
        f", {share(1.0 - after)} are held back for {plan.stages[-1].dwell_hours / 24.0:.3g} days"
        if plan.is_last(stage + 1)
        else ""
    )
    return (
        f"From {share(before)} to {share(after)}{hold_back}: no harm and no breach at {share(before)}, "
        f"{_numbers(plan.traffic, evidence)}."
    )


def advanced(plan: RolloutPlan, stage: int, reason: str) -> str:
    """Return in words that a person ended a stage before its time."""
    before, after = plan.stages[stage].split.share, plan.stages[stage + 1].split.share
    return f"From {share(before)} to {share(after)} by hand, before the terms of the stage were met: {reason}"


def held(evidence_reason: str) -> str:
    """Return a rollback by evidence in words, after the decision's own."""
    return f"{evidence_reason} It is held for a person; another try needs a rollout of its own."


def tripped(trip: Trip) -> str:
    """Return a rollback by the breaker in words."""
    minutes = trip.window_seconds / 60.0
    if trip.cause is TripCause.ERRORS:
        found = (
            f"{trip.n_errors} of {trip.n_calls} calls of the new version failed in {minutes:.3g} minutes "
            f"({trip.error_rate:.2%}, where {trip.allowed_rate:.2%} is three times the baseline's)"
        )
    else:
        p95 = math.nan if trip.p95_ms is None else trip.p95_ms
        found = (
            f"the 95th percentile of the new version's latency was {p95:,.0f} ms in {minutes:.3g} minutes, above the "
            f"time-out of {trip.timeout_ms:,.0f} ms, on {trip.n_calls} calls"
        )
    return held(f"Rolled back by the breaker: {found}. All traffic goes back to the baseline.")


def completed(plan: RolloutPlan, gain: RealisedGain | None) -> str:
    """Return the end of a rollout in words, with what it brought."""
    return f"{_short(plan.traffic.optimized)} gets all traffic. {gained(plan, gain)}"


def gained(plan: RolloutPlan, gain: RealisedGain | None) -> str:
    """Return the realised gain in words."""
    if gain is None or gain.difference is None:
        return "What it brought cannot be told: too few units of the hold-back and the new version have outcomes."
    interval = (
        "no one difference fits the whole time"
        if gain.interval is None
        else f"{1.0 - gain.alpha:.4g} interval {gain.interval[0]:+.3g} to {gain.interval[1]:+.3g}"
    )
    claim = "" if gain.is_proven else "; a gain is not proven"
    return (
        f"Realised gain in {plan.traffic.primary.metric}: {gain.difference:+.3g} ({interval}), on {gain.n_after} units "
        f"against {gain.n_before} held back{claim}."
    )


def promoted(version: str, before: str, reason: str) -> str:
    """Return a promotion without stages in words."""
    return f"{_short(version)} gets all traffic at once, in place of {_short(before)}: {reason}"


def went_back(to: str, from_: str, reason: str) -> str:
    """Return a change back to an earlier version in words."""
    return f"Back to {_short(to)} from {_short(from_)}: {reason}"


def _short(version: str) -> str:
    return version[:12]


def _numbers(plan: ExperimentPlan, evidence: Evidence) -> str:
    if evidence.mean_baseline is None or evidence.mean_optimized is None or evidence.difference is None:
        return f"{evidence.n_optimized} units of the new version and {evidence.n_baseline} of the one before"
    return (
        f"{plan.primary.metric} {evidence.mean_optimized:.3g} on {evidence.n_optimized} units against "
        f"{evidence.mean_baseline:.3g} on {evidence.n_baseline}"
    )
