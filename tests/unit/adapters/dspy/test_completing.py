"""What is expected of candidates that each met a part of val."""

import numpy as np
import pytest

from dspy_optimization.adapters.dspy.completing import Completion
from dspy_optimization.compute.ranking import Floats

ROWS, COLUMNS, MET = 24, 60, 20


def pool(seed: int) -> tuple[Floats, Floats]:
    """Return true means, and binary scores of which each row has another third, easy ones or hard ones."""
    dice = np.random.default_rng(seed)
    ability, hardness = dice.normal(0.0, 1.0, (ROWS, 1)), np.sort(dice.normal(0.0, 1.5, (1, COLUMNS)))
    chance = 1.0 / (1.0 + np.exp(hardness - ability))
    scores = (dice.random((ROWS, COLUMNS)) < chance).astype(float)
    true = scores.mean(axis=1)
    met = scores.copy()
    met[0, :] = scores[0]
    for row in range(1, ROWS):
        begin = int(dice.integers(0, COLUMNS - MET - 5))
        met[row, begin : begin + MET] = scores[row, begin : begin + MET] + 10.0
    met[1:] = np.where(met[1:] >= 10.0, met[1:] - 10.0, np.nan)
    met[:, -4:] = scores[:, -4:]
    return true, met


def test_a_model_evens_out_what_candidates_happened_to_meet() -> None:
    """Whoever met the easy examples is not the best: against the truth, plain means are off by more."""
    gains = []
    for seed in range(4):
        true, met = pool(seed)
        found = Completion(seed=1).of(met)
        plain = np.nanmean(met, axis=1)
        gains.append(np.square(plain - true).mean() - np.square(found.means - true).mean())

        assert found.doubt is None
        assert found.information is not None
        assert (COLUMNS,) == found.information.shape

    assert min(gains) > 0.0


def test_what_was_measured_stays_as_it_was() -> None:
    """Only the rest is expected, and lies between 0 and 1."""
    _, met = pool(0)
    found = Completion(seed=1).of(met)
    known = ~np.isnan(met)

    assert np.array_equal(found.table[known], met[known])
    assert ((found.table >= 0.0) & (found.table <= 1.0)).all()


def test_few_candidates_are_compared_on_what_all_have_met() -> None:
    """A mean over other examples says nothing."""
    nothing = np.nan
    met = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, nothing, nothing], [1.0, 1.0, nothing, 0.0]])
    found = Completion(seed=1).of(met)

    assert [1.0, 0.5, 1.0] == found.means.tolist()
    assert found.information is None
    assert "wanted: at least 100 cells of 8 candidates; found: 9 of 3" in str(found.doubt)


def test_a_model_that_does_not_fit_is_not_believed() -> None:
    """Half of the candidates are right where the others are wrong: no ability explains that."""
    halves = np.zeros((ROWS, COLUMNS))
    halves[::2, ::2] = halves[1::2, 1::2] = 1.0
    found = Completion(seed=1).of(halves)

    assert found.doubt
    assert halves.mean(axis=1).tolist() == found.means.tolist()


@pytest.mark.parametrize("seed", [0, 3])
def test_the_same_cells_give_the_same(seed: int) -> None:
    """Nothing but the seed and the cells counts."""
    _, met = pool(seed)

    assert np.array_equal(Completion(seed=1).of(met).means, Completion(seed=1).of(met).means)
