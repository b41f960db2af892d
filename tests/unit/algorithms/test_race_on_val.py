"""Races that others hold: who runs, what is known before, what is paid, who is named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from evolution_world import MadeUpRun, Place

from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.example import Example
from dspy_optimization.algorithms.problem import Problem
from dspy_optimization.algorithms.racing import Method, RacePlan, race_on_val
from dspy_optimization.compute.ranking import Floats
from dspy_optimization.errors import AlgorithmError, TurnOver
from dspy_optimization.evaluation.trial import ExampleResult

N_VAL = 30
PLACE = Place(n_val=N_VAL)
CANDIDATES = [
    PLACE.agent.baseline,
    *(
        Candidate(
            components={name: ComponentValue(instructions=f"Say {number}.") for name in PLACE.agent.baseline.components}
        )
        for number in range(1, 12)
    ),
]


def value_of(candidate: Candidate, example: Example, metric: str) -> float:
    """The later a candidate stands, the more examples it is right on."""
    return float((int(example.id) * 7) % N_VAL < 4 + 2 * CANDIDATES.index(candidate))


@dataclass
class NamingRun(MadeUpRun):
    """Remembers who was named, and ends the search where it is told."""

    submitted: list[Candidate] = field(default_factory=list)
    end_after: int | None = None

    def submit(self, candidate: Candidate) -> None:
        self.submitted.append(candidate)

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        if self.end_after is not None and len(self.asked) >= self.end_after:
            raise TurnOver("so many and no more")
        return super().evaluate(candidate, examples)


def problem() -> Problem:
    return PLACE.problem(None)


def run_of(**terms: object) -> NamingRun:
    return NamingRun(value=value_of, **terms)


@pytest.mark.parametrize("method", ["surrogate", "halving", "paired"])
def test_the_best_is_found_and_named(method: Method) -> None:
    """For less than half of what everybody on everything costs, each cell once."""
    run = run_of()
    found = race_on_val(problem(), run, CANDIDATES, RacePlan(method=method, evaluations=170))

    assert [found.best] == run.submitted
    assert CANDIDATES.index(found.best) >= 10
    assert len(run.asked) == found.table.cells <= 170
    assert {1} == set(Counter(run.asked).values())
    assert CANDIDATES == found.table.candidates


def test_what_is_known_is_not_asked_again() -> None:
    """The race begins with it and pays for the rest."""
    before = run_of()
    known = {one.fingerprint: before.evaluate(one, PLACE.val[: 10 + place]) for place, one in enumerate(CANDIDATES)}
    run = run_of()
    found = race_on_val(problem(), run, CANDIDATES, RacePlan(evaluations=60, known=known, iteration=17))

    assert set(run.asked).isdisjoint(before.asked)
    assert 0 < len(run.asked) == found.table.cells <= 60
    assert {17} == {iteration for *_, iteration in run.trials}
    assert CANDIDATES.index(found.best) >= 9


def test_all_known_costs_nothing() -> None:
    """Then the best is who is best."""
    known = {one.fingerprint: run_of().evaluate(one, PLACE.val) for one in CANDIDATES}
    run = run_of()
    found = race_on_val(problem(), run, CANDIDATES, RacePlan(evaluations=0, known=known))

    assert [] == run.asked
    assert CANDIDATES[-1] == found.best


def test_equal_candidates_run_once_and_the_first_stays_first() -> None:
    """Whoever is given first is run before all others, even if it comes again."""
    run = run_of()
    given = [CANDIDATES[0], CANDIDATES[3], CANDIDATES[0], CANDIDATES[5], CANDIDATES[3]]
    found = race_on_val(problem(), run, given, RacePlan(evaluations=60))

    assert [CANDIDATES[0], CANDIDATES[3], CANDIDATES[5]] == found.table.candidates
    assert CANDIDATES[0].fingerprint == run.asked[0][0]


@pytest.mark.parametrize(("calls", "a_run", "rows"), [(100, 1, 9), (100, 2, 4), (1_000, 1, 12)])
def test_fewer_run_where_each_would_get_too_little(calls: int, a_run: int, rows: int) -> None:
    """By what the first one's runs took: ten of them, then so many of ten each."""
    run = run_of(allowance=calls, calls_a_run=a_run)
    found = race_on_val(problem(), run, CANDIDATES, RacePlan(evaluations=400, runs_each=10))

    assert rows == len(found.table)
    assert CANDIDATES[:rows] == found.table.candidates
    assert len(run.asked) * a_run <= calls


def test_who_leads_is_named_when_the_turn_is_over() -> None:
    """And that passes through."""
    run = run_of(end_after=80)

    with pytest.raises(TurnOver, match="so many"):
        race_on_val(problem(), run, CANDIDATES, RacePlan(method="halving", evaluations=300))
    assert 1 == len(run.submitted)
    assert CANDIDATES.index(run.submitted[0]) >= 6


def test_features_are_asked_for_those_that_run() -> None:
    """In the order of the rows, and by the surrogate alone."""
    seen: list[Sequence[Candidate]] = []

    def features(candidates: Sequence[Candidate]) -> Floats:
        seen.append(list(candidates))
        return np.array([[float(CANDIDATES.index(one))] for one in candidates])

    for method in ("surrogate", "halving"):
        plan = RacePlan(method=method, evaluations=100, runs_each=10)
        found = race_on_val(problem(), run_of(), [*CANDIDATES, CANDIDATES[0]], plan, features=features)

    assert [CANDIDATES[:9]] == seen
    assert CANDIDATES[:9] == found.table.candidates


def test_one_alone_is_no_race() -> None:
    """Nor are two with runs for one of them."""
    with pytest.raises(AlgorithmError, match="wanted: at least one candidate beside the baseline"):
        race_on_val(problem(), run_of(), [CANDIDATES[0], replace(CANDIDATES[0])], RacePlan())
    with pytest.raises(AlgorithmError, match="two for each of 12 candidates; found: room for 13"):
        race_on_val(problem(), run_of(), CANDIDATES, RacePlan(evaluations=23))
