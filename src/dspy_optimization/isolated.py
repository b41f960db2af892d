"""One optimization in a process of its own: the child of a worker, started by `adapters.child_process`.

    python -m dspy_optimization.isolated TENANT OPTIMIZATION WORKER

What it needs to know comes by standard input, what it has to say goes by standard output; agents, tools and metrics get
neither: what they print goes to standard error. It ends with its worker, however that ends: its standard input ends, or
the kernel ends it, or the worker's lease is found taken away. A signal to the whole group is the worker's to pass on.
"""

import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, NoReturn
from uuid import UUID

from dspy_optimization.adapters.child_line import Ended, Order
from dspy_optimization.errors import (
    CancelRequested,
    ConflictError,
    InfrastructureError,
    PauseRequested,
    StoreError,
)
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json

MODULE = "dspy_optimization.isolated"
_LEASE_SECONDS = 5.0
"""Between two looks at the worker's lease."""
_SIGNAL_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""

logger = logging.getLogger(MODULE)


class _Line:
    """The line to the worker: JSON objects, one a line. Thread-safe."""

    def __init__(self) -> None:
        """Take standard input and output over: whoever uses them from now on reads nothing and writes an error."""
        sys.stdout.flush()
        self._in: IO[bytes] = os.fdopen(os.dup(0), "rb")
        self._out: IO[bytes] = os.fdopen(os.dup(1), "wb")
        self._turn = threading.Lock()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def hear(self) -> Mapping[str, Json] | None:
        """Return what the worker says next; None when it is gone."""
        line = self._in.readline()
        if not line.endswith(b"\n"):
            return None
        said: Mapping[str, Json] = json.loads(line)
        return said

    def tell(self, said: Mapping[str, object]) -> None:
        """Say something to the worker."""
        line = json.dumps(said, default=str).encode() + b"\n"
        with self._turn, contextlib.suppress(BrokenPipeError):  # it is gone: so are we, in a moment
            self._out.write(line)
            self._out.flush()


class _ToWorker(logging.Handler):
    """Passes log records on, for the worker knows where they go and in which form."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line
        self._known = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

    def emit(self, record: logging.LogRecord) -> None:
        facts = {name: value for name, value in vars(record).items() if name not in self._known}
        if record.exc_info is not None and record.exc_info[0] is not None:
            facts["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        told = {"name": record.name, "level": record.levelno, "message": record.getMessage(), "facts": facts}
        self._line.tell({"log": told})


def main() -> None:
    """Carry one optimization out, and end."""
    line = _Line()
    faulthandler.enable()
    sys.excepthook = _end_on_defect
    _leave_signals_to_the_worker()
    opening = line.hear()
    if opening is None:
        _end_at_once()
    _end_with(int(str(opening["parent"])))
    _be_like_the_worker(opening, line)
    tenant, optimization, worker = sys.argv[1:]
    stop, begun = StopSignal(), threading.Event()
    threading.Thread(target=_obey, args=[line, stop, begun], name="orders", daemon=True).start()
    ended = _run(opening["settings"], UUID(tenant), UUID(optimization), worker, stop, begun)
    line.tell(ended)
    _flush()
    os._exit(0)  # whatever threads an agent left behind


def _run(
    settings: Json, tenant: UUID, optimization: UUID, worker: str, stop: StopSignal, begun: threading.Event
) -> Mapping[str, Json]:
    """Run the optimization and return what to tell of it; the store has the rest."""
    # Takes seconds. Until then orders are heard, and a worker that goes takes this process with it. Garbage collection
    # would add an eighth: nothing of it is garbage.
    gc.disable()
    from dspy_optimization.adapters.postgres import PostgresLeases
    from dspy_optimization.bootstrap import open_foundation
    from dspy_optimization.evaluation.ledger import OptimizationId
    from dspy_optimization.settings import settings_from_json
    from dspy_optimization.tenancy import TenantId

    gc.freeze()
    gc.enable()
    _let_libraries_speak_through_us()
    # MLflow is imported when the optimization has ended, for that takes as long as all of the above.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    try:
        with open_foundation(settings_from_json(settings), worker=worker) as foundation:
            leases = PostgresLeases(foundation.database)

            def holds() -> bool:
                return worker in {lease.worker.id for lease in leases.leases()}

            threading.Thread(target=_end_with_lease, args=[holds], name="lease", daemon=True).start()
            begun.set()
            foundation.engine(TenantId(tenant)).optimizer.run(OptimizationId(optimization), stop)
    except ConflictError as error:
        return {"ended": Ended.CONFLICT.value, "error": str(error)}
    except StoreError as error:
        return {"ended": Ended.AWAY.value, "error": str(error)}
    except InfrastructureError as error:
        return {"ended": Ended.INFRASTRUCTURE.value, "error": str(error)}
    return {"ended": Ended.DONE.value, "error": None}


def _obey(line: _Line, stop: StopSignal, begun: threading.Event) -> None:
    """Pass on what the worker wants until it is gone, and go with it."""
    while (order := line.hear()) is not None:
        why = str(order.get("why"))
        wanted = Order(str(order["stop"]))
        if wanted is Order.CANCEL:
            stop.stop(CancelRequested(why))
        else:
            stop.stop(PauseRequested(why))
        if wanted is Order.HANDOVER and not begun.is_set():
            # Nothing has changed yet: there is nothing to wait for.
            line.tell({"ended": Ended.DONE.value, "error": None})
            os._exit(0)
    _end_at_once()


def _end_with_lease(holds: Callable[[], bool]) -> None:
    """End once the worker's lease is taken away: others were given its optimizations, this one among them."""
    while True:
        time.sleep(_LEASE_SECONDS)
        try:
            if holds():
                continue
        except StoreError as error:
            logger.warning("Lease not seen", extra={"action": "lease_not_seen", "error": str(error)})
            continue
        logger.warning("Worker lost its lease", extra={"action": "child_without_lease"})
        _end_at_once()


def _end_at_once() -> NoReturn:
    """End without a word, and with this process all that agents have started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when the worker dies, also while it can do nothing itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SIGNAL_WITH_PARENT, int(signal.SIGKILL))
    if os.getppid() != parent:
        _end_at_once()  # it died before


def _end_on_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say what broke and end, whatever threads an agent left behind: the worker reads it and fails the optimization."""
    traceback.print_exception(kind, error, trace)
    _flush()
    os._exit(1)


def _leave_signals_to_the_worker() -> None:
    """Go on when the whole group is told to end: the worker is told as well, and says when to hand over."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not ignored: what agents start would ignore it too.
        signal.signal(number, lambda *_: None)


def _be_like_the_worker(opening: Mapping[str, Json], line: _Line) -> None:
    paths, levels = opening["paths"], opening["levels"]
    if isinstance(paths, list):
        sys.path[:] = [str(path) for path in paths]
    sys.setswitchinterval(float(str(opening["switch_seconds"])))
    root = logging.getLogger()
    root.handlers = [_ToWorker(line)]
    if isinstance(levels, dict):
        for name, level in levels.items():
            logging.getLogger(name).setLevel(int(str(level)))


def _let_libraries_speak_through_us() -> None:
    """Make libraries that brought handlers of their own speak through ours, at its level."""
    for name in list(logging.root.manager.loggerDict):
        own = logging.getLogger(name)
        if own.handlers:
            own.handlers = []
            own.propagate = True
            own.setLevel(logging.NOTSET)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


if __name__ == "__main__":
    main()
