"""The evidence of one stage: which units count, and what the hold-back shows."""

import json
from datetime import timedelta

from deployment_world import PLAN, START, Users, hours, rolling, rollout_id, stages, traffic

from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.deployments.stage import StageAnalysis
from dspy_optimization.deployments.words import gained
from dspy_optimization.experiments.split import Split, Variant

SPLIT = Split(buckets=1_000)
TWO = RolloutPlan(traffic=traffic(1, split=SPLIT), stages=stages((1_000, 4.0, 5), (5_000, 4.0, 5)))


def test_units_count_in_the_stage_of_their_first_exposure_until_it_closes() -> None:
    """Those in their window at the boundary count nowhere, whichever version they had."""
    users = Users(TWO, lambda _, __: 0.8, timedelta(minutes=1))
    pointer = rolling(TWO)
    users.come(pointer, hours(6))
    first = StageAnalysis.start(TWO, 0, since=START).extend(TWO, users.log, hours(6))
    pointer = pointer.go_on("for the test", actor="ana", at=hours(6))
    for number in range(1, 50):  # they come again, and some have the new version now
        users._comes(pointer, f"user-0-{number}", hours(6.5))
    users.come(pointer, hours(9))
    second = StageAnalysis.start(TWO, 1, since=hours(6)).extend(TWO, users.log, hours(9))
    seen, later = first.look(TWO, hours(6)).evidence, second.look(TWO, hours(9)).evidence

    # A window of an hour and a minute of grace: exposed up to 4:59, or 7:59, each with a score.
    assert 300 == seen.n_baseline + seen.n_optimized
    assert 120 == later.n_baseline + later.n_optimized
    assert [0.1] == [ratio.share for ratio in seen.ratios if ratio.of == "exposures"]
    assert [0.5] == [ratio.share for ratio in later.ratios if ratio.of == "exposures"]
    assert not later.mismatches


def test_looks_in_between_change_nothing() -> None:
    """Kept as JSON and gone on with it is the same, bit for bit."""
    users = Users(TWO, lambda _, __: 0.8, timedelta(minutes=1))
    users.come(rolling(TWO), hours(6))
    straight = StageAnalysis.start(TWO, 0, since=START).extend(TWO, users.log, hours(6))
    looked = StageAnalysis.start(TWO, 0, since=START)
    for hour in (0.5, 2, 2, 4.2, 6):
        looked = StageAnalysis.from_json(json.loads(json.dumps(looked.to_json()))).extend(TWO, users.log, hours(hour))

    assert straight == looked
    assert straight.reads_after.exposed_at > START
    assert START == StageAnalysis.start(TWO, 0, since=START).reads_after.exposed_at


def test_the_hold_back_shows_the_gain() -> None:
    """.6 → .95 on 95 %: proven, near .35; equal versions are not told to have one, and nothing is told of nobody."""
    last = RolloutPlan(traffic=traffic(1, split=Split(buckets=9_500)), stages=(PLAN.stages[-1],))
    looks = []
    for better in (0.95, 0.6):
        users = Users(
            last, lambda _, variant, on=better: on if variant is Variant.OPTIMIZED else 0.6, timedelta(minutes=2)
        )
        users.come(rolling(last), hours(50))
        looks.append(StageAnalysis.start(last, 0, since=START).extend(last, users.log, hours(50)).look(last, hours(50)))
    gain, none = looks[0].gain, looks[1].gain
    nobody = StageAnalysis.start(last, 0, since=START).look(last, hours(1)).gain

    assert gain is not None
    assert none is not None
    assert gain.interval is not None
    assert gain.is_proven
    assert gain.interval[0] < 0.35 < gain.interval[1]
    assert not none.is_proven
    assert "a gain is not proven" in gained(last, none)
    assert "cannot be told" in gained(last, nobody)
    assert rollout_id(1) == looks[0].rollout
    assert StageAnalysis.start(PLAN, 0, since=START).gain is None
