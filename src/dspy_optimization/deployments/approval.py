"""When a person has to agree before a version is deployed, who may, and what they said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, NewType
from uuid import UUID

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.objective import Objective
from dspy_optimization.agents.untrusted import Block, listed
from dspy_optimization.deployments.fields import moment_of, uuid_of
from dspy_optimization.deployments.version import Version
from dspy_optimization.errors import ConflictError, ExpiredError, InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.bounds import checked_moment, checked_name, checked_number
from dspy_optimization.tenancy import AccessRole, Principal

PRODUCTION = "production"
APPROVAL_HOURS = 72.0
APPROVAL_VERSION = 1
COST = "avg_cost_per_task"
_MOST = 100
_KEYS = (
    "version", "id", "agent", "checksum", "environment", "points", "roles", "names", "may_approve_own", "asked_by",
    "asked_at", "expires_at", "status", "decided_by", "decided_at", "because",
)  # fmt: skip
_CLEARED = object()

ApprovalId = NewType("ApprovalId", UUID)


class GuardrailChange(NamedTuple):
    """What a version does to one guardrail, on the sealed split."""

    metric: str
    worse_by: float | None
    """As a share of the baseline, below 0 where it got better; None: the baseline had 0 of it, and it got worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What a deployment would touch."""

    agent: str
    checksum: Fingerprint
    """Of the version that would be live."""
    environment: str
    units_per_day: float | None
    """Users or sessions that would get it, at all traffic; None where it is not known."""
    cost_change: float | None
    """Of an answer, as a share of the baseline's, below 0 where it got cheaper; None: it was free, and is not now."""
    guardrail_changes: tuple[GuardrailChange, ...]
    is_asked_for: bool
    """Whether the request of the optimization asked for an approval whatever comes out (`requires_approval`)."""


