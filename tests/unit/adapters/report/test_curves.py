"""Scores against paid calls, by the optimizer's own rules."""

from report_sample import ACCURACY, BASELINE, COST, candidate, dataset, results, story, trial

from dspy_optimization.adapters.report.curves import on_val, scaled, score_curves
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.optimization.search import Scoreboard

ONE_GOAL = Objectives(items=(ACCURACY,))


def test_the_best_so_far_only_rises_and_ends_where_the_scoreboard_ends() -> None:
    """The step line is the choice the optimizer itself makes after each trial."""
    data = dataset()
    trials = story(data).trials
    goals = scaled(Objectives(items=(ACCURACY, COST)), trials)
    board = Scoreboard(goals, data[Split.VAL])
    for one in trials:
        board.add(one.candidate, one.split, one.results, one.algorithm, one.iteration)

    curves = score_curves(goals, data[Split.VAL], trials)

    scores = [step.score for step in curves.best]
    best = board.best()
    assert sorted(scores) == scores
    assert best is not None
    assert best.candidate.fingerprint == curves.best[-1].candidate
    assert board.score(best) == curves.best[-1].score
    assert ("miprov2", "gepa") == curves.algorithms
    assert curves.baseline is not None
    assert BASELINE == curves.baseline.candidate


def test_a_trial_on_a_part_of_val_is_a_point_but_never_the_best() -> None:
    """A high score on a few examples is luck until the rest is measured; then it is one complete point."""
    data = dataset(n_val=10)
    val = data[Split.VAL]
    lucky = candidate("lucky")
    parts = [
        trial(BASELINE, results(val, 0, values=[0.0, 1.0] * 5), algorithm="baseline", iteration=0, paid_calls=10),
        trial(lucky, results(val[:4], 0, values=[1.0] * 4), algorithm="gepa", iteration=1, paid_calls=14),
        trial(lucky, results(val[4:], 0, values=[0.0] * 6), algorithm="gepa", iteration=2, paid_calls=20),
        trial(lucky, results(val[:2], 0, values=[1.0] * 2), algorithm="miprov2", iteration=1, paid_calls=20),
    ]

    curves = score_curves(ONE_GOAL, val, parts)

    assert [(True, 0.5), (False, 1.0), (True, 0.4)] == [(one.complete, one.score) for one in curves.points]
    assert [BASELINE.fingerprint] == [step.candidate for step in curves.best]
    assert 10 == len(on_val(parts, lucky))
    assert curves.complete_of(lucky.fingerprint) is curves.points[2]


def test_a_candidate_that_hurts_a_guardrail_is_never_the_best() -> None:
    """Right everywhere and three times as dear, where half as dear again is allowed."""
    data = dataset(n_val=10)
    val = data[Split.VAL]
    trials = [
        trial(BASELINE, results(val, 0, values=[0.0] * 10), algorithm="baseline", iteration=0, paid_calls=10),
        trial(
            candidate("dear"),
            results(val, 0, values=[1.0] * 10, tokens=540),
            algorithm="gepa",
            iteration=1,
            paid_calls=20,
        ),
    ]

    curves = score_curves(scaled(Objectives(items=(ACCURACY, COST)), trials), val, trials)

    assert [BASELINE.fingerprint] == [step.candidate for step in curves.best]


def test_trials_on_train_are_left_out_and_nothing_gives_nothing() -> None:
    """Only val compares candidates."""
    data = dataset(n_val=10)
    train = trial(
        BASELINE, results(data[Split.TRAIN], 1), algorithm="gepa", iteration=0, paid_calls=1, split=Split.TRAIN
    )

    curves = score_curves(scaled(ONE_GOAL, [train]), data[Split.VAL], [train])

    assert ((), (), None, None) == (curves.points, curves.best, curves.leader, curves.baseline)
    assert curves.complete_of(BASELINE.fingerprint) is None
