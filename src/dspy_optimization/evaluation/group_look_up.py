"""Group look-up: one reader for many threads, one query for whatever was asked for during the last one."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.gatherer import Gatherer
from dspy_optimization.evaluation.ledger import LedgerStore
from dspy_optimization.evaluation.model import CallKey, ModelResponse
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.evaluation.receipt import Receipt
from dspy_optimization.evaluation.stop import StopSignal

_BROKEN = "the ledger's reader broke; its traceback is in the log"
_CLOSED = "the ledger is closed or its reader broke; possible: resume the optimization"

_Found: TypeAlias = ModelResponse | None


class _Asked(NamedTuple):
    key: CallKey
    receipt: Receipt[_Found]


class GroupLookUp:
    """Reads answers for all threads. Owns its reader thread until `close`."""

    def __init__(self, store: LedgerStore, *, patience: Patience, pause: Callable[[float], None]) -> None:
        """Start the reader.

        Args:
            store: where the answers are.
            patience: how long the database may be away.
            pause: sleeps so many seconds between two tries.
        """
        self._store = store
        self._patience = patience
        self._pause = pause
        self._reader = Gatherer("ledger-reader", self._read, lambda asked: _fail(asked, StoreError(_BROKEN)))

    def answer(self, key: CallKey, stop: StopSignal) -> ModelResponse | None:
        """Return the answer; None when it is not known.

        Raises:
            StoreError: the database stayed away.
            StopSearch: the signal's reason.
        """
        asked = _Asked(key, Receipt())
        if not self._reader.hand_over(asked):
            raise StoreError(_CLOSED)
        return asked.receipt.wait(stop)

    def close(self) -> None:
        """End the reader; a second call does nothing."""
        self._reader.close()

    def _read(self, asked: list[_Asked]) -> None:
        error: StoreError | None = StoreError(_BROKEN)
        try:
            found = self._patience.run(lambda: self._store.answers([one.key for one in asked]), self._pause)
            error = None
            for one in asked:
                one.receipt.end(found.get(one.key))
        except StoreError as away:
            error = away
        finally:
            if error is not None:
                _fail(asked, error)


def _fail(asked: list[_Asked], error: StoreError) -> None:
    for one in asked:
        one.receipt.fail(error)
