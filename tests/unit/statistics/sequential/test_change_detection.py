"""The detector of drops against the recursion, its law, and its delays."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import DropDetector

DROPS = (0.02, 0.05, 0.10, 0.20)


@pytest.mark.parametrize("reference", [0.1, 0.55, 0.95])
def test_equals_the_sum_over_change_points(reference: float) -> None:
    """Shiryaev-Roberts by its definition: the sum over all possible change points of the products since then."""
    rng = np.random.default_rng(1)
    outcomes = rng.random(60)
    expected = []
    for drop in DROPS:
        bet = min(drop / (reference * (1 - reference)), 0.95 / (1 - reference))
        factors = 1 + bet * (reference - outcomes)
        expected.append(sum(np.prod(factors[change:]) for change in range(60)))
    found = DropDetector.start(reference=reference, alpha=1e-30).extend(outcomes)

    assert found.levels == pytest.approx(expected, rel=1e-10)
    assert found.share_of_alarm == pytest.approx(1e-30 * np.mean(expected), rel=1e-10)
    assert found.n_outcomes == 60


@given(st.floats(0.02, 0.98), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(0, 1), max_size=20))
@settings(max_examples=200)
def test_grows_by_one_at_most_on_average(
    reference: float, one: float, other: float, chance: float, history: list[float]
) -> None:
    """Exact mean over two outcomes whose mean is not below the reference: M - n is a supermartingale."""
    mean = chance * one + (1 - chance) * other
    before = DropDetector.start(reference=reference, alpha=1e-12).extend(history)
    after = [np.array(before.extend([outcome]).levels) for outcome in (one, other)]
    average = chance * after[0] + (1 - chance) * after[1]
    largest = np.array(before.levels) + 1

    assert (np.array([after[0], after[1]]) >= 0).all()
    if mean >= reference:
        assert (average <= largest * (1 + 1e-12)).all()
    else:
        assert (average >= largest * (1 - 1e-12)).all()


@given(st.integers(0, 2**32), st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=40)
def test_pieces_do_not_matter(seed: int, cuts: list[int]) -> None:
    """Bit for bit, through JSON; after the alarm too."""
    outcomes = np.random.default_rng(seed).random(300) * 0.9
    start = DropDetector.start(reference=0.55, alpha=1e-2)
    detector, edges = start, [0, *sorted(cuts), 300]
    for first, last in pairwise(edges):
        detector = DropDetector.from_json(json.loads(json.dumps(detector.extend(outcomes[first:last]).to_json())))

    assert detector == start.extend(outcomes)


def test_the_first_alarm_ends_the_work() -> None:
    """All failures at a reference of .8: an alarm at the outcome where the mean level first passes 1 / alpha."""
    start = DropDetector.start(reference=0.8, alpha=1e-4)
    detector = start.extend(np.zeros(1000))
    assert detector.alarm_at is not None
    before = start.extend(np.zeros(detector.alarm_at - 1))

    assert before.alarm_at is None
    assert before.share_of_alarm < 1.0 <= detector.share_of_alarm
    assert detector.n_outcomes == detector.alarm_at
    assert detector == detector.extend(np.zeros(10))
    assert math.isfinite(sum(detector.levels))


def test_delays_of_the_research_notes() -> None:
    """statistics.md 3d, .85 with a reference of .83 at 1e-4: median delays 787 / 182 / 58 to .80 / .75 / .65."""
    rng = np.random.default_rng(2)
    start = DropDetector.start(reference=0.83, alpha=1e-4)
    for mean, expected in ((0.80, 787), (0.75, 182), (0.65, 58)):
        delays = []
        for _ in range(100):
            calm = start.extend(rng.random(500) < 0.85)
            alarm_at = calm.extend(rng.random(8000) < mean).alarm_at
            assert alarm_at is not None
            delays.append(alarm_at - calm.n_outcomes)

        assert np.median(delays) == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("outcomes", [[1.1], [-0.1], [math.nan], [[0.5]]])
def test_outcomes_that_cannot_be(outcomes: list[object]) -> None:
    """A row in [0, 1]."""
    with pytest.raises(InvalidRequestError, match=r"wanted: a row of outcomes in \[0, 1\]"):
        DropDetector.start(reference=0.8).extend(outcomes)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"reference": 1.0}, {"reference": 0.8, "alpha": 0.0}])
def test_detectors_that_cannot_be(fields: dict[str, float]) -> None:
    """References and levels strictly between 0 and 1."""
    with pytest.raises(InvalidRequestError, match="must be a probability"):
        DropDetector.start(**fields)


@pytest.mark.parametrize(("field", "value"), [("levels", [0.0]), ("alarm_at", -1), ("alarm_at", 2.5), ("alpha", None)])
def test_stored_states_that_cannot_be(field: str, value: object) -> None:
    """What is wrong with a stored state is named."""
    data = {**DropDetector.start(reference=0.8).to_json(), field: value}
    with pytest.raises(InvalidRequestError, match=rf"wanted: .*{field}.*found: .*possible: "):
        DropDetector.from_json(data)
