"""Paired samples and their tests: vectors, scipy, statsmodels, laws, and simulated error rates."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics import paired
from dspy_optimization.statistics.paired import (
    PairedMethod,
    PairedSample,
    PairedTest,
    mcnemar_test,
    paired_test,
    sign_flip_test,
    standard_error,
)

Scores = tuple[float, ...]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample_of(differences: Scores, clusters: tuple[str, ...] | None = None) -> PairedSample:
    """A sample with these differences, over a baseline of zeros."""
    return PairedSample(baseline=(0.0,) * len(differences), candidate=differences, clusters=clusters)


def swapped(sample: PairedSample) -> PairedSample:
    return replace(sample, baseline=sample.candidate, candidate=sample.baseline)


def bound(target: float, repeats: int) -> float:
    """Target plus 3 Monte-Carlo standard errors."""
    return target + 3 * math.sqrt(target * (1 - target) / repeats)


# Eighths add without rounding.
eighths = st.integers(-16, 16).map(lambda value: value / 8)
binary = st.sampled_from([0.0, 1.0])


@st.composite
def samples(draw: st.DrawFn, scores: st.SearchStrategy[float] = eighths, largest: int = 30) -> PairedSample:
    n = draw(st.integers(1, largest))
    clusters = draw(
        st.none() | st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n).map(tuple),
    )
    column = st.lists(scores, min_size=n, max_size=n).map(tuple)
    return PairedSample(baseline=draw(column), candidate=draw(column), clusters=clusters)


@pytest.mark.parametrize(
    ("b", "c", "p_value", "mid_p"),
    [
        (5, 15, 0.0413894653, 0.0266036987),
        (0, 5, 0.0625, 0.03125),
        (0, 6, 0.03125, 0.015625),
        (6, 16, 0.0524787903, 0.0346896648),
        (0, 0, 1.0, 1.0),
        (4, 4, 1.0, 1.0),
        (3, 4, 1.0, 0.7265625),
    ],
)
def test_mcnemar_vectors(b: int, c: int, p_value: float, mid_p: float) -> None:
    """statistics.md 4 (first three); 6 and 16 is Cavo 2012, mid-p 0.034690 in R's contingencytables."""
    test = mcnemar_test(only_baseline=b, only_candidate=c, n=100)

    assert p_value == pytest.approx(test.p_value, abs=5e-11)
    assert mid_p == pytest.approx(test.mid_p, abs=5e-11)


@pytest.mark.parametrize(("b", "c"), [*itertools.product(range(8), range(8)), (40, 60), (499, 501)])
def test_mcnemar_equals_scipy_and_statsmodels(b: int, c: int) -> None:
    """Two-sided p against `binomtest` and statsmodels' exact `mcnemar`."""
    test = mcnemar_test(only_baseline=b, only_candidate=c, n=2_000)

    assert test.p_value == pytest.approx(mcnemar([[9, b], [c, 9]], exact=True).pvalue, rel=1e-10)
    if b + c > 0:
        assert test.p_value == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-10)


def test_mcnemar_tells_what_it_counted() -> None:
    """Wins are the candidate's, losses the baseline's."""
    expected = (PairedMethod.MCNEMAR, 50, 50, 7, 2, 9)
    test = mcnemar_test(only_baseline=2, only_candidate=7, n=50)

    assert expected == (test.method, test.n, test.units, test.wins, test.losses, test.non_zero)


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 2, 10), (2, -1, 10), (6, 5, 10), (0, 0, 0)])
def test_mcnemar_refuses_impossible_tables(b: int, c: int, n: int) -> None:
    """Negative counts, more discordant pairs than examples, or no example."""
    with pytest.raises(InvalidRequestError, match=f"found {b} and {c} of {n}; possible"):
        mcnemar_test(only_baseline=b, only_candidate=c, n=n)


def test_mcnemar_takes_a_table_of_discordant_pairs_alone() -> None:
    """n may equal the discordant pairs."""
    assert mcnemar_test(only_baseline=0, only_candidate=6, n=6).p_value == 0.03125


