"""What a rollout does next: a function of its state, the evidence and the clock."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from deployment_world import (
    PLAN,
    START,
    evidence_of_nothing,
    hours,
    rolling,
    rollout_id,
    stages,
    traffic,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.deployments.breaker import Trip, TripCause
from dspy_optimization.deployments.change import ChangeKind
from dspy_optimization.deployments.gain import RealisedGain
from dspy_optimization.deployments.pointer import Pointer
from dspy_optimization.deployments.reading import pointer_from_json, rollout_from_json
from dspy_optimization.deployments.rollout import ALLOWED, Rollout, RolloutStatus, StopCause, what_now
from dspy_optimization.deployments.rollout_plan import RolloutPlan, rollout_plan
from dspy_optimization.deployments.stage import StageLook
from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.experiments.evidence import RatioEvidence
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.split import Split
from dspy_optimization.statistics.sequential import two_sided_threshold

STARTED = Rollout.start(PLAN, at=START)
HARM: dict[str, Any] = {
    "is_harmful": True, "p_harmful": 0.004, "mean_baseline": 0.8, "mean_optimized": 0.5, "difference": -0.3,
    "interval": (-0.5, -0.1), "n_baseline": 900, "n_optimized": 30,
}  # fmt: skip
MISMATCH = RatioEvidence(of="exposures", share=0.01, n_baseline=990, n_optimized=60, p_value=1e-9, is_mismatch=True)
TRIP = Trip(
    at=hours(0.5),
    cause=TripCause.ERRORS,
    n_calls=40,
    n_errors=12,
    error_rate=0.3,
    allowed_rate=0.03,
    p95_ms=700.0,
    timeout_ms=60_000.0,
    window_seconds=300.0,
)
GAIN = RealisedGain(
    difference=0.04, interval=(0.01, 0.07), alpha=0.05, n_before=500, n_after=9_500, mean_before=0.8, mean_after=0.84
)


def at_stage(number: int) -> Rollout:
    """A rollout that has just come to a stage."""
    rollout = STARTED
    for _ in range(number):
        rollout = rollout.go_on("for the test", at=START)
    return rollout


def look_at(stage: int, at_hours: float, **changed: Any) -> StageLook:
    """A look at which everything is fine and enough units count."""
    fields: dict[str, Any] = {"as_of": hours(at_hours), "n_optimized": 100, "n_baseline": 9_900}
    look = evidence_of_nothing(**(fields | changed))
    return look._replace(stage=stage, gain=GAIN if stage == 3 else None)


def test_the_usual_stages() -> None:
    """1, 10, 50, then all but 5 %; an hour, a day, a day, a week; 1 % is left out after an experiment at 10 %."""
    told = [(stage.split.share, stage.dwell_hours, stage.minimum_units) for stage in PLAN.stages]
    of = traffic(2)
    tried = Experiment.planned(replace(of, experiment_id=rollout_id(9)), created_at=START).start(at=START)
    small = Experiment.planned(
        replace(of, experiment_id=rollout_id(9), split=Split(buckets=500)), created_at=START
    ).start(at=START)

    assert [(0.01, 1.0, 100), (0.1, 24.0, 100), (0.5, 24.0, 100), (0.95, 168.0, 0)] == told
    assert PLAN.stages[1:] == rollout_plan(of, after=tried.stop("it has won", at=hours(30))).stages
    assert PLAN.stages == rollout_plan(of, after=small.stop("it has won", at=hours(30))).stages


def test_every_stage_is_tested_afresh_at_a_quarter_of_alpha() -> None:
    """Whatever stages there are; the gain has all of it, and bets on less."""
    plans = [PLAN.stage_plan(number) for number in range(4)]

    assert [0.0125] * 4 == [plan.terms.alpha for plan in plans]
    assert 160.0 == pytest.approx(two_sided_threshold(plans[0].terms.alpha))
    assert [0.01, 0.1, 0.5, 0.95] == [plan.split.share for plan in plans]
    assert (0.05, 0.025, ()) == (PLAN.gain_plan.terms.alpha, PLAN.gain_plan.primary.mde, PLAN.gain_plan.guardrails)


def test_an_experiment_that_rolled_back_or_goes_on_is_no_start() -> None:
    """Nor one of other versions, nor its id."""
    of, other = traffic(2), replace(traffic(2), experiment_id=rollout_id(9))
    running = Experiment.planned(other, created_at=START).start(at=START)
    rolled_back = running.conclude(
        replace(evidence_of_nothing().evidence, as_of=hours(2), first_exposed_at=START, **HARM)
    ).experiment
    ended = running.stop("enough", at=hours(2))

    with pytest.raises(ConflictError, match=r"an experiment that has ended; found: .* is running; allowed: wait"):
        rollout_plan(of, after=running)
    with pytest.raises(ConflictError, match="a version that no experiment rolled back"):
        rollout_plan(of, after=rolled_back)
    with pytest.raises(InvalidRequestError, match="an id of its own; found: that of the experiment"):
        rollout_plan(other, after=ended)
    with pytest.raises(InvalidRequestError, match="wanted: an experiment of sales with"):
        rollout_plan(replace(of, agent="sales"), after=ended)


def test_stages_have_to_rise_and_to_compare() -> None:
    """And traffic begins with the first."""
    with pytest.raises(InvalidRequestError, match=r"stages whose split rises; found: \[1000, 500\]"):
        RolloutPlan(traffic=traffic(), stages=stages((1_000, 1.0, 1), (500, 1.0, 1)))
    with pytest.raises(InvalidRequestError, match=r"stages whose split rises; found: \[\]"):
        RolloutPlan(traffic=traffic(), stages=())
    with pytest.raises(InvalidRequestError, match=r"traffic that begins with the first stage, 0\.05; found: 0\.1"):
        RolloutPlan(traffic=traffic(), stages=stages((500, 1.0, 1)))
    with pytest.raises(InvalidRequestError, match="the last stage keeps a hold-back"):
        stages((10_000, 1.0, 1))
    with pytest.raises(InvalidRequestError, match="dwell_hours: wanted: a finite number"):
        stages((100, float("nan"), 1))


@pytest.mark.parametrize(
    ("stage", "look", "now", "sleep", "said"),
    [
        (0, None, 0.0, 60.0, "1 %: no look at this stage yet"),
        (0, look_at(0, 0.5), 0.5, 60.0, "1 % for 0.5 of at least 1 h"),
        (0, look_at(0, 0.999), 0.999, 3.6, "at least 1 h"),
        (0, look_at(0, 0.5), 2.0, 1.0, "at least 1 h"),
        (0, look_at(0, 1.0, n_optimized=99), 1.0, 60.0, "99 of at least 100 units"),
        (1, look_at(1, 23.9), 23.9, 60.0, "10 % for 23.9 of at least 24 h"),
        (3, look_at(3, 167.0), 167.0, 60.0, "95 % for 167 of at least 168 h"),
    ],
)
def test_it_waits_and_says_why(stage: int, look: StageLook | None, now: float, sleep: float, said: str) -> None:
    """It is the same value then: nothing to write."""
    rollout = at_stage(stage)
    step = what_now(rollout, look, hours(now))

    assert step.rollout is rollout
    assert sleep == pytest.approx(step.sleep_seconds)
    assert said in step.reason


def test_a_stage_that_is_full_is_followed_by_the_next() -> None:
    """With what it rests on; the last one by the end, with the realised gain."""
    step = what_now(STARTED, look_at(0, 1.0), hours(1.01))
    last = what_now(at_stage(3), look_at(3, 168.0), hours(168.0))

    assert (1, Split(buckets=1_000), hours(1.01)) == (
        step.rollout.stage,
        step.rollout.split,
        step.rollout.stage_started_at,
    )
    assert (hours(1.0), hours(1.01), 100, False) == (
        step.rollout.closed[0].evidence_at,
        step.rollout.closed[0].closed_at,
        step.rollout.closed[0].n_optimized,
        step.rollout.closed[0].by_hand,
    )
    assert "From 1 % to 10 %: no harm and no breach at 1 %" in step.reason
    assert (RolloutStatus.COMPLETED, Split(buckets=10_000), GAIN, None) == (
        last.rollout.status,
        last.rollout.split,
        last.rollout.gain,
        last.sleep_seconds,
    )
    assert "Realised gain in solved: +0.04 (0.95 interval +0.01 to +0.07), on 9500 units against 500" in last.reason


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize(
    ("changed", "cause", "said"),
    [
        (HARM, StopCause.HARM, "the optimized version is worse, solved 0.5 on 30 units against 0.8"),
        ({"ratios": (MISMATCH,)}, StopCause.MISMATCH, "Invalid"),
        ({"ratios": (MISMATCH,), **HARM}, StopCause.MISMATCH, "Invalid"),
    ],
)
def test_harm_at_any_stage_is_held_for_a_person(
    stage: int, changed: dict[str, Any], cause: StopCause, said: str
) -> None:
    """At once, whatever hours and units; split 0 in the very same value."""
    step = what_now(at_stage(stage), look_at(stage, 0.01, **changed), hours(0.02))

    assert (RolloutStatus.HELD, cause, Split(buckets=0)) == (
        step.rollout.status,
        step.rollout.cause,
        step.rollout.split,
    )
    assert step.sleep_seconds is None
    assert said in step.reason
    assert "held for a person; another try needs a rollout of its own" in step.reason
    assert STARTED.plan.traffic.baseline == step.rollout.live


def test_the_breaker_goes_first() -> None:
    """Without a look; a trip from before the rollout is another one's."""
    step = what_now(at_stage(2), None, hours(0.5), trip=TRIP)
    later = Rollout.start(PLAN, at=hours(0.6))

    assert (RolloutStatus.HELD, StopCause.BREAKER) == (step.rollout.status, step.rollout.cause)
    assert "12 of 40 calls of the new version failed in 5 minutes (30.00%, where 3.00%" in step.reason
    assert later is what_now(later, None, hours(0.7), trip=TRIP).rollout


