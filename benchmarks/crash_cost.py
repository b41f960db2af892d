"""Paid calls of an optimization that is killed five times, against the same one left alone.

The world is the crash suite's (`tests/acceptance/crash_world.py`), so this runs in a checkout only. The kills are
SIGKILL, spread over baseline, search, gate and ablation; each time another process takes over.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.finding import Finding, Table
from benchmarks.house import fresh_database, temporary_postgres
from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.testing.model_server import ModelServer

TITLE = "paid calls with five kill -9 against a straight run"

ALGORITHMS = ("bootstrap_random_search", "miprov2", "gepa")
SHARES = (0.03, 0.25, 0.5, 0.75, 0.95)
"""Of the calls of the straight run: when the kills come."""

_ACCEPTANCE = Path(__file__).parent.parent / "tests" / "acceptance"


def measure() -> Finding:
    """Return calls that reached the server, straight and killed, and whether the evidence is the same."""
    sys.path.insert(0, str(_ACCEPTANCE))
    suite = importlib.import_module("crash_world")
    rows: list[tuple[str, ...]] = []
    data: dict[str, Json] = {}
    with temporary_postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        for algorithm in ALGORITHMS:
            straight, wanted, _ = _run(suite, postgres, Path(folder) / f"{algorithm}-straight", algorithm, ())
            killed, found, bill = _run(
                suite,
                postgres,
                Path(folder) / f"{algorithm}-killed",
                algorithm,
                [max(int(straight * share), 1) for share in SHARES],
            )
            same = bool(suite.evidence(wanted) == suite.evidence(found))
            rows.append(
                (
                    algorithm,
                    str(straight),
                    str(killed),
                    f"{killed - straight}",
                    f"{killed / straight:.3f}",
                    str(bill),
                    str(len(SHARES) * suite.CONCURRENCY),
                    "yes" if same else "NO",
                )
            )
            data[algorithm] = {"straight": straight, "killed": killed, "lost_on_the_bill": bill, "same_evidence": same}
    columns = (
        "algorithm", "straight", "killed 5 times", "more", "killed / straight", "lost, on the bill",
        "in flight at most", "same evidence",
    )  # fmt: skip
    table = Table(title="Calls that reached the model server", columns=columns, rows=tuple(rows))
    return Finding(
        tables=(table,),
        notes=(
            (
                "Paid twice is at most what was in flight at a kill. The bill counts as lost whatever was written as "
                "started and never as ended: also calls that still waited for a slot of the model, and answers that "
                "had come and were not yet written. It may so count more than reached the server, never fewer."
            ),
        ),
        data=data,
    )


def _run(
    suite: Any, postgres: EmbeddedPostgres, folder: Path, algorithm: str, kills: "list[int] | tuple[()]"
) -> tuple[int, Any, int]:
    """Return calls that arrived, the result, and the calls that the bill counts as lost."""
    folder.mkdir()
    trap = suite.Trap()
    with ModelServer(trap) as server:
        world = suite.World(url=fresh_database(postgres), server=server, trap=trap, folder=folder)
        optimization_id = world.accept(algorithm)
        if kills:
            for at in kills:
                world.run_killed_at(optimization_id, at)
            world.run_killed_at(optimization_id, None)
        else:
            with world.engine() as engine:
                engine.optimizer.run(optimization_id, StopSignal())
        result = world.result(optimization_id)
        return trap.calls, result, result.bill.total.lost_calls
