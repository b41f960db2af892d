"""What was spent, added up."""

from dspy_optimization.evaluation.ledger import Bill, Spend
from dspy_optimization.evaluation.model import Role

SPEND = Spend(calls=3, lost_calls=1, cost_usd=0.5, prompt_tokens=70, completion_tokens=11)


def test_spends_add_up_field_by_field() -> None:
    """Lost calls too: a bill that forgets them hides what a crash cost."""
    other = Spend(calls=40, lost_calls=20, cost_usd=0.25, prompt_tokens=600, completion_tokens=500)

    assert Spend(calls=43, lost_calls=21, cost_usd=0.75, prompt_tokens=670, completion_tokens=511) == SPEND + other


def test_tokens_are_prompt_and_completion() -> None:
    """Both are capped together."""
    assert SPEND.tokens == 81


def test_the_total_is_over_all_roles() -> None:
    """Labels split the same calls another way and do not count twice."""
    bill = Bill(by_role={Role.TASK: SPEND, Role.JUDGE: SPEND}, by_label={"gepa": SPEND + SPEND})

    assert SPEND + SPEND == bill.total


def test_an_empty_bill_is_nothing() -> None:
    """Before the first call."""
    assert Spend() == Bill().total