def test_old_evidence_counts_as_none() -> None:
    """Of another stage, or from before this one began: a step that is taken again changes nothing."""
    second = what_now(STARTED, look_at(0, 1.0), hours(1.0)).rollout

    assert second is what_now(second, look_at(0, 1.0), hours(1.0)).rollout
    assert second is what_now(second, look_at(0, 2.0, **HARM), hours(2.0)).rollout
    assert second is what_now(second, look_at(1, 0.9, **HARM), hours(2.0)).rollout


def test_looks_of_others_and_of_the_future_are_refused() -> None:
    """They are defects of whoever asks."""
    with pytest.raises(InvalidRequestError, match="a look at its own units; found: one of rollout"):
        what_now(STARTED, look_at(0, 1.0)._replace(rollout=rollout_id(7)), hours(1.0))
    with pytest.raises(InvalidRequestError, match="or earlier; found: one of"):
        what_now(STARTED, look_at(0, 1.0), hours(0.9))


def test_too_few_units_are_told_once_a_stage() -> None:
    """After seven days; the rollout waits on, and a person may go on by hand."""
    told = what_now(STARTED, look_at(0, 168.0, n_optimized=7), hours(168.0))
    again = what_now(told.rollout, look_at(0, 169.0, n_optimized=7), hours(169.0))
    gone_on = told.rollout.go_on("a handful of users is all there is", at=hours(170.0))

    assert told.rollout.told_stalled
    assert "Only 7 of 100 units" in told.reason
    assert told.rollout is again.rollout
    assert (1, True, None, False) == (
        gone_on.stage,
        gone_on.closed[0].by_hand,
        gone_on.closed[0].evidence_at,
        gone_on.told_stalled,
    )


