"""The contract of algorithms, and that it does what it is for."""

import pytest
from demo_order import DemoOrder, DemoOrderOptions

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.testing.algorithm_contract import AlgorithmContract
from dspy_optimization.testing.algorithm_world import Models, Trouble, build_world, world_run
from dspy_optimization.testing.memory_ledger import MemoryLedger


class TestDemoOrder(AlgorithmContract):
    """Deterministic, stoppable, resumable, modest."""

    algorithm = DemoOrder()


def test_it_finds_demos_that_help() -> None:
    """The model of the world follows demos: what is submitted shows some, and is better on val than the agent was."""
    world = build_world(train=16, val=16)
    problem = world.problem(DemoOrderOptions())
    with world_run(world, MemoryLedger(), Models(), Trouble(), concurrency=4) as run:
        before = sum(problem.objectives.scalar(one.scores) for one in run.evaluate(problem.baseline, problem.val))
        DemoOrder().search(problem, run)

    (found,) = run.submitted
    assert 1 <= len(found.components["answer"].demos) <= 4
    assert sum(problem.objectives.scalar(one.scores) for one in run.recorded[-1].results) > before


def test_options_out_of_range_are_refused() -> None:
    """By name."""
    with pytest.raises(InvalidRequestError, match="rounds: wanted: at least 1; found: 0"):
        DemoOrderOptions(rounds=0)
