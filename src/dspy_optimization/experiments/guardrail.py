"""What must not get worse while something else gets better."""

import math
from dataclasses import dataclass
from enum import StrEnum

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.bounds import checked_name, checked_number
from dspy_optimization.experiments.outcome import Outcome

DEFAULT_MARGIN = 0.1


class GuardrailKind(StrEnum):
    """What a guardrail measures of one outcome; less is better in all of them."""

    LATENCY = "latency"  # milliseconds, capped at `limit`, as a share of it
    LATENCY_TAIL = "latency_tail"  # 1 where milliseconds exceed `limit`, else 0
    COST = "cost"  # dollars, capped at `limit`, as a share of it
    ERROR_RATE = "error_rate"  # 1 where the agent failed, else 0
    SHORTFALL = "shortfall"  # 1 less the score of the metric `metric`, such as safety


_LIMITED = frozenset({GuardrailKind.LATENCY, GuardrailKind.LATENCY_TAIL, GuardrailKind.COST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """One measure whose mean may exceed the baseline's by a share of `margin` and by `allowance`, and no more."""

    name: str
    """Its own within the plan."""
    kind: GuardrailKind
    limit: float | None = None
    """Milliseconds or dollars: the cap C beyond which more is no worse, or the objective (SLO) of a tail."""
    metric: str | None = None
    """Of `shortfall`: whose score, among the named scores of the outcomes."""
    margin: float = DEFAULT_MARGIN
    """By how large a share of the baseline's mean it may be worse, above 0; 0.1 is 10 %."""
    allowance: float = 0.0
    """By how much it may be worse besides, in [0, 1] as measured; 0.01 is one more failure in a hundred. Without it a
    share of nothing can be neither exceeded nor proven: what hardly ever happens needs one."""
    expected: float = 0.5
    """What the mean of the baseline was before, in (0, 1] as measured; a wrong one costs time, never validity."""

    def __post_init__(self) -> None:
        where = f"guardrail {checked_name('guardrail: name', self.name)}"
        set_ = object.__setattr__
        possible = f"{DEFAULT_MARGIN} for 10 %"
        margin = checked_number(f"{where}: margin", self.margin, open_low=True, high=10.0, possible=possible)
        set_(self, "margin", margin)
        possible = "0.01 for one in a hundred"
        set_(self, "allowance", checked_number(f"{where}: allowance", self.allowance, high=1.0, possible=possible))
        possible = "(events + 1) / (units + 2) of earlier traffic, 0.5 when nothing is known"
        expected = checked_number(f"{where}: expected", self.expected, high=1.0, open_low=True, possible=possible)
        set_(self, "expected", expected)
        if self.kind in _LIMITED:
            unit = "dollars" if self.kind is GuardrailKind.COST else "milliseconds"
            possible = f"{unit}, such as the time-out or the budget"
            set_(self, "limit", checked_number(f"{where}: limit", self.limit, open_low=True, possible=possible))
        elif self.limit is not None:
            raise InvalidRequestError(
                f"{where}: wanted: no limit for the kind {self.kind.value}; found: {self.limit:g}; possible: leave it "
                f"out, or one of the kinds {', '.join(sorted(_LIMITED))}"
            )
        if self.kind is GuardrailKind.SHORTFALL:
            checked_name(f"{where}: metric", self.metric)
        elif self.metric is not None:
            raise InvalidRequestError(
                f"{where}: wanted: no metric for the kind {self.kind.value}; found: {self.metric}; possible: leave it "
                f"out, or the kind {GuardrailKind.SHORTFALL.value}"
            )

    def harm(self, outcome: Outcome) -> float | None:
        """Return what one outcome says, in [0, 1], less is better; None when it says nothing of this."""
        match self.kind:
            case GuardrailKind.LATENCY:
                return _capped(outcome.latency_ms, self.limit)
            case GuardrailKind.COST:
                return _capped(outcome.cost_usd, self.limit)
            case GuardrailKind.LATENCY_TAIL:
                limit = math.inf if self.limit is None else self.limit
                return None if outcome.latency_ms is None else float(outcome.latency_ms > limit)
            case GuardrailKind.ERROR_RATE:
                return float(outcome.failed)
            case GuardrailKind.SHORTFALL:
                score = dict(outcome.scores).get(self.metric or "")
                return None if score is None else 1.0 - score

    @property
    def pad(self) -> float:
        """What is added to both means so that the margin alone says both tolerances: margin (mean + pad)."""
        return self.allowance / self.margin

    def padded(self, harm: float) -> float:
        """Return a harm in [0, 1] as it is tested, in [0, 1] again: (harm + pad) / (1 + pad)."""
        return (harm + self.pad) / (1.0 + self.pad)

    def unpadded(self, mean: float) -> float:
        """Return a mean of tested harms as it was measured; for display, so without the last digits of the padding."""
        return max(0.0, round(mean * (1.0 + self.pad) - self.pad, 12)) if self.allowance else mean

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "limit": self.limit,
            "metric": self.metric,
            "margin": self.margin,
            "allowance": self.allowance,
            "expected": self.expected,
        }


def _capped(value: float | None, limit: float | None) -> float | None:
    return None if value is None or limit is None else min(value, limit) / limit
