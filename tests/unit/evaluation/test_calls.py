"""Calls through the ledger."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import (
    BudgetSpent,
    BudgetUnknownError,
    CancelRequested,
    InfrastructureFailed,
    InvalidRequestError,
    ModelAuthError,
    ModelError,
    ModelRequestError,
    PauseRequested,
    RequestFailed,
    StopSearch,
    StoreError,
    TurnOver,
)
from dspy_optimization.evaluation.budget import BudgetWarning
from dspy_optimization.evaluation.calls import REFUSALS_WITHOUT_ANSWER, CallScope, LedgerSession
from dspy_optimization.evaluation.flight import Flight
from dspy_optimization.evaluation.ledger import Bill, ChargeStatus, LedgerBatch, LedgerStore, OptimizationId, Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import CallKey, LanguageModel, ModelRequest, ModelResponse, Price, Role
from dspy_optimization.evaluation.need import worst_case
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_agent import said
from dspy_optimization.testing.scripted_model import ScriptedModel, chat_request, hashed

OPTIMIZATION = OptimizationId(UUID(int=7))
PRICE = Price(prompt_usd=1000.0, completion_usd=4000.0)
Result = TypeVar("Result")


def session_of(
    store: LedgerStore,
    model: LanguageModel | Mapping[Role, LanguageModel],
    *,
    limits: Limits | None = None,
    clock: FixedClock | None = None,
    patience_seconds: float = 5.0,
    elapsed_seconds: float = 0.0,
    remembered_answers: int = 1024,
    warn: Callable[[BudgetWarning], None] = lambda _: None,
) -> LedgerSession:
    clock = clock or FixedClock()
    return LedgerSession.open(
        store,
        OPTIMIZATION,
        models=model if isinstance(model, Mapping) else dict.fromkeys(Role, model),
        limits=limits or Limits(),
        now=clock.now,
        warn=warn,
        elapsed_seconds=elapsed_seconds,
        seconds=clock.seconds,
        sleep=clock.sleep,
        patience_seconds=patience_seconds,
        remembered_answers=remembered_answers,
    )


def ask(scope: CallScope, text: str, role: Role = Role.TASK) -> str:
    return said(scope.call(role, chat_request(text)))


def together(work: Callable[[int], Result], count: int) -> list[Result]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def raised(work: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        work()
    return caught.value


class Gate:
    """A model's answer that waits until it may go on."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def __call__(self, request: ModelRequest) -> str:
        self.arrived.set()
        assert self.opened.wait(5.0)
        return hashed(request)


def test_a_call_is_paid_once_and_then_known() -> None:
    """In memory, in a second scope, and in the next process."""
    store, model = MemoryLedger(), ScriptedModel(price=PRICE)
    with session_of(store, model) as session:
        first = session.scope("one", StopSignal()).call(Role.TASK, chat_request("a"))

        assert session.scope("one", StopSignal()).call(Role.TASK, chat_request("a")) == first
        assert session.scope("two", StopSignal()).call(Role.JUDGE, chat_request("a")) == first
        assert (session.paid_calls, session.bill().answered_from_ledger) == (1, 2)
    with session_of(store, model) as session:
        assert session.scope("one", StopSignal()).call(Role.TASK, chat_request("a")) == first
        assert (session.paid_calls, session.bill().answered_from_ledger) == (1, 1)
    assert len(model.requests) == 1


def test_model_question_and_draw_make_a_call() -> None:
    """Another model, another body or another sample is another call."""
    store = MemoryLedger()
    models = {Role.TASK: ScriptedModel(identity="a"), Role.JUDGE: ScriptedModel(identity="b")}
    with session_of(store, models) as session:
        scope = session.scope("x", StopSignal())
        scope.call(Role.TASK, chat_request("q"))
        scope.call(Role.TASK, chat_request("q", sample="1"))
        scope.call(Role.TASK, chat_request("q", max_tokens=17))
        scope.call(Role.JUDGE, chat_request("q"))

        assert (session.paid_calls, scope.asked_calls) == (4, 4)


def test_the_charge_is_durable_before_the_call_is_sent() -> None:
    """What the model sees has been written down, at its worst case."""
    store = MemoryLedger()
    seen: list[tuple[ChargeStatus, float, int]] = []

    def answer(request: ModelRequest) -> str:
        seen.extend((one.status, one.reserved_usd, one.prompt_tokens + one.completion_tokens) for one in store.charges)
        return "a"

    with session_of(store, ScriptedModel(answer, price=PRICE)) as session:
        ask(session.scope("gepa", StopSignal()), "q")
    need = worst_case(chat_request("q"), PRICE)

    assert seen == [(ChargeStatus.STARTED, need.cost_usd, need.tokens)]