def test_what_has_ended_stays() -> None:
    """Held ones may be released by a person alone."""
    held = what_now(STARTED, None, hours(0.5), trip=TRIP).rollout
    released = held.stop(StopCause.PERSON, "it was the provider", at=hours(2.0))
    completed = what_now(at_stage(3), look_at(3, 168.0), hours(168.0)).rollout

    assert (RolloutStatus.ROLLED_BACK, StopCause.BREAKER) == (released.status, released.cause)
    for ended in (held, released, completed):
        assert ended is what_now(ended, look_at(3, 170.0, **HARM), hours(170.0), trip=TRIP).rollout
        with pytest.raises(ConflictError, match=r"wanted: its next stage; found: (held|rolled_back|completed)"):
            ended.go_on("again", at=hours(171.0))
        with pytest.raises(ConflictError, match="wanted: to stop it"):
            ended.stop(StopCause.ALARM, "late", at=hours(171.0))
    with pytest.raises(ConflictError, match="its last stage; allowed: wait, roll back"):
        at_stage(3).go_on("why not", at=START)
    assert {RolloutStatus.ROLLED_BACK, RolloutStatus.COMPLETED} == {one for one in RolloutStatus if not ALLOWED[one]}


@pytest.mark.parametrize(
    "rollout",
    [
        STARTED,
        what_now(STARTED, look_at(0, 1.0), hours(1.0)).rollout,
        what_now(STARTED, None, hours(0.5), trip=TRIP).rollout,
        what_now(at_stage(3), look_at(3, 168.0), hours(168.0)).rollout,
    ],
)
def test_it_is_kept_as_json(rollout: Rollout) -> None:
    """And read back equal."""
    assert rollout == rollout_from_json(json.loads(json.dumps(rollout.to_json())))


