"""Adjusted p-values against statsmodels, by hand, and by simulated family-wise error."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.multiplicity import benjamini_hochberg, check_reuse, holm, max_t, reuse_level
from dspy_optimization.statistics.paired import RESAMPLES, PairedSample, sign_flip_test

p_lists = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


@settings(max_examples=50)
@given(p_lists)
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    """Against `multipletests(method="holm")`."""
    expected = multipletests(p_values, method="holm")[1]

    assert expected == pytest.approx(holm(p_values))


@given(p_lists)
def test_benjamini_hochberg_equals_statsmodels(p_values: list[float]) -> None:
    """Against `multipletests(method="fdr_bh")`."""
    expected = multipletests(p_values, method="fdr_bh")[1]

    assert expected == pytest.approx(benjamini_hochberg(p_values))


@given(p_lists)
def test_adjusting_never_helps_and_keeps_the_order(p_values: list[float]) -> None:
    """raw <= BH <= Holm <= 1, in the order of the raw values."""
    raw, q, adjusted = np.array(p_values), np.array(benjamini_hochberg(p_values)), np.array(holm(p_values))
    order = np.argsort(raw)

    assert np.all(raw <= q + 1e-12)
    assert np.all(q <= adjusted + 1e-12)
    assert np.all(adjusted <= 1.0)
    assert np.all(np.diff(adjusted[order]) >= 0.0)
    assert np.all(np.diff(q[order]) >= 0.0)


def test_holm_and_bh_by_hand() -> None:
    """(0.01, 0.04, 0.03): Holm 3 p1, max(2 p3, ...), ...; BH 3 p1, then 0.04 for both."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.04, 0.04))


def test_no_claims_no_p_values() -> None:
    """An empty family is empty."""
    assert holm([]) == ()
    assert benjamini_hochberg([]) == ()


@pytest.mark.parametrize("p_value", [-0.01, 1.01, math.nan])
def test_p_values_must_be_probabilities(p_value: float) -> None:
    """The message lists what was found."""
    for adjust in (holm, benjamini_hochberg):
        with pytest.raises(InvalidRequestError, match=r"p-values must lie in \[0, 1\], found \[0.5, "):
            adjust([0.5, p_value])


def test_reuse_levels() -> None:
    """alpha / (j (j + 1)): 1/2, 1/6, ... of alpha, which sum to alpha (telescoping series)."""
    assert reuse_level(0.05, 1) == pytest.approx(0.025)
    assert reuse_level(0.06, 2) == pytest.approx(0.01)
    partial = sum(Fraction(1, use * (use + 1)) for use in range(1, 100))
    assert sum(reuse_level(0.05, use) for use in range(1, 100)) == pytest.approx(0.05 * float(partial))
    assert partial == 1 - Fraction(1, 100)


def test_reuse_level_refuses_nonsense() -> None:
    """Uses count from 1."""
    with pytest.raises(InvalidRequestError, match="use must be at least 1, found 0"):
        reuse_level(0.05, 0)
    with pytest.raises(InvalidRequestError, match="alpha must be"):
        reuse_level(0.0, 1)


def test_max_t_of_one_comparison_is_the_sign_flip_test() -> None:
    """A single column with the same generator: the same sign patterns, so the same p."""
    differences = np.random.default_rng(1).normal(0.2, 1.0, size=40)
    sample = PairedSample(baseline=(0.0,) * 40, candidate=tuple(differences))
    expected = sign_flip_test(sample, rng=np.random.default_rng(2), resamples=999).p_value

    assert max_t(differences[:, None], rng=np.random.default_rng(2), resamples=999) == (expected,)


def test_max_t_of_equal_comparisons_costs_nothing() -> None:
    """Five copies of one column: no price for five questions that are one; Bonferroni would pay 5 x."""
    differences = np.random.default_rng(3).normal(0.35, 1.0, size=50)
    one = max_t(differences[:, None], rng=np.random.default_rng(4), resamples=999)
    five = max_t(np.column_stack([differences] * 5), rng=np.random.default_rng(4), resamples=999)

    assert one * 5 == five
    assert 0.001 < one[0] < 0.2


