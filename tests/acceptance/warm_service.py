"""What processes of the service do that `forked` begins; whoever imports this has imported all they need."""

import signal
import sys
import threading
from functools import partial

import uvicorn  # noqa: F401 - `serve` imports it when it runs
from forked import SERVES
from schedule_child import fire

from dspy_optimization.adapters.mlflow_tracking import load_mlflow
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.bootstrap import open_engine
from dspy_optimization.cli import main
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.serving import LEASE_SECONDS, ServiceRole, open_serving
from dspy_optimization.settings import read_settings
from dspy_optimization.web import app

__all__ = ["command_line", "fire", "optimize", "work"]

load_mlflow()
loaded_algorithms = AlgorithmRegistry.of_environment().names


def optimize(optimization_id: OptimizationId) -> None:
    """Work on an optimization until it ends, and say how."""
    with open_engine(read_settings(), track=False) as engine:
        ended = engine.optimizer.run(optimization_id, StopSignal())
        sys.stdout.write(f"{ended.status.value} {ended.error or ''}\n")


def command_line(lease_seconds: float, *words: str) -> None:
    """Be `dspy-opt` whose processes are taken for dead sooner.

    There is no setting for the lease, and a test that waits for fifteen seconds at every blow is not run often.
    """
    app.open_serving = partial(app.open_serving, lease_seconds=lease_seconds)
    sys.argv = ["dspy-opt", *words]
    main()


def work(lease_seconds: float = LEASE_SECONDS) -> None:
    """Serve jobs until told to go, and say so when ready."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with open_serving(read_settings(), ServiceRole.WORKER, lease_seconds=lease_seconds) as serving:
        sys.stdout.write(f"{SERVES} {serving.worker.id}\n")
        sys.stdout.flush()
        told.wait()
