"""What was found in a dataset, and the verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dspy_optimization.agents.example import Example, ExampleId

NAMED = 5


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # no honest result can come of it
    WARNING = "warning"  # the result may be worse than it could be
    NOTE = "note"  # good to know


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found."""

    severity: Severity
    code: str
    """Stable name: too_small, one_class, leak, …"""
    message: str
    """What was wanted, what was found, what is possible."""
    examples: tuple[ExampleId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """Everything found in one dataset for one agent."""

    findings: tuple[Finding, ...]
    """Errors first."""
    n_train: int
    n_val: int
    n_test: int
    test_units: int
    """Clusters in test: what the gate counts."""
    detectable_gain: float | None
    """The smallest gain in a success rate that test shows with 80 % power, a share; None: none at all.

    Assumes that candidate and baseline differ on 30 % of the examples.
    """

    @property
    def usable(self) -> bool:
        """Whether an honest result can come of it: no finding is an error."""
        return not any(one.severity is Severity.ERROR for one in self.findings)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        counts = Counter(one.severity for one in self.findings)
        sizes = f"{self.n_train} train, {self.n_val} val, {self.n_test} test examples"
        if not self.usable:
            first = next(one for one in self.findings if one.severity is Severity.ERROR)
            return f"Not usable ({sizes}): {counts[Severity.ERROR]} error(s), the first: {first.message}"
        gain = "no gain"
        if self.detectable_gain is not None:
            gain = f"gains of {100.0 * self.detectable_gain:.0f} percentage points and more"
        usable = f"Usable ({sizes}): the gate can be expected to find {gain}"
        warnings = [one.message for one in self.findings if one.severity is Severity.WARNING]
        if not warnings:
            return f"{usable}."
        count = "a warning" if len(warnings) == 1 else f"{len(warnings)} warnings, the first"
        return f"{usable}; {count}: {warnings[0]}"


def finding(severity: Severity, code: str, message: str, examples: Sequence[Example] = ()) -> Finding:
    """Return a finding whose message ends with the first of its examples."""
    ids = tuple(one.id for one in examples)
    named = ", ".join(one[:12] for one in ids[:NAMED])
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return Finding(
        severity=severity, code=code, message=f"{message} (examples {named}{more})" if ids else message, examples=ids
    )