def impact_of(
    version: Version,
    objectives: Sequence[Objective],
    *,
    environment: str,
    units_per_day: float | None = None,
    is_asked_for: bool = False,
) -> Impact:
    """Return what deploying a version would touch, by the numbers of its validated result.

    Args:
        version: one that was validated.
        objectives: of its optimization; those that are guardrails count.
        environment: where it would be live.
        units_per_day: users or sessions there, at all traffic.
        is_asked_for: `requires_approval` of the request.
    Raises:
        InvalidRequestError: a version that was not validated.
    """
    validated = version.validated
    if validated is None:
        raise InvalidRequestError(
            f"version {version.checksum[:12]} of {version.agent}: wanted: a validated result; found: none, it is a "
            "baseline; possible: a version that an optimization ended with"
        )
    before, after = validated.baseline_performance.get(COST), validated.optimized_performance.get(COST)
    changes = []
    for objective in objectives:
        if objective.guardrail:
            measured = validated.objectives[objective.metric]
            worse = objective.oriented(measured.baseline.value) - objective.oriented(measured.optimized.value)
            changes.append(GuardrailChange(objective.metric, _relative(worse, measured.baseline.value)))
    return Impact(
        agent=version.agent,
        checksum=version.checksum,
        environment=checked_name("environment", environment),
        units_per_day=units_per_day,
        cost_change=0.0 if before is None or after is None else _relative(after.value - before.value, before.value),
        guardrail_changes=tuple(changes),
        is_asked_for=is_asked_for,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPolicy:
    """From which impact on a person has to agree; as it is built without arguments it asks for nothing by itself."""

    environments: frozenset[str] = frozenset()
    """In which every deployment needs one, such as `production`."""
    units_per_day: float | None = None
    """From so many on; an impact that does not know its traffic is taken to reach it."""
    cost_change: float | None = None
    """From so large a share on; 0.2 is 20 % dearer."""
    guardrail_change: float | None = None
    """From so large a share on, for any guardrail that got worse."""
    roles: frozenset[AccessRole] = frozenset({AccessRole.ADMINISTRATOR})
    """Whose keys may approve."""
    names: frozenset[str] = frozenset()
    """Who of them; empty: all."""
    may_approve_own: bool = False
    """Whether who asked may agree with themselves: where there is one person alone."""
    expires_hours: float = APPROVAL_HOURS
    """Since it was asked for; after it a granted one is no longer valid either."""

    def __post_init__(self) -> None:
        for name in ("units_per_day", "cost_change", "guardrail_change"):
            value = getattr(self, name)
            if value is not None:
                checked = checked_number(f"approvals: {name}", value, possible="0 or more, or leave it out")
                object.__setattr__(self, name, checked)
        checked_number("approvals: expires_hours", self.expires_hours, open_low=True, possible="72")
        if not self.roles:
            raise InvalidRequestError(
                f"approvals: wanted: at least one role that may approve; found: none; possible: {listed(AccessRole)}"
            )

    def points(self, impact: Impact) -> tuple[str, ...]:
        """Return why a person has to agree, in words; empty when nobody has to."""
        found = []
        if impact.is_asked_for:
            found.append("the request of the optimization asks for an approval")
        if impact.environment in self.environments:
            found.append(f"every deployment in {impact.environment} needs one")
        if self.units_per_day is not None:
            if impact.units_per_day is None:
                found.append(f"the traffic is not known, and {self.units_per_day:,g} units a day need one")
            elif impact.units_per_day >= self.units_per_day:
                found.append(f"{impact.units_per_day:,g} units a day, from {self.units_per_day:,g} on")
        if self.cost_change is not None and _reaches(impact.cost_change, self.cost_change):
            found.append(f"an answer costs {_told(impact.cost_change)}, from {self.cost_change:+.3g} on")
        if self.guardrail_change is not None:
            found += [
                f"{change.metric} is worse by {_told(change.worse_by)}, from {self.guardrail_change:+.3g} on"
                for change in impact.guardrail_changes
                if _reaches(change.worse_by, self.guardrail_change)
            ]
        return tuple(found)


class ApprovalStatus(StrEnum):
    """What was said."""

    WAITING = "waiting"  # nobody has said anything
    GRANTED = "granted"  # it may be deployed until it expires
    REFUSED = "refused"  # final; another request is another approval


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One question to a person, about one version in one environment, and the answer."""

    id: ApprovalId
    agent: str
    checksum: Fingerprint
    environment: str
    points: tuple[str, ...]
    """Why it is asked, in words."""
    roles: frozenset[AccessRole]
    names: frozenset[str]
    may_approve_own: bool
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    status: ApprovalStatus = ApprovalStatus.WAITING
    decided_by: str | None = None
    decided_at: datetime | None = None
    because: str | None = None

    @staticmethod
    def ask(
        policy: ApprovalPolicy, impact: Impact, approval_id: ApprovalId, *, asked_by: str, at: datetime
    ) -> "Approval":
        """Return the question.

        Raises:
            ConflictError: nobody has to agree.
        """
        points, moment = policy.points(impact), checked_moment("at", at)
        if not points:
            raise ConflictError(
                f"approval for {impact.agent} in {impact.environment}: wanted: something a person has to agree with; "
                "found: nothing, the impact is below every threshold; allowed: deploy it"
            )
        return Approval(
            id=approval_id,
            agent=impact.agent,
            checksum=impact.checksum,
            environment=impact.environment,
            points=points,
            roles=policy.roles,
            names=policy.names,
            may_approve_own=policy.may_approve_own,
            asked_by=checked_name("asked_by", asked_by),
            asked_at=moment,
            expires_at=moment + timedelta(hours=policy.expires_hours),
        )

    def may(self, principal: Principal) -> bool:
        """Say whether this one may answer."""
        is_named = not self.names or principal.name in self.names
        return principal.role in self.roles and is_named and (self.may_approve_own or principal.name != self.asked_by)

    def is_valid(self, at: datetime) -> bool:
        """Say whether the version may be deployed on it at a moment."""
        return self.status is ApprovalStatus.GRANTED and at < self.expires_at

    def grant(self, principal: Principal, *, at: datetime, because: str | None = None) -> "Approval":
        """Return it as granted.

        Raises:
            ConflictError: it was answered already, or this one may not.
            ExpiredError: too late.
        """
        return self._answered(principal, ApprovalStatus.GRANTED, at, because)

    def refuse(self, principal: Principal, because: str, *, at: datetime) -> "Approval":
        """Return it as refused, for good. As `grant`; a reason has to be given."""
        return self._answered(principal, ApprovalStatus.REFUSED, at, checked_name("because", because, most=1_000))

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, from which `from_json` reads an equal approval."""
        return {
            "version": APPROVAL_VERSION,
            "id": str(self.id),
            "agent": self.agent,
            "checksum": self.checksum,
            "environment": self.environment,
            "points": list(self.points),
            "roles": list[Json](sorted(self.roles)),
            "names": list[Json](sorted(self.names)),
            "may_approve_own": self.may_approve_own,
            "asked_by": self.asked_by,
            "asked_at": self.asked_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "status": self.status.value,
            "decided_by": self.decided_by,
            "decided_at": None if self.decided_at is None else self.decided_at.isoformat(),
            "because": self.because,
        }

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> "Approval":
        """Return the approval that `to_json` wrote.

        Raises:
            InvalidRequestError: it is something else; the message names the field.
        """
        block = Block(dict(data), "approval", _KEYS)
        if block.get("version") != APPROVAL_VERSION:
            raise InvalidRequestError(
                f"approval: wanted: version {APPROVAL_VERSION}; found: {block.get('version')}; possible: what to_json "
                "of an approval returned"
            )
        roles = {str(role): role for role in AccessRole}
        return Approval(
            id=ApprovalId(uuid_of(block, "id")),
            agent=block.text("agent"),
            checksum=Fingerprint(block.text("checksum")),
            environment=block.text("environment"),
            points=tuple(_texts(block, "points")),
            roles=frozenset(roles[text] for text in _texts(block, "roles", roles)),
            names=frozenset(_texts(block, "names")),
            may_approve_own=block.flag("may_approve_own", False),
            asked_by=block.text("asked_by"),
            asked_at=moment_of(block, "asked_at"),
            expires_at=moment_of(block, "expires_at"),
            status=block.one_of("status", ApprovalStatus),
            decided_by=block.text("decided_by") if "decided_by" in block else None,
            decided_at=moment_of(block, "decided_at") if "decided_at" in block else None,
            because=block.text("because") if "because" in block else None,
        )

    def _answered(self, principal: Principal, status: ApprovalStatus, at: datetime, because: str | None) -> "Approval":
        moment = checked_moment("at", at)
        where = f"approval {self.id} for {self.agent} in {self.environment}"
        if self.status is not ApprovalStatus.WAITING:
            raise ConflictError(
                f"{where}: wanted: to make it {status.value}; found: {self.decided_by} {self.status.value} it; "
                "allowed: nothing, it is final; ask again"
            )
        if not self.may(principal):
            own = "" if self.may_approve_own else f", but not {self.asked_by}, who asked"
            named = f" named {listed(self.names)}" if self.names else ""
            raise ConflictError(
                f"{where}: wanted: somebody who may answer; found: {principal.name} ({principal.role.value}); allowed: "
                f"the roles {listed(self.roles)}{named}{own}"
            )
        if moment >= self.expires_at:
            raise ExpiredError(
                f"{where}: wanted: an answer before {self.expires_at.isoformat()}; found: {moment.isoformat()}; "
                "possible: ask again"
            )
        return replace(self, status=status, decided_by=principal.name, decided_at=moment, because=because)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """That a version may be deployed in an environment now; made by `clear` alone."""

    agent: str
    checksum: Fingerprint
    environment: str
    until: datetime | None
    """None: nobody had to agree, and it does not expire."""
    approval_id: ApprovalId | None
    approved_by: str | None
    seal: object = field(repr=False)

    def __post_init__(self) -> None:
        if self.seal is not _CLEARED:
            raise TypeError("wanted: a clearance; found: one made by hand; possible: deployments.approval.clear")


def clear(policy: ApprovalPolicy, impact: Impact, approval: Approval | None, *, at: datetime) -> Clearance:
    """Return the leave to deploy.

    Args:
        policy: of the tenant.
        impact: of the version, in its environment, now.
        approval: what a person said; None when nobody was asked.
        at: now.
    Raises:
        ConflictError: somebody has to agree, and has not, or has refused, or agreed to something else.
        ExpiredError: the approval is too old.
    """
    moment, points = checked_moment("at", at), policy.points(impact)
    where = f"deployment of {impact.checksum[:12]} of {impact.agent} in {impact.environment}"
    if not points:
        return _cleared(impact, None)
    if approval is None:
        raise ConflictError(
            f"{where}: wanted: an approval, because {'; '.join(points)}; found: none; allowed: ask for one"
        )
    found = (approval.agent, approval.checksum, approval.environment)
    if found != (impact.agent, impact.checksum, impact.environment):
        raise ConflictError(
            f"{where}: wanted: an approval of it; found: one of {approval.checksum[:12]} of {approval.agent} in "
            f"{approval.environment}; allowed: ask for one of its own"
        )
    if approval.status is not ApprovalStatus.GRANTED:
        said = "" if approval.because is None else f" by {approval.decided_by}: {approval.because}"
        raise ConflictError(
            f"{where}: wanted: a granted approval, because {'; '.join(points)}; found: it is {approval.status.value}"
            f"{said}; allowed: {'wait' if approval.status is ApprovalStatus.WAITING else 'ask again'}"
        )
    if not approval.is_valid(moment):
        raise ExpiredError(
            f"{where}: wanted: an approval that is still valid; found: it expired at "
            f"{approval.expires_at.isoformat()}; possible: ask again"
        )
    return _cleared(impact, approval)


def _cleared(impact: Impact, approval: Approval | None) -> Clearance:
    return Clearance(
        agent=impact.agent,
        checksum=impact.checksum,
        environment=impact.environment,
        until=None if approval is None else approval.expires_at,
        approval_id=None if approval is None else approval.id,
        approved_by=None if approval is None else approval.decided_by,
        seal=_CLEARED,
    )


def _relative(worse: float, baseline: float) -> float | None:
    if baseline == 0.0:
        return 0.0 if worse <= 0.0 else None
    return worse / abs(baseline)


def _reaches(change: float | None, threshold: float) -> bool:
    # From nothing to something is more than any share of it.
    return change is None or (change > 0.0 and change >= threshold)


def _told(change: float | None) -> str:
    return "something where it was nothing" if change is None else f"{change:+.3g} of the baseline's"


def _texts(block: Block, key: str, known: Mapping[str, object] | None = None) -> list[str]:
    items = block.items(key, _MOST)
    texts = [item for item in items if isinstance(item, str) and (known is None or item in known)]
    if len(texts) != len(items):
        raise block.wrong(key, "a list of texts", "what to_json returned" if known is None else listed(known))
    return texts