def _told(pointer: Pointer) -> list[tuple[ChangeKind, float | None]]:
    return [(change.kind, None if change.split is None else change.split.share) for change in pointer.changes]


def seen(pointer: Pointer, now: datetime) -> StageLook:
    """What a sound version shows at a moment: ten units of it count an hour."""
    rollout = pointer.rollout
    assert rollout is not None
    since_hours = (now - rollout.stage_started_at).total_seconds() / 3_600.0
    look = evidence_of_nothing(as_of=now, n_optimized=int(10.0 * since_hours), n_baseline=90)
    return look._replace(stage=rollout.stage, gain=GAIN if rollout.stage == 3 else None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["lost", "written", "twice", "old", "slow", "nothing"]), st.integers(1, 900)),
        max_size=40,
    )
)
def test_any_interruption_and_repetition_ends_in_the_same_history(happenings: list[tuple[str, int]]) -> None:
    """Killed before or after the write, asked twice, late, with looks at stages before: every stage once, in order."""
    pointer, now, old, todo = rolling(), START, None, iter(happenings)
    while pointer.rollout is not None and pointer.rollout.ended_at is None:
        happening, minutes = next(todo, ("written", 360))
        now += timedelta(minutes=minutes)
        look = seen(pointer, now)
        # Somebody slow still looks at the stage before, which has closed: whatever it shows comes too late.
        slow = look._replace(stage=look.stage - 1, evidence=replace(look.evidence, **HARM))
        used = {"old": old, "slow": slow, "nothing": None}.get(happening, look)
        kept = pointer_from_json(json.loads(json.dumps(pointer.step(used, now).pointer.to_json())))
        if happening == "twice":
            kept = kept.step(look, now).pointer
        if happening != "lost":
            pointer = kept
        old = look

    assert [
        (ChangeKind.CREATED, None),
        (ChangeKind.STARTED, 0.01),
        (ChangeKind.RAISED, 0.1),
        (ChangeKind.RAISED, 0.5),
        (ChangeKind.RAISED, 0.95),
        (ChangeKind.COMPLETED, 1.0),
    ] == _told(pointer)
    times = [change.at for change in pointer.changes[1:]]
    dwells = [timedelta(hours=stage.dwell_hours) for stage in PLAN.stages]
    assert all(after - before >= dwell for before, after, dwell in zip(times, times[1:], dwells, strict=False))
    assert 5 == len(times)
