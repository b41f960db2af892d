"""Models and databases that fail: retried, paused, never a score of 0."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from crash_world import Trap, World, evidence

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.testing.model_server import (
    ModelServer,
    Received,
    Reply,
    garbage,
    hang_up,
    refused,
    server_error,
    silence,
    too_many_requests,
)

pytestmark = pytest.mark.crash

ALGORITHM = "bootstrap_random_search"


def _run(world: World, optimization_id: OptimizationId) -> Optimization:
    with world.engine() as engine:
        return engine.optimizer.run(optimization_id, StopSignal())


def _every(count: int, *replies: Reply) -> Callable[[int, Received], Reply | None]:
    """Answer every so-manieth call badly, with one reply after the other."""

    def weather(number: int, received: Received) -> Reply | None:
        del received
        return replies[number // count % len(replies)] if number % count == 0 else None

    return weather


def test_what_passes_is_retried_and_changes_nothing(world_of: Callable[[str], World]) -> None:
    """429 with and without Retry-After, 500, 503, garbage, a closed connection: the result of a calm day."""
    calm, stormy = world_of("calm"), replace(world_of("stormy"), attempts=8)
    calm_id, stormy_id = calm.accept(ALGORITHM), stormy.accept(ALGORITHM)
    stormy.trap.weather = _every(
        9, too_many_requests("0"), too_many_requests(), server_error(500), garbage(), hang_up(), server_error(503)
    )

    _run(calm, calm_id)
    ended = _run(stormy, stormy_id)

    wanted, found = calm.result(calm_id), stormy.result(stormy_id)
    assert (OptimizationStatus.COMPLETED, None) == (ended.status, ended.error)
    assert evidence(wanted) == evidence(found)
    assert wanted.bill.total.calls == found.bill.total.calls < stormy.trap.calls


def test_a_call_that_is_never_answered_is_given_up_and_tried_again(world_of: Callable[[str], World]) -> None:
    """Silence for two calls costs a time-out each, and no score."""
    calm, silent = world_of("calm"), replace(world_of("silent"), timeout_seconds=1.0)
    calm_id, silent_id = calm.accept(ALGORITHM), silent.accept(ALGORITHM)
    silent.trap.weather = lambda number, _: silence() if number in {20, 70} else None

    _run(calm, calm_id)
    ended = _run(silent, silent_id)

    assert OptimizationStatus.COMPLETED is ended.status
    assert evidence(calm.result(calm_id)) == evidence(silent.result(silent_id))


@pytest.mark.parametrize(
    ("reply", "status", "says"),
    [
        (server_error(500), OptimizationStatus.PAUSED, "500"),
        (too_many_requests("0"), OptimizationStatus.PAUSED, "429.*the deadline is 5 s"),
        (garbage(), OptimizationStatus.PAUSED, "JSON"),
        (refused(401, "Incorrect API key provided"), OptimizationStatus.FAILED, "401"),
    ],
)
def test_what_does_not_pass_stops_the_work_and_says_what_to_do(
    reply: Reply, status: OptimizationStatus, says: str, world_of: Callable[[str], World]
) -> None:
    """Dead from the 40th call on: no verdict, no false zero; once it is back, the result of a calm day.

    A model that is busy is asked for as long as its deadline says, whatever the attempts.
    """
    calm, dead = world_of("calm"), replace(world_of("dead"), attempts=2, deadline_seconds=5.0)
    calm_id, dead_id = calm.accept(ALGORITHM), dead.accept(ALGORITHM)
    dead.trap.weather = lambda number, _: reply if number >= 40 else None

    _run(calm, calm_id)
    stopped = _run(dead, dead_id)
    with dead.engine() as engine:
        kept = engine.stores.results.result(dead_id)
        scores = [trial.score for trial in engine.stores.trials.trials(dead_id)]
    dead.trap.weather = lambda number, _: None
    ended = _run(dead, dead_id)

    assert status is stopped.status
    assert stopped.error is not None
    assert re.search(says, stopped.error, re.DOTALL) is not None, stopped.error
    assert kept is None
    assert all(score > 0.2 for score in scores)
    assert OptimizationStatus.COMPLETED is ended.status
    assert evidence(calm.result(calm_id)) == evidence(dead.result(dead_id))


def test_the_database_may_stop_and_come_back(world_of: Callable[[str], World], tmp_path: Path) -> None:
    """An immediate stop in the middle, back after two seconds: the work goes on, nothing is lost or paid twice."""
    calm = world_of("calm")
    calm_id = calm.accept(ALGORITHM)
    _run(calm, calm_id)
    folder = Path("/var/tmp") / f"dspy-opt-weather-{tmp_path.name}-{time.time_ns()}"
    with EmbeddedPostgres.open(folder) as postgres:
        trap = Trap()
        with ModelServer(trap) as server:
            world = World(url=postgres.url, server=server, trap=trap, folder=tmp_path)
            shaken = world.accept(ALGORITHM)

            def pull_the_plug(number: int, received: Received) -> Reply | None:
                del received
                if number == 60:
                    cluster = postgres._cluster
                    cluster._call("pg_ctl", "stop", "-m", "immediate", "-D", str(cluster.path))
                    time.sleep(2.0)
                    postgres.ensure_running()
                return None

            trap.weather = pull_the_plug
            ended = _run(world, shaken)
            if ended.status is not OptimizationStatus.COMPLETED:
                assert ended.error is not None
                assert "database" in ended.error
                ended = _run(world, shaken)

            found = world.result(shaken)
            assert OptimizationStatus.COMPLETED is ended.status
            assert evidence(calm.result(calm_id)) == evidence(found)
            assert calm.trap.calls <= trap.calls <= found.bill.total.calls
