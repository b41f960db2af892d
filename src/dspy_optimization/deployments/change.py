"""One change of what is live: one value, one write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.deployments.approval import ApprovalId
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.split import Split

ENGINE = "engine"
"""The actor of what nobody asked for."""


class ChangeKind(StrEnum):
    """What was done; the value is the name of the event that tells of it."""

    CREATED = "deployment.created"  # the baseline is live
    PROMOTED = "deployment.promoted"  # another version gets all traffic at once
    STARTED = "deployment.rollout_started"
    RAISED = "deployment.stage_raised"  # the split of the rollout rose
    STALLED = "deployment.stalled"  # nothing but a word to a person: too few units
    COMPLETED = "deployment.completed"  # the hold-back has ended
    REVERTED = "deployment.reverted"  # a person chose an earlier version
    UNDONE = "deployment.undone"  # a person took the newest change back
    HELD = "rollback.automatic"  # by evidence, breaker or alarm; a rollout is held for a person
    ROLLED_BACK = "rollback.requested"  # by a person
    RELEASED = "rollback.released"  # a person has looked at what was held


FORWARD = frozenset({ChangeKind.CREATED, ChangeKind.PROMOTED, ChangeKind.RAISED})
"""What may make a version live for the first time, or again, as something new; all others go back."""
ROLLBACKS = frozenset({ChangeKind.HELD, ChangeKind.ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What was changed, why, by whom, on what evidence, when, and what it replaces."""

    number: int
    """Its place in the history of the pointer; the first is 1."""
    kind: ChangeKind
    at: datetime
    actor: str
    """Who; `engine` where nobody asked for it."""
    reason: str
    """In words, with the numbers it rests on."""
    live: Fingerprint
    """The version of whoever is in no rollout, from now on."""
    replaces: Fingerprint | None
    """The version that was live before; of a rollout's changes, before the rollout. None: nothing was."""
    rollout: ExperimentId | None = None
    """The one it is a change of, or that it ended."""
    split: Split | None = None
    """Of that rollout, from now on."""
    approval: ApprovalId | None = None
    """What it was deployed on, where somebody had to agree."""
    evidence: Mapping[str, Json] = field(default_factory=dict)
    """What it rests on, as plain JSON."""

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON: the data of its event, and what `reading.change_from_json` reads."""
        return {
            "number": self.number,
            "kind": self.kind.value,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "reason": self.reason,
            "live": self.live,
            "replaces": self.replaces,
            "rollout": None if self.rollout is None else str(self.rollout),
            "split_buckets": None if self.split is None else self.split.buckets,
            "approval": None if self.approval is None else str(self.approval),
            "evidence": dict(self.evidence),
        }
