"""Which change of an experiment is allowed when."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from decision_world import BREACH, HARMFUL, PLAN, SUPERIOR, evidence
from experiment_world import EXPERIMENT, LATENCY, OPTIMIZATION, hours, plan

from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.experiments.assignment import AssignmentReason, ExperimentId, Override
from dspy_optimization.experiments.decision import Alert, DecisionState
from dspy_optimization.experiments.experiment import ALLOWED, Experiment, ExperimentStatus
from dspy_optimization.experiments.plan import Terms
from dspy_optimization.experiments.split import Split, Variant

PLANNED = Experiment.planned(PLAN, created_at=hours(-1))
RUNNING = PLANNED.start(at=hours(0))


def ended(status: ExperimentStatus) -> Experiment:
    """One that ended so."""
    match status:
        case ExperimentStatus.DECIDED:
            return RUNNING.conclude(evidence(**SUPERIOR)).experiment
        case ExperimentStatus.ROLLED_BACK:
            return RUNNING.conclude(evidence(**HARMFUL)).experiment
        case ExperimentStatus.EXPIRED:
            return RUNNING.conclude(evidence(672.0)).experiment
        case _:
            return RUNNING.stop("the agent is retired", at=hours(20))


ENDED = [status for status in ExperimentStatus if not ALLOWED[status]]


def test_it_is_planned_then_runs() -> None:
    """From its start on the plan is fixed and the clock runs."""
    assert (ExperimentStatus.PLANNED, None) == (PLANNED.status, PLANNED.until)
    assert (ExperimentStatus.RUNNING, hours(0), hours(168)) == (RUNNING.status, RUNNING.started_at, RUNNING.until)
    assert PLAN.split == RUNNING.split
    with pytest.raises(ConflictError, match=r"wanted: to start; found: it is running .*; allowed: decided, expired"):
        RUNNING.start(at=hours(1))


def test_a_plan_changes_before_the_start_only() -> None:
    """Afterwards somebody may have been exposed under it."""
    other = replace(PLAN, guardrails=(LATENCY,), split=Split(buckets=2_000), terms=Terms(maximum_hours=48.0))
    changed = PLANNED.with_plan(other)

    assert (other, other.split, 48.0) == (changed.plan, changed.split, changed.until_hours)
    for experiment in (RUNNING, *map(ended, ENDED)):
        with pytest.raises(ConflictError, match=r"another plan; found: it is \w+, .*; allowed: raise the split"):
            experiment.with_plan(other)
    with pytest.raises(InvalidRequestError, match="a plan of its own"):
        PLANNED.with_plan(PLAN.as_another(ExperimentId(OPTIMIZATION), "salt-2"))


def test_the_split_may_rise() -> None:
    """The plan stays, with its hash; what was drawn before is told by the changes."""
    risen = RUNNING.raise_split(0.9, at=hours(5)).raise_split(0.95, at=hours(6))

    assert [(hours(0), 0.5), (hours(5), 0.9), (hours(6), 0.95)] == [(at, split.share) for at, split in risen.splits]
    assert Split(buckets=9_500) == risen.split
    assert PLAN.hash == risen.plan.hash


@pytest.mark.parametrize("share", [0.4, 0.5, 0.50001])
def test_the_split_never_falls(share: float) -> None:
    """Nor stays: the message says from where on."""
    with pytest.raises(ConflictError, match=r"wanted: a split of .*; found: 0\.5 already.*; allowed: more than 0\.5"):
        RUNNING.raise_split(share, at=hours(5))


@pytest.mark.parametrize("share", [0, 1, 1.5, math.nan, "0.6"])
def test_a_split_is_a_share(share: Any) -> None:
    """As at the start."""
    with pytest.raises(InvalidRequestError, match="traffic_split"):
        RUNNING.raise_split(share, at=hours(5))


def test_time_may_be_added_up_to_what_the_plan_says() -> None:
    """14 and 28 days; not less than before, not more than planned."""
    longer = RUNNING.extend(336, at=hours(170))

    assert (336.0, hours(336)) == (longer.until_hours, longer.until)
    assert 672.0 == longer.extend(672.0, at=hours(300)).until_hours
    with pytest.raises(ConflictError, match=r"wanted: 336 h; found: 336 h.*; allowed: more than 336 h, at most 672 h"):
        longer.extend(336.0, at=hours(300))
    with pytest.raises(ConflictError, match="at most 672 h"):
        longer.extend(673.0, at=hours(300))
    with pytest.raises(ConflictError, match="nothing, it has all the time of its plan"):
        longer.extend(672.0, at=hours(300)).extend(700.0, at=hours(301))
    with pytest.raises(InvalidRequestError, match="until_hours: wanted: a finite number"):
        RUNNING.extend(math.nan, at=hours(1))


CHANGES: list[Callable[[Experiment], Any]] = [
    lambda experiment: experiment.start(at=hours(700)),
    lambda experiment: experiment.raise_split(0.9, at=hours(700)),
    lambda experiment: experiment.extend(336.0, at=hours(700)),
    lambda experiment: experiment.stop("again", at=hours(700)),
]


@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_ended_stays(status: ExperimentStatus, change: Callable[[Experiment], Any]) -> None:
    """Nothing is allowed any more, and the message says so."""
    with pytest.raises(ConflictError, match=rf"found: it is {status.value}.*; allowed: nothing, it is final"):
        change(ended(status))


@pytest.mark.parametrize("change", [CHANGES[1], CHANGES[2]])
def test_what_has_not_started_has_no_more_traffic_and_no_more_time(change: Callable[[Experiment], Any]) -> None:
    """It has to be started first."""
    with pytest.raises(ConflictError, match=r"found: it is planned; allowed: start it"):
        change(PLANNED)


def test_it_is_stopped_with_a_reason() -> None:
    """Also before it started; its newest decision is its last."""
    stopped = RUNNING.conclude(evidence(30.0)).experiment.stop("the agent is retired", at=hours(40))

    assert (ExperimentStatus.STOPPED, hours(40), "the agent is retired") == (
        stopped.status,
        stopped.ended_at,
        stopped.ended_because,
    )
    assert (Variant.BASELINE, False) == (stopped.result().winner, stopped.result().deployment_recommended)
    assert 0.0 == PLANNED.stop("not needed", at=hours(0)).result().confidence
    with pytest.raises(InvalidRequestError, match="because: wanted: text"):
        RUNNING.stop(" ", at=hours(40))


def test_a_step_back_in_time_is_refused() -> None:
    """Splits are looked up by time."""
    with pytest.raises(InvalidRequestError, match=r"after .*, its last change"):
        RUNNING.raise_split(0.6, at=hours(5)).raise_split(0.7, at=hours(4))
    with pytest.raises(InvalidRequestError, match="time zone"):
        PLANNED.start(at=hours(0).replace(tzinfo=None))


@pytest.mark.parametrize(
    ("found", "status", "state"),
    [
        (evidence(**SUPERIOR), ExperimentStatus.DECIDED, DecisionState.WINNER),
        (evidence(**HARMFUL), ExperimentStatus.ROLLED_BACK, DecisionState.HARM),
        (evidence(**BREACH), ExperimentStatus.ROLLED_BACK, DecisionState.GUARDRAIL_BREACH),
        (evidence(672.0), ExperimentStatus.EXPIRED, DecisionState.INCONCLUSIVE),
    ],
)
def test_a_decision_that_ended_it_stays(found: Any, status: ExperimentStatus, state: DecisionState) -> None:
    """Whatever is seen later; its result is published once."""
    concluded = RUNNING.conclude(found)
    later = [concluded.experiment.conclude(evidence(680.0, **other)) for other in ({}, SUPERIOR, HARMFUL, BREACH)]

    assert concluded.experiment.decision is not None
    assert concluded.result is not None
    assert (status, state) == (concluded.experiment.status, concluded.experiment.decision.state)
    assert {(concluded.experiment.decision, None, None)} == {
        (one.experiment.decision, one.alert, one.result) for one in later
    }
    assert all(concluded.experiment == one.experiment for one in later)


def test_the_result_has_exactly_the_fields_of_the_contract() -> None:
    """Six of them, as plain JSON."""
    result = RUNNING.conclude(evidence(**SUPERIOR)).result

    assert result is not None
    assert {
        "experiment_id": str(EXPERIMENT),
        "optimization_id": str(OPTIMIZATION),
        "winner": "optimized",
        "confidence": 0.99,
        "deployment_recommended": True,
        "timestamp": "2026-03-03T15:00:00+00:00",
    } == result.to_json()
    with pytest.raises(ConflictError, match=r"wanted: its result; found: it is running; allowed: wait"):
        RUNNING.result()


def test_the_seven_days_are_told_exactly_once() -> None:
    """Over looks every hour for four weeks, extended twice, with looks repeated."""
    experiment, told, states = RUNNING, [], []
    for hour in range(1, 673):
        if hour in (170, 340):
            experiment = experiment.extend(336.0 if hour == 170 else 672.0, at=hours(hour))
        for _ in range(2):
            concluded = experiment.conclude(evidence(float(hour)))
            experiment = concluded.experiment
            if concluded.alert is not None:
                told.append((hour, concluded.alert))
        assert experiment.decision is not None
        states.append(experiment.decision.state)

    inconclusive = [hour for hour, state in enumerate(states, 1) if state is DecisionState.INCONCLUSIVE]
    assert [(168, Alert.NOT_SIGNIFICANT_IN_7_DAYS)] == told
    assert [168, 169, 336, 337, 338, 339, 672] == inconclusive
    assert (ExperimentStatus.EXPIRED, hours(672)) == (experiment.status, experiment.ended_at)


def test_what_has_not_started_is_not_decided() -> None:
    """There is nothing to look at."""
    with pytest.raises(ConflictError, match=r"wanted: a decision; found: it is planned; allowed: start it"):
        PLANNED.conclude(evidence())


def test_units_are_taken_in_while_it_runs() -> None:
    """Before and after everybody gets the baseline outside of it, also who had the optimized version."""
    unit = next(f"u{n}" for n in range(100) if RUNNING.assign(f"u{n}").variant is Variant.OPTIMIZED)

    assert RUNNING.assign(unit).in_experiment
    for experiment in (PLANNED, *map(ended, ENDED)):
        assignment = experiment.assign(unit, kept=(Variant.OPTIMIZED, PLAN.split))
        assert (Variant.BASELINE, AssignmentReason.NOT_RUNNING, False) == (
            assignment.variant,
            assignment.reason,
            assignment.in_experiment,
        )


def test_units_are_drawn_under_the_split_of_now() -> None:
    """Overrides and kept units as the plan and the log say."""
    override = Override(attribute="office", values=frozenset({"rome"}), variant=Variant.OPTIMIZED)
    risen = (
        Experiment.planned(plan(overrides=(override,)), created_at=hours(0))
        .start(at=hours(0))
        .raise_split(0.99, at=hours(1))
    )

    assert Split(buckets=9_900) == risen.assign("u1").split
    assert Split(buckets=5_000) == risen.assign("u1", kept=(Variant.BASELINE, Split(buckets=5_000))).split
    assert AssignmentReason.OVERRIDDEN is risen.assign("u1", attributes={"office": "rome"}).reason
