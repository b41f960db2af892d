"""What got better and worse; the test split stays sealed."""

from report_sample import ACCURACY, BASELINE, candidate, dataset, results, sample, trial, validated

from dspy_optimization.adapters.report.val_examples import answer_cost, example_changes, sealed_counts
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.statistics import Verdict


def test_examples_are_paired_and_the_largest_change_comes_first() -> None:
    """Better, worse and same add up to the examples both were measured on."""
    val = dataset(n_val=5)[Split.VAL]
    new = candidate("new")
    trials = [
        trial(BASELINE, results(val, 0, values=[0, 0.5, 1, 0.2, 0]), algorithm="baseline", iteration=0, paid_calls=5),
        trial(new, results(val[:4], 0, values=[1, 0.9, 0, 0.2]), algorithm="gepa", iteration=1, paid_calls=9),
    ]

    found = example_changes(val, trials, BASELINE, new, ACCURACY)

    assert ["val-000", "val-001"] == [one.example.id for one in found.better]
    assert ["val-002"] == [one.example.id for one in found.worse]
    assert (1, 4) == (found.same, found.n)


def test_less_is_better_where_the_objective_says_so() -> None:
    """A cost that fell is a gain."""
    val = dataset(n_val=2)[Split.VAL]
    new = candidate("new")
    trials = [
        trial(BASELINE, results(val, 0, tokens=200), algorithm="baseline", iteration=0, paid_calls=2),
        trial(new, results(val, 0, tokens=100), algorithm="gepa", iteration=1, paid_calls=4),
    ]

    found = example_changes(val, trials, BASELINE, new, Objective(metric="cost_usd", direction=Direction.MINIMIZE))

    assert (2, 0) == (len(found.better), len(found.worse))


def test_of_the_test_split_only_counts_leave() -> None:
    """Won and lost follow from what the gate keeps: how many differ, and the mean difference."""
    data = dataset(n_test=100)
    before = [1.0] * 50 + [0.0] * 50
    after = [0.0] * 4 + [1.0] * 46 + [1.0] * 20 + [0.0] * 30
    mean = [value * 0.5 for value in before]

    counts = sealed_counts(validated(data, candidate("new"), values=(before, after)), ACCURACY)
    unclear = sealed_counts(validated(data, candidate("new"), values=(mean, after)), ACCURACY)
    settled = sealed_counts(
        validated(data, BASELINE, values=(before, after), settled=(Verdict.NO_IMPROVEMENT, "none")), ACCURACY
    )

    assert counts is not None
    assert (24, 20, 4) == (counts.differ, counts.better, counts.worse)
    assert unclear is not None
    assert (None, None, False) == (unclear.better, unclear.worse, unclear.clustered)
    assert settled is None


def test_no_test_example_is_in_the_report() -> None:
    """Neither inputs nor ids of sealed examples reach anything that is shown."""
    shown = sample()

    assert "sealed-0" not in repr((shown.examples, shown.changes, shown.family, shown.curves))


def test_what_an_answer_takes_is_a_mean() -> None:
    """As if nothing came from the ledger; nothing measured, nothing said."""
    val = dataset(n_val=4)[Split.VAL]

    cost = answer_cost({one.example_id: one for one in results(val, 0.5, tokens=200)})

    assert cost is not None
    assert (1.0, 200.0, 38.0) == (cost.lm_calls, cost.prompt_tokens, cost.completion_tokens)
    assert answer_cost({}) is None
