"""Who may call a model now: in order, within slots and rates, until the work has to end."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import CancelRequested
from dspy_optimization.evaluation.admission import Admission, AdmissionLimits
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.fixed_clock import FixedClock


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition never held")
        time.sleep(0.001)


@settings(max_examples=15, deadline=None)
@given(maximum=st.integers(1, 6), threads=st.integers(1, 16), seed=st.integers(0, 2**16))
def test_never_more_in_flight_than_the_maximum(maximum: int, threads: int, seed: int) -> None:
    """Real threads, real time, answers and refusals and failures in any mixture; and everybody gets in."""
    admission = Admission(AdmissionLimits(max_concurrency=maximum), clock=time.monotonic)
    rng, lock = random.Random(seed), threading.Lock()
    seen: list[int] = []
    flying = 0

    def call(end: str) -> None:
        nonlocal flying
        granted = admission.enter(1, time.sleep, again=end == "refuse")
        with lock:
            flying += 1
            seen.append(flying)
        time.sleep(0.0002)
        with lock:
            flying -= 1
        if end == "answer":
            admission.answered(granted, 1)
        elif end == "refuse":
            admission.refused(granted, None)
        else:
            admission.failed()

    ends = [rng.choice(["answer", "answer", "answer", "refuse", "fail"]) for _ in range(60)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(call, ends))

    assert len(seen) == 60
    assert max(seen) <= maximum
    assert (0, 0) == (admission.in_flight, admission.waiting)


@given(
    requests=st.integers(1, 20),
    tokens=st.integers(50, 500),
    calls=st.lists(st.tuples(st.integers(1, 600), st.floats(0, 20)), min_size=1, max_size=40),
)
def test_rates_hold_in_virtual_time(requests: int, tokens: int, calls: list[tuple[int, float]]) -> None:
    """One caller after the other on a clock that moves when somebody waits."""
    clock = FixedClock()
    limits = AdmissionLimits(requests_per_minute=requests, tokens_per_minute=tokens)
    admission = Admission(limits, clock=clock.seconds)
    started: list[tuple[float, int]] = []
    for amount, pause in calls:
        clock.sleep(pause)
        granted = admission.enter(amount, clock.sleep)
        started.append((granted.started_at, min(amount, tokens)))
        admission.answered(granted, amount)

    for last, _ in started:
        window = [amount for at, amount in started if last - 60.0 + 1e-6 < at <= last]

        assert len(window) <= requests
        assert sum(window) <= tokens


def test_first_come_first_served_and_repeats_before_all() -> None:
    """A call that was already paid for with time does not go to the end of the queue."""
    admission = Admission(AdmissionLimits(max_concurrency=1), clock=time.monotonic)
    first = admission.enter(1, time.sleep)
    order: list[str] = []

    def call(name: str, again: bool) -> None:
        granted = admission.enter(1, time.sleep, again=again)
        order.append(name)
        admission.answered(granted, 1)

    threads = []
    for place, (name, again) in enumerate([("a", False), ("b", False), ("c", False), ("again", True)]):
        threads.append(threading.Thread(target=call, args=(name, again)))
        threads[-1].start()
        _until(lambda place=place: admission.waiting == place + 1)
    admission.answered(first, 1)
    for thread in threads:
        thread.join()

    assert order == ["again", "a", "b", "c"]


def test_a_small_call_does_not_slip_past_a_large_one() -> None:
    """Or a large one would wait for ever: 50 of 100 tokens are used, 90 wait for them, 10 would fit."""
    admission = Admission(AdmissionLimits(tokens_per_minute=100), clock=FixedClock().seconds)
    admission.answered(admission.enter(50, time.sleep), 50)
    stop = StopSignal()

    def large() -> None:
        with suppress(CancelRequested):
            admission.enter(90, stop.wait)

    def impatient(_seconds: float) -> None:
        raise CancelRequested("it has to wait")

    thread = threading.Thread(target=large)
    thread.start()
    _until(lambda: admission.waiting == 1)
    with pytest.raises(CancelRequested):
        admission.enter(10, impatient)
    stop.stop(CancelRequested("enough"))
    thread.join()

    assert admission.enter(10, impatient).started_at == 0.0


def test_a_retry_after_stops_everybody() -> None:
    """The server spoke to the key, not to the one call."""
    clock = FixedClock()
    admission = Admission(AdmissionLimits(), clock=clock.seconds)
    admission.refused(admission.enter(1, clock.sleep), 30.0)
    later = admission.enter(1, clock.sleep)

    assert later.started_at == pytest.approx(30.0)


def test_somebody_who_has_to_end_leaves_the_queue() -> None:
    """Cancelled in front of a full model, within a quarter of a second, and the place is free."""
    admission, stop = Admission(AdmissionLimits(max_concurrency=1), clock=time.monotonic), StopSignal()
    granted = admission.enter(1, time.sleep)
    ended: list[float] = []

    def call() -> None:
        try:
            admission.enter(1, stop.wait)
        except CancelRequested:
            ended.append(time.monotonic())

    thread = threading.Thread(target=call)
    thread.start()
    _until(lambda: admission.waiting == 1)
    asked = time.monotonic()
    stop.stop(CancelRequested("enough"))
    thread.join()

    assert ended[0] - asked < 1.0
    assert admission.waiting == 0
    admission.answered(granted, 1)
    assert admission.enter(1, time.sleep).started_at > asked


def test_real_tokens_free_the_window_for_who_waits() -> None:
    """Ten calls that may take 500 and take 50 do not need five minutes for a limit of 1000."""
    clock = FixedClock()
    admission = Admission(AdmissionLimits(tokens_per_minute=1000), clock=clock.seconds)
    for _ in range(10):
        admission.answered(admission.enter(500, clock.sleep), 50)

    assert clock.seconds() == 0.0


def test_a_model_rests_as_long_as_it_is_told() -> None:
    """And not a second longer."""
    clock = FixedClock()
    admission = Admission(AdmissionLimits(), clock=clock.seconds)
    admission.rest(60.0)
    now = admission.resting
    clock.sleep(60.0)

    assert (True, False) == (now, admission.resting)
