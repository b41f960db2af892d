"""A rollout and where it stands: a function of (state, evidence, now) says what is next.

    running at a stage ── dwell over, enough units ──> running at the next one ──> … ──> completed
        │  harm, breach, mismatch, breaker, alarm ──> held (split 0) ── a person ──> rolled_back
        └─ a person ─────────────────────────────────────────────────────────────> rolled_back

The next stage is entered on evidence of this stage alone, so a step that is taken again, with the same evidence or with
old evidence, finds that the stage has moved on and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.deployments import words
from dspy_optimization.deployments.breaker import Trip
from dspy_optimization.deployments.gain import RealisedGain
from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.deployments.stage import StageLook
from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.bounds import checked_moment, checked_name
from dspy_optimization.experiments.deciding import Clock, decide
from dspy_optimization.experiments.decision import DecisionState
from dspy_optimization.experiments.evidence import hours_between
from dspy_optimization.experiments.split import BUCKETS, Split

_NOBODY, _EVERYBODY = Split(buckets=0), Split(buckets=BUCKETS)


class RolloutStatus(StrEnum):
    """Where a rollout stands; `ALLOWED` says what may follow."""

    RUNNING = "running"  # at a stage
    HELD = "held"  # split 0 because of what was found; nothing is rolled out until a person has looked
    ROLLED_BACK = "rolled_back"  # split 0, and a person knows
    COMPLETED = "completed"  # everybody has the new version, the hold-back too


ALLOWED: Mapping[RolloutStatus, frozenset[RolloutStatus]] = {
    RolloutStatus.RUNNING: frozenset({RolloutStatus.HELD, RolloutStatus.ROLLED_BACK, RolloutStatus.COMPLETED}),
    RolloutStatus.HELD: frozenset({RolloutStatus.ROLLED_BACK}),
    RolloutStatus.ROLLED_BACK: frozenset(),
    RolloutStatus.COMPLETED: frozenset(),
}


class StopCause(StrEnum):
    """What ended a rollout before its end."""

    MISMATCH = "mismatch"  # units did not go where they should
    BREACH = "breach"  # a guardrail
    HARM = "harm"  # the primary metric
    BREAKER = "breaker"  # errors or slowness within minutes
    ALARM = "alarm"  # a monitor of the agent
    PERSON = "person"


_CAUSES: Mapping[DecisionState, StopCause] = {
    DecisionState.INVALID: StopCause.MISMATCH,
    DecisionState.GUARDRAIL_BREACH: StopCause.BREACH,
    DecisionState.HARM: StopCause.HARM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedStage:
    """A stage that has passed."""

    stage: int
    split: Split
    started_at: datetime
    closed_at: datetime
    """When the split rose."""
    evidence_at: datetime | None
    """The look it rests on: of both versions, units whose window had ended by then. None: a person went on unseen."""
    n_baseline: int
    n_optimized: int
    by_hand: bool
    """A person went on before the terms were met."""

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {
            "stage": self.stage,
            "split_buckets": self.split.buckets,
            "started_at": self.started_at.isoformat(),
            "closed_at": self.closed_at.isoformat(),
            "evidence_at": None if self.evidence_at is None else self.evidence_at.isoformat(),
            "n_baseline": self.n_baseline,
            "n_optimized": self.n_optimized,
            "by_hand": self.by_hand,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A plan, and how far it has come. Every change returns another value; those that are not allowed are refused."""

    plan: RolloutPlan
    status: RolloutStatus
    stage: int
    """The place of the stage it is at, or was at when it ended; the first is 0."""
    started_at: datetime
    stage_started_at: datetime
    closed: tuple[ClosedStage, ...] = ()
    """The stages that have passed, in order."""
    told_stalled: bool = False
    """Whether a person was told that this stage gets too few units; once a stage."""
    gain: RealisedGain | None = None
    """What the hold-back showed; None before it is completed."""
    cause: StopCause | None = None
    """None unless it was held or rolled back."""
    ended_at: datetime | None = None
    """When the split became 0 or all; None while it is running."""
    ended_because: str | None = None
    """In words."""

    @staticmethod
    def start(plan: RolloutPlan, *, at: datetime) -> "Rollout":
        """Return it at its first stage."""
        moment = checked_moment("at", at)
        return Rollout(plan=plan, status=RolloutStatus.RUNNING, stage=0, started_at=moment, stage_started_at=moment)

    @property
    def id(self) -> ExperimentId:
        """Under which its units are exposed; another try has another one."""
        return self.plan.traffic.experiment_id

    @property
    def split(self) -> Split:
        """The share of the units that get the new version now."""
        if self.status is RolloutStatus.RUNNING:
            return self.plan.stages[self.stage].split
        return _EVERYBODY if self.status is RolloutStatus.COMPLETED else _NOBODY

    @property
    def live(self) -> Fingerprint:
        """The version of whoever is not in it: the new one from the last stage on."""
        traffic = self.plan.traffic
        is_new = self.status is RolloutStatus.COMPLETED or (
            self.status is RolloutStatus.RUNNING and self.plan.is_last(self.stage)
        )
        return traffic.optimized if is_new else traffic.baseline

    @property
    def is_over(self) -> bool:
        """Whether nothing about it may change any more."""
        return not ALLOWED[self.status]

    def go_on(self, because: str, *, at: datetime) -> "Rollout":
        """Return it at its next stage though the terms of this one are not met; a person decides so.

        Raises:
            ConflictError: it is not running, or at its last stage.
            InvalidRequestError: no reason is given.
        """
        moment = self._later(at)
        checked_name("because", because, most=1_000)
        if self.status is not RolloutStatus.RUNNING or self.plan.is_last(self.stage):
            found = "its last stage" if self.status is RolloutStatus.RUNNING else self.status.value
            raise ConflictError(
                f"rollout {self.id}: wanted: its next stage; found: {found}; allowed: {self._allowed()}"
            )
        return _at_next(self, moment, None)

    def stop(self, cause: StopCause, because: str, *, at: datetime) -> "Rollout":
        """Return it with split 0: held for a person, or rolled back where a person did it.

        Raises:
            ConflictError: it has ended already, or is held and nobody but a person may go on.
            InvalidRequestError: no reason is given.
        """
        moment = self._later(at)
        reason = checked_name("because", because, most=4_000)
        status = RolloutStatus.ROLLED_BACK if cause is StopCause.PERSON else RolloutStatus.HELD
        if status not in ALLOWED[self.status]:
            raise ConflictError(
                f"rollout {self.id}: wanted: to stop it; found: it is {self.status.value}; allowed: {self._allowed()}"
            )
        if self.status is RolloutStatus.HELD:
            return replace(self, status=status)
        return replace(self, status=status, cause=cause, ended_at=moment, ended_because=reason)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, from which `reading.rollout_from_json` reads an equal rollout."""
        return {
            "traffic": self.plan.traffic.to_json(),
            "stages": [
                {
                    "split_buckets": stage.split.buckets,
                    "dwell_hours": stage.dwell_hours,
                    "minimum_units": stage.minimum_units,
                }
                for stage in self.plan.stages
            ],
            "look_seconds": self.plan.look_seconds,
            "patience_hours": self.plan.patience_hours,
            "status": self.status.value,
            "stage": self.stage,
            "started_at": self.started_at.isoformat(),
            "stage_started_at": self.stage_started_at.isoformat(),
            "closed": [stage.to_json() for stage in self.closed],
            "told_stalled": self.told_stalled,
            "gain": None if self.gain is None else self.gain.to_json(),
            "cause": None if self.cause is None else self.cause.value,
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
            "ended_because": self.ended_because,
        }

    def _allowed(self) -> str:
        if self.is_over:
            return "nothing, it is final; another try is a rollout with an id of its own"
        if self.status is RolloutStatus.HELD:
            return "release it"
        return "wait, roll back" if self.plan.is_last(self.stage) else "wait, go on by hand, roll back"

    def _later(self, at: datetime) -> datetime:
        moment = checked_moment("at", at)
        if moment < self.stage_started_at:
            raise InvalidRequestError(
                f"rollout {self.id}: wanted: a change after {self.stage_started_at.isoformat()}, the start of its "
                f"stage; found: {moment.isoformat()}; possible: the clock of the engine"
            )
        return moment


class Step(NamedTuple):
    """What is next."""

    rollout: Rollout
    """The very one that was handed in when nothing changes: nothing to write."""
    sleep_seconds: float | None
    """Until somebody should ask again; None: nothing will happen by itself."""
    reason: str
    """Why, in words."""


def what_now(rollout: Rollout, look: StageLook | None, now: datetime, *, trip: Trip | None = None) -> Step:
    """Return the next state of a rollout, how long to sleep, and why: a function of its arguments.

    Asks from top to bottom: did the breaker trip; did units go astray; is a guardrail breached; is there harm; is the
    time of the stage over; are there enough units. The first three of a look and the breaker end in split 0 at once,
    held for a person. A look at another stage, such as one that was taken before a crash, counts as none.

    Args:
        rollout: as it is kept.
        look: the newest one at its stage; None when nobody has looked.
        now: not before the look.
        trip: what the breaker found since the last step.
    Raises:
        InvalidRequestError: a look of another rollout, or one of the future.
    """
    moment = checked_moment("now", now)
    if rollout.status is not RolloutStatus.RUNNING:
        return Step(rollout, None, rollout.ended_because or "It has ended.")
    if trip is not None and rollout.started_at <= trip.at <= moment:
        return _stopped(rollout, StopCause.BREAKER, words.tripped(trip), moment)
    plan, stage = rollout.plan, rollout.stage
    if look is not None:
        _check(rollout, look, moment)
    if look is None or look.stage != stage or look.evidence.as_of < rollout.stage_started_at:
        return Step(rollout, plan.look_seconds, words.unseen(plan, stage))
    evidence, hours = look.evidence, hours_between(rollout.stage_started_at, look.evidence.as_of)
    terms = plan.stage_plan(stage)
    clock = Clock(started_at=rollout.stage_started_at, until_hours=terms.terms.maximum_hours, is_alerted=True)
    decision = decide(terms, evidence, clock).decision
    if decision.rolls_back:
        return _stopped(rollout, _CAUSES[decision.state], words.held(decision.reason), moment)
    one = plan.stages[stage]
    # Seconds, not hours: a boundary must not be missed by the last digit of a division.
    left = one.dwell_hours * 3_600.0 - (evidence.as_of - rollout.stage_started_at).total_seconds()
    if left > 0.0:
        due = evidence.as_of + timedelta(seconds=left)
        # A look may lag behind the clock; who asks again at once would find the same one.
        sleep = min(plan.look_seconds, max((due - moment).total_seconds(), 1.0))
        return Step(rollout, sleep, words.dwelling(plan, stage, hours))
    if evidence.n_optimized < one.minimum_units:
        if hours >= plan.patience_hours and not rollout.told_stalled:
            return Step(replace(rollout, told_stalled=True), plan.look_seconds, words.stalled(plan, stage, evidence))
        return Step(rollout, plan.look_seconds, words.short_of_units(plan, stage, evidence, hours))
    if plan.is_last(stage):
        reason = words.completed(plan, look.gain)
        status = RolloutStatus.COMPLETED
        return Step(
            replace(rollout, status=status, gain=look.gain, ended_at=moment, ended_because=reason), None, reason
        )
    return Step(_at_next(rollout, moment, look), plan.look_seconds, words.raised(plan, stage, evidence))


def _at_next(rollout: Rollout, now: datetime, look: StageLook | None) -> Rollout:
    closed = ClosedStage(
        stage=rollout.stage,
        split=rollout.split,
        started_at=rollout.stage_started_at,
        closed_at=now,
        evidence_at=None if look is None else look.evidence.as_of,
        n_baseline=0 if look is None else look.evidence.n_baseline,
        n_optimized=0 if look is None else look.evidence.n_optimized,
        by_hand=look is None,
    )
    return replace(
        rollout, stage=rollout.stage + 1, stage_started_at=now, closed=(*rollout.closed, closed), told_stalled=False
    )


def _stopped(rollout: Rollout, cause: StopCause, reason: str, now: datetime) -> Step:
    return Step(rollout.stop(cause, reason, at=now), None, reason)


def _check(rollout: Rollout, look: StageLook, now: datetime) -> None:
    if look.rollout != rollout.id:
        raise InvalidRequestError(
            f"rollout {rollout.id}: wanted: a look at its own units; found: one of rollout {look.rollout}; possible: "
            "the analysis of its stage"
        )
    if look.evidence.as_of > now:
        raise InvalidRequestError(
            f"rollout {rollout.id}: wanted: a look of {now.isoformat()} or earlier; found: one of "
            f"{look.evidence.as_of.isoformat()}; possible: the clock of the engine"
        )
