"""Group commit."""

import threading
from collections.abc import Callable
from uuid import UUID

import pytest

from dspy_optimization.errors import CancelRequested, StoreError
from dspy_optimization.evaluation.group_commit import GroupCommit
from dspy_optimization.evaluation.ledger import Charge, OptimizationId
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.ledger_contract import failed_charge, settled_charge, started_charge
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_model import chat_response

OPTIMIZATION = OptimizationId(UUID(int=7))


def charge(number: int) -> Charge:
    return started_charge(OPTIMIZATION, number)


def writer_of(
    store: MemoryLedger, patience_seconds: float = 60.0, pause: Callable[[float], None] | None = None
) -> GroupCommit:
    clock = FixedClock()
    return GroupCommit(store, patience=Patience(patience_seconds, clock.seconds), pause=pause or clock.sleep)


class Gate:
    """Holds the store's commits until it opens."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def __call__(self, method: str) -> None:
        if method == "commit":
            self.arrived.set()
            assert self.opened.wait(5.0)


def test_a_receipt_means_durable() -> None:
    """Once `wait` returned the rows are in the store."""
    store = MemoryLedger()
    writer = writer_of(store)
    answer = chat_response("a")
    writer.submit(started=[charge(1)]).wait()

    assert store.charges == (charge(1),)
    writer.submit(ended=[settled_charge(charge(1))], answers={charge(1).key: answer}).wait()
    writer.close()
    assert store.charges == (settled_charge(charge(1)),)
    assert store.answers([charge(1).key]) == {charge(1).key: answer}


def test_what_gathers_during_a_commit_is_one_batch() -> None:
    """Rows of many threads that came in while one batch was written go together, in their order."""
    gate = Gate()
    store = MemoryLedger(gate)
    writer = writer_of(store)
    writer.submit(started=[charge(1)])
    assert gate.arrived.wait(5.0)
    for number in (2, 3, 4):
        writer.submit(started=[charge(number)])
    writer.submit(ended=[settled_charge(charge(1))], answers={charge(1).key: chat_response("a")})
    gate.opened.set()
    writer.close()

    assert [[one.id.int for one in batch.started] for batch in store.batches] == [[1], [2, 3, 4]]
    assert [list(batch.ended) for batch in store.batches] == [[], [settled_charge(charge(1))]]


def test_submitting_never_waits_for_the_database() -> None:
    """The hot path goes on while the store hangs."""
    gate = Gate()
    store = MemoryLedger(gate)
    writer = writer_of(store)
    first = writer.submit(started=[charge(1)])
    assert gate.arrived.wait(5.0)
    stop = StopSignal()
    stop.stop(CancelRequested("enough"))
    with pytest.raises(CancelRequested):
        first.wait(stop)
    assert store.charges == ()
    gate.opened.set()
    writer.close()

    assert store.charges == (charge(1),)


def test_a_short_outage_loses_nothing_and_writes_nothing_twice() -> None:
    """The rows are kept and tried again."""
    tries = []

    def before(method: str) -> None:
        tries.append(method)
        if len(tries) <= 5:
            raise StoreError("away")

    store = MemoryLedger(before)
    writer = writer_of(store)
    writer.submit(started=[charge(1)]).wait()
    writer.submit(started=[charge(2)]).wait()
    writer.close()

    assert [[one.id.int for one in batch.started] for batch in store.batches] == [[1], [2]]


def test_a_long_outage_fails_everybody_who_waits_and_all_who_come() -> None:
    """The error says how long and what to do; later submissions fail at once."""
    clock = FixedClock()
    gate = threading.Event()

    def pause(seconds: float) -> None:
        assert gate.wait(5.0)
        clock.sleep(seconds)

    store = MemoryLedger()
    store.away = True
    writer = GroupCommit(store, patience=Patience(60.0, clock.seconds), pause=pause)
    receipts = [writer.submit(started=[charge(number)]) for number in (1, 2)]
    gate.set()
    for receipt in receipts:
        with pytest.raises(StoreError, match=r"did not answer for 60\.0 s; .* possible: bring it back, then resume"):
            receipt.wait()
    tries = len(clock.slept)
    with pytest.raises(StoreError, match=r"did not answer for 60\.0 s"):
        writer.submit(started=[charge(3)]).wait()

    assert len(clock.slept) == tries
    with pytest.raises(StoreError, match="told to be away"):
        writer.close()
    writer.close()


def test_closing_tries_one_last_time_with_all_that_was_kept() -> None:
    """The database that came back too late still gets every row, once."""
    store = MemoryLedger()
    store.away = True
    writer = writer_of(store, patience_seconds=0.0)
    with pytest.raises(StoreError):
        writer.submit(started=[charge(1)]).wait()
    with pytest.raises(StoreError):
        writer.submit(ended=[failed_charge(charge(1))], answers={charge(2).key: chat_response("a")}).wait()
    store.away = False
    writer.close()
    writer.close()

    assert store.charges == (failed_charge(charge(1)),)
    assert list(store.answers([charge(2).key])) == [charge(2).key]
    assert len(store.batches) == 1


def test_closing_writes_what_nobody_waited_for() -> None:
    """Close flushes."""
    gate = Gate()
    store = MemoryLedger(gate)
    writer = writer_of(store)
    for number in (1, 2, 3):
        writer.submit(started=[charge(number)])
    gate.opened.set()
    writer.close()

    assert [one.id.int for one in store.charges] == [1, 2, 3]


def test_flushing_waits_for_everything_before_it() -> None:
    """And writes no empty batch."""
    store = MemoryLedger()
    writer = writer_of(store)
    writer.submit(started=[charge(1)])
    writer.flush()

    assert store.charges == (charge(1),)
    writer.flush()
    writer.close()
    assert len(store.batches) == 1


def test_rows_that_come_after_closing_are_refused() -> None:
    """A straggler is told so; its charge stays as it is, open."""
    store = MemoryLedger()
    writer = writer_of(store)
    writer.close()
    with pytest.raises(StoreError, match="the ledger is closed or its writer broke"):
        writer.submit(started=[charge(1)]).wait()

    assert store.charges == ()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_writer_leaves_nobody_waiting() -> None:
    """An error nobody foresaw fails every waiter, those in its batch and those behind it."""
    gate = Gate()

    def before(method: str) -> None:
        gate(method)
        if len(seen) < 1:
            seen.append(method)
            raise ZeroDivisionError

    seen: list[str] = []
    store = MemoryLedger(before)
    writer = writer_of(store)
    first = writer.submit(started=[charge(1)])
    assert gate.arrived.wait(5.0)
    second = writer.submit(started=[charge(2)])
    gate.opened.set()
    for receipt in (first, second):
        with pytest.raises(StoreError, match="the ledger's writer broke; its traceback is in the log"):
            receipt.wait()
    with pytest.raises(StoreError, match="closed or its writer broke"):
        writer.submit(started=[charge(3)]).wait()
    writer.close()

    assert [one.id.int for one in store.charges] == [1, 2, 3]


def test_many_threads_many_rows_all_once() -> None:
    """Sixteen threads, each waiting for its own start, need fewer commits than rows."""
    store = MemoryLedger()
    writer = writer_of(store)

    def work(first: int) -> None:
        for number in range(first, first + 20):
            writer.submit(started=[charge(number)]).wait()
            writer.submit(ended=[settled_charge(charge(number))], answers={charge(number).key: chat_response("a")})

    threads = [threading.Thread(target=work, args=(1 + 20 * number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    writer.close()

    assert {one.id.int for one in store.charges} == set(range(1, 321))
    assert sum(len(batch.started) for batch in store.batches) == 320
    assert sum(len(batch.ended) for batch in store.batches) == 320
    assert len(store.batches) < 640