def test_the_bill_says_who_paid_for_what() -> None:
    """Settled charges carry role, label, model, tokens, cost and times; in memory as in the store."""
    store, model, clock = MemoryLedger(), ScriptedModel(lambda _: "12345678", price=PRICE), FixedClock()
    with session_of(store, model, clock=clock) as session:
        ask(session.scope("gepa", StopSignal()), "q")
        clock.sleep(2.0)
        ask(session.scope("gepa", StopSignal()), "r", Role.REFLECTION)
        bill = session.bill()
    prompt = model.complete(chat_request("q")).prompt_tokens
    one = Spend(calls=1, cost_usd=PRICE.cost_usd(prompt, 2), prompt_tokens=prompt, completion_tokens=2)

    assert bill == Bill(by_role={Role.TASK: one, Role.REFLECTION: one}, by_label={"gepa": one + one})
    assert store.bill(OPTIMIZATION) == bill
    charge = store.charges[1]
    assert (charge.role, charge.label, charge.model, charge.status) == (
        Role.REFLECTION,
        "gepa",
        "scripted",
        ChargeStatus.SETTLED,
    )
    assert charge.started_at == charge.settled_at == clock.now()


def test_a_fallback_is_billed_at_its_own_cost() -> None:
    """An answer that says what it cost is believed."""

    class Fallback(ScriptedModel):
        def complete(self, request: ModelRequest) -> ModelResponse:
            return replace(super().complete(request), cost_usd=0.125, answered_by="other")

    with session_of(MemoryLedger(), Fallback(price=PRICE)) as session:
        ask(session.scope("x", StopSignal()), "q")

        assert session.bill().total.cost_usd == 0.125


def test_without_a_price_a_call_costs_nothing() -> None:
    """But it is a call, with its tokens."""
    with session_of(MemoryLedger(), ScriptedModel(), limits=Limits(max_lm_calls=1)) as session:
        ask(session.scope("x", StopSignal()), "q")

        assert (session.bill().total.cost_usd, session.bill().total.calls) == (0.0, 1)
        assert session.bill().total.tokens > 0


def test_a_dollar_cap_needs_prices_before_anything_is_touched() -> None:
    """Refused at the door."""
    touched: list[str] = []
    with pytest.raises(BudgetUnknownError):
        session_of(MemoryLedger(touched.append), ScriptedModel(), limits=Limits(max_cost_usd=1.0))
    with pytest.raises(InvalidRequestError):
        session_of(MemoryLedger(), ScriptedModel(), limits=Limits(max_lm_calls=-1))

    assert touched == []


def test_identical_calls_in_flight_are_paid_once() -> None:
    """Eight threads ask the same: one call, eight equal answers."""
    counter = itertools.count()
    model = ScriptedModel(lambda _: str(next(counter)), latency_seconds=0.1)
    with session_of(MemoryLedger(), model) as session:
        scope = session.scope("x", StopSignal())
        answers = together(lambda _: ask(scope, "same"), 8)

        assert answers == ["0"] * 8
        assert (session.paid_calls, session.bill().answered_from_ledger, scope.asked_calls) == (1, 7, 1)
    assert len(model.requests) == 1


def follow(scope: CallScope, gate: Gate, caught: list[object]) -> threading.Thread:
    """Ask for the call whose leader the gate holds, from a thread of its own."""
    assert gate.arrived.wait(5.0)

    def work() -> None:
        try:
            caught.append(ask(scope, "same"))
        except (StopSearch, ModelError) as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_follower_hears_its_own_stop() -> None:
    """It does not wait for the leader's answer."""
    gate, caught, stop = Gate(), [], StopSignal()
    with session_of(MemoryLedger(), ScriptedModel(gate)) as session, ThreadPoolExecutor(1) as pool:
        leader = pool.submit(ask, session.scope("x", StopSignal()), "same")
        follower = follow(session.scope("y", stop), gate, caught)
        stop.stop(CancelRequested("enough"))
        follower.join(5.0)

        assert [type(one) for one in caught] == [CancelRequested]
        gate.opened.set()
        assert leader.result(5.0) == hashed(chat_request("same"))


def test_a_follower_hears_its_own_stop_within_a_second() -> None:
    """However long the leader takes."""
    stop = StopSignal()
    stop.stop(CancelRequested("enough"))
    began = time.monotonic()

    with pytest.raises(CancelRequested):
        Flight().follow(stop)
    assert time.monotonic() - began < 1.0


