"""kill -9 at any moment: nothing is lost, nothing is paid twice beyond what was in flight, the result is the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from crash_world import ALGORITHMS, CONCURRENCY, Trap, World

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.testing.model_server import ModelServer

pytestmark = pytest.mark.crash


@pytest.fixture
def world_of(postgres: EmbeddedPostgres, template: str, tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Make worlds, each with a database of its own."""
    worlds: dict[str, World] = {}

    def build(name: str) -> World:
        database = f"{name}_{uuid4().hex}"
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
        trap = Trap()
        folder = tmp_path / name
        folder.mkdir()
        world = World(url=postgres.url_of(database), server=ModelServer(trap), trap=trap, folder=folder)
        worlds[database] = world
        return world

    yield build
    for database, world in worlds.items():
        world.server.close()
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")


def _evidence(result: OptimizationResult) -> object:
    """Return what must not depend on how often the process died."""
    assert result.validated is not None
    return (
        result.optimized.fingerprint,
        result.algorithm_used,
        result.validated.verdict,
        {name: (one.difference, one.p_value) for name, one in result.validated.objectives.items()},
        [(one.component, one.part, one.worth) for one in result.key_improvements],
        result.trials,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_killed_in_every_phase_it_ends_as_if_nothing_had_happened(
    algorithm: str, world_of: Callable[[str], World]
) -> None:
    """Five kills spread over baseline, search, gate and ablation; each time another process takes over."""
    straight, crashing = world_of("straight"), world_of("crashing")
    optimization_id = straight.accept(algorithm)
    with straight.engine() as engine:
        engine.optimizer.run(optimization_id, StopSignal())
    wanted = straight.result(optimization_id)
    total = straight.trap.calls
    crashed_id = crashing.accept(algorithm)

    for share in (0.03, 0.25, 0.5, 0.75, 0.95):
        code, _ = crashing.run_killed_at(crashed_id, max(int(total * share), 1))
        assert -9 == code
    code, said = crashing.run_killed_at(crashed_id, None)

    found = crashing.result(crashed_id)
    assert (0, "completed \n") == (code, said)
    assert _evidence(wanted) == _evidence(found)
    bill = found.bill.total
    assert wanted.bill.total.calls == total
    assert wanted.bill.total.calls == bill.calls - bill.lost_calls
    assert crashing.trap.calls <= total + 5 * CONCURRENCY
    assert crashing.trap.calls <= bill.calls <= crashing.trap.calls + 5 * CONCURRENCY
