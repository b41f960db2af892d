"""The budget."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import BudgetSpent, BudgetUnknownError, CancelRequested, InvalidRequestError
from dspy_optimization.evaluation.budget import Budget, BudgetWarning, Cap, Reservation, require_prices
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.evaluation.need import Need
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.scripted_model import ScriptedModel


def budget_of(
    limits: Limits,
    *,
    spent: Spend | None = None,
    elapsed_seconds: float = 0.0,
    clock: FixedClock | None = None,
    warn: Callable[[BudgetWarning], None] = lambda _: None,
) -> Budget:
    clock = clock or FixedClock()
    return Budget(limits, spent=spent or Spend(), elapsed_seconds=elapsed_seconds, seconds=clock.seconds, warn=warn)


def need_of(cost_usd: float = 0.0, tokens: int = 0) -> Need:
    return Need(cost_usd=cost_usd, prompt_tokens=tokens, completion_tokens=0)


class Waiter:
    """Reserves in a thread of its own."""

    def __init__(self, budget: Budget, need: Need, stop: StopSignal | None = None) -> None:
        self.result: Reservation | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(budget, need, stop or StopSignal()))
        self._thread.start()

    def _run(self, budget: Budget, need: Need, stop: StopSignal) -> None:
        try:
            self.result = budget.reserve(need, stop)
        except (BudgetSpent, CancelRequested) as reason:
            self.result = reason

    def still_waits(self) -> bool:
        self._thread.join(0.25)
        return self._thread.is_alive()

    def join(self) -> Reservation | BaseException | None:
        self._thread.join(5.0)
        assert not self._thread.is_alive()
        return self.result


@pytest.mark.parametrize(
    ("limits", "need", "cap"),
    [
        (Limits(max_cost_usd=1.0), need_of(cost_usd=0.25), Cap.COST),
        (Limits(max_lm_calls=4), need_of(), Cap.CALLS),
        (Limits(max_tokens=40), need_of(tokens=10), Cap.TOKENS),
    ],
)
def test_a_cap_is_used_to_the_last_bit_and_not_beyond(limits: Limits, need: Need, cap: Cap) -> None:
    """Four quarters fit, a fifth does not, and the stop names the cap and its value."""
    budget = budget_of(limits)
    for _ in range(4):
        budget.settle(budget.reserve(need, StopSignal()), cost_usd=need.cost_usd, tokens=need.tokens)
    with pytest.raises(BudgetSpent) as stopped:
        budget.reserve(need, StopSignal())

    assert (stopped.value.cap, stopped.value.limit) == (cap.value, getattr(limits, cap.value))


def test_ten_dimes_are_a_dollar() -> None:
    """Sums of dollars carry no binary dust: what fits on paper fits."""
    budget = budget_of(Limits(max_cost_usd=0.3))
    for _ in range(3):
        budget.settle(budget.reserve(need_of(0.1), StopSignal()), cost_usd=0.1, tokens=0)
    with pytest.raises(BudgetSpent):
        budget.reserve(need_of(1e-12), StopSignal())


def test_what_earlier_processes_spent_counts() -> None:
    """Dollars, calls, tokens and seconds hold across resumes."""
    spent = Spend(calls=3, cost_usd=0.5, prompt_tokens=20, completion_tokens=10)
    for limits, need, cap in (
        (Limits(max_cost_usd=0.75), need_of(0.26), Cap.COST),
        (Limits(max_lm_calls=3), need_of(), Cap.CALLS),
        (Limits(max_tokens=39), need_of(tokens=10), Cap.TOKENS),
        (Limits(max_seconds=60.0), need_of(), Cap.SECONDS),
    ):
        with pytest.raises(BudgetSpent) as stopped:
            budget_of(limits, spent=spent, elapsed_seconds=60.0).reserve(need, StopSignal())

        assert stopped.value.cap == cap.value
    roomy = Limits(max_cost_usd=0.75, max_lm_calls=4, max_tokens=40, max_seconds=60.1)

    assert budget_of(roomy, spent=spent, elapsed_seconds=60.0).reserve(need_of(0.25, 10), StopSignal()).number == 0


def test_no_call_begins_after_the_time_is_over() -> None:
    """Seconds are counted from the first process on."""
    clock = FixedClock()
    clock.sleep(1000.0)
    budget = budget_of(Limits(max_seconds=10.0), elapsed_seconds=4.0, clock=clock)
    clock.sleep(5.5)
    budget.reserve(need_of(), StopSignal())

    assert budget.elapsed_seconds == 9.5
    clock.sleep(0.5)
    with pytest.raises(BudgetSpent, match="max_seconds = 10 is reached"):
        budget.reserve(need_of(), StopSignal())


@pytest.mark.parametrize(
    "limits", [Limits(max_cost_usd=1.0), Limits(max_cost_usd=1.0, max_lm_calls=9, max_tokens=9, max_seconds=9.0)]
)
def test_a_call_waits_while_only_calls_in_flight_are_in_the_way(limits: Limits) -> None:
    """The worst case of one in flight may turn out cheap: then the next one fits. Room under other caps is none."""
    budget = budget_of(limits)
    first = budget.reserve(need_of(0.8), StopSignal())
    second = Waiter(budget, need_of(0.8))

    assert second.still_waits()
    budget.settle(first, cost_usd=0.2, tokens=0)
    assert isinstance(second.join(), Reservation)


def test_a_waiting_call_is_told_when_it_can_never_fit() -> None:
    """The one in flight turned out dear."""
    budget = budget_of(Limits(max_tokens=100))
    first = budget.reserve(need_of(tokens=80), StopSignal())
    second = Waiter(budget, need_of(tokens=80))

    assert second.still_waits()
    budget.settle(first, cost_usd=0.0, tokens=21)
    assert isinstance(second.join(), BudgetSpent)


def test_a_released_reservation_lets_the_next_one_in() -> None:
    """A call that was never answered gives everything back."""
    budget = budget_of(Limits(max_lm_calls=1))
    first = budget.reserve(need_of(), StopSignal())
    second = Waiter(budget, need_of())

    assert second.still_waits()
    budget.release(first)
    assert isinstance(second.join(), Reservation)


def test_who_waits_is_woken_at_once() -> None:
    """Settling and releasing wake the next without a look at the clock."""
    budget = budget_of(Limits(max_lm_calls=100, max_tokens=10))
    for end in (budget.release, lambda held: budget.settle(held, cost_usd=0.0, tokens=0)):
        first = budget.reserve(need_of(tokens=10), StopSignal())
        second = Waiter(budget, need_of(tokens=10))
        time.sleep(0.02)
        begun = time.monotonic()
        end(first)
        held = second.join()

        assert time.monotonic() - begun < 0.07
        assert isinstance(held, Reservation)
        budget.release(held)


def test_a_stop_ends_the_wait() -> None:
    """Who waits for the budget still hears that the work has to end."""
    budget = budget_of(Limits(max_lm_calls=1))
    budget.reserve(need_of(), StopSignal())
    stop = StopSignal()
    second = Waiter(budget, need_of(), stop)

    assert second.still_waits()
    stop.stop(CancelRequested("enough"))
    assert isinstance(second.join(), CancelRequested)


def test_the_time_cap_ends_the_wait() -> None:
    """Who waits while the time runs out is told so."""
    clock = FixedClock()
    budget = budget_of(Limits(max_lm_calls=1, max_seconds=5.0), clock=clock)
    budget.reserve(need_of(), StopSignal())
    second = Waiter(budget, need_of())

    assert second.still_waits()
    clock.sleep(5.0)
    stopped = second.join()
    assert isinstance(stopped, BudgetSpent)
    assert stopped.cap == "max_seconds"


def test_a_reservation_ends_once() -> None:
    """Ending it again is a mistake of the caller and changes nothing."""
    budget = budget_of(Limits(max_lm_calls=2))
    first = budget.reserve(need_of(), StopSignal())
    budget.release(first)
    for again in (budget.release, lambda held: budget.settle(held, cost_usd=1.0, tokens=1)):
        with pytest.raises(ValueError, match="number 0, settled or released before"):
            again(first)
    budget.reserve(need_of(), StopSignal())
    budget.reserve(need_of(), StopSignal())


def test_what_a_call_took_is_booked_even_when_it_is_more_than_was_held() -> None:
    """The books are honest: the next call finds the cap reached."""
    budget = budget_of(Limits(max_cost_usd=1.0))
    budget.settle(budget.reserve(need_of(0.1), StopSignal()), cost_usd=5.0, tokens=0)
    with pytest.raises(BudgetSpent):
        budget.reserve(need_of(0.0), StopSignal())


def test_without_caps_everything_fits() -> None:
    """No cap, no wait."""
    budget = budget_of(Limits())

    assert [budget.reserve(need_of(1e6, 10**9), StopSignal()).number for _ in range(3)] == [0, 1, 2]


def test_a_cap_of_zero_dollars_allows_free_models() -> None:
    """Zero is a cap, not the absence of one; of nothing no share can be used."""
    told: list[BudgetWarning] = []
    budget = budget_of(Limits(max_cost_usd=0.0), warn=told.append)
    budget.settle(budget.reserve(need_of(0.0), StopSignal()), cost_usd=0.0, tokens=5)
    with pytest.raises(BudgetSpent):
        budget.reserve(need_of(1e-6), StopSignal())

    assert told == []


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("cap", list(Cap))
def test_a_cap_is_a_number_from_zero_up(cap: Cap, value: float) -> None:
    """Negative and infinite caps are refused by name."""
    with pytest.raises(InvalidRequestError, match=f"wanted: {cap.value} as a number from 0 up; found: "):
        budget_of(Limits(**{cap.value: value}))


def test_each_cap_warns_once_at_half_and_at_four_fifths() -> None:
    """The warning says which cap, how much of it is used and which share was passed."""
    told: list[BudgetWarning] = []
    budget = budget_of(Limits(max_cost_usd=2.0, max_lm_calls=100, max_tokens=10), warn=told.append)
    for _ in range(10):
        budget.settle(budget.reserve(need_of(0.1, 1), StopSignal()), cost_usd=0.1, tokens=1)

    assert [
        BudgetWarning(cap=Cap.TOKENS, limit=10.0, used=5.0, share=0.5),
        BudgetWarning(cap=Cap.TOKENS, limit=10.0, used=8.0, share=0.8),
        BudgetWarning(cap=Cap.COST, limit=2.0, used=1.0, share=0.5),
    ] == told


def test_time_warns_as_well_and_one_step_may_pass_both_shares() -> None:
    """Seconds are looked at with every reservation."""
    told: list[BudgetWarning] = []
    clock = FixedClock()
    budget = budget_of(Limits(max_seconds=10.0), clock=clock, warn=told.append)
    budget.reserve(need_of(), StopSignal())

    assert told == []
    clock.sleep(9.0)
    budget.reserve(need_of(), StopSignal())
    budget.reserve(need_of(), StopSignal())
    assert [(one.cap, one.used, one.share) for one in told] == [(Cap.SECONDS, 9.0, 0.5), (Cap.SECONDS, 9.0, 0.8)]


def test_a_cap_of_one_warns_too_and_a_cap_of_none_does_not() -> None:
    """One call or one second is a cap like any other; of nothing there is no half."""
    told: list[BudgetWarning] = []
    budget = budget_of(Limits(max_lm_calls=1, max_tokens=0), warn=told.append)
    budget.settle(budget.reserve(need_of(), StopSignal()), cost_usd=0.0, tokens=0)

    assert [(Cap.CALLS, 0.5), (Cap.CALLS, 0.8)] == [(one.cap, one.share) for one in told]


def test_a_warning_is_one_fact_over_all_resumes() -> None:
    """Its event has a key of cap, limit and share; a raised cap is a new fact."""
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def event(limit: float, used: float, share: float = 0.5) -> tuple[str | None, object]:
        warning = BudgetWarning(cap=Cap.COST, limit=limit, used=used, share=share)
        made = warning.event(UUID(int=1), at)
        return made.key, dict(made.data)

    assert event(2.0, 1.0) == (
        "budget/max_cost_usd/2.0/0.5",
        {"cap": "max_cost_usd", "limit": 2.0, "used": 1.0, "share": 0.5},
    )
    assert event(2.0, 1.0)[0] == event(2.0, 1.7)[0]
    assert len({event(2.0, 1.0)[0], event(3.0, 1.0)[0], event(2.0, 1.0, 0.8)[0]}) == 3


def test_a_dollar_cap_needs_every_price() -> None:
    """The message names the roles and models without a price; other caps need none."""
    models = {
        Role.TASK: ScriptedModel(identity="priced", price=Price(prompt_usd=1.0, completion_usd=1.0)),
        Role.JUDGE: ScriptedModel(identity="secret"),
    }
    require_prices(Limits(max_lm_calls=1), models)
    require_prices(Limits(max_cost_usd=1.0), {Role.TASK: models[Role.TASK]})
    with pytest.raises(BudgetUnknownError, match=r"max_cost_usd = 1 is set; found: no known price for judge: secret;"):
        require_prices(Limits(max_cost_usd=1.0), models)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.integers(0, 30), st.sampled_from(["settle", "release"])), max_size=60),
    st.floats(0, 1.5),
    st.integers(0, 150),
    st.integers(0, 30),
)
def test_no_cap_is_exceeded_by_threads_with_random_costs(
    calls: list[tuple[float, int, str]], max_cost_usd: float, max_tokens: int, max_lm_calls: int
) -> None:
    """Whatever eight threads reserve, settle at or below, or release: the sums stay within all three caps."""
    limits = Limits(max_cost_usd=max_cost_usd, max_tokens=max_tokens, max_lm_calls=max_lm_calls)
    budget = budget_of(limits)
    lock = threading.Lock()
    held = {"cost": 0.0, "tokens": 0, "calls": 0}
    highest = dict(held)

    def add(cost: float, tokens: int, count: int) -> None:
        with lock:
            held["cost"] += cost
            held["tokens"] += tokens
            held["calls"] += count
            for name, value in held.items():
                highest[name] = max(highest[name], value)

    def work(share: list[tuple[float, int, str]]) -> None:
        for cost, tokens, end in share:
            try:
                reservation = budget.reserve(need_of(cost, tokens), StopSignal())
            except BudgetSpent:
                continue
            add(cost, tokens, 1)
            # before the budget hears of it: what is ours must never be counted after it is somebody else's
            if end == "settle":
                add(cost / 2 - cost, tokens // 2 - tokens, 0)
                budget.settle(reservation, cost_usd=cost / 2, tokens=tokens // 2)
            else:
                add(-cost, -tokens, -1)
                budget.release(reservation)

    threads = [threading.Thread(target=work, args=(calls[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    assert not any(thread.is_alive() for thread in threads)
    assert highest["cost"] <= max_cost_usd + 1e-9
    assert highest["tokens"] <= max_tokens
    assert highest["calls"] <= max_lm_calls
