"""Intervals against published examples, scipy, statsmodels, laws, and simulated coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics import intervals
from dspy_optimization.statistics.intervals import (
    Interval,
    IntervalMethod,
    bca_interval,
    improvement_interval,
    mean_interval,
    newcombe_interval,
    paired_interval,
    t_interval,
    wilson_interval,
)
from dspy_optimization.statistics.paired import PairedSample


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.lower, interval.upper


def swapped(sample: PairedSample) -> PairedSample:
    return replace(sample, baseline=sample.candidate, candidate=sample.baseline)


# --- one proportion


@given(n=st.integers(1, 500), share=st.floats(0.0, 1.0), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n: int, share: float, level: float) -> None:
    """Against `proportion_confint(method="wilson")`."""
    successes = round(share * n)
    interval = wilson_interval(successes, n, level=level)

    assert proportion_confint(successes, n, 1 - level, "wilson") == pytest.approx(ends(interval), abs=1e-12)
    assert interval.lower <= successes / n <= interval.upper
    assert (level, IntervalMethod.WILSON) == (interval.level, interval.method)


def test_wilson_of_none_and_all() -> None:
    """Closed form: 0 of n ends at z^2 / (n + z^2); the other end is exactly 0 or 1."""
    z = stats.norm.ppf(0.975)

    assert ends(wilson_interval(0, 20)) == pytest.approx((0.0, z**2 / (20 + z**2)))
    assert ends(wilson_interval(20, 20)) == pytest.approx((20 / (20 + z**2), 1.0))


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5)])
def test_wilson_refuses_impossible_counts(successes: float, n: int) -> None:
    """Named in the message."""
    with pytest.raises(InvalidRequestError, match=f"found {successes} of {n}"):
        wilson_interval(successes, n)


# --- paired proportions


@pytest.mark.parametrize(
    ("table", "expected", "digits"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404), 4),
        ((59, 6, 16, 80), (-0.1186, -0.0046), 4),
        ((1, 1, 7, 12), (-0.507, -0.026), 3),
    ],
)
def test_newcombe_published(table: tuple[int, int, int, int], expected: tuple[float, float], digits: int) -> None:
    """First minus second rate: Newcombe 1998 table II; Cavo 2012 and Bentur 2009 in R's contingencytables."""
    both, only_first, only_second, neither = table
    interval = newcombe_interval(both=both, only_baseline=only_second, only_candidate=only_first, neither=neither)

    assert expected == (round(interval.lower, digits), round(interval.upper, digits))
    assert interval.method is IntervalMethod.NEWCOMBE_PAIRED


tables = st.tuples(*[st.integers(0, 40)] * 4).filter(any)


@given(tables, st.sampled_from([0.8, 0.95]))
def test_newcombe_equals_its_own_derivation(table: tuple[int, int, int, int], level: float) -> None:
    """Square-and-add written out from the paper on statsmodels' Wilson ends."""
    e, f, g, h = table
    n = e + f + g + h
    l1, u1 = proportion_confint(e + f, n, 1 - level, "wilson")
    l2, u2 = proportion_confint(e + g, n, 1 - level, "wilson")
    p1, p2 = (e + f) / n, (e + g) / n
    product = (e + f) * (g + h) * (e + g) * (f + h)
    cross = e * h - f * g
    if cross > n / 2:
        cross = cross - n / 2
    elif cross >= 0:
        cross = 0
    phi = cross / math.sqrt(product) if product else 0.0
    delta = math.sqrt(max(0.0, (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2))
    epsilon = math.sqrt(max(0.0, (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2))
    interval = newcombe_interval(both=e, only_candidate=f, only_baseline=g, neither=h, level=level)

    assert (p1 - p2 - delta, p1 - p2 + epsilon) == pytest.approx(ends(interval), abs=1e-7)
    assert -1.0 <= interval.lower <= p1 - p2 + 1e-12
    assert p1 - p2 - 1e-12 <= interval.upper <= 1.0


@given(tables)
def test_newcombe_mirrors(table: tuple[int, int, int, int]) -> None:
    """Baseline and candidate exchanged: the mirrored interval."""
    both, lost, won, neither = table
    one = newcombe_interval(both=both, only_baseline=lost, only_candidate=won, neither=neither)
    other = newcombe_interval(both=both, only_baseline=won, only_candidate=lost, neither=neither)

    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-12)


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (5, -1, 2, 3)])
def test_newcombe_refuses_impossible_tables(table: tuple[int, int, int, int]) -> None:
    """Empty or negative."""
    both, lost, won, neither = table
    with pytest.raises(InvalidRequestError, match="four counts must be at least 0 with a positive sum, found"):
        newcombe_interval(both=both, only_baseline=lost, only_candidate=won, neither=neither)