def test_a_follower_takes_over_when_the_leader_was_stopped() -> None:
    """The stop of one algorithm is not the stop of another that asks the same."""
    gate, caught = Gate(), []
    tries = itertools.count()

    def answer(request: ModelRequest) -> str:
        if next(tries) == 0:
            gate(request)
            raise PauseRequested("while waiting for a slot")
        return "from the follower"

    store = MemoryLedger()
    with session_of(store, ScriptedModel(answer)) as session, ThreadPoolExecutor(1) as pool:
        leader = pool.submit(ask, session.scope("x", StopSignal()), "same")
        follower = follow(session.scope("y", StopSignal()), gate, caught)
        time.sleep(0.05)
        gate.opened.set()
        follower.join(5.0)

        assert isinstance(leader.exception(5.0), PauseRequested)
        assert caught == ["from the follower"]
        assert session.paid_calls == 1
    assert [one.status for one in store.charges] == [ChargeStatus.FAILED, ChargeStatus.SETTLED]


@pytest.mark.parametrize("kind", [ModelError, ModelAuthError, ModelRequestError])
def test_a_follower_gets_the_leaders_error(kind: type[ModelError]) -> None:
    """Asking again would fail again: one attempt, two errors of the same kind."""
    gate, caught = Gate(), []

    def answer(request: ModelRequest) -> str:
        gate(request)
        raise kind("refused")

    model = ScriptedModel(answer)
    with session_of(MemoryLedger(), model) as session, ThreadPoolExecutor(1) as pool:
        leader = pool.submit(ask, session.scope("x", StopSignal()), "same")
        follower = follow(session.scope("y", StopSignal()), gate, caught)
        time.sleep(0.05)
        gate.opened.set()
        follower.join(5.0)
        errors = [leader.exception(5.0), caught[0]]

    assert len(model.requests) == 1
    causes = [error.error if isinstance(error, InfrastructureFailed) else error for error in errors]
    assert [type(cause) for cause in causes] == [kind, kind]
    assert [str(cause) for cause in causes] == ["refused", "refused"]
    assert causes[0] is not causes[1]


@pytest.mark.parametrize("kind", [ModelError, ModelAuthError])
def test_a_model_that_failed_for_good_ends_the_work(kind: type[ModelError]) -> None:
    """No optimizer can swallow it: it is no Exception, and the flag stays set. It costs nothing."""
    store = MemoryLedger()
    error = kind("gone")

    def answer(request: ModelRequest) -> str:
        raise error

    stop = StopSignal()
    with session_of(store, ScriptedModel(answer, price=PRICE), limits=Limits(max_lm_calls=1)) as session:
        scope = session.scope("x", stop)
        failed = raised(lambda: ask(scope, "q"))

        assert isinstance(failed, InfrastructureFailed)
        assert failed.error is error
        assert stop.reason is failed
        assert raised(lambda: ask(scope, "r")) is failed
        assert session.paid_calls == 0
        session.budget.reserve(worst_case(chat_request("z"), None), StopSignal())
    assert [one.status for one in store.charges] == [ChargeStatus.FAILED]
    assert (store.charges[0].cost_usd, store.charges[0].prompt_tokens, store.charges[0].completion_tokens) == (0, 0, 0)


def test_a_refused_request_is_the_programs_failure_and_is_not_sent_again() -> None:
    """The error passes as it is, nothing stops, and asking again is answered from memory with an equal error."""
    store = MemoryLedger()

    def answer(request: ModelRequest) -> str:
        if "long" in str(request.body):
            raise ModelRequestError("context too long")
        return "fine"

    model, stop = ScriptedModel(answer), StopSignal()
    with session_of(store, model) as session:
        scope = session.scope("x", stop)
        errors = [raised(lambda: ask(scope, "long")) for _ in range(3)]

        assert [(type(error), str(error)) for error in errors] == [(ModelRequestError, "context too long")] * 3
        assert stop.reason is None
        assert ask(scope, "short") == "fine"
        assert (session.paid_calls, session.bill().answered_from_ledger) == (1, 0)
    assert len(model.requests) == 2


def test_a_model_that_refuses_everything_is_no_score() -> None:
    """After five different refusals and no answer the set-up is at fault: not a row of zeros, but a failure."""

    def answer(request: ModelRequest) -> str:
        raise ModelRequestError("no such option: top_k")

    stop = StopSignal()
    with session_of(MemoryLedger(), ScriptedModel(answer)) as session:
        scope = session.scope("x", stop)
        for number in range(REFUSALS_WITHOUT_ANSWER - 1):
            assert isinstance(raised(lambda: ask(scope, "0")), ModelRequestError)
            assert isinstance(raised(lambda n=number: ask(scope, str(n))), ModelRequestError)
        failed = raised(lambda: ask(scope, "last"))

    assert isinstance(failed, InfrastructureFailed)
    assert "it refused the first 5 requests or more and answered none; last: no such option: top_k" in str(failed)
    assert stop.reason is failed


