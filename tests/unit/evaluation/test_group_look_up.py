"""Group look-up."""

import threading
from collections.abc import Mapping, Sequence

import pytest

from dspy_optimization.errors import CancelRequested, StoreError
from dspy_optimization.evaluation.group_look_up import GroupLookUp
from dspy_optimization.evaluation.ledger import LedgerBatch
from dspy_optimization.evaluation.model import CallKey, ModelResponse
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_model import chat_response

KEYS = [CallKey(f"{number:064x}") for number in range(4)]


class CountingLedger(MemoryLedger):
    """Remembers which keys were asked for together, and answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[CallKey]] = []
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        self.asked.append(list(keys))
        self.arrived.set()
        assert self.opened.wait(5.0)
        return super().answers(keys)


def reader_of(store: MemoryLedger, patience_seconds: float = 60.0) -> GroupLookUp:
    clock = FixedClock()
    return GroupLookUp(store, patience=Patience(patience_seconds, clock.seconds), pause=clock.sleep)


def test_known_answers_are_found_and_unknown_ones_are_none() -> None:
    """One by one, each gets its own."""
    store = MemoryLedger()
    store.commit(LedgerBatch(answers={KEYS[0]: chat_response("zero"), KEYS[1]: chat_response("one")}))
    reader = reader_of(store)

    assert [reader.answer(key, StopSignal()) for key in KEYS[:3]] == [chat_response("zero"), chat_response("one"), None]
    reader.close()


def test_what_gathers_during_a_query_is_one_query() -> None:
    """Three threads that ask while the first is being answered share the next query."""
    store = CountingLedger()
    store.commit(LedgerBatch(answers={key: chat_response(key) for key in KEYS}))
    reader = reader_of(store)
    found: dict[CallKey, ModelResponse | None] = {}

    def ask(key: CallKey) -> None:
        found[key] = reader.answer(key, StopSignal())

    threads = [threading.Thread(target=ask, args=(key,)) for key in KEYS]
    threads[0].start()
    assert store.arrived.wait(5.0)
    for thread in threads[1:]:
        thread.start()
    while len(reader._reader._waiting) < 3:
        threading.Event().wait(0.005)
    store.opened.set()
    for thread in threads:
        thread.join(5.0)
    reader.close()

    assert found == {key: chat_response(key) for key in KEYS}
    assert [len(keys) for keys in store.asked] == [1, 3]


def test_an_outage_is_waited_out_and_a_long_one_is_an_error() -> None:
    """After the error the reader goes on: the database may be back for the next one."""
    store = MemoryLedger()
    store.away = True
    reader = reader_of(store, patience_seconds=10.0)
    with pytest.raises(StoreError, match=r"did not answer for 10\.0 s"):
        reader.answer(KEYS[0], StopSignal())
    store.away = False

    assert reader.answer(KEYS[0], StopSignal()) is None
    reader.close()


def test_a_stop_ends_the_wait() -> None:
    """Who waits for a hanging database still hears that the work has to end."""
    store = CountingLedger()
    reader = reader_of(store)
    stop = StopSignal()
    stop.stop(CancelRequested("enough"))
    with pytest.raises(CancelRequested):
        reader.answer(KEYS[0], stop)
    store.opened.set()
    reader.close()


def test_a_closed_reader_says_so() -> None:
    """Closing twice is allowed, asking is not."""
    reader = reader_of(MemoryLedger())
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="the ledger is closed or its reader broke"):
        reader.answer(KEYS[0], StopSignal())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_reader_leaves_nobody_waiting() -> None:
    """An error nobody foresaw fails the one being answered and those behind it."""
    arrived, opened = threading.Event(), threading.Event()

    def before(method: str) -> None:
        arrived.set()
        assert opened.wait(5.0)
        raise ZeroDivisionError

    reader = reader_of(MemoryLedger(before))
    errors: list[str] = []

    def ask(key: CallKey) -> None:
        with pytest.raises(StoreError) as caught:
            reader.answer(key, StopSignal())
        errors.append(str(caught.value))

    threads = [threading.Thread(target=ask, args=(key,)) for key in KEYS[:2]]
    threads[0].start()
    assert arrived.wait(5.0)
    threads[1].start()
    while not reader._reader._waiting:
        threading.Event().wait(0.005)
    opened.set()
    for thread in threads:
        thread.join(5.0)

    assert errors == ["the ledger's reader broke; its traceback is in the log"] * 2
    reader.close()
