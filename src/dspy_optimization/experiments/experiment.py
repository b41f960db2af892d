"""An experiment and where it stands: which change is allowed when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from dspy_optimization.agents.untrusted import listed
from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import Assignment, not_running
from dspy_optimization.experiments.bounds import checked_moment, checked_name, checked_number
from dspy_optimization.experiments.deciding import Clock, decide
from dspy_optimization.experiments.decision import Alert, Decision
from dspy_optimization.experiments.evidence import Evidence
from dspy_optimization.experiments.plan import REVIEW_HOURS, ExperimentPlan
from dspy_optimization.experiments.result import ExperimentResult
from dspy_optimization.experiments.split import Split, Variant, experiment_split

EXPERIMENT_VERSION = 1


class ExperimentStatus(StrEnum):
    """Where an experiment stands; `ALLOWED` says what may follow."""

    PLANNED = "planned"  # nobody was exposed; the plan may still change
    RUNNING = "running"  # takes units in
    DECIDED = "decided"  # ended with a winner whose deployment is recommended
    ROLLED_BACK = "rolled_back"  # ended by a mismatch, a breach or harm
    EXPIRED = "expired"  # ended because its longest time had passed
    STOPPED = "stopped"  # ended by a person


ALLOWED: Mapping[ExperimentStatus, frozenset[ExperimentStatus]] = {
    ExperimentStatus.PLANNED: frozenset({ExperimentStatus.RUNNING, ExperimentStatus.STOPPED}),
    ExperimentStatus.RUNNING: frozenset(
        {
            ExperimentStatus.DECIDED,
            ExperimentStatus.ROLLED_BACK,
            ExperimentStatus.EXPIRED,
            ExperimentStatus.STOPPED,
        }
    ),
    ExperimentStatus.DECIDED: frozenset(),
    ExperimentStatus.ROLLED_BACK: frozenset(),
    ExperimentStatus.EXPIRED: frozenset(),
    ExperimentStatus.STOPPED: frozenset(),
}


class SplitChange(NamedTuple):
    """From when on units were drawn under a split."""

    at: datetime
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A plan, and what became of it. Every change returns another value; those that are not allowed are refused."""

    plan: ExperimentPlan
    status: ExperimentStatus
    created_at: datetime
    splits: tuple[SplitChange, ...]
    """In order, the first is the plan's; while it is only planned, from its creation on."""
    until_hours: float
    """Since the start, after which no answer is an answer: 168, or what it was extended to."""
    started_at: datetime | None = None
    decision: Decision | None = None
    """The newest; one that ended the experiment stays."""
    alerted_at: datetime | None = None
    """When a person was told that nothing was found in seven days; once an experiment."""
    ended_at: datetime | None = None
    ended_because: str | None = None
    """In words; None while it goes on."""

    @staticmethod
    def planned(plan: ExperimentPlan, *, created_at: datetime) -> "Experiment":
        """Return a new experiment that has exposed nobody."""
        moment = checked_moment("created_at", created_at)
        return Experiment(
            plan=plan,
            status=ExperimentStatus.PLANNED,
            created_at=moment,
            splits=(SplitChange(moment, plan.split),),
            until_hours=min(REVIEW_HOURS, plan.terms.maximum_hours),
        )

    @property
    def split(self) -> Split:
        """The split that units are drawn under now."""
        return self.splits[-1].split

    @property
    def has_ended(self) -> bool:
        """Whether nothing about it may change any more."""
        return not ALLOWED[self.status]

    @property
    def until(self) -> datetime | None:
        """When no answer becomes an answer; None before the start."""
        return None if self.started_at is None else self.started_at + timedelta(hours=self.until_hours)

    def assign(
        self,
        unit_id: object,
        *,
        attributes: Mapping[str, object] | None = None,
        kept: tuple[Variant, Split] | None = None,
    ) -> Assignment:
        """Return what a unit gets now; who asks of an experiment that is not running gets the baseline, outside of it.

        Args:
            unit_id: who asks, a text; None and "" get the baseline and are not in the experiment.
            attributes: what is known of the unit before it is served, for overrides.
            kept: variant and split of the unit's exposure in this experiment, if it has one.
        Raises:
            InvalidRequestError: a unit id that is no text.
        """
        if self.status is not ExperimentStatus.RUNNING:
            return not_running(unit_id)
        return self.plan.assigner.assign(unit_id, self.split, attributes=attributes, kept=kept)

    def with_plan(self, plan: ExperimentPlan) -> "Experiment":
        """Return it with another plan, before its start.

        Raises:
            ConflictError: it has started: somebody may have been exposed under the old plan.
            InvalidRequestError: the plan of another experiment.
        """
        if self.status is not ExperimentStatus.PLANNED:
            raise ConflictError(
                f"experiment {self.plan.experiment_id}: wanted: another plan; found: it is {self.status.value}, and "
                f"its plan {self.plan.hash[:12]} was fixed before the first exposure; allowed: raise the split, "
                "extend, stop, or plan another experiment"
            )
        if plan.experiment_id != self.plan.experiment_id:
            raise InvalidRequestError(
                f"experiment {self.plan.experiment_id}: wanted: a plan of its own; found: one of {plan.experiment_id}; "
                "possible: the same experiment_id"
            )
        return Experiment.planned(plan, created_at=self.created_at)

    def start(self, *, at: datetime) -> "Experiment":
        """Return it as running: from now on the plan is fixed.

        Raises:
            ConflictError: it is not planned any more.
        """
        moment = self._later("start", at)
        running = _moved(self, ExperimentStatus.RUNNING, "start")
        return replace(running, started_at=moment, splits=(SplitChange(moment, self.split),))

    def raise_split(self, share: object, *, at: datetime) -> "Experiment":
        """Return it with more traffic for the optimized version; units exposed so far keep their propensity.

        Args:
            share: of the units that get the optimized version, in (0, 1), more than now.
            at: the moment of the change.
        Raises:
            ConflictError: it is not running, or the split would not rise.
            InvalidRequestError: no share in (0, 1).
        """
        self._need_running("raise the split")
        moment = self._later("raise the split", at)
        split = experiment_split(share)
        if split.buckets <= self.split.buckets:
            raise ConflictError(
                f"experiment {self.plan.experiment_id}: wanted: a split of {split.share:g}; found: "
                f"{self.split.share:g} already, and a split only rises, because lowering it would take the optimized "
                f"version from units that have it; allowed: more than {self.split.share:g}, or stop"
            )
        return replace(self, splits=(*self.splits, SplitChange(moment, split)))

    def extend(self, until_hours: object, *, at: datetime) -> "Experiment":
        """Return it with more time; free of statistical cost, because every look holds at every time.

        Args:
            until_hours: since the start, more than now, at most what the plan says: 336 and 672 are 14 and 28 days.
            at: the moment of the change.
        Raises:
            ConflictError: it is not running, the time would not grow, or the plan does not allow so much.
        """
        self._need_running("extend")
        self._later("extend", at)
        longest = self.plan.terms.maximum_hours
        hours = checked_number("until_hours", until_hours, open_low=True, possible=f"up to {longest:g}")
        if not self.until_hours < hours <= longest:
            allowed = (
                f"more than {self.until_hours:g} h, at most {longest:g} h"
                if self.until_hours < longest
                else "nothing, it has all the time of its plan"
            )
            raise ConflictError(
                f"experiment {self.plan.experiment_id}: wanted: {hours:g} h; found: {self.until_hours:g} h, of "
                f"{longest:g} h that its plan allows; allowed: {allowed}"
            )
        return replace(self, until_hours=hours)

    def stop(self, because: str, *, at: datetime) -> "Experiment":
        """Return it as stopped by a person; everybody gets the baseline, its newest decision is its last.

        Raises:
            ConflictError: it has ended already.
            InvalidRequestError: no reason is given.
        """
        moment = self._later("stop", at)
        reason = checked_name("because", because, most=1_000)
        return replace(_moved(self, ExperimentStatus.STOPPED, "stop"), ended_at=moment, ended_because=reason)

    def conclude(self, evidence: Evidence) -> "Conclusion":
        """Return it with what the evidence decides; one that has ended stays as it ended, whatever is handed in.

        Raises:
            ConflictError: it has not started.
        """
        if self.has_ended:
            return Conclusion(self, None, None)
        if self.started_at is None:
            raise ConflictError(
                f"experiment {self.plan.experiment_id}: wanted: a decision; found: it is {self.status.value}; allowed: "
                "start it"
            )
        clock = Clock(started_at=self.started_at, until_hours=self.until_hours, is_alerted=self.alerted_at is not None)
        decision, alert = decide(self.plan, evidence, clock)
        concluded = replace(self, decision=decision, alerted_at=self.alerted_at if alert is None else evidence.as_of)
        if not decision.ends:
            return Conclusion(concluded, alert, None)
        ended = replace(
            _moved(concluded, _ending(decision), "conclude"),
            ended_at=decision.decided_at,
            ended_because=decision.reason,
        )
        return Conclusion(ended, alert, ended.result())

    def result(self) -> ExperimentResult:
        """Return how it ended, as it is published.

        Raises:
            ConflictError: it has not ended.
        """
        if self.ended_at is None:
            raise ConflictError(
                f"experiment {self.plan.experiment_id}: wanted: its result; found: it is {self.status.value}; allowed: "
                "wait for its end, or stop it"
            )
        decision = self.decision
        return ExperimentResult(
            experiment_id=self.plan.experiment_id,
            optimization_id=self.plan.optimization_id,
            winner=Variant.BASELINE if decision is None else decision.winner,
            confidence=0.0 if decision is None else decision.confidence,
            deployment_recommended=decision is not None and decision.deployment_recommended,
            timestamp=self.ended_at,
        )

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, from which `experiment_from_json` reads an equal experiment."""
        return {
            "version": EXPERIMENT_VERSION,
            "plan": self.plan.to_json(),
            "status": self.status.value,
            "created_at": self.created_at.isoformat(),
            "splits": [{"at": change.at.isoformat(), "split_buckets": change.split.buckets} for change in self.splits],
            "until_hours": self.until_hours,
            "started_at": None if self.started_at is None else self.started_at.isoformat(),
            "decision": None if self.decision is None else self.decision.to_json(),
            "alerted_at": None if self.alerted_at is None else self.alerted_at.isoformat(),
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
            "ended_because": self.ended_because,
        }

    def _need_running(self, step: str) -> None:
        if self.status is not ExperimentStatus.RUNNING:
            allowed = "start it" if self.status is ExperimentStatus.PLANNED else "nothing, it is final"
            raise ConflictError(
                f"experiment {self.plan.experiment_id}: wanted: to {step}; found: it is {self.status.value}; allowed: "
                f"{allowed}"
            )

    def _later(self, step: str, at: datetime) -> datetime:
        moment = checked_moment("at", at)
        last = self.splits[-1].at
        if moment < last:
            raise InvalidRequestError(
                f"experiment {self.plan.experiment_id}: wanted: to {step} after {last.isoformat()}, its last change; "
                f"found: {moment.isoformat()}; possible: the clock of the engine"
            )
        return moment


class Conclusion(NamedTuple):
    """An experiment after a look, and what has to be told in the transaction that keeps it."""

    experiment: Experiment
    alert: Alert | None
    """To be told now, and never again."""
    result: ExperimentResult | None
    """To be published now; None unless the experiment has ended with this look."""


def _ending(decision: Decision) -> ExperimentStatus:
    if decision.rolls_back:
        return ExperimentStatus.ROLLED_BACK
    return ExperimentStatus.DECIDED if decision.deployment_recommended else ExperimentStatus.EXPIRED


def _moved(experiment: Experiment, status: ExperimentStatus, step: str) -> Experiment:
    allowed = ALLOWED[experiment.status]
    if status not in allowed:
        raise ConflictError(
            f"experiment {experiment.plan.experiment_id}: wanted: to {step}; found: it is {experiment.status.value} "
            f"and cannot become {status.value}; allowed: {listed(allowed) if allowed else 'nothing, it is final'}"
        )
    return replace(experiment, status=status)