def test_every_difference_may_be_enumerated_by_hand() -> None:
    """d = (1, 2, 3): |sum| >= 6 in 2 of 8 patterns; d = (-1, 2, 3): |sum| >= 4 in 4 of 8."""
    assert sign_flip_test(sample_of((1.0, 2.0, 3.0)), rng=rng()).p_value == 2 / 8
    assert sign_flip_test(sample_of((-1.0, 2.0, 3.0)), rng=rng()).p_value == 4 / 8


def test_sign_flip_equals_scipy() -> None:
    """Exact p against `scipy.stats.permutation_test` on paired samples, all 2 ** 10 patterns."""
    generator = rng(3)
    baseline, candidate = generator.normal(size=10), generator.normal(0.6, size=10)
    sample = PairedSample(baseline=tuple(baseline), candidate=tuple(candidate))
    expected = stats.permutation_test(
        (candidate, baseline),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    test = paired_test(sample, rng=rng())

    assert expected == pytest.approx(test.p_value, abs=1e-12)
    assert test.method is PairedMethod.SIGN_FLIP_EXACT
    assert test.mid_p is None


def test_monte_carlo_counts_the_sample_itself() -> None:
    """Above 16 differences (count + 1) / (B + 1): the smallest p is 1 / (B + 1), never 0."""
    differences = tuple(float(value) for value in range(100, 140))
    test = sign_flip_test(sample_of(differences), rng=rng(), resamples=999)

    assert test.p_value == 1 / 1_000
    assert test.method is PairedMethod.SIGN_FLIP_MONTE_CARLO


def test_monte_carlo_comes_near_the_exact_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """14 differences both ways: equal within 4 Monte-Carlo standard errors."""
    sample = sample_of(tuple(rng(5).normal(0.4, 1.0, size=14)))
    exact = sign_flip_test(sample, rng=rng()).p_value
    monkeypatch.setattr(paired, "ENUMERATION_LIMIT", 13)
    monte_carlo = sign_flip_test(sample, rng=rng())

    assert monte_carlo.method is PairedMethod.SIGN_FLIP_MONTE_CARLO
    assert 0.02 < exact < 0.9
    assert exact == pytest.approx(monte_carlo.p_value, abs=4 * math.sqrt(exact * (1 - exact) / 9_999))


@pytest.mark.parametrize(("size", "method"), [(16, "sign_flip_exact"), (17, "sign_flip_monte_carlo")])
def test_enumeration_stops_at_16_non_zero_differences(size: int, method: str) -> None:
    """Zeros do not count towards the limit."""
    differences = tuple(float(value) for value in range(1, size + 1)) + (0.0,) * 20
    test = sign_flip_test(sample_of(differences), rng=rng())

    assert method == test.method
    assert (size, 0, size + 20) == (test.wins, test.losses, test.units)


def test_equal_differences_are_exact_at_any_size() -> None:
    """All of one size: the binomial, as McNemar has it, without Monte Carlo."""
    differences = (0.3,) * 15 + (-0.3,) * 5 + (0.0,) * 30
    test = sign_flip_test(sample_of(differences), rng=rng())

    assert test.p_value == pytest.approx(0.0413894653, abs=5e-11)
    assert test.method is PairedMethod.SIGN_FLIP_EXACT


def test_rounding_makes_no_difference() -> None:
    """0.1 + 0.2 against 0.3 is a tie, and so are sums that are equal on paper."""
    tied = PairedSample(baseline=(0.3, 0.5), candidate=(0.1 + 0.2, 0.7))
    assert tied.differences().tolist() == [0.0, 0.7 - 0.5]
    assert sign_flip_test(sample_of((0.1, 0.2, -0.3)), rng=rng()).p_value == 1.0
    assert sign_flip_test(sample_of((0.1, 0.2, 0.3, 0.6)), rng=rng()).p_value == 2 / 16
    in_cluster = sample_of((0.1, 0.2, -0.3, 1.0), ("a", "a", "a", "b"))
    assert in_cluster.unit_sums().tolist() == [0.0, 1.0]


def test_no_difference_gives_p_of_1() -> None:
    """Nothing to flip."""
    test = sign_flip_test(sample_of((0.0,) * 9), rng=rng())

    assert (test.p_value, test.non_zero) == (1.0, 0)


def test_clusters_flip_whole() -> None:
    """Sums (3, 1, -1): |sum| >= 3 in 6 of 8 patterns; example by example in 8 of 16."""
    sample = sample_of((1.0, 2.0, 1.0, -1.0, 0.0), ("a", "a", "b", "c", "c"))
    test = paired_test(sample, rng=rng())

    assert test.p_value == 6 / 8
    assert paired_test(replace(sample, clusters=None), rng=rng()).p_value == 8 / 16
    assert test.method is PairedMethod.CLUSTER_SIGN_FLIP_EXACT
    assert (test.n, test.units, test.wins, test.losses) == (5, 3, 2, 1)


def test_clustered_binary_scores_are_not_left_to_mcnemar() -> None:
    """Six wins in one conversation are one win."""
    sample = PairedSample(baseline=(0.0,) * 6 + (1.0,), candidate=(1.0,) * 7, clusters=(*("a",) * 6, "b"))

    assert paired_test(sample, rng=rng()).p_value == 1.0
    assert paired_test(replace(sample, clusters=None), rng=rng()).p_value == 0.03125


def test_many_clusters_are_sampled() -> None:
    """More than 16 clusters of unequal sums."""
    differences = tuple(float(value) for value in range(1, 41))
    clusters = tuple(str(index // 2) for index in range(40))
    test = paired_test(sample_of(differences, clusters), rng=rng(), resamples=499)

    assert test.method is PairedMethod.CLUSTER_SIGN_FLIP_MONTE_CARLO
    assert test.p_value == 1 / 500


def test_chunks_cover_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of a certain sum stays right when memory allows one or two rows at a time."""
    monkeypatch.setattr(paired, "CELLS_PER_CHUNK", 7)
    totals = paired.flipped_sums(np.array([[1.0], [2.0], [4.0]]), rng(), 801)

    assert {-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 7.0} == set(totals[:, 0].tolist())
    assert np.mean(totals) == pytest.approx(0.0, abs=4 * math.sqrt(21 / 801))


def test_a_chunk_holds_no_more_cells_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory depends on the number of units, however many columns are summed."""
    drawn: list[int] = []

    class Counting(np.random.Generator):
        def integers(self, *args: object, **kwargs: object) -> npt.NDArray[np.int8]:
            found: npt.NDArray[np.int8] = super().integers(*args, **kwargs)  # type: ignore[call-overload]
            drawn.append(found.size)
            return found

    monkeypatch.setattr(paired, "CELLS_PER_CHUNK", 20)
    paired.flipped_sums(np.ones((5, 1)), Counting(np.random.PCG64(0)), 10)

    assert drawn == [20, 20, 10]


@given(samples())
def test_swapping_keeps_p(sample: PairedSample) -> None:
    """Baseline and candidate exchanged: the same p, wins and losses exchanged."""
    test = paired_test(sample, rng=rng(), resamples=99)
    other = paired_test(swapped(sample), rng=rng(), resamples=99)

    assert test == replace(other, wins=other.losses, losses=other.wins)


@given(samples())
def test_p_lies_in_0_to_1(sample: PairedSample) -> None:
    """Never 0, never above 1, and not below what so few units can show."""
    test = paired_test(sample, rng=rng(), resamples=99)

    assert min(2.0 ** (1 - test.non_zero), 1.0) * 0.99 <= test.p_value <= 1.0 or test.p_value >= 0.01
    assert test.non_zero <= test.units <= test.n


@given(samples(scores=binary), st.integers(-5, 5))
def test_a_constant_added_to_both_changes_nothing(sample: PairedSample, constant: int) -> None:
    """The same p from McNemar and, with the constant, from the sign-flip test."""
    moved = replace(
        sample,
        baseline=tuple(score + constant for score in sample.baseline),
        candidate=tuple(score + constant for score in sample.candidate),
    )
    before = paired_test(sample, rng=rng(), resamples=99).p_value
    after = paired_test(moved, rng=rng(), resamples=99).p_value

    assert before == pytest.approx(after, rel=1e-12)


@given(samples())
def test_clusters_of_one_are_no_clusters(sample: PairedSample) -> None:
    """Distinct names for all examples: equal test, units and standard error."""
    plain = replace(sample, clusters=None)
    single = replace(sample, clusters=tuple(f"{index:02}" for index in range(sample.n)))

    assert paired_test(plain, rng=rng(), resamples=99) == paired_test(single, rng=rng(), resamples=99)
    assert plain.standard_error() == pytest.approx(single.standard_error())
    assert not single.clustered


@given(samples(scores=binary))
def test_sign_flip_on_binary_scores_is_mcnemar(sample: PairedSample) -> None:
    """Two derivations of one p-value."""
    plain = replace(sample, clusters=None)
    flip = sign_flip_test(plain, rng=rng(), resamples=99)

    assert paired_test(plain, rng=rng()).p_value == pytest.approx(flip.p_value, rel=1e-12)


def test_standard_error_of_independent_examples() -> None:
    """s / sqrt(n) by `scipy.stats.sem`; None for one example."""
    values = rng(1).normal(size=17)

    assert stats.sem(values) == pytest.approx(standard_error(values))
    assert standard_error(values[:1]) is None


def test_clustered_standard_error() -> None:
    """By hand: sums of deviations (-2, 0, 2), so sqrt(3 / 2 * 8) / 6."""
    values = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0])

    assert math.sqrt(12) / 6 == pytest.approx(standard_error(values, ("a", "a", "b", "b", "c", "c")))
    assert standard_error(values, ("a",) * 6) is None


def test_sample_says_what_it_holds() -> None:
    """Its counts and kinds."""
    sample = PairedSample(baseline=(0.0, 1.0, 0.5), candidate=(1.0, 1.0, 2.5), clusters=("x", "y", "x"))

    assert (
        sample.n,
        sample.units,
        sample.clustered,
        sample.binary,
        sample.score_range,
    ) == (3, 2, True, False, 2.5)
    assert sample.differences().tolist() == [1.0, 0.0, 2.0]
    assert sample.unit_sums().tolist() == [3.0, 0.0]
    assert PairedSample(baseline=(0.0, 1.0), candidate=(1.0, 1.0)).binary


@pytest.mark.parametrize(
    ("baseline", "candidate", "percentage"),
    [
        ((0.5, 0.5), (0.6, 0.6), 20.0),
        ((-10.0, -10.0), (-8.0, -8.0), 20.0),
        ((-10.0,), (-15.0,), -50.0),
        ((0.0, 0.0), (1.0, 1.0), None),
        ((0.1, 0.2, -0.3), (1.0, 1.0, 1.0), None),
    ],
)
def test_improvement_percentage(baseline: Scores, candidate: Scores, percentage: float | None) -> None:
    """Relative to the size of the baseline's mean; None at 0, rounding included."""
    sample = PairedSample(baseline=baseline, candidate=candidate)

    assert sample.improvement_percentage() == pytest.approx(percentage)


@pytest.mark.parametrize(
    ("baseline", "candidate", "clusters", "message"),
    [
        ((), (), None, "at least 1 example, found 0"),
        ((1.0,), (1.0, 2.0), None, "candidate must have one entry for each of the 1 baseline scores, found 2"),
        ((1.0, 2.0), (1.0, 2.0), ("a",), "clusters must have one entry .* found 1"),
        ((1.0, math.nan), (1.0, 2.0), None, "baseline scores must be finite numbers, found nan at index 1"),
        ((1.0, 2.0), (math.inf, 2.0), None, "candidate scores must be finite numbers, found inf at index 0"),
    ],
)
def test_bad_samples_are_refused(
    baseline: Scores, candidate: Scores, clusters: tuple[str, ...] | None, message: str
) -> None:
    """The message names the field and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        PairedSample(baseline=baseline, candidate=candidate, clusters=clusters)


@pytest.mark.parametrize("p_value", [0.0, -0.1, 1.1, math.nan])
def test_a_test_needs_a_p_value(p_value: float) -> None:
    """A p of 0 cannot be built."""
    with pytest.raises(InvalidRequestError, match=f"found {p_value}"):
        PairedTest(p_value=p_value, mid_p=None, method=PairedMethod.MCNEMAR, n=1, units=1, wins=0, losses=0)


def test_resamples_must_be_positive() -> None:
    """Refused before anything is drawn."""
    with pytest.raises(InvalidRequestError, match="resamples must be at least 1, found 0"):
        paired.flipped_sums(np.ones((3, 1)), rng(), 0)
    assert paired.flipped_sums(np.ones((3, 1)), rng(), 1).shape == (1, 1)


def correlated_binary(generator: np.random.Generator, n: int, rate: float, shared: float) -> tuple[Scores, Scores]:
    """Two equally good candidates; `shared` of the examples get the same answer from both."""
    first = generator.random(n) < rate
    second = np.where(generator.random(n) < shared, first, generator.random(n) < rate)
    return tuple(first.astype(float)), tuple(second.astype(float))


def test_mcnemar_keeps_its_level() -> None:
    """A/A with n = 150: rejections at 5 % within 3 standard errors, and not far below."""
    generator, repeats, rejected = rng(11), 4_000, 0
    for _ in range(repeats):
        baseline, candidate = correlated_binary(generator, 150, 0.7, 0.5)
        sample = PairedSample(baseline=baseline, candidate=candidate)
        rejected += paired_test(sample, rng=generator).p_value <= 0.05

    assert 0.015 < rejected / repeats <= bound(0.05, repeats)


def skewed_null(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    """Differences that are symmetric about 0 with heavy tails."""
    return generator.choice([-1.0, 1.0], size=n) * generator.exponential(size=n) ** 2


@pytest.mark.parametrize("n", [12, 40])
def test_sign_flip_keeps_its_level(n: int) -> None:
    """Exact and Monte Carlo on symmetric differences with heavy tails."""
    generator, repeats = rng(12), 1_500
    rejected = sum(
        sign_flip_test(sample_of(tuple(skewed_null(generator, n))), rng=generator, resamples=199).p_value <= 0.05
        for _ in range(repeats)
    )

    assert 0.03 < rejected / repeats <= bound(0.05, repeats)


def test_clusters_need_the_clustered_test() -> None:
    """A/A with 30 conversations of 8: clustered within its level; the control ignores them and fails."""
    generator, repeats = rng(13), 800
    clusters = tuple(f"{index // 8:02}" for index in range(240))
    rejected = {"clustered": 0, "control": 0}
    for _ in range(repeats):
        effect = np.repeat(generator.normal(size=30), 8)
        differences = tuple(effect + generator.normal(size=240))
        for name, of in (("clustered", clusters), ("control", None)):
            test = paired_test(sample_of(differences, of), rng=generator, resamples=199)
            rejected[name] += test.p_value <= 0.05

    assert rejected["clustered"] / repeats <= bound(0.05, repeats)
    assert rejected["control"] / repeats > 0.2 > bound(0.05, repeats)


@pytest.mark.parametrize("size", [10, 40])
def test_p_does_not_depend_on_the_unit_of_the_scores(size: int) -> None:
    """Dollars or billionths of one: what counts as a tie is relative; enumerated and drawn."""
    differences = tuple(float(value) for value in rng(3).normal(0.3, 1.0, size))
    tiny = tuple(value * 2.0**-40 for value in differences)

    expected = paired.sign_flip_test(sample_of(differences), rng=rng(4)).p_value
    assert expected == pytest.approx(paired.sign_flip_test(sample_of(tiny), rng=rng(4)).p_value)
