"""Carries an optimization out in a thread of its own while the main thread shows it and listens to Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.cli.following import LOOK_SECONDS, Display, Follower
from dspy_optimization.engine import Engine
from dspy_optimization.errors import PauseRequested
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.request import Optimization

_PAUSING = "Pausing after the calls in flight; nothing that was answered is lost. Ctrl-C again aborts at once."


def carry_out(
    engine: Engine, optimization_id: OptimizationId, display: Display, *, resumed: bool = False
) -> Optimization:
    """Work on it until it ends or pauses, and return where it stands then.

    The first SIGINT or SIGTERM pauses, the second ends the process with code 130. Both can be resumed.

    Args:
        engine: open.
        optimization_id: accepted before.
        display: ended when this returns.
        resumed: True: what happened before is taken in and not told again.
    Raises:
        EngineError: what `Optimizer.run` raises.
    """
    stop = StopSignal()
    follower = Follower(engine.stores, optimization_id, display, lambda: datetime.now(UTC))
    if resumed:
        follower.skip()
    done = threading.Event()

    def work() -> Optimization:
        try:
            return engine.optimizer.run(optimization_id, stop)
        finally:
            done.set()

    def pause() -> None:
        display.note(_PAUSING)
        stop.stop(PauseRequested("Ctrl-C"))

    with ThreadPoolExecutor(1, thread_name_prefix="optimization") as pool, interruptible(pause):
        running = pool.submit(work)
        try:
            while not done.wait(LOOK_SECONDS):
                follower.look()
            follower.look()
        except KeyboardInterrupt:
            display.end()
            abort(optimization_id)
        except BaseException:
            stop.stop(PauseRequested("what shows the progress failed"))
            raise
        finally:
            display.end()
        return running.result()


@contextmanager
def interruptible(first: Callable[[], None]) -> Iterator[None]:
    """Call `first` for the first SIGINT or SIGTERM inside the block; raise `KeyboardInterrupt` for the second."""
    asked: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        first()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def abort(optimization_id: OptimizationId) -> None:
    """End the process at once: a call to a model cannot be interrupted, and the ledger has all that was answered."""
    sys.stderr.write(f"Aborted. Go on with: dspy-opt runs resume {optimization_id}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(ExitCode.INTERRUPTED)
