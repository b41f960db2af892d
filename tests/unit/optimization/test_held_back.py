"""What a search leaves over for the proof."""

import pytest

from dspy_optimization.agents.example import ExampleId, Usage
from dspy_optimization.errors import BudgetSpent, InvalidRequestError
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.optimization.held_back import (
    PerExample,
    Reserve,
    check_reach,
    check_spend,
    measured_per_example,
    search_limits,
)

EACH = PerExample(calls=2.0, tokens=100.0, cost_usd=0.01, seconds=0.5)


def test_the_baseline_tells_what_an_example_takes() -> None:
    """Means over examples, of all roles together: a judge may cost more than the agent."""
    taken = Spend(calls=6, prompt_tokens=290, completion_tokens=10, cost_usd=0.06)

    each = measured_per_example(taken, examples=2, seconds=8.0)

    assert PerExample(calls=3.0, tokens=150.0, cost_usd=pytest.approx(0.03), seconds=4.0) == each


def test_enough_is_held_back_for_gate_and_ablation() -> None:
    """2 x 40 test and 2 x 10 val examples, two calls each and a quarter more: 250 calls."""
    limits = Limits(max_lm_calls=1000, max_tokens=100_000, max_cost_usd=10.0, max_seconds=100.0)

    left = search_limits(limits, EACH, n_test=40, n_val=10)

    assert Limits(max_lm_calls=750, max_tokens=50_000, max_cost_usd=5.0, max_seconds=37.5) == left


def test_no_cap_holds_nothing_back() -> None:
    """What is not bounded stays unbounded."""
    assert Limits() == search_limits(Limits(), EACH, n_test=40, n_val=10)


@pytest.mark.parametrize(
    ("limits", "spend", "seconds", "cap"),
    [
        (Limits(max_lm_calls=10), Spend(calls=10), 0.0, "max_lm_calls"),
        (Limits(max_tokens=10), Spend(prompt_tokens=6, completion_tokens=4), 0.0, "max_tokens"),
        (Limits(max_cost_usd=1.0), Spend(cost_usd=1.5), 0.0, "max_cost_usd"),
        (Limits(max_seconds=60.0), Spend(), 60.0, "max_seconds"),
    ],
)
def test_a_reached_cap_ends_the_search(limits: Limits, spend: Spend, seconds: float, cap: str) -> None:
    """The stop names the cap."""
    with pytest.raises(BudgetSpent) as stopped:
        check_spend(limits, spend, seconds)

    assert cap == stopped.value.cap


def test_below_every_cap_the_search_goes_on() -> None:
    """One less of each is still allowed."""
    limits = Limits(max_lm_calls=10, max_tokens=10, max_cost_usd=1.0, max_seconds=60.0)

    check_spend(limits, Spend(calls=9, prompt_tokens=9, cost_usd=0.99), 59.9)


def test_a_cap_that_never_reaches_the_gate_is_refused_beforehand() -> None:
    """The message names the smallest cap that does."""
    with pytest.raises(InvalidRequestError, match=r"wanted at least 100 .* found: 99"):
        check_reach(Limits(max_lm_calls=99), n_val=10, n_test=40)


def test_the_smallest_cap_is_taken() -> None:
    """Exactly enough is enough, and no cap is enough."""
    check_reach(Limits(max_lm_calls=100), n_val=10, n_test=40)
    check_reach(Limits(), n_val=10, n_test=40)


def _results(cost_usd: float, tokens: int) -> list[ExampleResult]:
    usage = Usage(cost_usd=cost_usd, prompt_tokens=tokens, completion_tokens=0, lm_calls=1)
    return [ExampleResult(example_id=ExampleId(str(n)), scores={}, outputs={}, usage=usage) for n in range(4)]


def test_a_dearer_candidate_is_held_back_for_too() -> None:
    each = PerExample(calls=1.0, tokens=10.0, cost_usd=0.001, seconds=0.1)
    reserve = Reserve(Limits(max_cost_usd=10.0, max_tokens=100_000, max_lm_calls=900), each, n_test=100, n_val=50)
    before = reserve.limits

    reserve.meet(_results(cost_usd=0.02, tokens=100))

    assert 10.0 - 300 * 0.02 * 1.25 == pytest.approx(reserve.limits.max_cost_usd)
    assert 100_000 - 300 * 100 * 1.25 == reserve.limits.max_tokens
    assert before.max_lm_calls == reserve.limits.max_lm_calls


def test_a_cheaper_candidate_gives_nothing_back() -> None:
    each = PerExample(calls=1.0, tokens=10.0, cost_usd=0.001, seconds=0.1)
    reserve = Reserve(Limits(max_cost_usd=10.0, max_tokens=None), each, n_test=100, n_val=50)
    before = reserve.limits

    reserve.meet(_results(cost_usd=0.0001, tokens=1))

    assert before == reserve.limits