@pytest.mark.parametrize("resumed", [False, True])
def test_one_answer_shows_that_the_model_answers(resumed: bool) -> None:
    """Then refusals are the requests' own, however many; an answer of an earlier process counts."""

    def answer(request: ModelRequest) -> str:
        if "answerable" in str(request.body):
            return "fine"
        raise ModelRequestError("too long")

    store = MemoryLedger()
    session = session_of(store, ScriptedModel(answer))
    ask(session.scope("x", StopSignal()), "answerable")
    if resumed:
        session.close()
        session = session_of(store, ScriptedModel(answer))
        ask(session.scope("x", StopSignal()), "answerable")
    scope = session.scope("x", StopSignal())
    for number in range(2 * REFUSALS_WITHOUT_ANSWER):
        assert isinstance(raised(lambda n=number: ask(scope, str(n))), ModelRequestError)
    session.close()


def test_refusals_are_counted_by_role() -> None:
    """The judge's refusals say nothing of the task model."""

    def refuse(request: ModelRequest) -> str:
        raise ModelRequestError("no")

    models = {Role.TASK: ScriptedModel(), Role.JUDGE: ScriptedModel(refuse, identity="judge")}
    with session_of(MemoryLedger(), models) as session:
        scope = session.scope("x", StopSignal())
        ask(scope, "fine")
        kinds = [type(raised(lambda n=number: ask(scope, str(n), Role.JUDGE))) for number in range(5)]

    assert kinds == [ModelRequestError] * 4 + [InfrastructureFailed]


def test_nobody_in_a_role_is_a_failure_that_names_the_others() -> None:
    """An optimizer must not swallow it as an ordinary error."""
    stop = StopSignal()
    with session_of(MemoryLedger(), {Role.TASK: ScriptedModel()}) as session:
        failed = raised(lambda: ask(session.scope("x", stop), "q", Role.JUDGE))

    assert isinstance(failed, InfrastructureFailed)
    assert str(failed) == (
        "wanted: a model for the role judge; found: models for task; possible: name one in the settings, then resume"
    )
    assert stop.reason is failed


def test_a_stopped_scope_asks_nothing() -> None:
    """Not even the memory."""
    stop = StopSignal()
    with session_of(MemoryLedger(), ScriptedModel()) as session:
        scope = session.scope("x", stop)
        ask(scope, "q")
        stop.stop(CancelRequested("enough"))

        assert isinstance(raised(lambda: ask(scope, "q")), CancelRequested)
        assert isinstance(raised(lambda: ask(scope, "r")), CancelRequested)
        assert (session.bill().answered_from_ledger, scope.asked_calls) == (0, 1)


def test_a_stop_between_the_start_and_the_sending_costs_nothing() -> None:
    """The call that was written down but not sent is taken back."""
    stop, model = StopSignal(), ScriptedModel(price=PRICE)

    def before(method: str) -> None:
        if method == "commit" and not stop.reason:
            stop.stop(CancelRequested("enough"))

    store = MemoryLedger(before)
    with session_of(store, model, limits=Limits(max_lm_calls=1)) as session:
        assert isinstance(raised(lambda: ask(session.scope("x", stop), "q")), CancelRequested)
        ask(session.scope("x", StopSignal()), "q")
    assert [one.status for one in store.charges] == [ChargeStatus.FAILED, ChargeStatus.SETTLED]
    assert len(model.requests) == 1


def test_a_budget_stop_is_set_on_the_signal() -> None:
    """A thread pool that lost one stop meets it at the next call."""
    stop = StopSignal()
    with session_of(MemoryLedger(), ScriptedModel(), limits=Limits(max_lm_calls=1)) as session:
        scope = session.scope("x", stop)
        ask(scope, "q")
        spent = raised(lambda: ask(scope, "r"))

        assert isinstance(spent, BudgetSpent)
        assert stop.reason is spent
        assert ask(session.scope("y", StopSignal()), "q") == hashed(chat_request("q"))


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_tokens_of_question_and_answer_count(spare: int, fits: bool) -> None:
    """After one call there is room for another to the last token."""
    model = ScriptedModel(lambda _: "a" * 64)
    took = model.complete(chat_request("q"))
    room = took.prompt_tokens + took.completion_tokens + worst_case(chat_request("r"), None).tokens
    with session_of(MemoryLedger(), model, limits=Limits(max_tokens=room + spare)) as session:
        scope = session.scope("x", StopSignal())
        ask(scope, "q")
        if fits:
            assert ask(scope, "r") == "a" * 64
        else:
            assert isinstance(raised(lambda: ask(scope, "r")), BudgetSpent)


def test_an_allowance_counts_different_calls_paid_or_known() -> None:
    """A replay ends at the same call as the first run; repeats are free."""
    store, model = MemoryLedger(), ScriptedModel()
    for paid in (2, 2):
        stop = StopSignal()
        with session_of(store, model) as session:
            scope = session.scope("gepa", stop, allowance_calls=2)
            for text in ("a", "b", "a", "b"):
                ask(scope, text)
            over = raised(lambda scope=scope: ask(scope, "c"))

            assert isinstance(over, TurnOver)
            assert str(over) == "the turn of gepa is over: it asked for 2 calls"
            assert stop.reason is over
            assert (scope.asked_calls, session.paid_calls) == (2, paid)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug"), InvalidRequestError("odd")])
