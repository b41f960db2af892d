"""Group commit: one writer for many threads, one transaction for whatever came in during the last one.

No batch waits on purpose: while one is written the next gathers. A batch holds at most one start and one end a
thread, because every thread waits for its start. Rows become durable in the order they came, so a call is never
sent before the answers it was built from are safe.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.gatherer import Gatherer
from dspy_optimization.evaluation.ledger import Charge, LedgerBatch, LedgerStore
from dspy_optimization.evaluation.model import CallKey, ModelResponse
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.evaluation.receipt import Receipt

_BROKEN = "the ledger's writer broke; its traceback is in the log"
_CLOSED = "the ledger is closed or its writer broke; possible: resume the optimization"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    started: Sequence[Charge] = ()
    ended: Sequence[Charge] = ()
    answers: Mapping[CallKey, ModelResponse] = field(default_factory=dict)
    receipt: Receipt[None] = field(default_factory=Receipt)


class GroupCommit:
    """Writes what all threads submit. Owns its writer thread until `close`.

    When the database is away the writer keeps the rows and tries again; when it stays away everybody who waits
    gets the error, later submissions fail at once, and `close` tries one last time with all that was kept.
    """

    def __init__(self, store: LedgerStore, *, patience: Patience, pause: Callable[[float], None]) -> None:
        """Start the writer.

        Args:
            store: where the rows go.
            patience: how long the database may be away.
            pause: sleeps so many seconds between two tries.
        """
        self._store = store
        self._patience = patience
        self._pause = pause
        self._lock = threading.Lock()
        self._kept: list[_Rows] = []
        self._broken: StoreError | None = None
        self._writer = Gatherer("ledger-writer", self._write, lambda rows: self._keep(rows, StoreError(_BROKEN)))

    def submit(
        self,
        *,
        started: Sequence[Charge] = (),
        ended: Sequence[Charge] = (),
        answers: Mapping[CallKey, ModelResponse] | None = None,
    ) -> Receipt[None]:
        """Hand over rows; the receipt says when they are durable. Never waits, never raises."""
        rows = _Rows(started=started, ended=ended, answers=answers or {})
        if not self._writer.hand_over(rows):
            self._keep([rows], StoreError(_CLOSED))
        return rows.receipt

    def flush(self) -> None:
        """Return when everything submitted so far is durable. Raises `StoreError`."""
        self.submit().wait()

    def close(self) -> None:
        """Write what is left and end the writer; a second call does nothing.

        Raises:
            StoreError: the database is still away; what could not be written counts as never ended.
        """
        self._writer.close()
        with self._lock:
            kept, self._kept = self._kept, []
        if kept:
            self._commit(kept)

    def _write(self, rows: list[_Rows]) -> None:
        """Write the rows and end their receipts; once the database stayed away, only keep them."""
        error = self._broken or StoreError(_BROKEN)
        written = False
        try:
            if self._broken is None:
                self._patience.run(lambda: self._commit(rows), self._pause)
                written = True
        except StoreError as away:
            error = away
        finally:
            if not written:
                self._keep(rows, error)
        if written:
            for one in rows:
                one.receipt.end(None)

    def _commit(self, rows: list[_Rows]) -> None:
        batch = _merged(rows)
        if batch.started or batch.ended or batch.answers:
            self._store.commit(batch)

    def _keep(self, rows: list[_Rows], error: StoreError) -> None:
        with self._lock:
            self._kept += rows
            if rows:
                self._broken = error
        for one in rows:
            one.receipt.fail(error)


def _merged(rows: Sequence[_Rows]) -> LedgerBatch:
    answers: dict[CallKey, ModelResponse] = {}
    for one in rows:
        answers.update(one.answers)
    return LedgerBatch(
        started=[charge for one in rows for charge in one.started],
        ended=[charge for one in rows for charge in one.ended],
        answers=answers,
    )
