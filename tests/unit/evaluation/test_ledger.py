"""What was spent, added up."""

from datetime import UTC, datetime
from uuid import UUID

from dspy_optimization.evaluation.ledger import Bill, Charge, ChargeId, ChargeStatus, OptimizationId, Spend
from dspy_optimization.evaluation.model import CallKey, Role

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


def test_a_charge_that_was_not_settled_took_no_tokens() -> None:
    """Nobody knows them before the answer."""
    charge = Charge(
        id=ChargeId(UUID(int=1)),
        optimization_id=OptimizationId(UUID(int=2)),
        key=CallKey("a"),
        role=Role.TASK,
        label="gate",
        model="scripted",
        status=ChargeStatus.STARTED,
        reserved_usd=0.5,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert (0.0, 0, 0) == (charge.cost_usd, charge.prompt_tokens, charge.completion_tokens)


def test_an_empty_bill_is_nothing() -> None:
    """Before the first call."""
    assert Spend() == Bill().total
