"""What is measured is paid once, recorded as it came, and the same whoever answered first."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from evolution_world import RIGHT, SHORT, MadeUpRun, Place, PlainAgent, searched
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.algorithms.measuring import Measurements, scaled
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.errors import CancelRequested

PLACE = Place(n_val=12)
OTHERS = [
    Candidate(
        components={name: ComponentValue(instructions=f"Say {number}.") for name in PLACE.agent.baseline.components}
    )
    for number in range(8)
]


def table_of(run: MadeUpRun, *, concurrency: int = 8, objectives: Objectives | None = None) -> Measurements:
    problem = replace(PLACE.problem(None), concurrency=concurrency)
    if objectives is not None:
        problem = replace(problem, objectives=objectives)
    table = Measurements(problem, run.as_run)
    for candidate in OTHERS:
        table.row(candidate)
    return table


wanted_cells = st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, 11), max_size=12), max_size=8)


@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(wanted_cells, max_size=4), concurrency=st.sampled_from((1, 4, 16)))
def test_no_cell_is_run_twice(rounds: list[Mapping[int, list[int]]], concurrency: int) -> None:
    """Whatever is wanted how often; what is known is what was wanted, and trials are what came."""
    run = MadeUpRun()
    table = table_of(run, concurrency=concurrency)

    for number, wanted in enumerate(rounds):
        table.measure({row: list(dict.fromkeys(columns)) for row, columns in wanted.items()}, number)

    expected = {(row, column) for wanted in rounds for row, columns in wanted.items() for column in columns}
    cells = {(OTHERS[row].fingerprint, table.examples[column].id) for row, column in expected}
    assert Counter(cells) == Counter(run.asked)
    assert len(cells) == table.cells == sum(len(results) for _, results, _ in run.trials)
    for row in range(8):
        columns = sorted(column for own, column in expected if own == row)
        assert columns == table.seen(row).tolist()
        assert sorted(set(range(12)) - set(columns)) == table.missing(row).tolist()
    known = ~np.isnan(table.utilities())
    assert expected == set(zip(*(places.tolist() for places in np.nonzero(known)), strict=True))


def test_a_column_that_is_wanted_twice_at_once_is_run_once() -> None:
    run = MadeUpRun()
    table = table_of(run)

    table.measure({0: [3, 3, 4, 3]}, 1)

    assert 2 == len(run.asked) == table.cells


def test_order_and_threads_decide_nothing() -> None:
    """Slow rows first or last, one thread or four: the same trials in the same order, the same table."""
    wanted = {row: np.arange(row, 12) for row in (5, 0, 3, 7, 1, 2)}

    def measured(concurrency: int, slow: int | None) -> tuple[object, ...]:
        def wait(candidate: Candidate) -> None:
            if slow is not None:
                time.sleep(0.004 * ((OTHERS.index(candidate) * slow) % 7))

        run = MadeUpRun(before=wait)
        table = table_of(run, concurrency=concurrency)
        table.measure(wanted, 3)
        return [(who, tuple(one.example_id for one in results)) for who, results, _ in run.trials], table.utilities()

    trials, utilities = measured(1, None)
    assert [OTHERS[row].fingerprint for row in sorted(wanted)] == [who for who, _ in trials]
    for concurrency, slow in ((16, 1), (16, 3), (8, 6)):
        again, others = measured(concurrency, slow)
        assert trials == again
        assert np.array_equal(utilities, others, equal_nan=True)


def test_trials_are_what_evaluate_returned() -> None:
    """On the real evaluator: the very results, in their order, with the round."""

    class Measuring:
        def search(self, problem: Problem, run: SearchRun) -> None:
            table = Measurements(problem, run)
            for candidate in (problem.baseline, *OTHERS[:3]):
                table.row(candidate)
            table.measure({0: [2, 0], 1: [5], 2: [1, 2, 3]}, 4)
            table.measure({0: [0, 1]}, 5)

    found = searched(PLACE, Measuring(), None)  # type: ignore[arg-type]

    assert found.ended is None
    ids = [example.id for example in PLACE.val]
    assert [(4, [ids[2], ids[0]]), (4, [ids[5]]), (4, [ids[1], ids[2], ids[3]]), (5, [ids[1]])] == [
        (one.iteration, [result.example_id for result in one.results]) for one in found.run.trials
    ]
    assert 7 == len(found.run.cells) == len(set(found.run.cells)) == found.paid


def test_the_end_passes_through_and_nothing_is_begun_after_it() -> None:
    """One of four rows at once meets the end; those that run are waited for, the others never begin."""
    began: list[str] = []
    four = threading.Barrier(4)

    def meets_end(candidate: Candidate) -> None:
        began.append(candidate.fingerprint)
        four.wait(timeout=10)
        if candidate == OTHERS[1]:
            run.ended = True
            raise CancelRequested("enough")
        time.sleep(0.05)

    run = MadeUpRun(before=meets_end)
    table = table_of(run, concurrency=16)

    with pytest.raises(CancelRequested, match="enough"):
        table.measure(dict.fromkeys(range(8), range(6)), 1)

    assert 4 == len(began)
    assert [] == run.trials


@pytest.mark.parametrize("concurrency", [1, 16])
def test_rows_that_were_complete_at_the_end_are_known(concurrency: int) -> None:
    """They were paid for, and say who is best; no trial can be kept any more."""
    paid = threading.Event()

    def meets_end(candidate: Candidate) -> None:
        if candidate == OTHERS[2]:
            assert paid.wait(timeout=10)
            run.ended = True
            raise CancelRequested("enough")
        if candidate == OTHERS[1]:
            paid.set()

    run = MadeUpRun(before=meets_end)
    table = table_of(run, concurrency=concurrency)

    with pytest.raises(CancelRequested, match="enough"):
        table.measure(dict.fromkeys(range(3), range(6)), 1)

    assert [6, 0] == [len(table.seen(row)) for row in (0, 2)]
    assert table.cells == sum(len(table.seen(row)) for row in range(3))
    assert [] == run.trials


def test_calls_that_a_run_takes_are_counted() -> None:
    """By the allowance that went; one call where nobody counts, and before anything was measured."""
    run = MadeUpRun(allowance=500, calls_a_run=2)
    table = table_of(run)
    assert 1.0 == table.calls_a_run

    table.measure({0: [0, 1], 1: [4]}, 1)
    table.measure({0: [0, 1, 2]}, 1)

    assert 2.0 == table.calls_a_run
    unbounded = table_of(MadeUpRun())
    unbounded.measure({0: [0]}, 1)
    assert 1.0 == unbounded.calls_a_run


def test_calls_of_an_agent_of_two_steps_on_a_ledger() -> None:
    """Its allowance lasts for half as many runs."""

    class Measuring:
        def search(self, problem: Problem, run: SearchRun) -> None:
            table = Measurements(problem, run)
            table.measure({table.row(problem.baseline): range(10)}, 1)
            told.extend([table.calls_a_run, run.calls_left])

    told: list[object] = []
    place = Place(agent=PlainAgent(before=("read",)), n_val=12)

    found = searched(place, Measuring(), None, calls=50)  # type: ignore[arg-type]

    assert found.ended is None
    assert [2.0, 30] == told


LOSS = Objective(metric="loss", direction=Direction.MINIMIZE, weight=3.0)
any_value = st.floats(-50.0, 200.0, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    low=any_value,
    high=any_value,
    goals=st.sampled_from(((RIGHT,), (LOSS,), (RIGHT, LOSS))),
    ceiling=st.sampled_from((None, 1.0, 100.0)),
)
def test_utilities_are_between_0_and_1_and_keep_who_is_better(
    seed: int, low: float, high: float, goals: tuple[Objective, ...], ceiling: float | None
) -> None:
    """Of metrics to raise and to lower, of several at once, of metrics without bounds and below 0."""
    dice = np.random.default_rng(seed)
    drawn = {
        (candidate.fingerprint, name): float(dice.uniform(min(low, high), max(low, high)))
        for candidate in OTHERS
        for name in ("right", "loss")
    }
    objectives = Objectives(items=goals, scales={"loss": 7.0}, ceilings={} if ceiling is None else {"right": ceiling})
    run = MadeUpRun(metrics=("right", "loss"), value=lambda candidate, _, name: drawn[candidate.fingerprint, name])
    table = table_of(run, objectives=objectives)
    table.measure(dict.fromkeys(range(6), (0, 5)), 1)

    for goal in (None, *table.goals):
        found = table.utilities(goal)
        known = found[~np.isnan(found)]
        scores = [
            {name: Score(value=drawn[candidate.fingerprint, name]) for name in ("right", "loss")}
            for candidate in OTHERS[:6]
        ]
        plain = [objectives.scalar(one) if goal is None else objectives.utility(goal, one) for one in scores]
        assert 12 == len(known)
        assert known.min() >= 0.0
        assert known.max() <= 1.0
        for one, other in zip(*np.triu_indices(6, 1), strict=True):
            apart = plain[one] - plain[other]
            assert apart * (found[one, 0] - found[other, 0]) >= -1e-12 * max(1.0, abs(apart))


def test_where_the_best_value_is_known_utilities_are_shares_of_it() -> None:
    """A metric from 0 to 100 of which 40 was met is worth 0.4, not 1."""
    objectives = Objectives(items=(RIGHT,), ceilings={"right": 100.0})

    assert [0.4, 0.1] == scaled(np.array([40.0, 10.0]), (RIGHT,), objectives).tolist()
    assert [1.0, 0.25] == scaled(np.array([4.0, 1.0]), (RIGHT,), Objectives(items=(RIGHT,))).tolist()
    assert [0.75, 0.0] == scaled(
        np.array([2.0, -1.0]), (RIGHT,), Objectives(items=(RIGHT,), ceilings={"right": 3.0})
    ).tolist()
    assert [0.5] == scaled(np.array([0.5]), (SHORT,), Objectives(items=(SHORT,), scales={"tokens": 10.0})).tolist()


COST = Objective(metric="cost", direction=Direction.MINIMIZE, guardrail=True, margin=0.1)


@pytest.mark.parametrize(
    ("direction", "value", "excess"),
    [
        (Direction.MINIMIZE, 10.0, 0.0),
        (Direction.MINIMIZE, 11.0, 0.0),
        (Direction.MINIMIZE, 12.0, 1.0),
        (Direction.MINIMIZE, 14.0, 3.0),
        (Direction.MINIMIZE, 2.0, 0.0),
        (Direction.MAXIMIZE, 9.0, 0.0),
        (Direction.MAXIMIZE, 8.0, 1.0),
        (Direction.MAXIMIZE, 20.0, 0.0),
    ],
)
def test_guardrails_are_hurt_beyond_their_margin(direction: Direction, value: float, excess: float) -> None:
    """A tenth of 10 is allowed; twice that counts 1. Guardrails are no goals."""
    objectives = Objectives(items=(RIGHT, replace(COST, direction=direction)), scales={"cost": 10.0})
    run = MadeUpRun(metrics=("right", "cost"), value=lambda _c, _e, name: value if name == "cost" else 1.0)
    table = table_of(run, objectives=objectives)
    table.measure({1: range(12), 2: range(3)}, 1)

    assert [0.0, excess, excess, 0.0] == pytest.approx(table.excess()[:4].tolist())
    assert (RIGHT,) == table.goals
    assert 0.0 == table_of(run).excess().max()


def test_without_a_reference_no_guardrail_is_hurt() -> None:
    run = MadeUpRun(metrics=("right", "cost"), value=lambda _c, _e, name: 99.0 if name == "cost" else 1.0)
    table = table_of(run, objectives=Objectives(items=(RIGHT, COST)))
    table.measure({1: range(12)}, 1)

    assert 0.0 == table.excess().max()


def test_a_few_unlucky_answers_are_no_reason_to_drop_anybody() -> None:
    """Candidates exactly as good as the baseline, right 8 times of 10, on 10 of 200 examples: few are held to hurt a
    guardrail that allows a tenth less; all that truly do are found when everything is measured."""
    place = Place(n_val=60)
    keep = Objective(metric="safe", guardrail=True, margin=0.1)
    objectives = Objectives(items=(RIGHT, keep), scales={"safe": 0.8})
    dice = np.random.default_rng(0)
    candidates = [
        Candidate(
            components={name: ComponentValue(instructions=f"No. {number}") for name in place.agent.baseline.components}
        )
        for number in range(300)
    ]
    level = {one.fingerprint: 0.8 if number < 200 else 0.5 for number, one in enumerate(candidates)}
    run = MadeUpRun(metrics=("right", "safe"), value=lambda one, _e, _n: float(dice.random() < level[one.fingerprint]))
    table = Measurements(replace(place.problem(None), objectives=objectives, concurrency=1), run.as_run)
    for candidate in candidates:
        table.row(candidate)

    table.measure(dict.fromkeys(range(300), range(10)), 1)
    early = table.excess() > 0.0
    table.measure(dict.fromkeys(range(200, 300), range(60)), 2)
    late = table.excess() > 0.0

    assert early[:200].mean() < 0.08
    assert early[200:].mean() > 0.4
    assert late[200:].mean() > 0.95


def test_dear_examples_are_dear_to_the_baseline_too() -> None:
    """On the dearest third of the examples: who takes what the baseline takes there hurts nothing; half more does."""

    dear = {one.id for one in sorted(PLACE.problem(None).val, key=lambda one: one.id)[:4]}
    thrifty, lavish = OTHERS[1], OTHERS[2]

    def cost(candidate: Candidate, example: Example, name: str) -> float:
        more = 1.5 if candidate == lavish else 1.0
        return 1.0 if name != "cost" else more * (30.0 if example.id in dear else 5.0)

    objectives = Objectives(items=(RIGHT, COST), scales={"cost": (4 * 30.0 + 8 * 5.0) / 12})
    table = table_of(MadeUpRun(metrics=("right", "cost"), value=cost), objectives=objectives)
    baseline = table.row(PLACE.agent.baseline)

    table.measure({table.row(thrifty): range(4), table.row(lavish): range(4)}, 1)
    unpaired = table.excess()
    table.measure({baseline: range(4)}, 2)
    paired = table.excess()

    assert unpaired[1] > 0.0
    assert [0.0, 0.0] == [paired[baseline], paired[1]]
    assert paired[2] > 1.0


def test_means_are_those_of_the_metric_itself() -> None:
    run = MadeUpRun(value=lambda _c, example, _n: float(int(example.id) % 2))
    table = table_of(run)
    table.measure({0: [0, 1], 1: [0]}, 1)

    assert pytest.approx([0.5, 0.0, np.nan], nan_ok=True) == table.means(RIGHT)[:3]
