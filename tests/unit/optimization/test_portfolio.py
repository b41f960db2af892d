"""Several algorithms on one budget."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.optimization.portfolio import Turn, TurnOutcome, TurnReport, run_portfolio
from dspy_optimization.optimization.request import AlgorithmChoice


class Takes:
    """Carries out turns of algorithms that want so many calls and find so good a candidate."""

    def __init__(self, wants: Mapping[str, int], finds: Mapping[str, float | None]) -> None:
        self.wants = wants
        self.finds = finds
        self.turns: list[Turn] = []

    def __call__(self, turn: Turn) -> TurnReport:
        self.turns.append(turn)
        name = turn.choice.name
        allowed = turn.allowance_calls if turn.allowance_calls is not None else self.wants[name]
        asked = min(self.wants[name], allowed)
        outcome = TurnOutcome.FINISHED if asked == self.wants[name] else TurnOutcome.OUT_OF_CALLS
        return TurnReport(outcome=outcome, asked_calls=asked, iterations=1, best_score=self.finds[name])


def _choices(*names: str) -> list[AlgorithmChoice]:
    return [AlgorithmChoice(name=name) for name in names]


def test_one_algorithm_gets_everything() -> None:
    """Alone, there is nothing to share."""
    take = Takes({"gepa": 500}, {"gepa": 0.5})

    run_portfolio(_choices("gepa"), max_calls=200, take=take)

    assert [200] == [turn.allowance_calls for turn in take.turns]


def test_without_a_bound_each_runs_until_it_is_done() -> None:
    """No cap, no shares."""
    take = Takes({"a": 500, "b": 5}, {"a": 0.5, "b": 0.4})

    run_portfolio(_choices("a", "b"), max_calls=None, take=take)

    assert [("a", None), ("b", None)] == [(turn.choice.name, turn.allowance_calls) for turn in take.turns]


def test_the_better_one_gets_the_rest() -> None:
    """Both get a quarter; what is left goes to the leader, on top of what it had."""
    take = Takes({"a": 500, "b": 500}, {"a": 0.4, "b": 0.6})

    reports = run_portfolio(_choices("a", "b"), max_calls=400, take=take)

    assert [("a", 0, 100), ("b", 0, 100), ("b", 1, 300)] == [
        (turn.choice.name, turn.number, turn.allowance_calls) for turn in take.turns
    ]
    assert [100, 300] == [report.asked_calls for report in reports]


def test_what_the_leader_leaves_goes_to_the_next() -> None:
    """A leader that finishes early leaves calls that another can use."""
    take = Takes({"a": 500, "b": 150}, {"a": 0.4, "b": 0.6})

    run_portfolio(_choices("a", "b"), max_calls=400, take=take)

    assert [("a", 100), ("b", 100), ("b", 300), ("a", 250)] == [
        (turn.choice.name, turn.allowance_calls) for turn in take.turns
    ]


def test_one_without_any_candidate_comes_last() -> None:
    """No score is no lead."""
    take = Takes({"a": 500, "b": 500}, {"a": None, "b": 0.1})

    run_portfolio(_choices("a", "b"), max_calls=400, take=take)

    assert "b" == take.turns[2].choice.name


def test_a_tie_goes_to_the_one_named_first() -> None:
    """The order of the request decides what the scores do not."""
    take = Takes({"a": 500, "b": 500}, {"a": 0.5, "b": 0.5})

    run_portfolio(_choices("a", "b"), max_calls=400, take=take)

    assert "a" == take.turns[2].choice.name


@given(
    wants=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    scores=st.lists(st.none() | st.floats(0, 1), min_size=4, max_size=4),
    max_calls=st.integers(0, 500),
)
def test_together_they_never_ask_more_than_there_is(
    wants: list[int], scores: list[float | None], max_calls: int
) -> None:
    """The bound holds over all turns, and every algorithm has at least one."""
    names = [f"algorithm-{index}" for index in range(len(wants))]
    take = Takes(dict(zip(names, wants, strict=True)), dict(zip(names, scores, strict=False)))

    reports = run_portfolio(_choices(*names), max_calls=max_calls, take=take)

    assert sum(report.asked_calls for report in reports) <= max_calls
    assert set(names) == {turn.choice.name for turn in take.turns}