# --- means


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_t_interval_equals_scipy(level: float) -> None:
    """Against `scipy.stats.ttest_1samp(...).confidence_interval`."""
    values = rng(1).normal(size=23)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    interval = t_interval(values, level=level)

    assert (expected.low, expected.high) == pytest.approx(ends(interval))
    assert interval is not None
    assert (IntervalMethod.STUDENT_T, level) == (interval.method, interval.level)


def test_clustered_t_interval() -> None:
    """Equal clusters: the t interval of the cluster means, with G - 1 degrees of freedom."""
    values = rng(2).normal(size=(9, 4)) + rng(3).normal(size=(9, 1))
    clusters = tuple(f"c{index // 4}" for index in range(36))
    interval = t_interval(values.ravel(), clusters=clusters)

    assert ends(t_interval(values.mean(axis=1))) == pytest.approx(ends(interval))
    assert interval is not None
    assert interval.method is IntervalMethod.CLUSTER_T


def test_t_interval_cannot_tell() -> None:
    """None for one value, one cluster, or values that never vary."""
    assert t_interval(np.array([1.0])) is None
    assert t_interval(np.array([1.0, 2.0]), clusters=("a", "a")) is None
    assert t_interval(np.full(10, 0.1)) is None
    assert t_interval(np.array([1.0, 2.0])) is not None


@pytest.mark.parametrize(("n", "level"), [(50, 0.95), (120, 0.8)])
def test_bca_equals_scipy(n: int, level: float) -> None:
    """Against `scipy.stats.bootstrap(method="BCa")` on skewed values with the same generator."""
    values = rng(4).exponential(size=n)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2_000, confidence_level=level, method="BCa", rng=rng(5)
    ).confidence_interval
    interval = bca_interval(values, rng=rng(5), level=level, resamples=2_000)

    assert (expected.low, expected.high) == pytest.approx(ends(interval), abs=1e-9)
    assert interval is not None
    assert (IntervalMethod.BCA, level) == (interval.method, interval.level)


