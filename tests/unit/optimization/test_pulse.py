"""The heartbeat of all optimizations of a process."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from uuid import uuid4

from dspy_optimization.errors import (
    CancelRequested,
    ConflictError,
    PauseRequested,
    RequestFailed,
    StopSearch,
    StoreError,
)
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.pulse import Beat, Heard, Pulse
from dspy_optimization.optimization.request import Wish

PATIENCE_SECONDS = 20.0


class Diary:
    """Writes beats down and answers with what was wished."""

    def __init__(self) -> None:
        self.beats: list[dict[OptimizationId, float]] = []
        self.answers: dict[OptimizationId, Heard] = {}
        self.away = 0

    def beat(self, beats: Sequence[Beat]) -> Mapping[OptimizationId, Heard]:
        if self.away:
            self.away -= 1
            raise StoreError("the database is away")
        self.beats.append({one.optimization_id: one.elapsed_seconds for one in beats})
        return {one.optimization_id: self.answers.get(one.optimization_id, Heard()) for one in beats}


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_all_optimizations_of_a_tenant_share_a_beat() -> None:
    pulse, diary, other = Pulse(seconds=0.01), Diary(), Diary()
    ours = [OptimizationId(uuid4()) for _ in range(3)]
    theirs = OptimizationId(uuid4())

    with ExitStack() as stack:
        for seconds, one in enumerate(ours):
            stack.enter_context(pulse.watching(diary, one, StopSignal(), lambda seconds=seconds: float(seconds)))
        stack.enter_context(pulse.watching(other, theirs, StopSignal(), lambda: 7.0))
        expected = {one: float(seconds) for seconds, one in enumerate(ours)}
        until(lambda: expected in diary.beats and {theirs: 7.0} in other.beats)
        beating = [thread for thread in threading.enumerate() if thread.name == "pulse"]

    assert len(beating) == 1


def test_what_is_wished_ends_the_work_it_is_wished_of() -> None:
    pulse, diary = Pulse(seconds=0.01), Diary()
    answers: dict[type[StopSearch], Heard] = {
        PauseRequested: Heard(wish=Wish.PAUSE),
        CancelRequested: Heard(wish=Wish.CANCEL),
        RequestFailed: Heard(taken=ConflictError("another one works on it")),
    }
    stops = {kind: StopSignal() for kind in answers}
    untouched = StopSignal()
    with ExitStack() as stack:
        for kind, heard in answers.items():
            one = OptimizationId(uuid4())
            diary.answers[one] = heard
            stack.enter_context(pulse.watching(diary, one, stops[kind], lambda: 0.0))
        stack.enter_context(pulse.watching(diary, OptimizationId(uuid4()), untouched, lambda: 0.0))
        until(lambda: all(stop.reason for stop in stops.values()))

    assert {kind: type(stop.reason) for kind, stop in stops.items()} == {kind: kind for kind in answers}
    assert untouched.reason is None


def test_a_database_that_is_away_ends_nothing() -> None:
    pulse, diary, stop = Pulse(seconds=0.01), Diary(), StopSignal()
    diary.away = 3

    with pulse.watching(diary, OptimizationId(uuid4()), stop, lambda: 0.0):
        until(lambda: diary.beats)

    assert stop.reason is None


def test_nothing_beats_when_nobody_works_and_again_when_somebody_does() -> None:
    pulse, diary = Pulse(seconds=0.01), Diary()
    for _ in range(3):
        with pulse.watching(diary, OptimizationId(uuid4()), StopSignal(), lambda: 0.0):
            until(lambda: diary.beats)
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "pulse"])
        diary.beats.clear()
