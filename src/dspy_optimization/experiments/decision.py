"""What is decided of an experiment at one look."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dspy_optimization.agents.untrusted import Block
from dspy_optimization.events import Json
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.split import Variant


class DecisionState(StrEnum):
    """What is decided, in the order in which the rule asks; see `deciding.decide`."""

    INVALID = "invalid"  # the groups cannot be compared; nothing is said of the versions
    GUARDRAIL_BREACH = "guardrail_breach"  # something that must not get worse did
    HARM = "harm"  # the primary metric got worse
    WINNER = "winner"  # optimized is better, and everything a deployment needs is proven
    SIGNIFICANT_WAITING = "significant_waiting"  # optimized is better; something a deployment needs is open
    RUNNING = "running"  # nothing is proven yet
    INCONCLUSIVE = "inconclusive"  # nothing is proven, and the time is up


ROLLBACKS = frozenset({DecisionState.INVALID, DecisionState.GUARDRAIL_BREACH, DecisionState.HARM})
"""They send all traffic back to the baseline, at once."""


class Alert(StrEnum):
    """What a person has to know though nothing is broken."""

    NOT_SIGNIFICANT_IN_7_DAYS = "not_significant_in_7_days"  # told once an experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided at one look, and why."""

    state: DecisionState
    winner: Variant
    """The baseline unless the optimized version is proven better; that is no claim that the baseline is."""
    confidence: float
    """1 - p of the claim that the winner beats the other, in [0, 1]; 0 where nothing speaks for it."""
    deployment_recommended: bool
    ends: bool
    """Whether the experiment is over with it; such a decision is never changed."""
    decided_at: datetime
    reason: str
    """In one or two sentences, with the numbers it rests on."""

    @property
    def rolls_back(self) -> bool:
        """Whether all traffic goes back to the baseline because of what was found."""
        return self.state in ROLLBACKS

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, from which `from_json` reads an equal decision."""
        return {
            "state": self.state.value,
            "winner": self.winner.value,
            "confidence": self.confidence,
            "deployment_recommended": self.deployment_recommended,
            "ends": self.ends,
            "decided_at": self.decided_at.isoformat(),
            "reason": self.reason,
        }

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> "Decision":
        """Return the decision that `to_json` wrote.

        Raises:
            InvalidRequestError: it is something else; the message names the field.
        """
        known = ("state", "winner", "confidence", "deployment_recommended", "ends", "decided_at", "reason")
        block = Block(dict(data), "decision", known)
        text = block.text("decided_at")
        try:
            decided_at = checked_moment("decision.decided_at", datetime.fromisoformat(text))
        except ValueError as error:
            raise block.wrong("decided_at", "a moment in ISO 8601", "2026-03-01T12:00:00+00:00") from error
        return Decision(
            state=block.one_of("state", DecisionState),
            winner=block.one_of("winner", Variant),
            confidence=block.number("confidence", None, low=0.0, high=1.0),
            deployment_recommended=block.flag("deployment_recommended", False),
            ends=block.flag("ends", False),
            decided_at=decided_at,
            reason=block.text("reason"),
        )
