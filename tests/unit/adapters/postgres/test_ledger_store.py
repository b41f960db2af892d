"""Charges and answers in PostgreSQL."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from dspy_optimization.adapters.postgres import Database, PostgresLedger
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.ledger import Bill, Charge, ChargeStatus, LedgerBatch, OptimizationId, Spend
from dspy_optimization.evaluation.model import CallKey, ModelResponse, Role
from dspy_optimization.tenancy import TenantId

MakeCharge = Callable[..., Charge]
MakeAnswer = Callable[[str], ModelResponse]


@pytest.fixture
def ledger(database: Database, tenant: TenantId) -> PostgresLedger:
    return PostgresLedger(database, tenant)


def test_answers_come_back_to_the_order_of_their_keys(ledger: PostgresLedger, answer_of: MakeAnswer) -> None:
    """A replay must see the very text that was paid for."""
    answer = answer_of("half a surrogate \ud83d, a NUL \x00, a SUB \x1a0000, a backslash \\u0000")
    ledger.commit(LedgerBatch(answers={CallKey("k1"): answer}))

    found = ledger.answers([CallKey("k1"), CallKey("unknown")])

    assert {CallKey("k1"): answer} == found
    assert json.dumps(dict(answer.body)) == json.dumps(dict(found[CallKey("k1")].body))


def test_no_keys_ask_for_no_answers(ledger: PostgresLedger) -> None:
    """Nothing asked, nothing found."""
    assert {} == ledger.answers([])


def test_the_first_answer_to_a_key_stays(ledger: PostgresLedger, answer_of: MakeAnswer) -> None:
    """What a search has built on is never replaced."""
    ledger.commit(LedgerBatch(answers={CallKey("k"): answer_of("first")}))
    ledger.commit(LedgerBatch(answers={CallKey("k"): answer_of("second")}))

    assert {CallKey("k"): answer_of("first")} == ledger.answers([CallKey("k")])


def test_the_bill_sums_by_role_and_label(
    ledger: PostgresLedger, optimization_id: OptimizationId, charge_of: MakeCharge, noon: datetime
) -> None:
    """Settled calls cost what they cost, calls under way what is reserved, refused calls nothing."""
    ended = {"status": ChargeStatus.SETTLED, "cost_usd": 0.25, "prompt_tokens": 10, "completion_tokens": 5}
    settled = [charge_of(optimization_id, n, **ended, settled_at=noon) for n in range(3)]
    judged = charge_of(optimization_id, 3, role=Role.JUDGE, label="gate", **ended)
    refused = charge_of(optimization_id, 4, status=ChargeStatus.FAILED)
    under_way = charge_of(optimization_id, 5)
    ledger.commit(LedgerBatch(started=[under_way, settled[0]], ended=[*settled, judged, refused]))

    bill = ledger.bill(optimization_id)

    task = Spend(calls=4, cost_usd=1.25, prompt_tokens=30, completion_tokens=15)
    judge = Spend(calls=1, cost_usd=0.25, prompt_tokens=10, completion_tokens=5)
    assert Bill(by_role={Role.TASK: task, Role.JUDGE: judge}, by_label={"gepa": task, "gate": judge}) == bill


def test_writing_a_batch_twice_changes_nothing(
    ledger: PostgresLedger,
    optimization_id: OptimizationId,
    charge_of: MakeCharge,
    answer_of: MakeAnswer,
    noon: datetime,
) -> None:
    """A commit whose answer was lost is tried again."""
    started = [charge_of(optimization_id, n) for n in range(2)]
    settled = replace(started[0], status=ChargeStatus.SETTLED, cost_usd=0.1, settled_at=noon)
    batch = LedgerBatch(started=started, ended=[settled], answers={started[0].key: answer_of("yes")})

    ledger.commit(batch)
    once = ledger.bill(optimization_id)
    ledger.commit(batch)

    assert once == ledger.bill(optimization_id)
    assert 2 == once.total.calls


def test_an_ended_charge_never_begins_again(
    ledger: PostgresLedger, optimization_id: OptimizationId, charge_of: MakeCharge
) -> None:
    """A late copy of the start, or another end, does not change what was booked."""
    started = charge_of(optimization_id)
    ledger.commit(LedgerBatch(ended=[replace(started, status=ChargeStatus.SETTLED, cost_usd=0.1)]))
    ledger.commit(LedgerBatch(started=[started]))
    ledger.commit(LedgerBatch(ended=[replace(started, status=ChargeStatus.FAILED)]))

    assert Spend(calls=1, cost_usd=0.1) == ledger.bill(optimization_id).total


def test_lost_calls_cost_what_was_reserved(
    ledger: PostgresLedger, optimization_id: OptimizationId, charge_of: MakeCharge
) -> None:
    """What was sent and never heard of again is charged at its worst case, once."""
    open_calls = [charge_of(optimization_id, n) for n in range(2)]
    ledger.commit(LedgerBatch(started=open_calls, ended=[charge_of(optimization_id, 9, status=ChargeStatus.FAILED)]))

    lost = ledger.close_lost(optimization_id)

    assert [replace(charge, status=ChargeStatus.LOST, cost_usd=0.5) for charge in open_calls] == lost
    assert Spend(calls=2, lost_calls=2, cost_usd=1.0) == ledger.bill(optimization_id).total
    assert [] == ledger.close_lost(optimization_id)


def test_a_lost_call_that_answers_after_all_costs_what_it_cost(
    ledger: PostgresLedger, optimization_id: OptimizationId, charge_of: MakeCharge, noon: datetime
) -> None:
    """A process that was only slow settles what another gave up for lost."""
    charge = charge_of(optimization_id)
    ledger.commit(LedgerBatch(started=[charge]))
    ledger.close_lost(optimization_id)
    late = replace(charge, status=ChargeStatus.SETTLED, cost_usd=0.2, settled_at=noon + timedelta(hours=1))
    ledger.commit(LedgerBatch(ended=[late]))

    assert Spend(calls=1, cost_usd=0.2) == ledger.bill(optimization_id).total


def test_a_batch_is_written_whole_or_not_at_all(
    ledger: PostgresLedger, optimization_id: OptimizationId, charge_of: MakeCharge, answer_of: MakeAnswer
) -> None:
    """A charge of an optimization nobody knows undoes the answers beside it."""
    stranger = charge_of(OptimizationId(charge_of(optimization_id).id))
    with pytest.raises(StoreError, match=r"refuses.*optimization_request"):
        ledger.commit(
            LedgerBatch(started=[charge_of(optimization_id), stranger], answers={CallKey("k"): answer_of("no")})
        )

    assert {} == ledger.answers([CallKey("k")])
    assert Spend() == ledger.bill(optimization_id).total
