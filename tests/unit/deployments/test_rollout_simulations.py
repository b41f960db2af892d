"""Whole simulated rollouts through pointer, log, analysis and rule; every claim with its control.

Bound for the speed of a rollback: the research notes' criterion S4, a median of at most 40 treated units.
"""

import math
import statistics
from dataclasses import replace
from datetime import timedelta

from deployment_world import START, Course, Users, rolling, stages, traffic

from dspy_optimization.deployments.change import ChangeKind
from dspy_optimization.deployments.pointer import Pointer
from dspy_optimization.deployments.rollout import RolloutStatus, StopCause
from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.experiments.guardrail import Guardrail, GuardrailKind
from dspy_optimization.experiments.split import Split, Variant

SEEDS = range(25)
APART = timedelta(minutes=3)


def plan(seed: int, units: int = 50) -> RolloutPlan:
    """All four stages, with fewer units and shorter ones towards the end, to take seconds."""
    some = stages((100, 1.0, 4), (1_000, 24.0, units), (5_000, 12.0, 100), (9_500, 6.0, 0))
    return RolloutPlan(traffic=traffic(seed, split=Split(buckets=100)), stages=some)


def harmful_from_10_percent(stage: int, variant: Variant) -> float:
    """.8, and .5 for the new version once it has more than 1 %."""
    return 0.5 if stage >= 1 and variant is Variant.OPTIMIZED else 0.8


def harmless(_: int, __: Variant) -> float:
    """.8 whoever answers."""
    return 0.8


def treated_until_held(seed: int) -> float:
    """How many units of the new version had counted in the 10 % stage when it was rolled back."""
    of = plan(seed, 100)
    course = Course(rolling(of), Users(of, harmful_from_10_percent, APART, seed))
    held = course.run(timedelta(hours=1)).rollout
    if held is None or held.status is not RolloutStatus.HELD or held.stage != 1:
        return math.inf
    assert held.cause is StopCause.HARM
    assert held.split == Split(buckets=0)
    assert [0] == [stage.stage for stage in held.closed]
    return course.looks[-1].evidence.n_optimized


def passed(seed: int) -> Pointer:
    """How the rollout of a version that is as good ended."""
    of = plan(seed)
    return Course(rolling(of), Users(of, harmless, APART, seed)).run(timedelta(hours=3))


def test_harm_that_appears_at_the_second_stage_is_rolled_back_after_a_few_treated_units() -> None:
    """.8 → .5 from 10 % on: a median of at most 40 treated units, though 1 % was fine."""
    assert statistics.median(treated_until_held(seed) for seed in SEEDS) <= 40


def test_a_version_that_is_as_good_passes_all_stages() -> None:
    """The control: .8 → .8 gets to everybody in at least nine of ten rollouts, each stage once and in order."""
    ended = [passed(seed) for seed in SEEDS[:20]]
    complete = [pointer for pointer in ended if pointer.changes[-1].kind is ChangeKind.COMPLETED]

    assert len(complete) / len(ended) >= 0.9
    for pointer in complete:
        kinds = [change.kind for change in pointer.changes]
        shares = [change.split.share for change in pointer.changes if change.split is not None]
        assert [ChangeKind.CREATED, ChangeKind.STARTED, *[ChangeKind.RAISED] * 3, ChangeKind.COMPLETED] == kinds
        assert [0.01, 0.1, 0.5, 0.95, 1.0] == shares
        assert pointer.rollout is None


def test_a_breached_guardrail_is_rolled_back_though_the_metric_is_better() -> None:
    """Slower by half: latency is broken at a stage with little traffic, and nothing else is wrong."""
    latency = Guardrail(name="latency", kind=GuardrailKind.LATENCY, limit=1_000.0, expected=0.4)
    of = plan(1)
    of = replace(of, traffic=replace(of.traffic, guardrails=(latency,)))
    users = Users(of, lambda _, variant: 0.9 if variant is Variant.OPTIMIZED else 0.8, APART, 1, (400.0, 600.0))
    held = Course(rolling(of), users).run(timedelta(hours=1))

    assert held.rollout is not None
    assert StopCause.BREACH is held.rollout.cause
    assert ChangeKind.HELD is held.changes[-1].kind
    assert "latency is worse by more than 10%" in held.changes[-1].reason
    assert START < held.changes[-1].at