def test_max_t_steps_down() -> None:
    """By the definition, in plain loops: sorted by |t|, max over the less extreme, made monotone."""
    generator = np.random.default_rng(5)
    differences = generator.normal((0.5, 0.0, 0.2, -0.3), 1.0, size=(40, 4))
    signs = 2.0 * np.random.default_rng(6).integers(0, 2, size=(199, 40), dtype=np.int8) - 1.0
    scale = np.sqrt((differences**2).sum(axis=0))
    observed, flipped = np.abs(differences.sum(axis=0)) / scale, np.abs(signs @ differences) / scale
    expected, running = np.zeros(4), 0.0
    remaining = sorted(range(4), key=lambda k: -observed[k])
    while remaining:
        first = remaining[0]
        count = sum(max(row[k] for k in remaining) >= observed[first] for row in flipped)
        running = max(running, (count + 1) / 200)
        expected[first] = running
        remaining = remaining[1:]

    assert expected == pytest.approx(max_t(differences, rng=np.random.default_rng(6), resamples=199))
    assert len(set(expected)) >= 3


def test_max_t_finds_regressions_too() -> None:
    """Two-sided: the sign of a column does not matter."""
    differences = np.random.default_rng(7).normal(0.4, 1.0, size=(40, 3))
    mirrored = differences * np.array([1.0, -1.0, 1.0])

    assert max_t(differences, rng=np.random.default_rng(8), resamples=299) == max_t(
        mirrored, rng=np.random.default_rng(8), resamples=299
    )


def test_max_t_gives_1_to_a_column_of_zeros() -> None:
    """No difference at all is no evidence, and does not disturb the others."""
    differences = np.column_stack((np.arange(1.0, 21.0), np.zeros(20)))
    p_values = max_t(differences, rng=np.random.default_rng(9), resamples=499)

    assert p_values == (1 / 500, 1.0)


def test_max_t_flips_whole_clusters() -> None:
    """Three clusters cannot reach 5 %, whatever the number of examples."""
    differences = np.column_stack((np.ones(30), np.ones(30)))
    clusters = tuple("abc"[index % 3] for index in range(30))
    generator = np.random.default_rng(10)

    assert max_t(differences, rng=generator, clusters=clusters, resamples=999)[0] == pytest.approx(0.25, abs=0.05)
    assert max_t(differences, rng=generator, resamples=999)[0] == 0.001


@pytest.mark.parametrize("differences", [np.ones(3), np.ones((0, 2)), np.ones((2, 0)), np.array([[np.nan]])])
def test_max_t_refuses_other_shapes(differences: npt.NDArray[np.float64]) -> None:
    """The message says the shape."""
    with pytest.raises(InvalidRequestError, match="found shape"):
        max_t(differences, rng=np.random.default_rng(0))


def test_max_t_keeps_the_family_wise_error() -> None:
    """10 correlated comparisons, all null: any claim in at most 5 %; the control takes each p alone."""
    generator, repeats, n = np.random.default_rng(11), 600, 60
    claims = {"max_t": 0, "control": 0}
    for _ in range(repeats):
        shared = generator.normal(size=(n, 1))
        differences = generator.choice([-1.0, 1.0], size=(n, 1)) * shared + generator.normal(size=(n, 10))
        adjusted = max_t(differences, rng=generator, resamples=199)
        alone = [max_t(differences[:, [k]], rng=generator, resamples=199)[0] for k in range(10)]
        claims["max_t"] += min(adjusted) <= 0.05
        claims["control"] += min(alone) <= 0.05
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)

    assert 0.02 < claims["max_t"] / repeats <= limit
    assert claims["control"] / repeats > 2 * limit


def test_a_split_is_refused_once_random_tests_cannot_reach_its_level() -> None:
    """The smallest p-value of a random test is 1 / (resamples + 1): at that level nothing can be significant."""
    finest = 1.0 / (RESAMPLES + 1)

    assert finest == 0.0001
    check_reuse(2.0 * finest * 1.0001, 1)
    with pytest.raises(InvalidRequestError, match="fresh test examples"):
        check_reuse(2.0 * finest, 1)


@pytest.mark.parametrize(("use", "refused"), [(1, False), (21, False), (22, True), (100, True)])
def test_a_split_serves_21_times_at_the_usual_level(use: int, refused: bool) -> None:
    """0.05 / (21 * 22) is above 1 / 10,000, 0.05 / (22 * 23) below."""
    if refused:
        with pytest.raises(InvalidRequestError, match=f"use {use} of this one"):
            check_reuse(0.05, use)
    else:
        check_reuse(0.05, use)
