"""Planning numbers against closed forms, exact sums and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.paired import mcnemar_test
from dspy_optimization.statistics.power import (
    detectable_mean,
    detectable_share,
    mcnemar_power,
    mcnemar_sample_size,
    minimum_units,
)


@pytest.mark.parametrize(
    ("alpha", "needed"), [(0.05, 6), (0.1, 5), (0.01, 8), (0.001, 11), (0.0625, 6), (0.063, 5), (0.9, 2)]
)
def test_minimum_units_is_the_first_that_reaches_alpha(alpha: float, needed: int) -> None:
    """`minimum_units` against `binomtest`: one unit fewer cannot get below alpha, however they point."""
    assert needed == minimum_units(alpha)
    assert stats.binomtest(0, needed).pvalue < alpha
    assert stats.binomtest(0, needed - 1).pvalue >= alpha


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    """An alpha outside (0, 1) is named."""
    with pytest.raises(InvalidRequestError, match=r"alpha must be a probability .* found .*possible"):
        minimum_units(alpha)


def test_sample_size_of_the_research_notes() -> None:
    """statistics.md 3a: 5 points with 25 % discordant pairs need 783 examples."""
    assert mcnemar_sample_size(effect=0.05, discordant_share=0.25) == 783
    assert mcnemar_sample_size(effect=-0.05, discordant_share=0.25) == 783


def test_sample_size_is_never_below_the_minimum_units() -> None:
    """An effect of 1 still needs 6 examples."""
    assert mcnemar_sample_size(effect=1.0, discordant_share=1.0) == 6


@pytest.mark.parametrize(
    ("effect", "discordant_share"), [(0.05, 0.25), (0.1, 0.3), (0.02, 0.05), (0.1, 0.1), (0.2, 0.5)]
)
def test_sample_size_gives_about_its_power(effect: float, discordant_share: float) -> None:
    """The normal approximation against the exact power of exact McNemar: at most 4 points below 80 %."""
    n = mcnemar_sample_size(effect=effect, discordant_share=discordant_share)
    power = mcnemar_power(n, effect=effect, discordant_share=discordant_share)

    assert 0.76 < power < 0.80


@pytest.mark.parametrize(("n", "measured"), [(100, 0.09), (200, 0.18), (500, 0.42)])
def test_power_of_the_research_notes(n: int, measured: float) -> None:
    """statistics.md 3a, simulated there for a gain of 5 points; all three fit 37 % discordant pairs."""
    assert measured == pytest.approx(mcnemar_power(n, effect=0.05, discordant_share=0.37), abs=0.01)


@pytest.mark.parametrize(("n", "effect", "alpha"), [(8, 0.3, 0.05), (15, -0.2, 0.05), (12, 0.4, 0.2)])
def test_power_equals_the_sum_over_all_tables(n: int, effect: float, alpha: float) -> None:
    """The exact power against the trinomial sum over every table, with p from `mcnemar_test`."""
    discordant_share = 0.6
    win, lose = (discordant_share + effect) / 2, (discordant_share - effect) / 2
    expected = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            if mcnemar_test(only_baseline=b, only_candidate=c, n=n).p_value < alpha:
                expected += stats.multinomial.pmf([b, c, n - b - c], n, [lose, win, 1 - win - lose])

    actual = mcnemar_power(n, effect=effect, discordant_share=discordant_share, alpha=alpha)

    assert expected == pytest.approx(actual, abs=1e-12)


@given(
    n=st.integers(8, 5_000),
    discordant_share=st.floats(0.0, 1.0),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
    power=st.sampled_from([0.3, 0.5, 0.8, 0.95, 0.9999]),
)
def test_detectable_share_solves_the_equation_of_the_sample_size(
    n: int, discordant_share: float, alpha: float, power: float
) -> None:
    """The closed form put back: (z_a sqrt(pd) + z_b sqrt(pd - psi^2)) / psi = sqrt(n), pd at least psi."""
    effect = detectable_share(n, discordant_share=discordant_share, alpha=alpha, power=power)

    assert effect is not None
    pd = max(discordant_share, effect)
    z_alpha, z_power = stats.norm.isf(alpha / 2), stats.norm.ppf(power)
    root = z_alpha * math.sqrt(pd) + z_power * math.sqrt(max(0.0, pd - effect**2))
    assert math.sqrt(n) == pytest.approx(root / effect, rel=1e-6)


def test_detectable_share_inverts_the_sample_size() -> None:
    """783 examples at 25 % discordant find 5 points."""
    assert detectable_share(783, discordant_share=0.25) == pytest.approx(0.05, abs=2e-5)


def test_detectable_share_knows_when_nothing_can_be_found() -> None:
    """None below the minimum units, and where the level is beyond the normal approximation."""
    assert detectable_share(5, discordant_share=0.5) is None
    assert detectable_share(6, discordant_share=0.5) is not None
    assert detectable_share(21, discordant_share=0.5, alpha=1e-6) is None
    assert detectable_share(23, discordant_share=0.5, alpha=1e-6, power=0.9999) is None
    assert detectable_share(24, discordant_share=0.5, alpha=1e-6, power=0.9999) is not None


@pytest.mark.parametrize("n", [10, 30, 200])
def test_detectable_mean_against_statsmodels(n: int) -> None:
    """Within 2 % of `TTestPower.solve_power`, which uses the non-central t."""
    expected = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * 0.4
    actual = detectable_mean(n, standard_deviation=0.4)

    assert actual is not None
    assert expected == pytest.approx(actual, rel=0.02)


def test_detectable_mean_by_the_printed_table() -> None:
    """Student's table for 5 degrees of freedom: 2.5706 at 0.975, 0.9195 at 0.8; few units show a wrong number most."""
    assert (2.5706 + 0.9195) / math.sqrt(6) == pytest.approx(detectable_mean(6, standard_deviation=1.0), rel=1e-4)


