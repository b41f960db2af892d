"""Who may enter a lane: no partition ever has more than its bound there, and nobody waits for ever."""

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import StoreError
from dspy_optimization.jobs.job import JobId
from dspy_optimization.jobs.partitions import Doorkeeper, Moves, Waiting, moves


def _job(name: str, *partitions: str, held: bool = True) -> Waiting:
    return Waiting(id=JobId(name), partitions=partitions, is_held=held)


def test_as_many_enter_as_there_is_room_for() -> None:
    """In the order of turns; those without a bound at once."""
    waiting = [_job("a", "gepa"), _job("b", "gepa"), _job("c", "simba"), _job("d", "gepa")]

    assert Moves(admitted=(JobId("a"), JobId("c"))) == moves(waiting, {"gepa": 1}, {"gepa": 2})
    assert Moves(admitted=(JobId("c"),)) == moves(waiting, {"gepa": 2}, {"gepa": 2})
    assert Moves(admitted=tuple(map(JobId, "abcd"))) == moves(waiting, {}, {})


def test_the_strictest_bound_counts() -> None:
    """A job of several needs room in all of them."""
    job = _job("a", "gepa", "simba")

    assert Moves() == moves([job], {"simba": 1}, {"gepa": 5, "simba": 1})
    assert Moves(admitted=(JobId("a"),)) == moves([job], {"simba": 1}, {"gepa": 5, "simba": 2})


def test_a_job_of_several_is_not_passed_for_ever() -> None:
    """It keeps its place in the partition that has room too."""
    waiting = [_job("both", "gepa", "simba"), _job("one", "gepa")]

    assert Moves() == moves(waiting, {"simba": 1}, {"gepa": 1, "simba": 1})


def test_who_entered_too_early_leaves_again() -> None:
    """A bound was lowered, or an earlier turn came: what waits changes places, what runs goes on."""
    waiting = [_job("first", "gepa"), _job("second", "gepa", held=False)]

    assert Moves(admitted=(JobId("first"),), held=(JobId("second"),)) == moves(waiting, {}, {"gepa": 1})
    assert Moves(held=(JobId("second"),)) == moves(waiting, {"gepa": 4}, {"gepa": 1})


NAMES = st.sampled_from(["a", "b", "c"])


@given(
    jobs=st.lists(st.tuples(st.lists(NAMES, unique=True, max_size=3), st.booleans()), max_size=20),
    running=st.dictionaries(NAMES, st.integers(0, 4)),
    bounds=st.dictionaries(NAMES, st.integers(1, 4)),
)
def test_no_partition_has_more_than_its_bound(
    jobs: list[tuple[list[str], bool]], running: dict[str, int], bounds: dict[str, int]
) -> None:
    """Whatever waits and runs; made once, the moves are made; the first of a partition with room always enters."""
    waiting = [_job(str(number), *names, held=held) for number, (names, held) in enumerate(jobs)]
    made = moves(waiting, running, bounds)
    inside = [one for one in waiting if one.id in made.admitted or (not one.is_held and one.id not in made.held)]
    used = Counter(running)
    for one in inside:
        used.update(one.partitions)
    after = [Waiting(id=one.id, partitions=one.partitions, is_held=one not in inside) for one in waiting]

    for name, bound in bounds.items():
        assert used[name] <= max(bound, running.get(name, 0))
    assert Moves() == moves(after, running, bounds)
    for name, bound in bounds.items():
        first = next((one for one in waiting if set(one.partitions) & bounds.keys() == {name}), None)
        before = [one for one in waiting[: waiting.index(first)] if name in one.partitions] if first else []
        if first is not None and not before and running.get(name, 0) < bound:
            assert first in inside


def test_the_doorkeeper_outlives_a_database_that_is_away() -> None:
    """It looks again until it is stopped."""
    looked, seen = threading.Event(), list[int]()

    def settle() -> int:
        seen.append(1)
        if len(seen) == 1:
            raise StoreError("away")
        looked.set()
        return 0

    keeper = Doorkeeper(settle, polling_seconds=0.001)
    keeper.start()
    assert looked.wait(10.0)
    keeper.stop()
    after = len(seen)

    assert after == len(seen)
