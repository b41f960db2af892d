"""Metrics of what an answer takes rather than what it is worth: less is better, there is no ceiling."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Score


class Quantity(StrEnum):
    """What is measured; the value is the metric's name."""

    COST_USD = "cost_usd"  # dollars, at the price of the model, also when the ledger had the answers
    LATENCY_SECONDS = "latency_seconds"  # of the model calls when they were paid, without waiting
    TOKENS = "tokens"  # prompt and completion
    LM_CALLS = "lm_calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationalMetric:
    """What one run of the agent took. A failed run counts with what it took until it failed: it is not free."""

    quantity: Quantity
    name: str
    floor: float = 0.0
    ceiling: float | None = None

    def score(self, example: Example, prediction: Prediction) -> Score:  # noqa: ARG002 - a Metric has both
        """Return the amount, in the unit its name says."""
        usage = prediction.usage
        failure = prediction.failure
        match self.quantity:
            case Quantity.COST_USD:
                return _score(usage.cost_usd, f"{usage.cost_usd:.6f} dollars", failure)
            case Quantity.LATENCY_SECONDS:
                return _score(usage.latency_seconds, f"{usage.latency_seconds:.3f} seconds", failure)
            case Quantity.TOKENS:
                text = f"{usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens"
                return _score(usage.prompt_tokens + usage.completion_tokens, text, failure)
            case Quantity.LM_CALLS:
                return _score(usage.lm_calls, f"{usage.lm_calls} model calls", failure)
            case _:
                assert_never(self.quantity)


def _score(value: float, text: str, failure: str | None) -> Score:
    return Score(value=float(value), feedback=f"It took {text}.", failure=failure)
