"""How many calls may be in flight: learnt from refusals, never above the maximum, never below one."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.adaptive_slots import AdaptiveSlots


def test_one_burst_of_refusals_halves_once() -> None:
    """Answers to calls that were sent before the halving say nothing about the new limit."""
    slots = AdaptiveSlots(16)
    for _ in range(16):
        slots.start()
    for moment in range(16):
        slots.refuse(started_at=0.0, now=1.0 + moment)

    assert (8, 0) == (slots.limit, slots.in_flight)


def test_a_refusal_of_a_later_call_halves_again() -> None:
    """A call sent after the halving was refused under the new limit."""
    slots = AdaptiveSlots(16)
    slots.start()
    slots.refuse(started_at=0.0, now=1.0)
    slots.start()
    slots.refuse(started_at=2.0, now=3.0)

    assert slots.limit == 4


def test_a_full_limit_of_successes_adds_one() -> None:
    """Additive increase: limit 4 becomes 5 after 4 answers, not after 3."""
    slots = AdaptiveSlots(8)
    slots.start()
    slots.refuse(started_at=0.0, now=1.0)
    limits = []
    for _ in range(4):
        slots.start()
        slots.succeed(started_at=2.0)
        limits.append(slots.limit)

    assert limits == [4, 4, 4, 5]


def test_old_successes_do_not_count_and_failures_change_nothing() -> None:
    """Only answers to calls sent after the halving are evidence for more."""
    slots = AdaptiveSlots(2)
    for _ in range(2):
        slots.start()
    slots.refuse(started_at=0.0, now=1.0)
    slots.succeed(started_at=0.5)
    slots.start()
    slots.fail()

    assert (1, 0) == (slots.limit, slots.in_flight)


@given(
    maximum=st.integers(1, 50), steps=st.lists(st.sampled_from(["start", "succeed", "refuse", "fail"]), max_size=200)
)
def test_the_limit_stays_between_one_and_the_maximum(maximum: int, steps: list[str]) -> None:
    """Whatever happens in whatever order."""
    slots, started = AdaptiveSlots(maximum), []
    for moment, step in enumerate(steps):
        if step == "start" and slots.free:
            slots.start()
            started.append(float(moment))
        elif step == "succeed" and started:
            slots.succeed(started.pop(0))
        elif step == "refuse" and started:
            slots.refuse(started.pop(0), float(moment))
        elif step == "fail" and started:
            started.pop()
            slots.fail()

        assert 1 <= slots.limit <= maximum
        assert slots.in_flight == len(started) <= maximum


@pytest.mark.parametrize("capacity", [1, 5, 20, 64])
def test_it_converges_to_what_the_server_takes(capacity: int) -> None:
    """A simulated server takes `capacity` calls of 1 s at once; in the long run at least 70 % of it is used.

    The closed form for a sawtooth between C/2 and C is 75 %; under 5 % of calls are refused at capacity 20 and up.
    """
    slots, ends, now = AdaptiveSlots(64), [], 0.0
    served = refused = 0
    while now < 400.0:
        while slots.free:
            accepted = sum(kind for _, _, kind, _ in ends) < capacity
            latency = 1.0 if accepted else 0.05
            # Callers come a little apart, as threads do.
            now += 0.0005
            slots.start()
            heapq.heappush(ends, (now + latency, len(ends) + now, accepted, now))
        end, _, accepted, started = heapq.heappop(ends)
        now = max(now, end)
        if accepted:
            slots.succeed(started)
            served += now > 100.0
        else:
            slots.refuse(started, now)
            refused += now > 100.0
    share = served / (300.0 * capacity)

    assert 0.7 <= share <= 1.01
    assert capacity < 20 or refused / (served + refused) < 0.05


@pytest.mark.parametrize("maximum", [0, -3])
def test_no_slot_at_all_is_refused(maximum: int) -> None:
    """A model that may never be asked is a mistake."""
    with pytest.raises(InvalidRequestError, match="max_concurrency: wanted at least 1, found"):
        AdaptiveSlots(maximum)


def test_a_slot_that_is_not_free_cannot_be_taken() -> None:
    """The owner has to ask first."""
    slots = AdaptiveSlots(1)
    slots.start()

    with pytest.raises(ValueError, match="1 of 1 in flight"):
        slots.start()
