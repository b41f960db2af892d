"""MIPROv2: seeds, small spaces, proposals, sizes."""

import random

import dspy
import pytest
from dspy.propose.grounded_proposer import GroundedProposer
from search_world import FakeRun, agent_of, problem_of

from dspy_optimization.adapters.dspy.miprov2 import MIPROv2, MIPROv2Options
from dspy_optimization.adapters.dspy.proposing import ParallelProposer
from dspy_optimization.adapters.dspy.search import dspy_search
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import Split
from dspy_optimization.errors import InvalidRequestError

pytestmark = pytest.mark.filterwarnings("ignore:Argument ``multivariate`` is an experimental feature")


def searched(options: MIPROv2Options, kind: AgentKind = AgentKind.PREDICT, **sizes: int) -> FakeRun:
    """Return the run of a finished search."""
    agent = agent_of(kind)
    run = FakeRun(agent)
    MIPROv2().search(problem_of(MIPROv2(), agent, options, **sizes), run)
    return run


def test_seed_0_is_a_seed_of_its_own() -> None:
    """`compile(seed=0)` silently takes 9 (dspy#10321)."""
    asked = [set(searched(MIPROv2Options(candidates=3, trials=3), seed=seed).asked) for seed in (0, 9, 9)]

    assert asked[0] != asked[1]
    assert asked[1] == asked[2]


def test_a_small_space_ends_with_the_best() -> None:
    """DSPy raises "No valid program found" once every combination was fully evaluated, and all is lost."""
    options = MIPROv2Options(candidates=2, trials=40, minibatch_size=3, full_evaluation_steps=1)
    run = searched(options, val=6)
    whole = [candidate for candidate, _, results, _ in run.recorded if len(results) == 6]

    assert run.submitted[0] in whole
    # Two instructions, two sets of demos, and the baseline once more: then the study is stopped.
    assert len(whole) <= 5
    assert len(run.recorded) < 40


def test_val_is_the_val_it_was_given() -> None:
    """DSPy makes val of 80 % of train where it is given none."""
    agent = agent_of()
    problem = problem_of(MIPROv2(), agent, MIPROv2Options(candidates=3, trials=3))
    run = FakeRun(agent)
    MIPROv2().search(problem, run)
    measured = {result.example_id for _, _, results, _ in run.recorded for result in results}

    assert {example.id for example in problem.val} == measured
    assert {Split.VAL} == {split for _, split, _, _ in run.recorded}


@pytest.mark.parametrize("kind", [AgentKind.PREDICT, AgentKind.PIPELINE])
@pytest.mark.parametrize("tips", [True, False])
@pytest.mark.parametrize("history", [True, False])
def test_proposals_at_once_are_the_ones_dspy_makes(kind: AgentKind, tips: bool, history: bool) -> None:
    """Same draws, same requests, same instructions."""
    agent = agent_of(kind)
    problem = problem_of(MIPROv2(), agent)
    found, asked = [], []
    for proposer, extra in ((GroundedProposer, {}), (ParallelProposer, {"threads": 4})):
        run = FakeRun(agent)
        with dspy_search(problem, run, "miprov2") as search:
            settings = {
                "program": search.student,
                "trainset": search.trainset,
                "prompt_model": search.reflection,
                "set_tip_randomly": tips,
                "set_history_randomly": history,
                "rng": random.Random(5),
            }
            demos = {
                index: [[], [dspy.Example(augmented=True, word="a", draft="A", answer="A")], []]
                for index, _ in enumerate(search.student.predictors())
            }
            made = proposer(**settings, **extra)
            found.append(
                made.propose_instructions_for_program(
                    trainset=search.trainset, program=search.student, demo_candidates=demos, trial_logs={}, N=3
                )
            )
            without = made.propose_instructions_for_program(
                trainset=search.trainset, program=search.student, demo_candidates=None, trial_logs={}, N=2
            )
            found[-1] = (found[-1], without)
        asked.append(sorted(run.asked))

    assert found[0] == found[1]
    assert asked[0] == asked[1]


def test_instructions_alone_show_no_demos() -> None:
    """Both numbers of demos at 0."""
    run = searched(MIPROv2Options(candidates=3, trials=4, max_bootstrapped_demos=0, max_labeled_demos=0))

    assert all(part.demos == () for one, *_ in run.recorded for part in one.components.values())


def test_minibatches_are_trials_on_part_of_val() -> None:
    """They count for what they measured."""
    run = searched(MIPROv2Options(candidates=3, trials=6, minibatch_size=3, full_evaluation_steps=2), val=6)
    sizes = {len(results) for _, _, results, _ in run.recorded}

    assert {3, 6} == sizes


@pytest.mark.parametrize("auto", ["light", None])
def test_sizes_may_be_left_to_dspy(auto: str | None) -> None:
    """Nothing given is light."""
    run = searched(MIPROv2Options(auto=auto), val=4)

    assert len(run.recorded) >= 10


def test_trials_are_worked_out_from_the_candidates() -> None:
    """One number is enough."""
    run = searched(MIPROv2Options(candidates=2), val=4)

    assert run.submitted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto": "light", "candidates": 3}, "auto: wanted alone.*found auto = light with candidates"),
        ({"auto": "heavy", "trials": 3}, "with trials"),
        ({"candidates": 1}, "candidates: wanted 2 or more"),
        ({"trials": 0}, "trials: wanted 1 or more"),
        ({"max_bootstrapped_demos": -1}, "max_bootstrapped_demos: wanted 0"),
        ({"max_labeled_demos": -1}, "max_labeled_demos: wanted 0"),
        ({"max_bootstrapped_demos": 0}, "max_bootstrapped_demos: wanted 1 or more while labelled demos are shown"),
        ({"minibatch_size": 0}, "minibatch_size: wanted 1"),
        ({"full_evaluation_steps": 0}, "full_evaluation_steps: wanted 1"),
        ({"prefetch_extra": -1}, "prefetch_extra: wanted 0"),
        ({"proposal_temperature": 0.0}, "proposal_temperature: wanted more than 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    """What was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        MIPROv2Options(**options)
