"""What came of checking an algorithm, rule by rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dspy_optimization.events import Json


class Outcome(StrEnum):
    """What came of one rule."""

    KEPT = "kept"
    BROKEN = "broken"
    UNCHECKED = "unchecked"  # the algorithm ended the check before it came to this rule


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFinding:
    """One rule of the contract, and whether an algorithm keeps it."""

    rule: str
    """A few words, the same for every algorithm: "ends when it is told to"."""
    outcome: Outcome
    wanted: str = ""
    found: str = ""
    possible: str = ""
    """How to mend it; empty for a rule that is kept."""

    @property
    def sentence(self) -> str:
        """The finding for people."""
        if self.outcome is Outcome.KEPT:
            return f"{self.rule}: kept"
        return f"{self.rule}: wanted: {self.wanted}; found: {self.found}; possible: {self.possible}"

    def to_json(self) -> dict[str, Json]:
        """Return the finding as plain JSON."""
        return {
            "rule": self.rule,
            "outcome": self.outcome.value,
            "wanted": self.wanted,
            "found": self.found,
            "possible": self.possible,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Json]) -> "RuleFinding":
        """Return what `to_json` wrote."""
        return cls(
            rule=str(told["rule"]),
            outcome=Outcome(str(told["outcome"])),
            wanted=str(told.get("wanted", "")),
            found=str(told.get("found", "")),
            possible=str(told.get("possible", "")),
        )