def test_a_call_whose_end_nobody_knows_counts_as_lost(error: BaseException) -> None:
    """It may have been answered: it is charged at its worst case, in budget, bill and store, and paid again."""
    tries = itertools.count()

    def answer(request: ModelRequest) -> str:
        if next(tries) == 0:
            raise error
        return "a"

    store = MemoryLedger()
    need = worst_case(chat_request("q"), PRICE)
    with session_of(store, ScriptedModel(answer, price=PRICE), limits=Limits(max_lm_calls=2)) as session:
        scope = session.scope("x", StopSignal())

        assert raised(lambda: ask(scope, "q")) is error
        lost = session.bill().total
        assert lost == Spend(
            calls=1,
            lost_calls=1,
            cost_usd=need.cost_usd,
            prompt_tokens=need.prompt_tokens,
            completion_tokens=need.completion_tokens,
        )
        assert ask(scope, "q") == "a"
        assert isinstance(raised(lambda: ask(scope, "r")), BudgetSpent)
        bill = session.bill()
    assert store.bill(OPTIMIZATION) == bill
    assert [one.status for one in store.charges] == [ChargeStatus.LOST, ChargeStatus.SETTLED]


def test_a_lost_call_of_a_dead_process_counts_in_the_budget() -> None:
    """What was reserved is spent; the call is paid again."""
    store = MemoryLedger()
    gate = Gate()
    dead = session_of(store, ScriptedModel(gate, price=PRICE))
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask, dead.scope("x", StopSignal()), "q")
        assert gate.arrived.wait(5.0)
        with session_of(store, ScriptedModel(price=PRICE), limits=Limits(max_lm_calls=2)) as session:
            assert session.bill().total.lost_calls == 1
            assert session.bill().total.cost_usd == worst_case(chat_request("q"), PRICE).cost_usd
            ask(session.scope("x", StopSignal()), "q")
            assert isinstance(raised(lambda: ask(session.scope("x", StopSignal()), "r")), BudgetSpent)
        gate.opened.set()
        hanging.result(5.0)
    dead.close()


def test_earlier_time_counts() -> None:
    """The seconds of earlier processes are part of the cap."""
    with session_of(MemoryLedger(), ScriptedModel(), limits=Limits(max_seconds=9.0), elapsed_seconds=9.0) as session:
        spent = raised(lambda: ask(session.scope("x", StopSignal()), "q"))

    assert isinstance(spent, BudgetSpent)
    assert spent.cap == "max_seconds"


def test_warnings_reach_the_caller() -> None:
    """At 50 and at 80 %."""
    told: list[BudgetWarning] = []
    with session_of(MemoryLedger(), ScriptedModel(), limits=Limits(max_lm_calls=10), warn=told.append) as session:
        scope = session.scope("x", StopSignal())
        for number in range(10):
            ask(scope, str(number))

    assert [(one.cap.value, one.used, one.share) for one in told] == [
        ("max_lm_calls", 5.0, 0.5),
        ("max_lm_calls", 8.0, 0.8),
    ]


def test_memory_is_bounded_and_the_store_has_the_rest() -> None:
    """What was used last stays; what was forgotten is read again, not paid again."""
    reads: list[str] = []
    store, model = MemoryLedger(reads.append), ScriptedModel()
    with session_of(store, model, remembered_answers=2) as session:
        scope = session.scope("x", StopSignal())
        for text in ("a", "b", "a", "c"):
            ask(scope, text)
        session.flush()
        reads.clear()
        ask(scope, "a")
        ask(scope, "c")
        kept = reads.count("answers")
        ask(scope, "b")

        assert (kept, reads.count("answers")) == (0, 1)
        assert session.paid_calls == 3
    assert len(model.requests) == 3


def test_a_database_that_is_away_for_a_while_is_waited_for() -> None:
    """Opening, reading and writing go on when it is back."""
    failures = {"close_lost": 2, "bill": 2, "answers": 2, "commit": 2}

    def before(method: str) -> None:
        if failures[method]:
            failures[method] -= 1
            raise StoreError("away")

    store = MemoryLedger(before)
    with session_of(store, ScriptedModel()) as session:
        ask(session.scope("x", StopSignal()), "q")

    assert [one.status for one in store.charges] == [ChargeStatus.SETTLED]


