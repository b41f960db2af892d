"""Who came from whom."""

from dataclasses import replace

from report_sample import ACCURACY, BASELINE, candidate, dataset, results, story, trial

from dspy_optimization.adapters.report.curves import score_curves
from dspy_optimization.adapters.report.lineage import lineage
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.evaluation.trial import Trial

GOALS = Objectives(items=(ACCURACY,))


def _family(*members: Candidate) -> list[Trial]:
    val = dataset(n_val=4)[Split.VAL]
    return [
        trial(one, results(val, 0.5), algorithm="gepa", iteration=index, paid_calls=index)
        for index, one in enumerate(members)
    ]


def test_generations_count_from_the_youngest_parent_and_the_path_leads_to_the_root() -> None:
    """A merge of a child and its own child stands below both."""
    child = candidate("child", parents=[BASELINE])
    grandchild = candidate("grandchild", parents=[child])
    merged = candidate("merged", parents=[child, grandchild])
    other = candidate("other", parents=[BASELINE])
    trials = _family(BASELINE, child, grandchild, merged, other)

    family = lineage(trials, score_curves(GOALS, dataset(n_val=4)[Split.VAL], trials), merged)

    assert [0, 1, 2, 3, 1] == [one.generation for one in family]
    assert [True, True, True, True, False] == [one.on_path for one in family]
    assert [merged.fingerprint] == [one.fingerprint for one in family if one.chosen]
    assert merged.fingerprint[:7] == family[3].short


def test_parents_that_were_never_measured_are_left_out() -> None:
    """There is nothing to draw a line to."""
    orphan = replace(candidate("orphan"), parents=(Fingerprint("f" * 64),))
    trials = _family(orphan)

    family = lineage(trials, score_curves(GOALS, dataset(n_val=4)[Split.VAL], trials), None)

    assert [((), 0, False)] == [(one.parents, one.generation, one.on_path) for one in family]


def test_a_circle_of_parents_ends() -> None:
    """Parents are what an algorithm says; it must not be able to hang the report."""
    one, two = candidate("one"), candidate("two")
    turned = [replace(one, parents=(two.fingerprint, one.fingerprint)), replace(two, parents=(one.fingerprint,))]
    trials = _family(*turned)

    family = lineage(trials, score_curves(GOALS, dataset(n_val=4)[Split.VAL], trials), two)

    assert {0, 1} == {member.generation for member in family}


def test_only_scores_on_all_of_val_are_shown() -> None:
    """A score on a part cannot be compared."""
    data = dataset()
    told = story(data)

    family = lineage(told.trials, score_curves(GOALS, data[Split.VAL], told.trials), told.chosen)

    assert len({one.candidate for one in told.trials}) == len(family)
    assert any(one.score is None for one in family)
