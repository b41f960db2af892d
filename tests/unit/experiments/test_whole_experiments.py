"""Whole simulated experiments through assignment, log, analysis and decision; every claim with its control.

Reference values and bounds: the research notes' criteria S1, S2 and S4 (target plus three Monte-Carlo errors).
"""

import json
import math
import random
import statistics
from dataclasses import dataclass

from experiment_world import (
    ERRORS,
    EXPERIMENT,
    LATENCY,
    OPTIMIZATION,
    START,
    analysed,
    exposure,
    hours,
    outcome,
    plan,
    seconds,
)

from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.decision import DecisionState
from dspy_optimization.experiments.evidence import evidence_of
from dspy_optimization.experiments.experiment import Experiment, ExperimentStatus
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.plan import ExperimentPlan, Terms
from dspy_optimization.experiments.split import Split, Variant

SETTLED = 3_660.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How often each version succeeds, and how long it takes."""

    baseline: float
    optimized: float
    latency_ms: tuple[float, float] = (400.0, 400.0)

    def log(self, of: ExperimentPlan, seed: int, count: int, *, apart: float) -> ExperimentLog:
        """Units so many seconds apart; rows come in any order, some of them twice."""
        rng, log = random.Random(seed), ExperimentLog(of)
        for number in range(count):
            row = exposure(of, f"user-{seed}-{number}", apart * number)
            is_optimized = row.variant is Variant.OPTIMIZED
            chance, latency = (self.optimized if is_optimized else self.baseline), self.latency_ms[is_optimized]
            told = outcome(
                of,
                row.unit_id,
                f"e{number}",
                apart * number + rng.uniform(0.0, 3_600.0),
                score=float(rng.random() < chance),
                latency_ms=rng.uniform(0.5, 1.5) * latency,
            )
            rows = [row, told, *([told] if number % 7 == 0 else [])]
            rng.shuffle(rows)
            for one in rows:
                log.add_exposure(one) if one is row else log.add_outcome(told)
        return log


def followed(of: ExperimentPlan, log: ExperimentLog, looks: list[float]) -> Experiment:
    """The experiment after looks at these seconds, or at its end."""
    experiment = Experiment.planned(of, created_at=START).start(at=START)
    analysis = Analysis.start(of)
    for look in looks:
        analysis = analysed(of, log, seconds(look), analysis)
        experiment = experiment.conclude(evidence_of(of, analysis, seconds(look))).experiment
        if experiment.has_ended:
            break
    return experiment


def every(units: int, count: int, apart: float) -> list[float]:
    """Looks whenever so many further units have become usable."""
    return [apart * (number - 1) + SETTLED for number in range(units, count + 1, units)]


def naive(log: ExperimentLog, looks: list[float]) -> bool:
    """The control: whether a z-test at 5 % says anything at any of the looks."""
    sums = {variant: [0, 0.0] for variant in Variant}
    place, units = 0, log.usable(seconds(1e9))
    for look in looks:
        while place < len(units) and units[place].exposed_at <= seconds(look - SETTLED):
            sums[units[place].variant][0] += 1
            sums[units[place].variant][1] += units[place].score or 0.0
            place += 1
        (n0, s0), (n1, s1) = sums[Variant.BASELINE], sums[Variant.OPTIMIZED]
        pooled = (s0 + s1) / max(n0 + n1, 1)
        if min(n0, n1) and 0.0 < pooled < 1.0:
            z = (s1 / n1 - s0 / n0) / math.sqrt(pooled * (1.0 - pooled) * (1.0 / n0 + 1.0 / n1))
            if abs(z) > 1.959964:
                return True
    return False


def test_equal_versions_are_rarely_told_apart_though_looked_at_again_and_again() -> None:
    """200 A/A experiments, 200 units, a look after every 10: at most .05 + 3 errors; the naive test far more."""
    count, looks, seeds = 200, every(10, 200, 60.0), range(200)
    world = World(baseline=0.8, optimized=0.8)
    wrong = naive_wrong = deployed = 0
    for seed in seeds:
        of = plan(salt=f"aa-{seed}", terms=Terms(minimum_units=1, minimum_hours=0.0))
        log = world.log(of, seed, count, apart=60.0)
        experiment = followed(of, log, looks)
        assert experiment.decision is not None
        wrong += experiment.decision.state is not DecisionState.RUNNING
        deployed += experiment.decision.deployment_recommended
        naive_wrong += naive(log, looks)

    assert wrong / 200 <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / 200)
    assert deployed / 200 <= 0.025 + 3.0 * math.sqrt(0.025 * 0.975 / 200)
    assert naive_wrong / 200 >= 0.20


def treated_until_rollback(world: World, seed: int, split: Split, count: int, every_units: int) -> int | None:
    """How many treated units had counted when harm was found; None when it was not."""
    of = plan(salt=f"harm-{seed}", split=split)
    log = world.log(of, seed, count, apart=10.0)
    experiment = followed(of, log, every(every_units, count, 10.0))
    if experiment.decision is None or experiment.decision.state is not DecisionState.HARM:
        return None
    assert experiment.status is ExperimentStatus.ROLLED_BACK
    counted = log.usable(experiment.decision.decided_at)
    return sum(unit.variant is Variant.OPTIMIZED for unit in counted)


def test_harm_is_rolled_back_after_a_few_treated_units() -> None:
    """.8 → .5 at the usual split of 10 %: a median of at most 40; equal versions are left alone on the same traffic."""
    split = Split(buckets=1_000)
    found = [treated_until_rollback(World(baseline=0.8, optimized=0.5), seed, split, 1_000, 20) for seed in range(25)]
    control = [treated_until_rollback(World(baseline=0.8, optimized=0.8), seed, split, 600, 20) for seed in range(25)]

    assert statistics.median(math.inf if units is None else units for units in found) <= 40
    assert sum(units is not None for units in control) / 25 <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / 25)


def test_a_better_version_wins_once_everything_is_proven() -> None:
    """Significant first, waiting for hours and guardrails, then recommended, and the result is published once."""
    of = plan(guardrails=(LATENCY, ERRORS), salt="better")
    log = World(baseline=0.5, optimized=0.8, latency_ms=(400.0, 300.0)).log(of, 3, 3_600, apart=60.0)
    experiment, analysis, states, results = (
        Experiment.planned(of, created_at=START).start(at=START), Analysis.start(of), [], []
    )  # fmt: skip
    for hour in range(1, 70):
        analysis = Analysis.from_json(json.loads(json.dumps(analysed(of, log, hours(hour), analysis).to_json())))
        concluded = experiment.conclude(evidence_of(of, analysis, hours(hour)))
        experiment = concluded.experiment
        assert experiment.decision is not None
        states.append(experiment.decision.state)
        if concluded.result is not None:
            results.append(concluded.result.to_json())

    won = states.index(DecisionState.WINNER) + 1
    assert [DecisionState.RUNNING, DecisionState.SIGNIFICANT_WAITING, DecisionState.WINNER] == list(
        dict.fromkeys(states)
    )
    assert won >= 24
    assert {DecisionState.WINNER} == set(states[won - 1 :])
    assert 1 == len(results)
    assert {
        "experiment_id": str(EXPERIMENT),
        "optimization_id": str(OPTIMIZATION),
        "winner": "optimized",
        "deployment_recommended": True,
        "timestamp": hours(won).isoformat(),
    } == {name: value for name, value in results[0].items() if name != "confidence"}
    assert 0.95 <= float(str(results[0]["confidence"])) <= 1.0


def test_a_better_version_that_is_slower_is_rolled_back() -> None:
    """The guardrail goes before the win; without it the same log has a winner."""
    world = World(baseline=0.5, optimized=0.8, latency_ms=(400.0, 650.0))
    guarded, unguarded = plan(guardrails=(LATENCY,), salt="slow"), plan(salt="slow")
    looks = [3_600.0 * hour for hour in range(1, 60)]
    ended = [followed(of, world.log(of, 4, 3_000, apart=60.0), looks) for of in (guarded, unguarded)]

    assert [DecisionState.GUARDRAIL_BREACH, DecisionState.WINNER] == [
        one.decision.state for one in ended if one.decision is not None
    ]
    assert ExperimentStatus.ROLLED_BACK is ended[0].status
    assert "latency is worse by more than 10%" in str(ended[0].ended_because)


def test_units_that_get_lost_make_it_invalid() -> None:
    """A quarter of the optimized version's exposures never arrive; with all of them it goes on."""
    of = plan(salt="lost")
    states = []
    for lost in (0.25, 0.0):
        rng, log = random.Random(9), ExperimentLog(of)
        for number in range(3_000):
            row = exposure(of, f"user-{number}", float(number))
            if row.variant is Variant.BASELINE or rng.random() >= lost:
                log.add_exposure(row)
                log.add_outcome(outcome(of, row.unit_id, f"e{number}", float(number), score=float(number % 5 > 0)))
        ended = followed(of, log, [float(look) + SETTLED for look in range(0, 3_000, 200)])
        assert ended.decision is not None
        states.append(ended.decision.state)

    assert [DecisionState.INVALID, DecisionState.RUNNING] == states
