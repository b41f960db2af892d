"""What one unit comes to, once its window has closed and its news had time to arrive."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dspy_optimization.experiments.assignment import UnitId
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan, MissingOutcome, UnitRule
from dspy_optimization.experiments.split import Split, Variant


class Place(NamedTuple):
    """Where a unit stands in the one order that tests see units in: by first exposure, then by id."""

    exposed_at: datetime
    unit_id: UnitId


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit as it is analysed, in the variant it was first exposed to whatever came later (intention to treat)."""

    unit_id: UnitId
    variant: Variant
    split: Split
    """The split it was drawn under: its propensity."""
    exposed_at: datetime
    """t0, UTC."""
    score: float | None
    """Of the primary metric, in [0, 1], after the plan's rule for missing ones; None: left out of the comparison."""
    harms: tuple[float | None, ...]
    """For each guardrail of the plan, in its order, in [0, 1], less is better; None: nothing was heard of it."""
    n_events: int
    """Events that counted."""

    @property
    def place(self) -> Place:
        """Where it stands among the others."""
        return Place(self.exposed_at, self.unit_id)


class Timeliness(NamedTuple):
    """Which of a unit's events count, and which do not for what reason; in no particular order."""

    counted: tuple[Outcome, ...]
    before_exposure: tuple[Outcome, ...]
    """They happened before t0."""
    after_window: tuple[Outcome, ...]
    """They happened after t0 + W."""
    received_late: tuple[Outcome, ...]
    """They happened in the window, and were received after t0 + W + grace."""


def usable_at(plan: ExperimentPlan, exposed_at: datetime) -> datetime:
    """Return t0 + W + grace: every row received until then counts, no later one does."""
    return exposed_at + plan.window.length + plan.window.grace


def is_timely(plan: ExperimentPlan, exposure: Exposure) -> bool:
    """Say whether an exposure was received by t0 + grace; a later one does not exist for the analysis."""
    return exposure.received_at <= exposure.exposed_at + plan.window.grace


def timeliness(plan: ExperimentPlan, exposed_at: datetime, outcomes: Iterable[Outcome]) -> Timeliness:
    """Return the events of one unit by whether they count, judged by the recorded times alone.

    Args:
        plan: says W and grace.
        exposed_at: t0 of the unit.
        outcomes: one row an event, the one that wins.
    """
    end = exposed_at + plan.window.length
    deadline = usable_at(plan, exposed_at)
    counted, before, after, late = [], [], [], []
    for outcome in outcomes:
        if outcome.at < exposed_at:
            before.append(outcome)
        elif outcome.at > end:
            after.append(outcome)
        elif outcome.received_at > deadline:
            late.append(outcome)
        else:
            counted.append(outcome)
    return Timeliness(tuple(counted), tuple(before), tuple(after), tuple(late))


def unit_of(plan: ExperimentPlan, exposure: Exposure, outcomes: Iterable[Outcome]) -> Unit:
    """Return what a unit comes to; the order of its events decides nothing.

    Args:
        plan: says which events count and what they make.
        exposure: its first one.
        outcomes: all events of the unit, one row each; those that do not count are passed over.
    """
    counted = timeliness(plan, exposure.exposed_at, outcomes).counted
    return Unit(
        unit_id=exposure.unit_id,
        variant=exposure.variant,
        split=exposure.split,
        exposed_at=exposure.exposed_at,
        score=_score(plan, counted),
        harms=tuple(_mean([guardrail.harm(outcome) for outcome in counted]) for guardrail in plan.guardrails),
        n_events=len(counted),
    )


def _score(plan: ExperimentPlan, counted: Sequence[Outcome]) -> float | None:
    scores = [outcome.primary for outcome in counted]
    found = _mean(scores)
    if found is not None and plan.primary.unit_rule is UnitRule.ANY_SUCCESS:
        found = float(1.0 in scores)
    if found is None and plan.primary.missing is MissingOutcome.ZERO:
        return 0.0
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    # fsum rounds once, whatever the order; a plain sum would depend on who told first.
    told = [value for value in values if value is not None]
    return min(1.0, math.fsum(told) / len(told)) if told else None