def test_detectable_mean_needs_the_minimum_units() -> None:
    """None below 6 units at 0.05."""
    assert detectable_mean(5, standard_deviation=1.0) is None
    assert detectable_mean(6, standard_deviation=1.0) is not None


def test_impossible_plans_are_refused() -> None:
    """Each message names the value."""
    with pytest.raises(InvalidRequestError, match="found 0"):
        mcnemar_sample_size(effect=0.0, discordant_share=0.2)
    with pytest.raises(InvalidRequestError, match=r"found 0.2 with an effect of 0.3"):
        mcnemar_sample_size(effect=0.3, discordant_share=0.2)
    with pytest.raises(InvalidRequestError, match="found 0 with"):
        mcnemar_power(10, effect=0.0, discordant_share=0)
    for alpha, power in ((0.0, 0.8), (1.0, 0.8), (0.05, 0.0), (0.05, 1.0)):
        with pytest.raises(InvalidRequestError, match=r"alpha|power"):
            mcnemar_sample_size(effect=0.1, discordant_share=0.2, alpha=alpha, power=power)
    with pytest.raises(InvalidRequestError, match="alpha"):
        mcnemar_power(10, effect=0.0, discordant_share=0.2, alpha=0.0)
    with pytest.raises(InvalidRequestError, match=r"found 1.1"):
        mcnemar_power(10, effect=0.0, discordant_share=1.1)
    with pytest.raises(InvalidRequestError, match=r"discordant_share must lie in \[0, 1\], found 1.5"):
        detectable_share(10, discordant_share=1.5)
    with pytest.raises(InvalidRequestError, match="n must be at least 1, found 0"):
        detectable_share(0, discordant_share=0.5)
    with pytest.raises(InvalidRequestError, match="power must be"):
        detectable_mean(10, standard_deviation=1.0, power=1.0)
    with pytest.raises(InvalidRequestError, match="standard_deviation must be a number above 0, found 0"):
        detectable_mean(10, standard_deviation=0.0)
    with pytest.raises(InvalidRequestError, match="standard_deviation must be a number above 0, found inf"):
        detectable_mean(10, standard_deviation=np.inf)
