"""What a search must leave over, so that its result can be proven."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dspy_optimization.errors import BudgetSpent, InvalidRequestError
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.trial import ExampleResult

Number = TypeVar("Number", int, float)

_MORE_CALLS = 1.25
_LONGER_PROMPTS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PerExample:
    """What one example takes, measured on the baseline."""

    calls: float
    tokens: float
    cost_usd: float
    seconds: float


def measured_per_example(taken: Spend, *, examples: int, seconds: float) -> PerExample:
    """Return the mean over a baseline's examples.

    Args:
        taken: by all of them together, judges and their draws included, at what each model costs.
        examples: how many, at least one.
        seconds: how long they took together.
    """
    return PerExample(
        calls=taken.calls / examples,
        tokens=taken.tokens / examples,
        cost_usd=taken.cost_usd / examples,
        seconds=seconds / examples,
    )


def search_limits(limits: Limits, each: PerExample, *, n_test: int, n_val: int) -> Limits:
    """Return the caps for searching: the caps less what gate and ablation need.

    Held back: both candidates on the test split and two ablations on val; a quarter more calls for agents whose
    number of calls varies; five times the tokens and dollars, for demos make prompts longer.
    """
    runs = 2 * n_test + 2 * n_val
    calls = math.ceil(runs * each.calls * _MORE_CALLS)
    return Limits(
        max_lm_calls=_less(limits.max_lm_calls, calls),
        max_tokens=_less(limits.max_tokens, math.ceil(runs * each.tokens * _LONGER_PROMPTS)),
        max_cost_usd=None
        if limits.max_cost_usd is None
        else limits.max_cost_usd - runs * each.cost_usd * _LONGER_PROMPTS,
        max_seconds=None if limits.max_seconds is None else limits.max_seconds - runs * each.seconds * _MORE_CALLS,
    )


class Reserve:
    """What gate and ablation will need, by the baseline and by the dearest candidate that was met. Thread-safe.

    A candidate may choose a dearer model: what it takes is measured then, and no longer guessed from the baseline.
    """

    def __init__(self, limits: Limits, each: PerExample, *, n_test: int, n_val: int) -> None:
        """Begin with what the baseline tells; `limits` are those of the whole optimization."""
        self._whole, self._runs = limits, 2 * n_test + 2 * n_val
        self._lock = threading.Lock()
        self._limits = search_limits(limits, each, n_test=n_test, n_val=n_val)

    @property
    def limits(self) -> Limits:
        """The caps for searching, as they are known now."""
        return self._limits

    def meet(self, results: Sequence[ExampleResult]) -> None:
        """Take note of what a candidate took, an example; calls are not counted here: turns are measured in them."""
        count, whole = len(results), self._whole
        tokens = sum(one.usage.prompt_tokens + one.usage.completion_tokens for one in results) / count
        cost = sum(one.usage.cost_usd for one in results) / count
        with self._lock:
            known = self._limits
            self._limits = replace(
                known,
                max_tokens=_least(
                    known.max_tokens, _less(whole.max_tokens, math.ceil(self._runs * tokens * _MORE_CALLS))
                ),
                max_cost_usd=_least(
                    known.max_cost_usd,
                    None if whole.max_cost_usd is None else whole.max_cost_usd - self._runs * cost * _MORE_CALLS,
                ),
            )


def check_reach(limits: Limits, *, n_val: int, n_test: int) -> None:
    """Refuse caps under which nothing could ever be proven.

    Raises:
        InvalidRequestError: naming the smallest cap that reaches the gate.
    """
    needed = 2 * n_val + 2 * n_test
    if limits.max_lm_calls is not None and limits.max_lm_calls < needed:
        raise InvalidRequestError(
            f"max_lm_calls: wanted at least {needed} (baseline and one candidate on {n_val} val and {n_test} test "
            f"examples, one call each); found: {limits.max_lm_calls}; possible: a higher cap or a smaller dataset"
        )


def check_spend(limits: Limits, spend: Spend, elapsed_seconds: float) -> None:
    """Raise `BudgetSpent` when a search has used up its caps."""
    used = {
        "max_cost_usd": (limits.max_cost_usd, spend.cost_usd),
        "max_lm_calls": (limits.max_lm_calls, spend.calls),
        "max_tokens": (limits.max_tokens, spend.tokens),
        "max_seconds": (limits.max_seconds, elapsed_seconds),
    }
    for cap, (limit, amount) in used.items():
        if limit is not None and amount >= limit:
            raise BudgetSpent(cap, limit)


def _least(one: Number | None, other: Number | None) -> Number | None:
    return None if one is None or other is None else min(one, other)


def _less(limit: int | None, needed: int) -> int | None:
    return None if limit is None else limit - needed
