"""kill -9 at any moment: nothing is lost, nothing is paid twice beyond what was in flight, the result is the same."""

from collections.abc import Callable

import pytest
from crash_world import ALGORITHMS, WORKERS, World, evidence

from dspy_optimization.evaluation.stop import StopSignal

pytestmark = pytest.mark.crash


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
    assert evidence(wanted) == evidence(found)
    bill = found.bill.total
    assert wanted.bill.total.calls == total
    assert wanted.bill.total.calls == bill.calls - bill.lost_calls
    assert crashing.trap.calls <= total + 5 * WORKERS
    assert crashing.trap.calls <= bill.calls <= crashing.trap.calls + 5 * WORKERS
