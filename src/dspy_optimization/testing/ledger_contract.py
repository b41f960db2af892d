"""What every `LedgerStore` keeps: a suite to inherit from.

class TestMyLedger(LedgerContract):
    @pytest.fixture
    def store(self): ...              # an empty ledger
    @pytest.fixture
    def optimization_ids(self): ...   # two optimizations the store knows
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from dspy_optimization.evaluation.ledger import (
    Bill,
    Charge,
    ChargeId,
    ChargeStatus,
    LedgerBatch,
    LedgerStore,
    OptimizationId,
    Spend,
)
from dspy_optimization.evaluation.model import CallKey, Role
from dspy_optimization.testing.scripted_model import chat_response

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def started_charge(
    optimization_id: OptimizationId, number: int, *, role: Role = Role.TASK, label: str = "baseline"
) -> Charge:
    """Return the started charge with this number: it reserves `number` / 4 dollars and 100 + 16 tokens."""
    return Charge(
        id=ChargeId(UUID(int=number)),
        optimization_id=optimization_id,
        key=CallKey(f"{number:064x}"),
        role=role,
        label=label,
        model="scripted",
        status=ChargeStatus.STARTED,
        reserved_usd=number / 4,
        prompt_tokens=100,
        completion_tokens=16,
        started_at=_AT + timedelta(seconds=number),
    )


def settled_charge(charge: Charge) -> Charge:
    """Return the charge as settled: an eighth of a dollar, 40 + 8 tokens."""
    return replace(
        charge,
        status=ChargeStatus.SETTLED,
        cost_usd=0.125,
        prompt_tokens=40,
        completion_tokens=8,
        settled_at=charge.started_at + timedelta(seconds=1),
    )


def failed_charge(charge: Charge) -> Charge:
    """Return the charge as failed: it costs nothing."""
    return replace(
        charge, status=ChargeStatus.FAILED, prompt_tokens=0, completion_tokens=0, settled_at=charge.started_at
    )


class LedgerContract:
    """Inherit and give the fixtures `store` and `optimization_ids`."""

    def test_an_unknown_answer_is_absent(self, store: LedgerStore) -> None:
        """Asking for what nobody answered gives nothing, and asking for nothing is allowed."""
        _equal({}, dict(store.answers([CallKey("0" * 64)])))
        _equal({}, dict(store.answers([])))

    def test_an_answer_comes_back_as_it_was(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """Body, counts and latency of an answer survive the store, whatever characters it holds."""
        charge = started_charge(optimization_ids[0], 1)
        answer = replace(
            chat_response('naïve 🦙 \\u0000 "quoted"\n', latency_seconds=0.125), answered_by="other", cost_usd=0.25
        )
        store.commit(LedgerBatch(started=[charge], ended=[settled_charge(charge)], answers={charge.key: answer}))

        _equal({charge.key: answer}, dict(store.answers([charge.key, CallKey("f" * 64)])))

    def test_the_first_answer_stays(self, store: LedgerStore) -> None:
        """An answer that is known is not replaced: a replay meets what the first run met."""
        key = CallKey("1" * 64)
        store.commit(LedgerBatch(answers={key: chat_response("first")}))
        store.commit(LedgerBatch(answers={key: chat_response("second")}))

        _equal(chat_response("first"), store.answers([key]).get(key))

    def test_a_batch_written_twice_changes_nothing(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """A commit whose outcome was not known can be sent again."""
        one, two = (started_charge(optimization_ids[0], number) for number in (1, 2))
        batch = LedgerBatch(started=[one, two], ended=[settled_charge(one)], answers={one.key: chat_response("a")})
        store.commit(batch)
        once = store.bill(optimization_ids[0])
        store.commit(batch)

        _equal(once, store.bill(optimization_ids[0]))
        _equal([two.id], [charge.id for charge in store.close_lost(optimization_ids[0])])

    def test_a_started_call_counts_with_what_is_reserved(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """A call under way is on the bill at its worst case."""
        store.commit(LedgerBatch(started=[started_charge(optimization_ids[0], 2)]))

        _equal(
            Spend(calls=1, cost_usd=0.5, prompt_tokens=100, completion_tokens=16),
            store.bill(optimization_ids[0]).total,
        )

    def test_a_settled_call_counts_with_what_it_took(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """The end replaces the reservation, in one batch with the start or in a later one."""
        one, two = (started_charge(optimization_ids[0], number) for number in (1, 2))
        store.commit(LedgerBatch(started=[one], ended=[settled_charge(one)]))
        store.commit(LedgerBatch(started=[two]))
        store.commit(LedgerBatch(ended=[settled_charge(two)]))

        _equal(
            Spend(calls=2, cost_usd=0.25, prompt_tokens=80, completion_tokens=16),
            store.bill(optimization_ids[0]).total,
        )
        _equal([], list(store.close_lost(optimization_ids[0])))

    def test_a_failed_call_is_not_on_the_bill(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """A refused call costs nothing and is no call, and does not become a lost one."""
        charge = started_charge(optimization_ids[0], 1)
        store.commit(LedgerBatch(started=[charge]))
        store.commit(LedgerBatch(ended=[failed_charge(charge)]))

        _equal([], list(store.close_lost(optimization_ids[0])))
        _equal(Bill(), store.bill(optimization_ids[0]))

    def test_a_call_that_never_ended_is_lost_at_its_reserved_cost(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """Closing lost charges returns them in the order they started, once, and they stay on the bill."""
        one, two, three = (started_charge(optimization_ids[0], number) for number in (1, 2, 3))
        store.commit(LedgerBatch(started=[three, one, two], ended=[settled_charge(two)]))
        lost = store.close_lost(optimization_ids[0])

        _equal(
            [replace(charge, status=ChargeStatus.LOST, cost_usd=charge.reserved_usd) for charge in (one, three)],
            list(lost),
        )
        _equal([], list(store.close_lost(optimization_ids[0])))
        _equal(
            Spend(calls=3, lost_calls=2, cost_usd=1.125, prompt_tokens=240, completion_tokens=40),
            store.bill(optimization_ids[0]).total,
        )

    def test_a_lost_call_that_is_answered_after_all_costs_what_it_cost(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """The end of a call that was given up for lost replaces what was feared."""
        charge = started_charge(optimization_ids[0], 1)
        store.commit(LedgerBatch(started=[charge]))
        store.close_lost(optimization_ids[0])
        store.commit(LedgerBatch(ended=[settled_charge(charge)]))

        _equal(
            Spend(calls=1, cost_usd=0.125, prompt_tokens=40, completion_tokens=8),
            store.bill(optimization_ids[0]).total,
        )

    def test_an_end_can_say_that_the_call_is_lost(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """A process that knows that it cannot know writes the loss itself."""
        charge = started_charge(optimization_ids[0], 1)
        lost = replace(charge, status=ChargeStatus.LOST, cost_usd=charge.reserved_usd, settled_at=_AT)
        store.commit(LedgerBatch(started=[charge], ended=[lost]))

        _equal(
            Spend(calls=1, lost_calls=1, cost_usd=0.25, prompt_tokens=100, completion_tokens=16),
            store.bill(optimization_ids[0]).total,
        )

    def test_the_bill_is_told_by_role_and_by_label(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """Every charge stands under its role and under its label."""
        asked = [(Role.TASK, "gepa"), (Role.REFLECTION, "gepa"), (Role.TASK, "gate"), (Role.JUDGE, "gate")]
        charges = [
            settled_charge(started_charge(optimization_ids[0], number, role=role, label=label))
            for number, (role, label) in enumerate(asked, start=1)
        ]
        store.commit(LedgerBatch(ended=charges))
        bill = store.bill(optimization_ids[0])
        one = Spend(calls=1, cost_usd=0.125, prompt_tokens=40, completion_tokens=8)

        _equal({Role.TASK: one + one, Role.REFLECTION: one, Role.JUDGE: one}, dict(bill.by_role))
        _equal({"gepa": one + one, "gate": one + one}, dict(bill.by_label))

    def test_optimizations_have_bills_of_their_own_and_answers_in_common(
        self, store: LedgerStore, optimization_ids: Sequence[OptimizationId]
    ) -> None:
        """What one optimization paid is not on the other's bill, but the other gets the answer."""
        mine, theirs = (started_charge(one, number) for number, one in enumerate(optimization_ids[:2], start=1))
        store.commit(LedgerBatch(started=[mine, theirs], answers={mine.key: chat_response("a")}))

        _equal([mine.id], [charge.id for charge in store.close_lost(optimization_ids[0])])
        _equal(0, store.bill(optimization_ids[1]).total.lost_calls)
        _equal(1, store.bill(optimization_ids[1]).total.calls)
        _equal(chat_response("a"), store.answers([mine.key]).get(mine.key))


def _equal(expected: object, actual: object) -> None:
    if expected != actual:
        raise AssertionError(f"wanted: {expected!r}; found: {actual!r}")
