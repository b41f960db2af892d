"""What a search must leave over, so that its result can be proven."""

import math
from dataclasses import dataclass

from dspy_optimization.errors import BudgetSpent, InvalidRequestError
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits

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


def _less(limit: int | None, needed: int) -> int | None:
    return None if limit is None else limit - needed
