"""What is live for one agent in one environment, the rollout under way, and everything that was before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.untrusted import listed
from dspy_optimization.deployments import words
from dspy_optimization.deployments.approval import ApprovalId, Clearance
from dspy_optimization.deployments.breaker import Trip
from dspy_optimization.deployments.change import ENGINE, FORWARD, ROLLBACKS, Change, ChangeKind
from dspy_optimization.deployments.rollout import Rollout, RolloutStatus, StopCause, what_now
from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.deployments.stage import StageLook
from dspy_optimization.deployments.version import Version
from dspy_optimization.errors import ConflictError, ExpiredError, InvalidRequestError, NotFoundError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import Assignment, AssignmentReason
from dspy_optimization.experiments.bounds import checked_moment, checked_name
from dspy_optimization.experiments.split import Variant

POINTER_VERSION = 1


class Answering(NamedTuple):
    """Who answers one unit."""

    version: Fingerprint
    """The checksum that the content has to have; see `version.verified`."""
    assignment: Assignment | None
    """Under the rollout; None when there is none that takes units in. With an exposure id it has to be recorded."""


class Progress(NamedTuple):
    """A pointer after a step of its rollout."""

    pointer: "Pointer"
    """The very one that was handed in when nothing changes: nothing to write."""
    sleep_seconds: float | None
    """Until somebody should ask again; None: nothing will happen by itself."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """What is live, and how it came about. Every change returns another value with one `Change` more.

    Two changes at once: whoever keeps pointers applies them one after the other to what is kept then, and the second
    one is refused where it no longer fits.
    """

    agent: str
    environment: str
    live: Fingerprint
    """The version of whoever is in no rollout."""
    rollout: Rollout | None
    """Under way, or held for a person; None otherwise."""
    changes: tuple[Change, ...]
    """The whole history, in order."""

    @staticmethod
    def create(version: Version, environment: str, *, actor: str, at: datetime) -> "Pointer":
        """Return the first pointer of an agent in an environment: this version is live."""
        where = checked_name("environment", environment)
        first = Change(
            number=1,
            kind=ChangeKind.CREATED,
            at=checked_moment("at", at),
            actor=checked_name("actor", actor),
            reason=f"{version.checksum[:12]} is what {version.agent} begins with in {where}.",
            live=version.checksum,
            replaces=None,
            evidence=version.evidence(),
        )
        return Pointer(agent=version.agent, environment=where, live=version.checksum, rollout=None, changes=(first,))

    @property
    def versions(self) -> tuple[Fingerprint, ...]:
        """Every version that was ever live here, each once, the newest first."""
        return tuple(dict.fromkeys(change.live for change in reversed(self.changes)))

    @property
    def previous(self) -> Fingerprint | None:
        """The version that a rollback goes back to; None when there is nothing before the one that is live.

        Going back leaves what was gone back from behind: after v1, v2, v3 and a rollback it is v1.
        """
        came: list[Fingerprint] = []
        for change in self.changes:
            if came and change.live == came[-1]:
                continue
            if change.kind not in FORWARD and change.live in came:
                came = came[: len(came) - came[::-1].index(change.live)]
            else:
                came.append(change.live)
        return came[-2] if len(came) > 1 else None

    def answering(self, unit_id: object, attributes: Mapping[str, object] | None = None) -> Answering:
        """Return who answers a unit; without a unit id it is what is live, outside of the rollout.

        Raises:
            InvalidRequestError: a unit id that is no text.
        """
        rollout = self.rollout
        if rollout is None or rollout.status is not RolloutStatus.RUNNING:
            return Answering(self.live, None)
        traffic = rollout.plan.traffic
        assignment = traffic.assigner.assign(unit_id, rollout.split, attributes=attributes)
        if assignment.reason is AssignmentReason.NO_UNIT:
            # In the last stage that is the new version, though it is not the baseline.
            is_new = self.live == traffic.optimized
            assignment = replace(assignment, variant=Variant.OPTIMIZED if is_new else Variant.BASELINE)
        return Answering(traffic.version(assignment.variant), assignment)

    def promote(
        self, version: Version, *, replaces: Version, clearance: Clearance, actor: str, reason: str, at: datetime
    ) -> "Pointer":
        """Return it with all traffic on another version, at once and without stages.

        Args:
            version: a validated one.
            replaces: the version that the caller saw as live, and that it was shown to be better than.
            clearance: the leave to deploy it here.
            actor: who.
            reason: why.
            at: now.
        Raises:
            ConflictError: a rollout is under way, another version is live by now, it is live itself, or its leave
                is of something else or was used.
            ExpiredError: its leave has expired.
            InvalidRequestError: it was not validated, or against another baseline than what is live.
        """
        self._need_no_rollout(f"to promote {version.checksum[:12]}")
        moment = self._later(at)
        self._check_deployable(version, clearance, moment)
        if replaces.checksum != self.live:
            raise ConflictError(
                f"{self._where}: wanted: to replace {replaces.checksum[:12]}; found: {self.live[:12]} is live since "
                f"{self._live_since.isoformat()}; allowed: look at what is live now, and decide again"
            )
        if version.validated is None or version.validated.baseline != replaces.candidate:
            raise InvalidRequestError(
                f"{self._where}: wanted: a version that was shown to be better than what is live, "
                f"{replaces.candidate[:12]}; found: {version.checksum[:12]}, validated against another baseline; "
                "possible: a rollout, which compares with what is live, or optimize what is live"
            )
        why = checked_name("reason", reason, most=1_000)
        return self._with(
            ChangeKind.PROMOTED,
            actor,
            words.promoted(version.checksum, self.live, why),
            moment,
            live=version.checksum,
            approval=clearance.approval_id,
            evidence=version.evidence(),
        )

    def begin(
        self, plan: RolloutPlan, version: Version, *, clearance: Clearance, actor: str, at: datetime
    ) -> "Pointer":
        """Return it with a rollout at its first stage.

        Args:
            plan: from what is live to the version.
            version: a validated one.
            clearance: the leave to deploy it here.
            actor: who.
            at: now.
        Raises:
            ConflictError: as `promote`; or the id was used by an earlier rollout.
            ExpiredError: its leave has expired.
            InvalidRequestError: it was not validated, or the plan is of other versions.
        """
        self._need_no_rollout(f"to roll {version.checksum[:12]} out")
        moment = self._later(at)
        self._check_deployable(version, clearance, moment)
        traffic = plan.traffic
        if traffic.baseline != self.live:
            raise ConflictError(
                f"{self._where}: wanted: a rollout from {traffic.baseline[:12]}; found: {self.live[:12]} is live since "
                f"{self._live_since.isoformat()}; allowed: plan it from what is live now"
            )
        wanted = (self.agent, version.checksum, version.optimization_id)
        if wanted != (traffic.agent, traffic.optimized, traffic.optimization_id):
            raise InvalidRequestError(
                f"{self._where}: wanted: the plan of {version.checksum[:12]} of optimization "
                f"{version.optimization_id}; found: one of {traffic.optimized[:12]} of {traffic.agent}, optimization "
                f"{traffic.optimization_id}; possible: a plan of its own"
            )
        if traffic.experiment_id in {change.rollout for change in self.changes}:
            raise ConflictError(
                f"{self._where}: wanted: a rollout with an id of its own; found: {traffic.experiment_id}, which an "
                "earlier one had, so that its units would not be drawn afresh; allowed: another id and salt"
            )
        rollout = Rollout.start(plan, at=moment)
        return self._with(
            ChangeKind.STARTED,
            actor,
            words.begun(plan),
            moment,
            rollout=rollout,
            approval=clearance.approval_id,
            evidence=version.evidence(),
        )

    def step(self, look: StageLook | None, now: datetime, *, trip: Trip | None = None) -> Progress:
        """Return what is next: the rollout's next state as one change, how long to sleep, and why. As `what_now`."""
        if self.rollout is None:
            return Progress(self, None, f"{self._where}: no rollout is under way.")
        before, (after, sleep, reason) = self.rollout, what_now(self.rollout, look, now, trip=trip)
        if after is before:
            return Progress(self, sleep, reason)
        if after.status is RolloutStatus.HELD:
            kind = ChangeKind.HELD
        elif after.status is RolloutStatus.COMPLETED:
            kind = ChangeKind.COMPLETED
        else:
            kind = ChangeKind.RAISED if after.stage != before.stage else ChangeKind.STALLED
        evidence: dict[str, Json] = {} if look is None else {"look": look.evidence.to_json()}
        if after.cause is StopCause.BREAKER and trip is not None:
            evidence = {"trip": trip.to_json()}
        return Progress(
            self._with(kind, ENGINE, reason, self._later(now), rollout=after, evidence=evidence), sleep, reason
        )

    def go_on(self, reason: str, *, actor: str, at: datetime) -> "Pointer":
        """Return it with its rollout at the next stage though the terms of this one are not met.

        Raises:
            ConflictError: no rollout is running, or it is at its last stage.
        """
        rollout = self._need_rollout("to go on to the next stage")
        moment = self._later(at)
        after = rollout.go_on(reason, at=moment)
        return self._with(
            ChangeKind.RAISED, actor, words.advanced(rollout.plan, rollout.stage, reason), moment, rollout=after
        )

    def roll_back(
        self,
        reason: str,
        *,
        actor: str,
        at: datetime,
        cause: StopCause = StopCause.PERSON,
        evidence: Mapping[str, Json] | None = None,
    ) -> "Pointer":
        """Return it with all traffic on the version before, in one change.

        With a rollout under way that is its baseline; it is held for a person unless a person does it.

        Args:
            reason: why, in words.
            actor: who.
            at: now.
            cause: `person`, or `alarm` for a monitor.
            evidence: what it rests on.
        Raises:
            ConflictError: there is nothing to go back to, or the rollout is held already.
        """
        moment, why = self._later(at), checked_name("reason", reason, most=4_000)
        kind = ChangeKind.ROLLED_BACK if cause is StopCause.PERSON else ChangeKind.HELD
        rollout = self.rollout
        if rollout is not None and rollout.status is RolloutStatus.HELD:
            raise ConflictError(
                f"{self._where}: wanted: to roll back; found: rollout {rollout.id} is held, and everybody has "
                f"{self.live[:12]} already; allowed: release it"
            )
        to = self.previous if rollout is None else rollout.plan.traffic.baseline
        if to is None:
            raise ConflictError(
                f"{self._where}: wanted: to roll back; found: nothing to go back to, {self.live[:12]} is the first "
                "version here; allowed: promote or roll out another one"
            )
        from_ = self.live if rollout is None else rollout.plan.traffic.optimized
        told = words.went_back(to, from_, why)
        after = None if rollout is None else rollout.stop(cause, told, at=moment)
        return self._with(kind, actor, told, moment, live=to, rollout=after, evidence=evidence)

    def release(self, reason: str, *, actor: str, at: datetime) -> "Pointer":
        """Return it without the rollout that was held: a person has looked, and another one may begin.

        Raises:
            ConflictError: none is held.
        """
        rollout = self._need_rollout("to release a rollout")
        moment, why = self._later(at), checked_name("reason", reason, most=1_000)
        if rollout.status is not RolloutStatus.HELD:
            raise ConflictError(
                f"{self._where}: wanted: to release a rollout; found: {rollout.id} is {rollout.status.value}; allowed: "
                "wait, go on by hand, roll back"
            )
        return self._with(
            ChangeKind.RELEASED,
            actor,
            f"Rollout {rollout.id} is released: {why}",
            moment,
            rollout=rollout.stop(StopCause.PERSON, why, at=moment),
        )

    def revert(self, to: Fingerprint, reason: str, *, actor: str, at: datetime) -> "Pointer":
        """Return it with all traffic on any version that was live here before; a rollout under way ends.

        Raises:
            NotFoundError: it was never live here.
            ConflictError: it is live.
        """
        moment, why = self._later(at), checked_name("reason", reason, most=1_000)
        if to not in self.versions:
            raise NotFoundError(
                f"{self._where}: wanted: a version that was live here; found: {to}; possible: {listed(self.versions)}"
            )
        if to == self.live:
            also = "" if self.rollout is None else ", or roll the rollout back"
            raise ConflictError(
                f"{self._where}: wanted: to revert to {to[:12]}; found: it is live; allowed: another one of "
                f"{listed(version[:12] for version in self.versions if version != to)}{also}"
            )
        told = words.went_back(to, self.live, why)
        return self._with(ChangeKind.REVERTED, actor, told, moment, live=to, rollout=self._ended(told, moment))

    def undo(self, reason: str, *, actor: str, at: datetime) -> "Pointer":
        """Return it with what its newest change replaced.

        A rollout under way ends, at whatever stage it is: its start and all its stages are one change to whoever takes
        it back. What was undone may be undone again, but a rollout that has ended is not resumed.

        Raises:
            ConflictError: nothing was before, or the newest change ended a rollout.
        """
        moment, why, last = self._later(at), checked_name("reason", reason, most=1_000), self.changes[-1]
        rollout, to = self.rollout, last.replaces
        if rollout is not None and rollout.status is RolloutStatus.RUNNING:
            to = rollout.plan.traffic.baseline
        elif last.rollout is not None and last.kind is not ChangeKind.COMPLETED:
            allowed = "release it" if rollout is not None else "another rollout, with an id of its own"
            raise ConflictError(
                f"{self._where}: wanted: to undo {last.kind.value}; found: it ended rollout {last.rollout}, and a "
                f"rollout is not resumed, because its units were drawn and looked at; allowed: {allowed}"
            )
        if to is None:
            raise ConflictError(
                f"{self._where}: wanted: to undo {last.kind.value}; found: nothing was live before; allowed: promote "
                "or roll out another version"
            )
        told = words.went_back(to, self.live if rollout is None else rollout.plan.traffic.optimized, why)
        return self._with(ChangeKind.UNDONE, actor, told, moment, live=to, rollout=self._ended(told, moment))

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, from which `reading.pointer_from_json` reads an equal pointer."""
        return {
            "version": POINTER_VERSION,
            "agent": self.agent,
            "environment": self.environment,
            "live": self.live,
            "rollout": None if self.rollout is None else self.rollout.to_json(),
            "changes": [change.to_json() for change in self.changes],
        }

    @property
    def _where(self) -> str:
        return f"{self.agent} in {self.environment}"

    @property
    def _live_since(self) -> datetime:
        since = self.changes[-1].at
        for change in reversed(self.changes):
            if change.live != self.live:
                break
            since = change.at
        return since

    def _with(
        self,
        kind: ChangeKind,
        actor: str,
        reason: str,
        at: datetime,
        *,
        live: Fingerprint | None = None,
        rollout: Rollout | None = None,
        approval: ApprovalId | None = None,
        evidence: Mapping[str, Json] | None = None,
    ) -> "Pointer":
        """Return it after one change; a rollout that is over is in the change, and no longer in the pointer."""
        after = self.live if live is None else live
        replaces, split, id_ = self.live, None, None
        found: dict[str, Json] = {} if evidence is None else dict(evidence)
        if rollout is not None:
            after = rollout.live if live is None else live
            id_, split = rollout.id, rollout.split
            if kind not in {ChangeKind.REVERTED, ChangeKind.UNDONE, *ROLLBACKS}:
                replaces = rollout.plan.traffic.baseline
            if rollout.status is not RolloutStatus.RUNNING:
                found["rollout"] = rollout.to_json()
        change = Change(
            number=len(self.changes) + 1,
            kind=kind,
            at=at,
            actor=checked_name("actor", actor),
            reason=reason,
            live=after,
            replaces=replaces,
            rollout=id_,
            split=split,
            approval=approval,
            evidence=found,
        )
        kept = None if rollout is None or rollout.is_over else rollout
        return replace(self, live=after, rollout=kept, changes=(*self.changes, change))

    def _ended(self, reason: str, at: datetime) -> Rollout | None:
        return None if self.rollout is None else self.rollout.stop(StopCause.PERSON, reason, at=at)

    def _need_no_rollout(self, wanted: str) -> None:
        if self.rollout is None:
            return
        rollout = self.rollout
        allowed = "release it first" if rollout.status is RolloutStatus.HELD else "wait for its end, or roll it back"
        raise ConflictError(
            f"{self._where}: wanted: {wanted}; found: rollout {rollout.id} of {rollout.plan.traffic.optimized[:12]} is "
            f"{rollout.status.value} at {words.share(rollout.split.share)}; allowed: {allowed}"
        )

    def _need_rollout(self, wanted: str) -> Rollout:
        if self.rollout is None:
            raise ConflictError(f"{self._where}: wanted: {wanted}; found: none is under way; allowed: begin one")
        return self.rollout

    def _check_deployable(self, version: Version, clearance: Clearance, at: datetime) -> None:
        named = f"version {version.checksum[:12]}"
        if version.agent != self.agent:
            raise InvalidRequestError(
                f"{self._where}: wanted: a version of {self.agent}; found: one of {version.agent}; possible: its own"
            )
        if version.validated is None:
            raise InvalidRequestError(
                f"{self._where}: wanted: a validated version; found: {named}, a baseline that nothing was proven of; "
                "possible: what an optimization with the verdict `improved` ended with; who wants an earlier version "
                "back reverts to it"
            )
        if version.checksum == self.live:
            raise ConflictError(
                f"{self._where}: wanted: to deploy {named}; found: it is live since {self._live_since.isoformat()}; "
                "allowed: another version"
            )
        if (clearance.agent, clearance.checksum, clearance.environment) != (
            self.agent, version.checksum, self.environment,
        ):  # fmt: skip
            raise ConflictError(
                f"{self._where}: wanted: leave to deploy {named}; found: leave for {clearance.checksum[:12]} of "
                f"{clearance.agent} in {clearance.environment}; allowed: clear this very deployment"
            )
        if clearance.until is not None and at >= clearance.until:
            raise ExpiredError(
                f"{self._where}: wanted: leave to deploy {named} that is valid; found: it expired at "
                f"{clearance.until.isoformat()}; possible: ask for another approval"
            )
        approval = clearance.approval_id
        if approval is not None and approval in {change.approval for change in self.changes}:
            raise ConflictError(
                f"{self._where}: wanted: an approval that was not used; found: {approval}, on which it was deployed "
                "before; allowed: ask for another approval"
            )

    def _later(self, at: datetime) -> datetime:
        moment, last = checked_moment("at", at), self.changes[-1].at
        if moment < last:
            raise InvalidRequestError(
                f"{self._where}: wanted: a change after {last.isoformat()}, the newest one; found: "
                f"{moment.isoformat()}; possible: the clock of the engine"
            )
        return moment