def test_bca_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stream of random numbers when memory allows three rows at a time."""
    values = rng(6).normal(size=60)
    whole = bca_interval(values, rng=rng(7), resamples=1_000)
    monkeypatch.setattr(intervals, "CELLS_PER_CHUNK", 200)

    assert whole == bca_interval(values, rng=rng(7), resamples=1_000)


def test_bca_cannot_tell() -> None:
    """None for one value or values that never vary."""
    assert bca_interval(np.array([1.0]), rng=rng()) is None
    assert bca_interval(np.full(60, 0.3), rng=rng()) is None
    assert bca_interval(np.array([1.0, 2.0]), rng=rng(), resamples=99) is not None


def test_bca_survives_an_extreme_bias() -> None:
    """All bootstrap samples on one side of the estimate: still finite ends."""
    interval = bca_interval(np.array([0.0, 1.0]), rng=rng(1), resamples=1)

    assert interval is not None
    assert interval.lower == interval.upper


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_must_be_probabilities(level: float) -> None:
    """Everywhere."""
    values = np.array([0.0, 1.0])
    for compute in (
        lambda: t_interval(values, level=level),
        lambda: bca_interval(values, rng=rng(), level=level),
        lambda: wilson_interval(1, 2, level=level),
    ):
        with pytest.raises(InvalidRequestError, match="level must be a probability"):
            compute()


# --- the interval itself


def interval_of(lower: float, upper: float) -> Interval:
    return Interval(lower=lower, upper=upper, level=0.95, method=IntervalMethod.BCA)


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)])
def test_an_interval_has_finite_ends_in_order(lower: float, upper: float) -> None:
    """Nothing that JSON cannot hold."""
    with pytest.raises(InvalidRequestError, match="finite ends in order"):
        interval_of(lower, upper)


def test_an_interval_has_a_level() -> None:
    """A level of 95 is refused."""
    with pytest.raises(InvalidRequestError, match=r"level must be .* found 95"):
        Interval(lower=0.0, upper=1.0, level=95, method=IntervalMethod.BCA)


def test_within_clipped_and_scaled() -> None:
    """Both ends count, and the bound itself is inside."""
    assert interval_of(-0.1, 0.1).within(0.1)
    assert not interval_of(-0.11, 0.1).within(0.1)
    assert not interval_of(-0.1, 0.11).within(0.1)
    assert interval_of(-0.5, 1.5).clipped(0.0, 1.0) == interval_of(0.0, 1.0)
    assert interval_of(0.2, 0.3).clipped(0.0, 1.0) == interval_of(0.2, 0.3)
    assert interval_of(-0.5, 0.25).scaled(4.0) == interval_of(-2.0, 1.0)


# --- which interval is used


def test_mean_interval_of_binary_scores() -> None:
    """Wilson, at any size."""
    assert mean_interval((1.0, 1.0, 0.0, 1.0), rng=rng()) == wilson_interval(3, 4)
    assert mean_interval((1.0,) * 300, rng=rng(), level=0.9) == wilson_interval(300, 300, level=0.9)


@pytest.mark.parametrize(("n", "method"), [(49, IntervalMethod.STUDENT_T), (50, IntervalMethod.BCA)])
def test_mean_interval_of_continuous_scores(n: int, method: IntervalMethod) -> None:
    """t below 50 examples, BCa from there on."""
    interval = mean_interval(tuple(rng(1).random(n)), rng=rng(), resamples=199)

    assert interval is not None
    assert method is interval.method


def test_mean_interval_of_clusters() -> None:
    """Clustered t, binary ones kept within [0, 1]; a rate of 1 is Wilson's on the number of clusters."""
    clusters = tuple("aabbccdd")
    continuous = (0.1, 0.2, 0.3, 0.3, 0.9, 0.8, 0.4, 0.5)
    binary = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)

    assert mean_interval(continuous, rng=rng(), clusters=clusters) == t_interval(
        np.array(continuous), clusters=clusters
    )
    raw = t_interval(np.array(binary), clusters=clusters)
    assert raw is not None
    assert raw.upper > 1.0
    assert mean_interval(binary, rng=rng(), clusters=clusters) == raw.clipped(0.0, 1.0)
    assert mean_interval((1.0,) * 8, rng=rng(), clusters=clusters) == wilson_interval(4, 4)
    wide = mean_interval((9.0, 9.0, 0.1, 0.1), rng=rng(), clusters=("a", "a", "b", "b"))
    assert wide is not None
    assert wide.upper > 9.0


def test_mean_interval_cannot_tell() -> None:
    """One continuous score, or one cluster."""
    assert mean_interval((0.5,), rng=rng()) is None
    assert mean_interval((0.5, 0.6), rng=rng(), clusters=("a", "a")) is None
    assert mean_interval((1.0, 0.0), rng=rng(), clusters=("a", "a")) is None


def noise(n: int, seed: int = 8) -> PairedSample:
    generator = rng(seed)
    return PairedSample(baseline=tuple(generator.random(n)), candidate=tuple(generator.random(n) + 0.1))


@pytest.mark.parametrize(("n", "method"), [(7, "t"), (49, "t"), (50, "bca"), (120, "bca")])
def test_paired_interval_of_continuous_scores(n: int, method: str) -> None:
    """t below 50 examples, BCa from there on; both of the differences."""
    sample = noise(n)
    interval = paired_interval(sample, rng=rng(), resamples=299)

    assert interval is not None
    assert method == interval.method
    direct = t_interval(sample.differences())
    if method == "bca":
        direct = bca_interval(sample.differences(), rng=rng(), resamples=299)
    assert direct == interval


def test_paired_interval_of_binary_scores() -> None:
    """Newcombe on the four counts, at any size."""
    sample = PairedSample(
        baseline=(1.0,) * 43 + (0.0,) * 7, candidate=(1.0,) * 36 + (0.0,) * 7 + (1.0,) * 2 + (0.0,) * 5
    )
    expected = newcombe_interval(both=36, only_baseline=7, only_candidate=2, neither=5, level=0.9)

    assert expected == paired_interval(sample, rng=rng(), level=0.9)