@pytest.mark.parametrize("method", ["answers", "commit"])
def test_a_database_that_stays_away_ends_the_work_and_nothing_is_sent(method: str) -> None:
    """No call is sent unseen, nothing is charged, and once it is back nothing is lost."""
    away = [True]

    def before(name: str) -> None:
        if name == method and away:
            raise StoreError("away")

    store, model, stop = MemoryLedger(before), ScriptedModel(price=PRICE), StopSignal()
    session = session_of(store, model, limits=Limits(max_lm_calls=1))
    failed = raised(lambda: ask(session.scope("x", stop), "q"))

    assert isinstance(failed, InfrastructureFailed)
    assert isinstance(failed.error, StoreError)
    assert "did not answer for 5.0 s; last: away; possible: bring it back, then resume" in str(failed)
    assert stop.reason is failed
    assert (model.requests, session.paid_calls) == ((), 0)
    away.clear()
    session.close()
    assert store.bill(OPTIMIZATION) == Bill()
    with session_of(store, model, limits=Limits(max_lm_calls=1)) as resumed:
        ask(resumed.scope("x", StopSignal()), "q")


def test_an_answer_is_used_before_it_is_durable() -> None:
    """The hot path does not wait for the end of a charge to be written."""
    commits = itertools.count()
    opened = threading.Event()

    def before(method: str) -> None:
        if method == "commit" and next(commits) == 1:
            assert opened.wait(5.0)

    store = MemoryLedger(before)
    with session_of(store, ScriptedModel()) as session:
        answer = ask(session.scope("x", StopSignal()), "q")
        at_once = [one.status for one in store.charges]
        opened.set()
        session.flush()

        assert (answer, at_once) == (hashed(chat_request("q")), [ChargeStatus.STARTED])
        assert [one.status for one in store.charges] == [ChargeStatus.SETTLED]


def test_closing_waits_for_calls_in_flight_and_refuses_new_ones() -> None:
    """What was paid is settled; a straggler is stopped; what is known is still told."""
    gate, store = Gate(), MemoryLedger()
    session = session_of(store, ScriptedModel(gate), patience_seconds=20.0)
    scope = session.scope("x", StopSignal())
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(ask, scope, "q")
        assert gate.arrived.wait(5.0)
        closing = pool.submit(session.close)
        while not session._closed:
            time.sleep(0.005)
        straggler = raised(lambda: ask(session.scope("y", StopSignal()), "r"))
        time.sleep(0.1)

        assert isinstance(straggler, CancelRequested)
        assert not closing.done()
        gate.opened.set()
        closing.result(5.0)
        hanging.result(5.0)
    session.close()
    assert [one.status for one in store.charges] == [ChargeStatus.SETTLED]
    assert ask(scope, "q") == hashed(chat_request("q"))


def test_a_scope_says_what_its_answers_take_paid_or_known() -> None:
    """A replay that pays nothing says the same, so that what is decided by it is decided again; repeats count once."""
    store = MemoryLedger()
    taken = []
    for model in (ScriptedModel(price=PRICE), ScriptedModel(price=PRICE)):
        with session_of(store, model) as session:
            scope = session.scope("x", StopSignal())
            for text in ("q", "r", "q"):
                ask(scope, text)
            taken.append(scope.taken)
        bill = session.bill().total

    assert taken[0] == taken[1] == bill
    assert taken[0].calls == 2


def test_a_first_process_has_worked_for_no_time() -> None:
    """What earlier processes worked is said by whoever resumes; nobody else starts with a part of the cap used."""
    clock = FixedClock()
    session = LedgerSession.open(
        MemoryLedger(),
        OPTIMIZATION,
        models={Role.TASK: ScriptedModel()},
        limits=Limits(max_seconds=1.0),
        now=clock.now,
        warn=lambda _: None,
        seconds=clock.seconds,
        sleep=clock.sleep,
    )
    with session:
        assert session.budget.elapsed_seconds == 0.0


def test_closing_does_not_wait_for_ever() -> None:
    """A call that never comes back is lost: the next process finds it open."""
    gate, store = Gate(), MemoryLedger()
    session = session_of(store, ScriptedModel(gate), patience_seconds=0.05)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask, session.scope("x", StopSignal()), "q")
        assert gate.arrived.wait(5.0)
        session.close()
        gate.opened.set()
        hanging.result(5.0)

    assert len(store.close_lost(OPTIMIZATION)) == 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(1, 6))
def test_a_replay_is_the_straight_run_and_pays_nothing(texts: list[int], threads: int) -> None:
    """A model that never answers the same twice, any order of repeats, any number of threads."""
    counter = itertools.count()
    model = ScriptedModel(lambda request: f"{next(counter)}")
    store = MemoryLedger()

    def run() -> tuple[list[str], int]:
        with session_of(store, model) as session, ThreadPoolExecutor(threads) as pool:
            scope = session.scope("x", StopSignal())
            return list(pool.map(lambda number: ask(scope, str(number)), texts)), session.paid_calls

    straight, paid = run()
    asked = len(model.requests)
    replay, paid_after = run()

    assert replay == straight
    assert (paid, paid_after) == (len(set(texts)), len(set(texts)))
    assert len(model.requests) == asked == len(set(texts))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.floats(0.0, 60.0), st.integers(0, 20_000))
