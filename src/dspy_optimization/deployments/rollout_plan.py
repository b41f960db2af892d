"""What a rollout is before it starts: its stages, and what must not happen in any of them."""

from dataclasses import dataclass, replace

from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.experiments.bounds import checked_count, checked_number
from dspy_optimization.experiments.experiment import Experiment, ExperimentStatus
from dspy_optimization.experiments.plan import DAY_HOURS, REVIEW_HOURS, ExperimentPlan
from dspy_optimization.experiments.split import BUCKETS, Split
from dspy_optimization.statistics.sequential import stage_alpha

HOLD_BACK_BUCKETS = 500
"""5 % of the units keep the version before, for the realised gain."""
MINIMUM_UNITS = 100
TRIED_SHARE = 0.1
"""An experiment that ran at so large a split makes a stage of 1 % pointless."""
HARM_EFFECT = 2.0
"""Of the `mde`: what has to be found at once is large. Our departure from bets aimed at the `mde`, without any cost in
validity: .8 to .5 at 10 % with an `mde` of .05 is found after a median of 35 treated units instead of 44, .8 to .75 at
50 % after 1,600 instead of 1,400. Harm below half the `mde` is never found in a stage; the hold-back measures it."""
GAIN_EFFECT = 0.5
"""Of the `mde`: bets stop at half the effect they aim at, and a realised gain is often smaller than was hoped for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage: how much traffic, and what has to be seen before the next one."""

    split: Split
    """The share of the units that get the new version."""
    dwell_hours: float
    """At least so long."""
    minimum_units: int
    """At least so many units of the new version that count: first exposed in this stage, window closed, scored."""

    def __post_init__(self) -> None:
        where = f"stage of {self.split.share:.4g}"
        if not self.split.compares:
            raise InvalidRequestError(
                f"{where}: wanted: units for both versions; found: {self.split.buckets} of {BUCKETS:,} buckets; "
                f"possible: 1 to {BUCKETS - 1:,}, the last stage keeps a hold-back"
            )
        hours = checked_number(f"{where}: dwell_hours", self.dwell_hours, possible="1, 24 or 168")
        object.__setattr__(self, "dwell_hours", hours)
        checked_count(f"{where}: minimum_units", self.minimum_units, low=0, possible=str(MINIMUM_UNITS))


