"""What one past optimization teaches."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from past_world import CAPPED, ROOMY, optimization_id

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.optimization.lesson import (
    EndedTurn,
    Gained,
    Lesson,
    Measured,
    PastOptimization,
    Point,
    Sealed,
    lesson_of,
)

BASELINE = Measured(last_paid_calls=100, scores=(0.4,), paid_calls=(100,))
CUT = EndedTurn(outcome="out_of_calls", best_score=0.7)
PAST = PastOptimization(
    optimization_id=optimization_id(1),
    target=Fingerprint("t"),
    situation=CAPPED,
    algorithms=("gepa",),
    n_algorithms=1,
    failed=False,
    ended_because="max_lm_calls",
    baseline=BASELINE,
    measured={"gepa": Measured(last_paid_calls=900, scores=(0.3, 0.6, 0.5, 0.7), paid_calls=(200, 400, 600, 800))},
    turns={"gepa": CUT},
    sealed=Sealed(algorithm="gepa", gain=0.2, verdict="improved"),
)


def taught(**changes: object) -> Gained:
    """Return what the one algorithm of a past like `PAST` showed."""
    found = lesson_of(replace(PAST, **changes))
    assert found is not None
    (one,) = found.gained
    return one


def test_gains_are_over_the_baseline_and_calls_without_it() -> None:
    """A candidate worse than the baseline is a gain of 0: the baseline stays."""
    points = (Point(100, 0.0), Point(300, pytest.approx(0.2)), Point(700, pytest.approx(0.3)))
    expected = Gained(
        algorithm="gepa", points=points, gain=pytest.approx(0.3), calls=800, is_finished=False, sealed=0.2
    )

    assert lesson_of(PAST) == Lesson(
        optimization_id=PAST.optimization_id, target=PAST.target, situation=CAPPED, gained=(expected,)
    )


def test_everybody_of_a_portfolio_pays_for_their_own_turns() -> None:
    """Turn, turn, turn: the first of one, the first of the other, and the rest for the better one."""
    found = lesson_of(
        replace(
            PAST,
            algorithms=("gepa", "miprov2"),
            n_algorithms=2,
            measured={
                "gepa": Measured(last_paid_calls=800, scores=(0.5, 0.6), paid_calls=(200, 800)),
                "miprov2": Measured(last_paid_calls=350, scores=(0.45,), paid_calls=(300,)),
            },
            turns={"gepa": CUT, "miprov2": EndedTurn(outcome="out_of_calls", best_score=0.45)},
        )
    )

    assert found is not None
    one, other = found.gained
    assert ("gepa", (100, 550), 0.2) == (one.algorithm, tuple(point.calls for point in one.points), one.sealed)
    assert ("miprov2", 150, None) == (other.algorithm, other.calls, other.sealed)


@pytest.mark.parametrize(
    "changes",
    [
        {"ended_because": "no_headroom"},
        {"baseline": None},
        {"baseline": Measured(last_paid_calls=40)},
        {"baseline": replace(BASELINE, scores=(17.0,))},
        {"measured": {"gepa": Measured(last_paid_calls=900, scores=(1.2,), paid_calls=(200,))}},
        {"algorithms": ()},
        {"measured": {}, "turns": {}},
    ],
    ids=["no room", "no baseline", "a part of it", "another unit", "above 1", "own options", "never ran"],
)
def test_some_teach_nothing(changes: Mapping[str, object]) -> None:
    """No room to gain, nothing to compare with, another unit, options that `auto` would not use."""
    assert lesson_of(replace(PAST, **changes)) is None


def test_an_error_does_not_count_against_who_was_interrupted() -> None:
    """A turn that ended before counts, one that the error cut off does not; a cancelled one counts as it stood."""
    both = {
        "algorithms": ("gepa", "miprov2"),
        "n_algorithms": 2,
        "measured": {**PAST.measured, "miprov2": Measured(last_paid_calls=960, scores=(0.41,), paid_calls=(950,))},
        "ended_because": None,
        "sealed": None,
    }
    failed, cancelled = lesson_of(replace(PAST, failed=True, **both)), lesson_of(replace(PAST, **both))

    assert failed is not None
    assert cancelled is not None
    assert ["gepa"] == [one.algorithm for one in failed.gained]
    assert ["gepa", "miprov2"] == [one.algorithm for one in cancelled.gained]


def test_an_algorithm_that_broke_gained_nothing() -> None:
    """More calls would not have helped it."""
    broke = taught(measured={}, turns={"gepa": EndedTurn(outcome="failed", best_score=None)}, failed=True, sealed=None)

    assert Gained(algorithm="gepa", points=(), gain=0.0, calls=1, is_finished=True) == broke


def test_what_was_measured_in_parts_is_told_when_the_turn_ends() -> None:
    """No trial holds all of val; the event of the turn's end knows better."""
    parts = taught(measured={"gepa": Measured(last_paid_calls=900)})

    assert ((), pytest.approx(0.3), 800) == (parts.points, parts.gain, parts.calls)


def test_what_the_gate_did_not_get_was_no_gain() -> None:
    """The baseline was kept: the better ones broke a guardrail, or the policy did not want them."""
    kept = taught(sealed=Sealed(algorithm=None, gain=0.0, verdict="no_improvement"))

    assert ((Point(100, 0.0),), 0.0, None) == (kept.points, kept.gain, kept.sealed)


def test_a_gain_that_broke_a_guardrail_on_the_sealed_split_is_none() -> None:
    """Whatever the utility says."""
    assert 0.0 == taught(sealed=Sealed(algorithm="gepa", gain=0.2, verdict="regressed")).sealed


@pytest.mark.parametrize(
    ("changes", "finished"),
    [
        ({"turns": {"gepa": EndedTurn(outcome="finished", best_score=0.7)}}, False),
        ({"turns": {"gepa": EndedTurn(outcome="finished", best_score=0.7)}, "situation": ROOMY}, True),
        (
            {
                "turns": {"gepa": EndedTurn(outcome="finished", best_score=0.7)},
                "situation": replace(CAPPED, max_lm_calls=9000),
            },
            True,
        ),
        ({"ended_because": "target_met"}, True),
    ],
    ids=["with most of its calls", "without a cap", "with few of its calls", "target met"],
)
def test_who_stopped_far_below_the_cap_had_nothing_more_to_try(changes: Mapping[str, object], finished: bool) -> None:
    """Who used most of what there was may have planned by it."""
    assert finished is taught(**changes).is_finished
