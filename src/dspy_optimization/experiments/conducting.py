"""Conducting experiments: what people and programs do with them, on what is kept of one tenant.

experiment = conductor.start(proposal)
served = conductor.assign(agent, unit_id)
conductor.report([Told(event_id=…, exposure_id=served.assignment.exposure_id, score=1.0)])
conductor.look(experiment.plan.experiment_id)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.untrusted import checked_text
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import Assignment, ExperimentId, ExposureId, not_running
from dspy_optimization.experiments.decision import Decision
from dspy_optimization.experiments.evidence import Evidence, evidence_of
from dspy_optimization.experiments.experiment import Conclusion, Experiment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.outcome import Outcome, score_of
from dspy_optimization.experiments.plan import ExperimentPlan
from dspy_optimization.experiments.proposal import ExperimentProposal, PlanMaking, plan_of
from dspy_optimization.experiments.recording import check_outcome, exposure_of
from dspy_optimization.experiments.store import ExperimentStores
from dspy_optimization.optimization.store import Stores
from dspy_optimization.tenancy import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Which version a unit gets, and why."""

    assignment: Assignment
    version: Fingerprint
    live_version: Fingerprint
    """What everybody gets who is in no experiment."""
    experiment_id: ExperimentId | None
    """The one that runs on the agent; None: none does, and everybody gets the version that is live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An outcome as somebody tells it, before anything of it was checked."""

    event_id: str
    exposure_id: UUID
    happened_at: datetime | None = None
    score: object = None
    success: object = None
    """true is a score of 1, false one of 0."""
    failed: bool = False
    cost_usd: float | None = None
    latency_ms: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    feedback: str | None = None


class Refusal(NamedTuple):
    """An outcome that was not taken in."""

    position: int
    """In what was told, from 0."""
    event_id: str
    error: InvalidRequestError


class Shown(NamedTuple):
    """An experiment with what is known of it."""

    experiment: Experiment
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Conductor:
    """Conducts the experiments of one tenant; keeps nothing itself."""

    tenant: TenantId
    kept: ExperimentStores
    stores: Stores
    """Optimizations, their results, and agents."""
    now: Callable[[], datetime]
    """Aware; the clock of everything here."""
    new_id: Callable[[], UUID]

    def planned(self, proposal: ExperimentProposal) -> ExperimentPlan:
        """Return the plan of what is proposed; nothing is kept.

        Raises:
            NotFoundError: no such optimization.
            InvalidRequestError: it cannot be compared, or not like this.
        """
        optimization = self.stores.optimizations.get(proposal.optimization_id)
        making = PlanMaking(
            experiment_id=ExperimentId(self.new_id()),
            tenant=self.tenant,
            agent=self.stores.agents.get(optimization.request.target.version).name,
            salt=self.new_id().hex,
        )
        return plan_of(proposal, optimization, self.stores.results.result(proposal.optimization_id), making)

    def start(self, proposal: ExperimentProposal) -> Experiment:
        """Return a new experiment that takes units in from now on.

        Raises:
            NotFoundError: no such optimization.
            ConflictError: another experiment runs on the agent.
            InvalidRequestError: it cannot be compared, or not like this.
        """
        plan = self.planned(proposal)
        running = next(iter(self.kept.experiments.running(plan.agent)), None)
        if running is not None:
            raise ConflictError(
                f"agent {plan.agent}: wanted: no experiment that runs on it; found: {running.plan.experiment_id}; "
                "allowed: wait until it ends, or stop it"
            )
        now = self.now()
        experiment = Experiment.planned(plan, created_at=now).start(at=now)
        self.kept.experiments.add(experiment)
        return experiment

    def assign(
        self,
        agent: str,
        unit_id: str | None,
        *,
        live: Callable[[str], Fingerprint],
        attributes: Mapping[str, object] | None = None,
    ) -> Served:
        """Return what a unit gets, its exposure recorded: a unit keeps what it was exposed to first.

        Args:
            agent: its name.
            unit_id: who asks, a text; None and "" get the baseline and are not in the experiment.
            live: returns the version of an agent that everybody gets while no experiment runs; may raise
                `NotFoundError`.
            attributes: what is known of the unit before it is served, for overrides.
        Raises:
            InvalidRequestError: a unit id that cannot be kept.
        """
        unit = None if unit_id is None else checked_text(unit_id, "unit_id")
        experiment = next(iter(self.kept.experiments.running(agent)), None)
        if experiment is None:
            version = live(agent)
            return Served(assignment=not_running(unit), version=version, live_version=version, experiment_id=None)
        plan = experiment.plan
        assignment = experiment.assign(unit, attributes=attributes)
        if assignment.exposure_id is not None:
            known = self.kept.rows.first_exposures([assignment.exposure_id])
            if known:
                first = known[0]
                assignment = experiment.assign(unit, attributes=attributes, kept=(first.variant, first.split))
            else:
                now = self.now()
                self.kept.rows.add_exposures([exposure_of(plan, assignment, exposed_at=now, received_at=now)])
        return Served(
            assignment=assignment,
            version=plan.version(assignment.variant),
            live_version=plan.baseline,
            experiment_id=plan.experiment_id,
        )

    def report(self, told: Sequence[Told]) -> tuple[Refusal, ...]:
        """Take outcomes in, all that can be, in one go; return those that cannot be, each with its reason.

        The same event told again changes nothing, whenever and however often.
        """
        ids = list(dict.fromkeys(ExposureId(one.exposure_id) for one in told))
        exposures = {exposure.id: exposure for exposure in self.kept.rows.first_exposures(ids)}
        received_at = self.now()
        rows: list[Outcome] = []
        refused: list[Refusal] = []
        for position, one in enumerate(told):
            try:
                rows.append(_outcome(one, exposures, received_at))
            except InvalidRequestError as error:
                refused.append(Refusal(position, one.event_id, error))
        if rows:
            self.kept.rows.add_outcomes(rows)
        return tuple(refused)

    def look(self, experiment_id: ExperimentId) -> Experiment:
        """Take in what has become usable, decide, and carry the decision out; return the experiment as it stands then.

        Any number of processes may look at once: the evidence is taken in by one of them, and an alert or a result is
        written once.

        Raises:
            NotFoundError: no such experiment.
        """
        experiment = self.kept.experiments.get(experiment_id)
        as_of = min(self.now(), self.kept.rows.settled_until())
        if experiment.has_ended or experiment.started_at is None or as_of < experiment.started_at:
            return experiment
        before = self.kept.analyses.analysis(experiment_id)
        analysis = Analysis.start(experiment.plan) if before is None else before
        log = self.kept.rows.log(experiment, as_of, analysis.last_unit)
        exposures = log.exposed(as_of, analysis.last_exposure)
        units = log.usable(as_of, analysis.last_unit)
        analysis = analysis.extend(experiment.plan, exposures, units)
        is_new = before is None or bool(exposures) or bool(units)
        if is_new and not self.kept.analyses.save(experiment_id, before, analysis):
            return self.kept.experiments.get(experiment_id)
        evidence = evidence_of(experiment.plan, analysis, as_of)
        if not is_new and _says_nothing_new(experiment, experiment.conclude(evidence)):
            return experiment
        return self.kept.experiments.change(experiment_id, lambda newest: _concluded(newest, evidence))

    def shown(self, experiment_id: ExperimentId) -> Shown:
        """Return the experiment with the evidence that its decision rests on. Raises `NotFoundError`."""
        experiment = self.kept.experiments.get(experiment_id)
        kept = self.kept.analyses.analysis(experiment_id)
        analysis = Analysis.start(experiment.plan) if kept is None else kept
        as_of = experiment.created_at if experiment.started_at is None else experiment.started_at
        if experiment.decision is not None:
            as_of = experiment.decision.decided_at
        return Shown(experiment, evidence_of(experiment.plan, analysis, as_of))

    def stop(self, experiment_id: ExperimentId, because: str) -> Experiment:
        """Return it as ended by a person; its newest decision is its last, and its result is published.

        Raises:
            NotFoundError: no such experiment.
            ConflictError: it has ended already.
            InvalidRequestError: no reason is given.
        """
        checked_text(because, "because")

        def stopped(experiment: Experiment) -> Conclusion:
            ended = experiment.stop(because, at=self.now())
            return Conclusion(ended, None, ended.result())

        return self.kept.experiments.change(experiment_id, stopped)

    def extend(self, experiment_id: ExperimentId, until_hours: object) -> Experiment:
        """Return it with more time. Raises `NotFoundError`, and otherwise as `Experiment.extend`."""
        return self.kept.experiments.change(
            experiment_id, lambda experiment: experiment.extend(until_hours, at=self.now())
        )

    def raise_split(self, experiment_id: ExperimentId, share: object) -> Experiment:
        """Return it with more traffic for the optimized version.

        Raises `NotFoundError`, and otherwise as `Experiment.raise_split`.
        """
        return self.kept.experiments.change(
            experiment_id, lambda experiment: experiment.raise_split(share, at=self.now())
        )