FIRST = StagePlan(split=Split(buckets=100), dwell_hours=1.0, minimum_units=MINIMUM_UNITS)
"""1 %."""
STAGES = (
    StagePlan(split=Split(buckets=1_000), dwell_hours=DAY_HOURS, minimum_units=MINIMUM_UNITS),
    StagePlan(split=Split(buckets=5_000), dwell_hours=DAY_HOURS, minimum_units=MINIMUM_UNITS),
    StagePlan(split=Split(buckets=BUCKETS - HOLD_BACK_BUCKETS), dwell_hours=REVIEW_HOURS, minimum_units=0),
)
"""10 %, 50 %, and everybody but the hold-back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """One rollout as it was declared; a changed plan is another rollout.

    Raises:
        InvalidRequestError: on construction, when splits do not rise or the traffic does not begin with the first.
    """

    traffic: ExperimentPlan
    """Id, salt, both versions, metric, guardrails, window and alpha. The id is the rollout's own: units are drawn
    afresh, so neither the luck of an experiment nor that of an earlier try is carried into it."""
    stages: tuple[StagePlan, ...]
    """By rising split; the last one keeps the hold-back."""
    look_seconds: float = 60.0
    """How long nobody looks, at most."""
    patience_hours: float = REVIEW_HOURS
    """In one stage, after which a person is told that too few units come."""

    def __post_init__(self) -> None:
        where = f"rollout {self.traffic.experiment_id}"
        set_ = object.__setattr__
        look = checked_number(f"{where}: look_seconds", self.look_seconds, open_low=True, possible="60")
        set_(self, "look_seconds", look)
        patience = checked_number(f"{where}: patience_hours", self.patience_hours, open_low=True, possible="168")
        set_(self, "patience_hours", patience)
        buckets = [stage.split.buckets for stage in self.stages]
        if not buckets or buckets != sorted(set(buckets)):
            raise InvalidRequestError(
                f"{where}: wanted: stages whose split rises; found: {buckets} of {BUCKETS:,} buckets; possible: 100, "
                f"1000, 5000, {BUCKETS - HOLD_BACK_BUCKETS}"
            )
        if self.traffic.split != self.stages[0].split:
            raise InvalidRequestError(
                f"{where}: wanted: traffic that begins with the first stage, {self.stages[0].split.share:.4g}; found: "
                f"{self.traffic.split.share:.4g}; possible: `rollout_plan`, which sees to it"
            )

    def stage_plan(self, stage: int) -> ExperimentPlan:
        """Return the terms one stage is looked at under: its split, afresh, at alpha / 4 whatever stages there are.

        Bets are aimed at twice the `mde`, or half-way from it to 1 where that is less.
        """
        terms, primary = self.traffic.terms, self.traffic.primary
        return replace(
            self.traffic,
            split=self.stages[stage].split,
            primary=replace(primary, mde=min(HARM_EFFECT * primary.mde, (1.0 + primary.mde) / 2.0)),
            terms=replace(terms, alpha=stage_alpha(terms.alpha), fdr_alpha=None),
        )

    @property
    def gain_plan(self) -> ExperimentPlan:
        """The terms of the realised gain: the last stage at the whole alpha, bets aimed at half the `mde`."""
        primary = self.traffic.primary
        return replace(
            self.traffic,
            split=self.stages[-1].split,
            primary=replace(primary, mde=GAIN_EFFECT * primary.mde),
            guardrails=(),
        )

    def is_last(self, stage: int) -> bool:
        """Say whether a stage is the one with the hold-back."""
        return stage == len(self.stages) - 1


def rollout_plan(traffic: ExperimentPlan, *, after: Experiment | None = None) -> RolloutPlan:
    """Return the usual rollout: 1, 10 and 50 %, then everybody but a hold-back of 5 % for seven days.

    Args:
        traffic: with an id and a salt of its own; its split does not matter.
        after: the experiment the two versions were in; one that ran at 10 % or more makes 1 % unnecessary.
    Raises:
        ConflictError: the experiment goes on, or rolled this version back.
        InvalidRequestError: it compared other versions, or has the same id.
    """
    is_tried = False
    if after is not None:
        _check_experiment(traffic, after)
        is_tried = after.split.share >= TRIED_SHARE
    stages = STAGES if is_tried else (FIRST, *STAGES)
    return RolloutPlan(traffic=replace(traffic, split=stages[0].split), stages=stages)


def _check_experiment(traffic: ExperimentPlan, after: Experiment) -> None:
    where, plan = f"rollout {traffic.experiment_id}", after.plan
    wanted = (traffic.agent, traffic.baseline, traffic.optimized)
    if wanted != (plan.agent, plan.baseline, plan.optimized):
        raise InvalidRequestError(
            f"{where}: wanted: an experiment of {traffic.agent} with {traffic.baseline[:12]} and "
            f"{traffic.optimized[:12]}; found: one of {plan.agent} with {plan.baseline[:12]} and "
            f"{plan.optimized[:12]}; possible: their own experiment, or none"
        )
    if traffic.experiment_id == plan.experiment_id:
        raise InvalidRequestError(
            f"{where}: wanted: an id of its own; found: that of the experiment, whose units were drawn when it was "
            "decided; possible: a new id and a new salt"
        )
    if after.status is ExperimentStatus.ROLLED_BACK:
        raise ConflictError(
            f"{where}: wanted: a version that no experiment rolled back; found: experiment {plan.experiment_id}: "
            f"{after.ended_because}; allowed: another experiment of it first"
        )
    if not after.has_ended:
        raise ConflictError(
            f"{where}: wanted: an experiment that has ended; found: {plan.experiment_id} is {after.status.value}; "
            "allowed: wait for its end, or stop it"
        )
