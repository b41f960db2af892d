"""Bootstrapping: what may be a demo, and how it is taken ahead."""

import pytest
from search_world import FakeRun, Shouter, agent_of, problem_of, shouts

from dspy_optimization.adapters.dspy.bootstrap import (
    BootstrapFewShot,
    BootstrapOptions,
    BootstrapRandomSearch,
    LabeledFewShot,
    LabeledFewShotOptions,
    RandomSearchOptions,
)
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Score
from dspy_optimization.errors import InvalidRequestError


def generous(example: Example, prediction: Prediction) -> Score:
    """Half a point for any answer, a whole one for the right one."""
    exact = shouts(example, prediction)
    return exact if exact.failure is not None else Score(value=0.5 + exact.value / 2)


def demos_of(options: BootstrapOptions, **settings: object) -> list[str]:
    """Return what the bootstrapped demos answer."""
    agent = agent_of()
    run = FakeRun(agent, **settings)
    BootstrapFewShot().search(problem_of(BootstrapFewShot(), agent, options), run)
    (candidate,) = run.submitted
    return [str(demo["answer"]) for part in candidate.components.values() for demo in part.demos]


def test_only_full_marks_make_a_demo() -> None:
    """DSPy takes any truthy score for a success: half a point would do."""
    demos = demos_of(BootstrapOptions(max_labeled_demos=0), metric=generous)

    assert demos
    assert all(answer.isupper() for answer in demos)


def test_a_lower_bar_lets_lesser_answers_in() -> None:
    """`success_score` is compared with the utility."""
    demos = demos_of(BootstrapOptions(max_labeled_demos=0, success_score=0.5), metric=generous)

    assert 4 == len(demos)
    assert not all(answer.isupper() for answer in demos)


def test_a_bar_of_zero_is_a_bar() -> None:
    """DSPy ignores a threshold of 0; here a failed run still makes no demo."""
    demos = demos_of(BootstrapOptions(max_labeled_demos=0, success_score=0.0), model=Shouter(garbled=lambda word: True))

    assert [] == demos


def test_labelled_examples_fill_up() -> None:
    """Bootstrapped demos come first, labelled ones after them up to the cap."""
    demos = demos_of(BootstrapOptions(max_bootstrapped_demos=1, max_labeled_demos=4))

    assert 4 == len(demos)
    assert all(answer.isupper() for answer in demos)


@pytest.mark.parametrize("kind", [AgentKind.PREDICT, AgentKind.CHAIN_OF_THOUGHT, AgentKind.PIPELINE])
@pytest.mark.parametrize("demos", [1, 3])
def test_running_ahead_pays_for_nothing_more(kind: AgentKind, demos: int) -> None:
    """The calls made ahead are the calls DSPy makes anyway."""
    paid, wide = [], []
    for prefetch in (False, True):
        agent = agent_of(kind)
        options = BootstrapOptions(max_bootstrapped_demos=demos, prefetch=prefetch)
        run = FakeRun(agent, latency_seconds=0.002)
        BootstrapFewShot().search(problem_of(BootstrapFewShot(), agent, options, val=1), run)
        paid.append(sorted(run.paid))
        wide.append(run.most_in_flight)

    assert paid[0] == paid[1]
    assert (1, demos > 1) == (wide[0], wide[1] > 1)


def test_running_further_ahead_pays_at_most_for_what_was_asked() -> None:
    """`prefetch_extra` examples that are not needed have cost one run each."""
    paid = []
    for extra in (0, 2):
        agent = agent_of()
        run = FakeRun(agent, latency_seconds=0.002)
        options = BootstrapOptions(max_bootstrapped_demos=1, prefetch_extra=extra)
        BootstrapFewShot().search(problem_of(BootstrapFewShot(), agent, options, val=1), run)
        paid.append(set(run.paid))

    assert paid[0] <= paid[1]
    assert len(paid[1]) - len(paid[0]) <= 2


def test_more_rounds_give_more_tries() -> None:
    """From the second round on an example is drawn afresh at temperature 1."""
    few, many = (
        demos_of(BootstrapOptions(max_bootstrapped_demos=8, max_labeled_demos=0, max_rounds=rounds))
        for rounds in (1, 3)
    )

    assert len(few) < len(many)


def test_one_algorithm_object_serves_many_searches() -> None:
    """DSPy's optimizers add up errors over searches; ours keep nothing."""
    algorithm = BootstrapRandomSearch()
    results = []
    for _ in range(2):
        agent = agent_of()
        run = FakeRun(agent, model=Shouter(garbled=lambda word: word < "m"))
        algorithm.search(problem_of(algorithm, agent, RandomSearchOptions(candidates=2)), run)
        results.append((run.submitted, [candidate for candidate, *_ in run.recorded]))

    assert results[0] == results[1]


def test_random_search_tries_so_many_sets() -> None:
    """Each set is a trial: none, labelled, unshuffled, and the random ones."""
    agent = agent_of()
    run = FakeRun(agent)
    BootstrapRandomSearch().search(problem_of(BootstrapRandomSearch(), agent, RandomSearchOptions(candidates=2)), run)

    assert 5 == len(run.recorded)
    assert run.recorded[0][0] == agent.baseline


def test_seeds_draw_other_demos() -> None:
    """DSPy's own seeds are fixed; ours decide the order of the examples."""
    candidates = set()
    for seed in range(4):
        agent = agent_of()
        run = FakeRun(agent)
        problem = problem_of(LabeledFewShot(), agent, LabeledFewShotOptions(demos=2), seed=seed)
        LabeledFewShot().search(problem, run)
        candidates |= set(run.submitted)

    assert len(candidates) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabeledFewShotOptions(demos=0), "demos: wanted 1 or more; found 0"),
        (lambda: LabeledFewShotOptions(sets=0), "sets: wanted 1 or more"),
        (lambda: BootstrapOptions(max_bootstrapped_demos=0), "max_bootstrapped_demos: wanted 1 or more"),
        (lambda: BootstrapOptions(max_labeled_demos=-1), "max_labeled_demos: wanted 0 or more"),
        (lambda: BootstrapOptions(max_rounds=0), "max_rounds: wanted 1"),
        (lambda: BootstrapOptions(prefetch_extra=-1), "prefetch_extra: wanted 0"),
        (lambda: RandomSearchOptions(candidates=0), "candidates: wanted 1"),
        (lambda: RandomSearchOptions(max_rounds=0), "max_rounds: wanted 1"),
    ],
)
def test_options_out_of_range_are_refused(make: object, message: str) -> None:
    """What was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        make()
