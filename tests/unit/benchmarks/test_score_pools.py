"""Pools of the benchmark `best_of_pool`: what they say they are, and the same for the same seed."""

import numpy as np
import pytest
from benchmarks.score_pools import CANDIDATES, EXAMPLES, POOLS, scrambled, wide


@pytest.mark.parametrize("name", [name for name in POOLS if name not in ("letters", "survey")])
def test_a_pool_is_drawn_by_its_seed(name: str) -> None:
    """Right or wrong for every candidate and example; the same twice, another one for another seed."""
    one, same, other = (POOLS[name](seed) for seed in (1, 1, 2))

    assert (CANDIDATES, EXAMPLES) == one.scores.shape
    assert {0.0, 1.0} == set(np.unique(one.scores))
    assert len(one.features) == CANDIDATES
    np.testing.assert_array_equal(one.scores, same.scores)
    np.testing.assert_array_equal(one.features, same.features)
    assert not np.array_equal(one.scores, other.scores)


@pytest.mark.parametrize(("name", "sd"), [("wide", 0.07), ("narrow", 0.037), ("family", 0.07)])
def test_accuracies_vary_as_much_as_is_said(name: str, sd: float) -> None:
    """Observed accuracies vary by the true ones and by 300 answers each."""
    scores = POOLS[name](3).scores
    luck = (scores.mean(axis=0) * (1.0 - scores.mean(axis=0))).sum() / EXAMPLES**2

    assert scores.mean(axis=1).var() == pytest.approx(sd**2 + luck, rel=0.25)


def test_scrambled_genes_are_somebody_elses() -> None:
    """The scores of the wide pool, and features that no longer go with them."""
    np.testing.assert_array_equal(wide(5).scores, scrambled(5).scores)
    assert not np.array_equal(wide(5).features, scrambled(5).features)
    np.testing.assert_array_equal(np.sort(wide(5).features, axis=0), np.sort(scrambled(5).features, axis=0))