def _outcome(told: Told, exposures: Mapping[ExposureId, Exposure], received_at: datetime) -> Outcome:
    """Return the row of what was told. Raises `InvalidRequestError`."""
    where = checked_text(told.event_id, "event_id")
    exposure = exposures.get(ExposureId(told.exposure_id))
    if exposure is None:
        raise NotFoundError(
            f"outcome {where}: exposure_id: wanted: a recorded exposure; found: {told.exposure_id}, which is none; "
            "possible: the exposure_id that `assign` answered with"
        )
    try:
        outcome = Outcome(
            experiment_id=exposure.experiment_id,
            exposure_id=exposure.id,
            event_id=where,
            happened_at=told.happened_at,
            received_at=received_at,
            score=score_of(where, score=told.score, success=told.success),
            failed=told.failed,
            cost_usd=told.cost_usd,
            latency_ms=told.latency_ms,
            scores=tuple((checked_text(name, "scores"), score) for name, score in told.scores.items()),
            feedback=None if told.feedback is None else checked_text(told.feedback, "feedback"),
        )
    except OverflowError as error:
        raise InvalidRequestError(
            f"outcome {where}: happened_at: wanted: a moment that exists in UTC; found: {told.happened_at}; possible: "
            "leave it out, and the time of receipt counts"
        ) from error
    check_outcome(outcome, exposures)
    return outcome


def _concluded(newest: Experiment, evidence: Evidence) -> Experiment | Conclusion:
    """Return the experiment with what the evidence decides, unless somebody has decided on newer evidence."""
    decided = newest.decision
    if decided is not None and decided.decided_at > evidence.as_of:
        return newest
    return newest.conclude(evidence)


def _says_nothing_new(experiment: Experiment, conclusion: Conclusion) -> bool:
    """Say whether nothing would be written but the moment of the look."""
    before, after = experiment.decision, conclusion.experiment.decision
    if before is None or after is None or conclusion.alert is not None or conclusion.result is not None:
        return False
    return _content(before) == _content(after)


def _content(decision: Decision) -> tuple[object, ...]:
    return (decision.state, decision.winner, decision.confidence, decision.ends)