def test_paired_interval_of_clusters() -> None:
    """Clustered t on the differences; binary ones kept within [-1, 1]."""
    sample = replace(noise(40), clusters=tuple(str(index // 4) for index in range(40)))
    expected = t_interval(sample.differences(), clusters=sample.clusters)
    assert expected == paired_interval(sample, rng=rng())

    clusters = tuple(str(index // 2) for index in range(14))
    won = PairedSample(baseline=(0.0,) * 14, candidate=(1.0,) * 13 + (0.0,), clusters=clusters)
    raw = t_interval(won.differences(), clusters=clusters)
    assert raw is not None
    assert raw.upper > 1.0
    assert raw.clipped(-1.0, 1.0) == paired_interval(won, rng=rng())


def share_ends(changed: float, units: int, width: float, around: float = 0.0) -> tuple[float, float]:
    half = wilson_interval(changed, units).upper * width
    return around - half, around + half


def test_few_changes_get_a_wide_interval() -> None:
    """5 of 200 changed by 0.01: not a spread of 0, but Wilson's bound on 5 / 200 times the range."""
    baseline = tuple(rng(9).random(195)) + (0.5,) * 5
    sample = PairedSample(baseline=baseline, candidate=baseline[:195] + (0.51,) * 5)
    interval = paired_interval(sample, rng=rng())

    assert interval is not None
    assert interval.method is IntervalMethod.CHANGED_SHARE
    assert share_ends(5, 200, sample.score_range) == pytest.approx(ends(interval))
    six = replace(sample, candidate=baseline[:194] + (0.3,) + (0.51,) * 5)
    changed = paired_interval(six, rng=rng(), resamples=199)
    assert changed is not None
    assert changed.method is IntervalMethod.BCA


def test_equal_differences_get_a_wide_interval() -> None:
    """All examples gain 0.25: centred there, with Wilson's bound on 0 of n off it."""
    sample = PairedSample(baseline=(0.25,) * 10 + (0.5,) * 10, candidate=(0.5,) * 10 + (0.75,) * 10)
    interval = paired_interval(sample, rng=rng())

    assert share_ends(0, 20, 0.5, around=0.25) == pytest.approx(ends(interval))


def test_few_changed_clusters_count_by_the_examples_in_them() -> None:
    """One of 8 clusters changed, with 13 of 20 examples: the larger share, so the mean lies inside."""
    clusters = ("big",) * 13 + tuple(f"c{index}" for index in range(7))
    sample = PairedSample(baseline=(0.0,) * 20, candidate=(0.9,) * 13 + (0.0,) * 7, clusters=clusters)
    interval = paired_interval(sample, rng=rng())

    assert share_ends(8 * 13 / 20, 8, 0.9) == pytest.approx(ends(interval))
    assert interval is not None
    assert interval.lower < 0.9 * 13 / 20 < interval.upper
    many = replace(sample, candidate=(0.0,) * 13 + (0.9,) * 5 + (0.0,) * 2)
    assert share_ends(5, 8, 0.9) == pytest.approx(ends(paired_interval(many, rng=rng())))


def test_few_changes_of_clustered_binary_scores_are_clipped() -> None:
    """No difference of success rates beyond 1."""
    clusters = tuple(str(index // 2) for index in range(12))
    sample = PairedSample(baseline=(0.0,) * 12, candidate=(1.0,) * 12, clusters=clusters)
    lower, upper = ends(paired_interval(sample, rng=rng()))

    assert (1.0 - wilson_interval(0, 6).upper, 1.0) == pytest.approx((lower, upper))


def test_paired_interval_cannot_tell() -> None:
    """One unit of scores that are not binary, one cluster, or scores that never vary."""
    assert paired_interval(PairedSample(baseline=(0.5,), candidate=(0.7,)), rng=rng()) is None
    assert paired_interval(PairedSample(baseline=(0.5,) * 9, candidate=(0.5,) * 9), rng=rng()) is None
    one = PairedSample(baseline=(0.0, 1.0), candidate=(1.0, 1.0), clusters=("a", "a"))
    assert paired_interval(one, rng=rng()) is None


@given(st.integers(0, 10_000), st.sampled_from([8, 30, 60]), st.booleans())
def test_swapping_mirrors_the_interval(seed: int, n: int, clustered: bool) -> None:
    """With the same seed, for every method of continuous scores."""
    generator = rng(seed)
    clusters = tuple(str(index // 2) for index in range(n)) if clustered else None
    sample = PairedSample(baseline=tuple(generator.random(n)), candidate=tuple(generator.random(n)), clusters=clusters)
    one = ends(paired_interval(sample, rng=rng(1), resamples=199))
    other = ends(paired_interval(swapped(sample), rng=rng(1), resamples=199))

    assert (-other[1], -other[0]) == pytest.approx(one, abs=1e-9)


# --- relative improvement


def test_improvement_interval_equals_scipy() -> None:
    """Against `scipy.stats.bootstrap` of the ratio of means, paired, with the same generator."""
    sample = noise(80)
    expected = stats.bootstrap(
        (np.array(sample.baseline), np.array(sample.candidate)),
        lambda base, cand, axis: 100 * (cand.mean(axis=axis) - base.mean(axis=axis)) / base.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=1_500,
        rng=rng(2),
    ).confidence_interval
    interval = improvement_interval(sample, rng=rng(2), resamples=1_500)

    assert (expected.low, expected.high) == pytest.approx(ends(interval), rel=1e-6)
    assert interval is not None
    assert interval.method is IntervalMethod.BCA
    percentage = sample.improvement_percentage()
    assert percentage is not None
    assert interval.lower < percentage < interval.upper


def test_improvement_of_negative_scores() -> None:
    """Cost turned around: relative to |baseline|, so the mirror image of positive scores has mirrored signs."""
    sample = noise(60)
    negative = PairedSample(
        baseline=tuple(-score for score in sample.baseline),
        candidate=tuple(-score for score in sample.candidate),
    )
    lower, upper = ends(improvement_interval(sample, rng=rng(3), resamples=499))

    assert (-upper, -lower) == pytest.approx(ends(improvement_interval(negative, rng=rng(3), resamples=499)), rel=1e-6)


def test_improvement_resamples_whole_clusters() -> None:
    """Examples copied four times: the interval of the clusters, not a narrower one."""
    sample = noise(60)
    copied = PairedSample(
        baseline=sample.baseline * 4,
        candidate=sample.candidate * 4,
        clusters=tuple(f"{index:02}" for index in range(60)) * 4,
    )
    expected = ends(improvement_interval(sample, rng=rng(4), resamples=499))

    assert expected == pytest.approx(ends(improvement_interval(copied, rng=rng(4), resamples=499)), rel=1e-9)


def test_two_units_that_do_not_differ_have_an_interval_and_one_has_none() -> None:
    """One example says nothing of others; from two on the share that may differ is bounded."""
    one = PairedSample(baseline=(0.25,), candidate=(0.25,))
    two = PairedSample(baseline=(0.25, 0.5), candidate=(0.25, 0.5))

    assert paired_interval(one, rng=rng()) is None
    assert paired_interval(two, rng=rng()) is not None


def test_improvement_does_not_depend_on_the_unit() -> None:
    """Dollars or cents: a percentage stays what it is, also where all scores together are below 1."""
    sample = noise(60)
    small = PairedSample(
        baseline=tuple(score / 1024 for score in sample.baseline),
        candidate=tuple(score / 1024 for score in sample.candidate),
    )
    expected = ends(improvement_interval(sample, rng=rng(5), resamples=499))

    assert expected == pytest.approx(ends(improvement_interval(small, rng=rng(5), resamples=499)), rel=1e-9)


def test_improvement_without_a_ratio() -> None:
    """None at a baseline of 0, near 0, or resting on one example."""
    candidate = tuple(float(index % 3) for index in range(30))
    zero = PairedSample(baseline=(0.0,) * 30, candidate=candidate)
    near_zero = PairedSample(baseline=(1.0, -1.0) * 14 + (1.0, 0.0), candidate=candidate)
    lonely = PairedSample(baseline=(50.0,) + (0.0,) * 29, candidate=candidate)

    assert improvement_interval(zero, rng=rng(), resamples=199) is None
    assert improvement_interval(near_zero, rng=rng(), resamples=199) is None
    assert improvement_interval(lonely, rng=rng(), resamples=199) is None
    assert improvement_interval(lonely, rng=rng(), resamples=199, level=0.2) is None
    # 4 % of the bootstrap samples lose all of the baseline, half of them on each side of the ratio.
    rare = PairedSample(baseline=(1.0,) * 3 + (0.0,) * 21, candidate=(1.0, -1.0) * 12)
    assert improvement_interval(rare, rng=rng(1), resamples=9_999) is None
    assert improvement_interval(rare, rng=rng(1), resamples=9_999, level=0.9) is not None


def test_improvement_near_a_baseline_of_zero() -> None:
    """1.2 % of the bootstrap samples without baseline: infinitely good or bad, and the mirror of each other."""
    better = PairedSample(baseline=(1.0,) * 4 + (0.0,) * 20, candidate=(0.0, 1.0) * 12)
    gains = zip(better.baseline, better.candidate, strict=True)
    worse = replace(better, candidate=tuple(2 * base - cand for base, cand in gains))
    lower, upper = ends(improvement_interval(better, rng=rng(1)))

    assert (-upper, -lower) == pytest.approx(ends(improvement_interval(worse, rng=rng(1))))
    assert improvement_interval(better, rng=rng(1), level=0.99) is None


def test_an_infinite_end_is_no_interval() -> None:
    """2 % infinite ratios and an estimate above the median: the upper end of BCa is infinite, so there is none."""
    resampled = np.append(np.arange(980.0), np.full(20, np.inf))
    left_out = rng(1).normal(size=30)

    assert intervals._bca(700.0, resampled, left_out, 0.95) is None
    assert intervals._bca(450.0, resampled, left_out, 0.95) is not None


def test_improvement_of_few_changes_follows_the_difference() -> None:
    """The interval of the difference over the baseline's mean, or none with it."""
    sample = PairedSample(baseline=(0.5, 1.0) * 10, candidate=(0.5, 1.0) * 9 + (0.75, 1.0))
    lower, upper = ends(paired_interval(sample, rng=rng()))

    assert (lower / 0.0075, upper / 0.0075) == pytest.approx(ends(improvement_interval(sample, rng=rng())))
    assert improvement_interval(PairedSample(baseline=(0.5,) * 9, candidate=(0.5,) * 9), rng=rng()) is None


def test_a_proportional_gain_has_an_interval() -> None:
    """Every score up by 10 %: the ratio never varies."""
    baseline = tuple(rng(5).random(60) + 0.5)
    sample = PairedSample(baseline=baseline, candidate=tuple(1.1 * score for score in baseline))

    assert ends(improvement_interval(sample, rng=rng(), resamples=99)) == pytest.approx((10.0, 10.0))


# --- coverage


def test_intervals_cover_the_truth() -> None:
    """95 % intervals miss in at most 5 % + 3 SE; the controls (clusters ignored, an 80 % level) fail that.

    BCa on 60 exponential values misses 6.5 to 7 %, a known weakness: its bound is 7 % + 3 SE.
    """
    generator, repeats = rng(20), 1_500
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)

    def missed(draw: Callable[[], PairedSample], truth: float, level: float = 0.95) -> float:
        count = 0
        for _ in range(repeats):
            lower, upper = ends(paired_interval(draw(), rng=generator, level=level, resamples=299))
            count += not lower <= truth <= upper
        return count / repeats

    def binary() -> PairedSample:
        one, other = generator.random(80), generator.random(80)
        candidate = np.where(generator.random(80) < 0.5, one, other) < 0.8
        return PairedSample(baseline=tuple((one < 0.7).astype(float)), candidate=tuple(candidate.astype(float)))

    def normal(n: int, clusters: int | None = None) -> PairedSample:
        shared = 0.0 if clusters is None else np.repeat(generator.normal(size=clusters), n // clusters)
        names = None if clusters is None else tuple(str(index * clusters // n) for index in range(n))
        candidate = generator.normal(0.5, 1.0, size=n) + shared
        return PairedSample(baseline=(0.0,) * n, candidate=tuple(candidate), clusters=names)

    def skewed() -> PairedSample:
        return PairedSample(baseline=(0.0,) * 60, candidate=tuple(generator.exponential(size=60)))

    assert missed(binary, 0.1) <= limit
    assert missed(lambda: normal(15), 0.5) <= limit
    assert missed(lambda: normal(60, 12), 0.5) <= limit
    assert missed(skewed, 1.0) <= 0.07 + 3 * math.sqrt(0.07 * 0.93 / repeats)
    assert missed(lambda: replace(normal(60, 12), clusters=None), 0.5) > 2 * limit
    assert missed(lambda: normal(15), 0.5, level=0.8) > 2 * limit
