"""COPRO: repeats that cost nothing, winners that val decides on."""

import pytest
from search_world import FakeRun, agent_of, problem_of

from dspy_optimization.adapters.dspy.copro import COPRO, COPROOptions
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import Split
from dspy_optimization.errors import InvalidRequestError


def searched(options: COPROOptions, kind: AgentKind = AgentKind.PREDICT) -> FakeRun:
    """Return the run of a finished search."""
    agent = agent_of(kind)
    run = FakeRun(agent)
    COPRO().search(problem_of(COPRO(), agent, options), run)
    return run


def test_what_is_evaluated_again_is_not_paid_again() -> None:
    """With several components every earlier candidate is evaluated at every depth."""
    run = searched(COPROOptions(breadth=3, depth=3), AgentKind.PIPELINE)

    assert len(run.paid) == len(set(run.asked))
    assert len(run.paid) < len(run.asked) / 2


def test_it_climbs_on_train_and_submits_the_best_few() -> None:
    """COPRO knows no val split."""
    run = searched(COPROOptions(breadth=4, depth=2, winners=2))

    assert {Split.TRAIN} == {split for _, split, _, _ in run.recorded}
    assert 2 == len(run.submitted)


def test_every_draw_is_a_draw_of_its_own() -> None:
    """Several answers to one request are several calls, each with its own place in the ledger."""
    run = searched(COPROOptions(breadth=5, depth=1))
    instructions = {part.instructions for one, *_ in run.recorded for part in one.components.values()}

    assert len(instructions) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"breadth": 1}, "breadth: wanted 2"),
        ({"depth": 0}, "depth: wanted 1"),
        ({"winners": 0}, "winners: wanted 1"),
        ({"proposal_temperature": 0.0}, "proposal_temperature: wanted more than 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    """What was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        COPROOptions(**options)