def test_the_budget_holds_for_threads_with_random_costs(
    seed: int, max_lm_calls: int, max_cost_usd: float, max_tokens: int
) -> None:
    """Eight threads, questions and answers of any length, some refused: no cap is ever exceeded."""
    draw = random.Random(seed)
    questions = [("q" * draw.randrange(400), draw.randrange(1, 200), draw.random()) for _ in range(48)]

    def answer(request: ModelRequest) -> str:
        if '"r' in str(request.body).replace("'", '"'):
            raise ModelRequestError("no")
        limit = request.body["max_tokens"]
        assert isinstance(limit, int)
        return "a" * (4 * (limit // 2))

    limits = Limits(max_lm_calls=max_lm_calls, max_cost_usd=max_cost_usd, max_tokens=max_tokens)
    store = MemoryLedger()
    with session_of(store, ScriptedModel(answer, price=PRICE), limits=limits) as session:

        def work(number: int) -> None:
            for index in range(number, len(questions), 8):
                text, tokens, chance = questions[index]
                request = chat_request(("r" if chance < 0.1 else "a") + text + str(index), max_tokens=tokens)
                try:
                    session.scope("x", StopSignal()).call(Role.TASK, request)
                except (StopSearch, ModelRequestError):
                    continue

        together(work, 8)
    spent = store.bill(OPTIMIZATION).total

    assert spent.calls <= max_lm_calls
    assert spent.cost_usd <= max_cost_usd + 1e-9
    assert spent.tokens <= max_tokens
    assert spent == session.bill().total or abs(spent.cost_usd - session.bill().total.cost_usd) < 1e-9


class MortalLedger:
    """A store whose process dies after so many steps: nothing reaches the tables any more."""

    def __init__(self, tables: MemoryLedger, life: "Life") -> None:
        self._tables = tables
        self._life = life

    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        self._life.step()
        return self._tables.answers(keys)

    def commit(self, batch: LedgerBatch) -> None:
        self._life.step()
        self._tables.commit(batch)
        self._life.step()

    def bill(self, optimization_id: OptimizationId) -> Bill:
        return self._tables.bill(optimization_id)

    def close_lost(self, optimization_id: OptimizationId) -> Sequence[object]:
        return self._tables.close_lost(optimization_id)


class Life:
    """Counts steps; from the last one on nothing works."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._lock = threading.Lock()
        self.in_flight = 0
        self.sent = 0

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                raise StoreError("this process is dead")

    @property
    def over(self) -> bool:
        return self._left <= 0


def chain(scope: CallScope, branch: int, length: int) -> list[str]:
    """Ask questions each of which is built on the answer before."""
    answers = ["start"]
    for number in range(length):
        answers.append(ask(scope, f"{branch}/{number} after {answers[-1]}"))
    return answers


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4))
def test_after_a_kill_only_calls_in_flight_are_paid_again(steps: int, branches: int) -> None:
    """Die at any step of reading, writing, sending and answering; the resumed run goes on with the same answers.

    The model never answers the same twice, so a chain that is the same was answered by the ledger.
    """
    counter = itertools.count()
    life = Life(steps)
    length = 5
    total = branches * length

    def answer(request: ModelRequest) -> str:
        if life.over:
            raise CancelRequested("this process is dead")
        life.sent += 1
        text = f"answer {next(counter)}"
        try:
            life.step()
        except StoreError as dead:
            raise CancelRequested("this process is dead") from dead
        return text

    tables = MemoryLedger()
    dying = session_of(MortalLedger(tables, life), ScriptedModel(answer, price=PRICE), patience_seconds=0.0)

    def until_death(branch: int) -> list[str]:
        try:
            return chain(dying.scope("x", StopSignal()), branch, length)
        except StopSearch:
            return []

    together(until_death, branches)
    try:
        dying.close()
    except StoreError:
        assert life.over
    known = dict(tables._answers)
    started = [one for one in tables.charges if one.status is ChargeStatus.STARTED]
    model = ScriptedModel(lambda _: f"answer {next(counter)}", price=PRICE)
    with session_of(tables, model) as session:
        before = session.bill().total
        chains = together(lambda branch: chain(session.scope("x", StopSignal()), branch, length), branches)
        after = session.bill().total
    with session_of(tables, ScriptedModel()) as session:
        replay = together(lambda branch: chain(session.scope("x", StopSignal()), branch, length), branches)

        assert session.paid_calls == after.calls

    assert replay == chains
    assert set(known) <= set(tables._answers)
    assert len(started) <= branches
    assert before.lost_calls == len(started)
    assert len(model.requests) == total - len(known)
    assert after.calls == total + len(started)
    assert life.sent + len(model.requests) <= total + len(started)
    assert tables.bill(OPTIMIZATION).total.calls == after.calls


def named(name: str, text: str) -> ModelRequest:
    return replace(chat_request(text), model=name)


def test_a_named_model_answers_at_its_own_price_and_under_its_own_key() -> None:
    """On the account of the role that asks; the role's own model, asked the same, is another call."""
    store = MemoryLedger()
    own, large = (
        ScriptedModel(price=PRICE),
        ScriptedModel(identity="large", price=Price(prompt_usd=9e6, completion_usd=0)),
    )
    with open_named(store, own, {"big": large}) as session:
        scope = session.scope("one", StopSignal())
        scope.call(Role.TASK, chat_request("a"))
        first = scope.call(Role.TASK, named("big", "a"))
        again = scope.call(Role.TASK, named("big", "a"))
        bill = session.bill()

    charges = {charge.model: charge for charge in store.charges}
    assert (first, 1, 1) == (again, len(own.requests), len(large.requests))
    assert {"scripted", "large"} == set(charges)
    assert charges["scripted"].key != charges["large"].key
    assert 9.0 * first.prompt_tokens == charges["large"].cost_usd
    assert {Role.TASK} == set(bill.by_role)
    assert pytest.approx(charges["scripted"].cost_usd + charges["large"].cost_usd) == bill.total.cost_usd
    with open_named(store, own, {"big": ScriptedModel(identity="large")}) as session:
        assert first == session.scope("two", StopSignal()).call(Role.TASK, named("big", "a"))


def test_a_name_that_is_another_name_of_the_role_s_model_asks_nothing_anew() -> None:
    """The key is who answers, not what it is called."""
    model = ScriptedModel(price=PRICE)
    with open_named(MemoryLedger(), model, {"same": model}) as session:
        scope = session.scope("one", StopSignal())
        assert scope.call(Role.TASK, chat_request("a")) == scope.call(Role.TASK, named("same", "a"))

    assert 1 == len(model.requests)


def test_a_model_without_a_name_in_the_settings_pauses_the_work() -> None:
    """Somebody took it out of the settings: nothing is scored for that."""
    with open_named(MemoryLedger(), ScriptedModel(), {"big": ScriptedModel()}) as session:
        error = raised(lambda: session.scope("one", StopSignal()).call(Role.TASK, named("huge", "a")))

    assert isinstance(error, InfrastructureFailed)
    assert "wanted: the model named huge; found: big; possible: list it in the settings again" in str(error)


def test_a_dollar_cap_reaches_named_models() -> None:
    """Their worst case is held at their own price; one without a price is never asked."""
    dear = ScriptedModel(identity="dear", price=Price(prompt_usd=1e6, completion_usd=1e6))
    free = ScriptedModel(identity="free")
    session = open_named(
        MemoryLedger(), ScriptedModel(price=PRICE), {"dear": dear, "free": free}, limits=Limits(max_cost_usd=10.0)
    )
    with session:
        ask(session.scope("one", StopSignal()), "a")
        spent = raised(lambda: session.scope("one", StopSignal()).call(Role.TASK, named("dear", "a")))
        stop = StopSignal()
        unknown = raised(lambda: session.scope("one", stop).call(Role.TASK, named("free", "a")))

    assert isinstance(spent, BudgetSpent)
    assert isinstance(unknown, RequestFailed)
    assert isinstance(unknown.error, BudgetUnknownError)
    assert "the price of the model named free" in str(unknown)
    assert unknown is stop.reason
    assert [[], []] == [list(dear.requests), list(free.requests)]


def test_a_named_model_that_refuses_everything_is_told_apart_from_the_role_s() -> None:
    """The role's answers do not speak for it."""

    def refuse(request: ModelRequest) -> str:
        raise ModelRequestError("no")

    with open_named(MemoryLedger(), ScriptedModel(), {"big": ScriptedModel(refuse, identity="big")}) as session:
        scope = session.scope("one", StopSignal())
        ask(scope, "fine")
        errors = [
            raised(lambda text=str(number): scope.call(Role.TASK, named("big", text)))
            for number in range(REFUSALS_WITHOUT_ANSWER)
        ]

    assert all(isinstance(one, ModelRequestError) for one in errors[:-1])
    assert isinstance(errors[-1], InfrastructureFailed)
    assert "answers of the big model" in str(errors[-1])


def open_named(
    store: LedgerStore, model: LanguageModel, by_name: Mapping[str, LanguageModel], limits: Limits | None = None
) -> LedgerSession:
    clock = FixedClock()
    return LedgerSession.open(
        store,
        OPTIMIZATION,
        models=dict.fromkeys(Role, model),
        named=by_name,
        limits=limits or Limits(),
        now=clock.now,
        warn=lambda _: None,
        seconds=clock.seconds,
        sleep=clock.sleep,
    )
