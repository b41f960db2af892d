"""Verdicts: the decision table line by line, the evidence behind them, and false verdicts by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.intervals import (
    Interval,
    IntervalMethod,
    improvement_interval,
    paired_interval,
    wilson_interval,
)
from dspy_optimization.statistics.paired import PairedMethod, PairedSample, PairedTest, paired_test
from dspy_optimization.statistics.power import detectable_mean, detectable_share
from dspy_optimization.statistics.verdict import (
    Comparison,
    Verdict,
    adjust_for_objectives,
    compare,
    headroom,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def binary_sample(*, both: int, lost: int, won: int, neither: int) -> PairedSample:
    """A paired table as scores."""
    return PairedSample(
        baseline=(1.0,) * (both + lost) + (0.0,) * (won + neither),
        candidate=(1.0,) * both + (0.0,) * lost + (1.0,) * won + (0.0,) * neither,
    )


def comparison(
    *,
    p_value: float = 0.5,
    difference: float = 0.0,
    ends: tuple[float, float] | None = (-0.1, 0.1),
    non_zero: int = 20,
    units: int = 100,
    minimum_effect: float = 0.05,
    alpha: float = 0.05,
) -> Comparison:
    """A comparison with these facts, to walk through the decision table."""
    interval = None
    if ends is not None:
        interval = Interval(lower=ends[0], upper=ends[1], level=1 - alpha, method=IntervalMethod.STUDENT_T)
    test = PairedTest(
        p_value=p_value,
        mid_p=None,
        method=PairedMethod.SIGN_FLIP_EXACT,
        n=units,
        units=units,
        wins=non_zero,
        losses=0,
    )
    return Comparison(
        n=units,
        units=units,
        clustered=False,
        baseline_mean=0.5,
        candidate_mean=0.5 + difference,
        difference=difference,
        interval=interval,
        improvement_percentage=200 * difference,
        improvement_interval=None,
        test=test,
        adjusted_p_value=p_value,
        mde=0.1,
        alpha=alpha,
        minimum_effect=minimum_effect,
        power=0.8,
    )


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        # Too few examples, whatever else.
        (comparison(units=5, non_zero=5, p_value=0.01, difference=1.0), "insufficient_data"),
        (comparison(units=5, non_zero=0, ends=(0.0, 0.0)), "insufficient_data"),
        (comparison(units=7, non_zero=7, p_value=0.001, difference=1.0, alpha=0.01), "insufficient_data"),
        (comparison(units=6, non_zero=6, p_value=0.03, difference=1.0), "improved"),
        # Too few of them differ: the interval tells negligible from unknown, on both sides.
        (comparison(non_zero=5, ends=(-0.05, 0.05)), "no_improvement"),
        (comparison(non_zero=5, ends=(-0.06, 0.01)), "insufficient_data"),
        (comparison(non_zero=5, ends=(-0.01, 0.06)), "insufficient_data"),
        (comparison(non_zero=0, ends=None), "insufficient_data"),
        (comparison(non_zero=0, ends=(0.0, 0.0), minimum_effect=0.0), "no_improvement"),
        (comparison(non_zero=0, ends=(-0.01, 0.01), minimum_effect=0.0), "insufficient_data"),
        (comparison(non_zero=5, ends=(-0.2, 0.2), p_value=0.01, difference=0.1), "insufficient_data"),
        # Enough: the test decides, strictly below alpha.
        (comparison(p_value=0.049, difference=0.01), "improved"),
        (comparison(p_value=0.049, difference=-0.01), "regressed"),
        (comparison(p_value=0.05, difference=0.06), "indecisive"),
        (comparison(non_zero=6, p_value=0.03, difference=0.06), "improved"),
        (comparison(p_value=0.03, difference=0.01, ends=(0.001, 0.02)), "improved"),
        # Not significant: ruled out or open.
        (comparison(ends=(-0.3, 0.049)), "no_improvement"),
        (comparison(ends=(-0.3, 0.05)), "indecisive"),
        (comparison(ends=(-0.3, -0.01), minimum_effect=0.0), "indecisive"),
        (comparison(ends=None), "indecisive"),
    ],
)
def test_the_decision_table(facts: Comparison, verdict: str) -> None:
    """Each line of `Comparison`'s table, and both sides of each limit."""
    assert verdict == facts.verdict


def test_the_adjusted_p_value_decides() -> None:
    """Not the raw one."""
    raw = comparison(p_value=0.03, difference=0.1)

    assert raw.verdict is Verdict.IMPROVED
    assert replace(raw, adjusted_p_value=0.06).verdict is Verdict.INDECISIVE


@pytest.mark.parametrize(
    ("difference", "reached"), [(0.049, False), (0.05, True), (0.1 + 0.2 - 0.25, True), (-0.1, False)]
)
def test_reaching_the_minimum_effect(difference: float, reached: bool) -> None:
    """The measured difference against the minimum effect of 0.05, rounding apart."""
    assert reached is comparison(difference=difference).reaches_minimum_effect


@pytest.mark.parametrize(
    ("facts", "parts"),
    [
        (
            comparison(p_value=0.012, difference=0.08, ends=(0.02, 0.14)),
            [
                "is better: 0.58 against 0.5 on 100 examples, difference +0.08 (0.95 interval +0.02 to +0.14)",
                "p = 0.012, below 0.05",
                "measured gain reaches the minimum effect of 0.05",
            ],
        ),
        (comparison(p_value=0.012, difference=0.01), ["measured gain stays below the minimum effect of 0.05"]),
        (comparison(p_value=0.012, difference=-0.08), ["is worse: 0.42 against 0.5", "p = 0.012, below 0.05"]),
        (comparison(ends=(-0.3, 0.01)), ["minimum effect of 0.05 is ruled out", "interval -0.3 to +0.01"]),
        (comparison(ends=None), ["do not decide", "no interval", "not below 0.05", "finds a difference of 0.1"]),
        (comparison(units=4, non_zero=4), ["Nothing can be shown on 4 examples", "at least 6 are needed"]),
        (comparison(non_zero=3, ends=None), ["differ on 3 of 100 examples; below 6", "with 80% chance"]),
        (
            replace(comparison(units=4, non_zero=4), clustered=True, mde=None),
            ["on 4 clusters", "finds no difference at all"],
        ),
        (replace(comparison(), clustered=True, n=300), ["on 300 examples in 100 clusters"]),
    ],
)
def test_reasons_carry_their_numbers(facts: Comparison, parts: list[str]) -> None:
    """Plain English with what it rests on."""
    for part in parts:
        assert part in facts.reason


def test_compare_gathers_the_evidence() -> None:
    """Binary, 200 examples, 9 lost and 29 won: each field from the function that stands for it."""
    sample = binary_sample(both=110, lost=9, won=29, neither=52)
    result = compare(sample, alpha=0.01, minimum_effect=0.02, rng=rng(), power=0.9, resamples=499)

    assert (result.n, result.units, result.clustered) == (200, 200, False)
    assert result.baseline_mean == pytest.approx(119 / 200)
    assert result.candidate_mean == pytest.approx(139 / 200)
    assert result.difference == pytest.approx(0.1)
    assert result.improvement_percentage == pytest.approx(100 * 20 / 119)
    assert paired_test(sample, rng=rng()) == result.test
    assert result.adjusted_p_value == result.test.p_value
    assert paired_interval(sample, rng=rng(), level=0.99) == result.interval
    assert improvement_interval(sample, rng=rng(), level=0.99, resamples=499) == result.improvement_interval
    assert detectable_share(200, discordant_share=38 / 200, alpha=0.01, power=0.9) == result.mde
    assert (result.alpha, result.minimum_effect, result.power) == (0.01, 0.02, 0.9)
    assert result.verdict is Verdict.IMPROVED
    assert result.reaches_minimum_effect


def test_compare_repeats_itself() -> None:
    """The same seed, the same comparison; Monte Carlo and bootstrap included."""
    generator = rng(1)
    sample = PairedSample(baseline=tuple(generator.random(70)), candidate=tuple(generator.random(70) + 0.1))
    first = compare(sample, alpha=0.05, minimum_effect=0.0, rng=rng(2), resamples=199)

    assert first == compare(sample, alpha=0.05, minimum_effect=0.0, rng=rng(2), resamples=199)
    assert first.test.method is PairedMethod.SIGN_FLIP_MONTE_CARLO


def test_compare_scores_by_resamples() -> None:
    """The resamples asked for are those drawn: the smallest p is 1 / (resamples + 1)."""
    sample = PairedSample(baseline=(0.0,) * 30, candidate=tuple(1.0 + index / 7 for index in range(30)))
    result = compare(sample, alpha=0.05, minimum_effect=0.0, rng=rng(), resamples=199)

    assert result.test.p_value == 1 / 200


def test_detectable_difference_of_continuous_scores() -> None:
    """From the spread of the differences; of clusters, from the clustered standard error."""
    generator = rng(3)
    sample = PairedSample(baseline=(0.0,) * 40, candidate=tuple(generator.normal(size=40)))
    plain = compare(sample, alpha=0.05, minimum_effect=0.1, rng=rng(), resamples=99)
    expected = detectable_mean(40, standard_deviation=float(np.std(sample.candidate, ddof=1)))
    assert expected == pytest.approx(plain.mde)

    clustered = replace(sample, clusters=tuple(str(index % 10) for index in range(40)))
    result = compare(clustered, alpha=0.05, minimum_effect=0.1, rng=rng(), resamples=99)
    error = clustered.standard_error()
    assert error is not None
    assert detectable_mean(10, standard_deviation=error * math.sqrt(10)) == pytest.approx(result.mde)
    assert (result.units, result.clustered) == (10, True)


def test_detectable_difference_when_nothing_varies() -> None:
    """As if all changes went one way over the whole range; None without range or with too few units."""
    same = PairedSample(baseline=(0.0, 2.0) * 10, candidate=(0.0, 2.0) * 10)
    share = detectable_share(20, discordant_share=0.0)
    assert share is not None
    assert compare(same, alpha=0.05, minimum_effect=0.1, rng=rng()).mde == pytest.approx(2 * share)

    constant = PairedSample(baseline=(0.5,) * 20, candidate=(0.5,) * 20)
    assert compare(constant, alpha=0.05, minimum_effect=0.1, rng=rng()).mde is None
    few = PairedSample(baseline=(0.0, 2.0), candidate=(0.5, 1.0))
    assert compare(few, alpha=0.05, minimum_effect=0.1, rng=rng()).mde is None
    balanced = PairedSample(
        baseline=(0.0,) * 16, candidate=(0.5, 1.5) * 8, clusters=tuple(str(index // 2) for index in range(16))
    )
    assert balanced.standard_error() == 0.0
    assert compare(balanced, alpha=0.05, minimum_effect=0.1, rng=rng(), resamples=99).mde is not None


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        ((65, 0, 0, 7), "insufficient_data"),
        ((66, 0, 0, 7), "no_improvement"),
        ((900, 0, 0, 100), "no_improvement"),
        ((898, 1, 1, 100), "no_improvement"),
        ((20, 0, 5, 5), "insufficient_data"),
        ((20, 0, 6, 4), "improved"),
        ((20, 6, 0, 4), "regressed"),
        ((20, 4, 8, 8), "indecisive"),
        ((500, 30, 20, 450), "no_improvement"),
        ((2, 0, 3, 0), "insufficient_data"),
    ],
)
def test_verdicts_of_whole_tables(table: tuple[int, int, int, int], verdict: str) -> None:
    """From scores to verdict with a minimum effect of 0.05."""
    both, lost, won, neither = table
    sample = binary_sample(both=both, lost=lost, won=won, neither=neither)

    assert verdict == compare(sample, alpha=0.05, minimum_effect=0.05, rng=rng(), resamples=99).verdict


def test_verdicts_of_equal_candidates() -> None:
    """A candidate that answers just like the baseline: nothing shown on 20 continuous scores, none on 500."""
    for n, verdict in ((20, Verdict.INSUFFICIENT_DATA), (500, Verdict.NO_IMPROVEMENT)):
        scores = tuple(rng(4).random(n))
        sample = PairedSample(baseline=scores, candidate=scores)

        assert verdict is compare(sample, alpha=0.05, minimum_effect=0.05, rng=rng(), resamples=99).verdict


def test_five_clusters_are_insufficient() -> None:
    """However many examples they hold, and however clear they are."""
    sample = PairedSample(
        baseline=(0.0,) * 100, candidate=(1.0,) * 100, clusters=tuple(str(index % 5) for index in range(100))
    )
    result = compare(sample, alpha=0.05, minimum_effect=0.05, rng=rng(), resamples=99)

    assert result.verdict is Verdict.INSUFFICIENT_DATA
    assert "5 clusters" in result.reason


@given(st.integers(0, 1_000), st.sampled_from([5, 12, 60]), st.booleans())
def test_swapping_mirrors_the_comparison(seed: int, n: int, binary: bool) -> None:
    """The difference and its interval change sides; improved and regressed change names; p stays."""
    generator = rng(seed)
    scores = generator.random((2, n)) + np.array([[0.0], [0.3]])
    if binary:
        scores = (scores < 0.7).astype(float)
    sample = PairedSample(baseline=tuple(scores[0]), candidate=tuple(scores[1]))
    other = replace(sample, baseline=sample.candidate, candidate=sample.baseline)
    one = compare(sample, alpha=0.05, minimum_effect=0.0, rng=rng(1), resamples=99)
    two = compare(other, alpha=0.05, minimum_effect=0.0, rng=rng(1), resamples=99)
    mirror = {Verdict.IMPROVED: Verdict.REGRESSED, Verdict.REGRESSED: Verdict.IMPROVED}

    assert one.difference == pytest.approx(-two.difference)
    assert one.adjusted_p_value == pytest.approx(two.adjusted_p_value)
    assert mirror.get(one.verdict, one.verdict) is two.verdict
    assert one.interval is not None
    assert two.interval is not None
    assert (one.interval.lower, one.interval.upper) == pytest.approx(
        (-two.interval.upper, -two.interval.lower), abs=1e-9
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a probability"),
        ({"power": 1.0}, "power must be a probability"),
        ({"minimum_effect": -0.1}, "minimum_effect must be a number of at least 0, found -0.1"),
        ({"minimum_effect": math.inf}, "minimum_effect must be .* found inf"),
        ({"resamples": 19}, "found alpha 0.05 with 19 resamples"),
    ],
)
def test_compare_refuses_what_cannot_work(changes: dict[str, float], message: str) -> None:
    """20 resamples are the first with which random p-values can get below 0.05."""
    options: dict[str, float] = {"alpha": 0.05, "minimum_effect": 0.05, "power": 0.8, **changes}
    resamples = int(options.pop("resamples", 99))
    sample = binary_sample(both=5, lost=1, won=2, neither=2)
    with pytest.raises(InvalidRequestError, match=message):
        compare(sample, rng=rng(), resamples=resamples, **options)
    assert compare(sample, alpha=0.05, minimum_effect=0.0, rng=rng(), resamples=20).n == 10


def test_holm_over_objectives() -> None:
    """p = (0.01, 0.04, 0.03) becomes (0.03, 0.06, 0.06): one of three improvements stays."""
    p_values = {"accuracy": 0.01, "cost": 0.04, "speed": 0.03}
    adjusted = adjust_for_objectives(
        {name: comparison(p_value=p_value, difference=0.1) for name, p_value in p_values.items()}
    )

    assert list(p_values) == list(adjusted)
    assert pytest.approx([each.adjusted_p_value for each in adjusted.values()]) == [0.03, 0.06, 0.06]
    assert [each.test.p_value for each in adjusted.values()] == [0.01, 0.04, 0.03]
    assert [each.verdict for each in adjusted.values()] == ["improved", "indecisive", "indecisive"]
    assert "p = 0.06" in adjusted["cost"].reason


def test_holm_starts_from_the_raw_p_values() -> None:
    """Adjusting twice is adjusting once."""
    once = adjust_for_objectives({"a": comparison(p_value=0.02), "b": comparison(p_value=0.02)})

    assert once == adjust_for_objectives(once)
    assert adjust_for_objectives({}) == {}


def test_objectives_share_their_level() -> None:
    """Two levels are refused with both named."""
    with pytest.raises(InvalidRequestError, match=r"one alpha, found 0.01, 0.05; possible: .* a, b"):
        adjust_for_objectives({"a": comparison(), "b": comparison(alpha=0.01)})


def test_headroom_of_binary_scores() -> None:
    """196 of 200 right: at most 1 minus Wilson's lower bound is left."""
    scores = (1.0,) * 196 + (0.0,) * 4
    left = 1.0 - wilson_interval(196, 200).lower
    room = headroom(scores, minimum_effect=0.06)

    assert (room.n, room.baseline_mean) == (200, 0.98)
    assert room.possible_gain == pytest.approx(0.02)
    assert room.largest_gain == pytest.approx(left)
    assert 0.05 < left < 0.06
    assert room.exhausted
    assert "no candidate can gain more than 0.0503" in room.reason
    assert "minimum effect of 0.06 does not fit" in room.reason
    assert not headroom(scores, minimum_effect=0.05).exhausted
    assert "0.05 fits" in headroom(scores, minimum_effect=0.05).reason
    assert not headroom(scores, minimum_effect=left).exhausted


def test_few_examples_leave_headroom_open() -> None:
    """20 of 20 right do not show that 0.05 cannot be gained; no minimum effect is never out of room."""
    assert not headroom((1.0,) * 20, minimum_effect=0.05).exhausted
    assert headroom((1.0,) * 200, minimum_effect=0.05).exhausted
    assert not headroom((1.0,) * 10_000, minimum_effect=0.0).exhausted
    assert headroom((1.0,) * 20, minimum_effect=0.16, level=0.9).exhausted


def test_headroom_between_other_bounds() -> None:
    """Cost turned around, in [-10, 0]: the same share of the range."""
    unit = headroom((0.9, 1.0) * 50, minimum_effect=0.2)
    cost = headroom((-1.0, 0.0) * 50, minimum_effect=2.0, floor=-10.0, ceiling=0.0)

    assert (cost.possible_gain, cost.largest_gain) == pytest.approx((10 * unit.possible_gain, 10 * unit.largest_gain))
    assert cost.baseline_mean == pytest.approx(-0.5)


@pytest.mark.parametrize("score", [0.1, 0.7])
def test_headroom_at_the_bounds(score: float) -> None:
    """All at the floor or all at the ceiling, rounding included."""
    room = headroom((score,) * 7, minimum_effect=0.1, floor=0.1, ceiling=0.7)

    assert room.possible_gain == pytest.approx(0.7 - score)


@pytest.mark.parametrize(
    ("scores", "floor", "ceiling", "found"),
    [
        ((), 0.0, 1.0, "found none"),
        ((0.5, 1.2), 0.0, 1.0, "found 0.5 to 1.2"),
        ((-0.1, 0.5), 0.0, 1.0, "found -0.1 to 0.5"),
        ((0.5, math.nan), 0.0, 1.0, "found nan to nan"),
        ((1.0,), 1.0, 1.0, "found 1.0 to 1.0"),
    ],
)
def test_headroom_needs_bounded_scores(scores: tuple[float, ...], floor: float, ceiling: float, found: str) -> None:
    """The message names bounds and scores."""
    with pytest.raises(InvalidRequestError, match=found):
        headroom(scores, minimum_effect=0.05, floor=floor, ceiling=ceiling)
    with pytest.raises(InvalidRequestError, match="minimum_effect"):
        headroom((0.5,), minimum_effect=-1.0)


def test_false_improvement_of_the_best_of_20_null_candidates() -> None:
    """20 candidates equal to the baseline, the best on val picked: false `improved` on the sealed test split.

    At most 5 % + 3 SE there, and about 0 gain on average. The control judges the picked candidate on the val
    split it was picked on and must fail the bound: 16 to 18 % (23 to 31 % in statistics.md 0.7, one-sided).
    """
    generator, repeats, n = rng(2026), 1_500, 150
    improved, gains = {"test": 0, "val": 0}, {"test": 0.0, "val": 0.0}
    for _ in range(repeats):
        # Every candidate solves an example with the same chance; half of the answers are shared.
        hard = generator.random((2, n)) < 0.7
        shared = generator.random((2, 21, n)) < 0.5
        answers = np.where(shared, hard[:, None, :], generator.random((2, 21, n)) < 0.7).astype(float)
        best = 1 + int(np.argmax(answers[0, 1:].mean(axis=1)))
        for split, name in enumerate(("val", "test")):
            sample = PairedSample(baseline=tuple(answers[split, 0]), candidate=tuple(answers[split, best]))
            result = compare(sample, alpha=0.05, minimum_effect=0.0, rng=generator, resamples=20)
            improved[name] += result.verdict is Verdict.IMPROVED
            gains[name] += result.difference / repeats
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)

    assert 0.005 < improved["test"] / repeats <= limit
    assert improved["val"] / repeats > 2 * limit
    assert abs(gains["test"]) < 0.01 < 0.04 < gains["val"]


def test_no_improvement_is_not_said_of_a_gain_that_matters() -> None:
    """A true gain of the minimum effect, 45 examples: `no_improvement` in at most 2.5 % + 3 SE.

    The control asks Newcombe's interval alone whether a gain of 0.05 is ruled out.
    """
    generator, repeats, denied, control = rng(5), 2_000, 0, 0
    for _ in range(repeats):
        baseline = (generator.random(45) < 0.5).astype(float)
        candidate = np.where(generator.random(45) < 0.1, 1.0, baseline)
        sample = PairedSample(baseline=tuple(baseline), candidate=tuple(candidate))
        result = compare(sample, alpha=0.05, minimum_effect=0.05, rng=generator, resamples=20)
        assert result.interval is not None
        denied += result.verdict is Verdict.NO_IMPROVEMENT
        control += result.interval.upper < 0.05
    limit = 0.025 + 3 * math.sqrt(0.025 * 0.975 / repeats)

    assert denied / repeats <= limit
    assert control / repeats > 2 * limit


def test_false_verdicts_over_three_objectives() -> None:
    """Three null objectives: any improved or regressed in at most 5 % with Holm; the control leaves Holm out."""
    generator, repeats = rng(7), 800
    false = {"holm": 0, "control": 0}
    for _ in range(repeats):
        answers = (generator.random((3, 2, 150)) < 0.6).astype(float)
        raw = {
            str(index): compare(
                PairedSample(baseline=tuple(pair[0]), candidate=tuple(pair[1])),
                alpha=0.05,
                minimum_effect=0.0,
                rng=generator,
                resamples=20,
            )
            for index, pair in enumerate(answers)
        }
        claims = {Verdict.IMPROVED, Verdict.REGRESSED}
        false["control"] += any(each.verdict in claims for each in raw.values())
        false["holm"] += any(each.verdict in claims for each in adjust_for_objectives(raw).values())
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)

    assert 0.01 < false["holm"] / repeats <= limit
    assert false["control"] / repeats > limit


def test_six_units_are_enough_to_be_told_what_they_lack() -> None:
    """At 0.05 six examples could show something; when they differ too rarely that is the reason, not their number."""
    sample = binary_sample(both=1, lost=1, won=2, neither=2)
    found = compare(sample, alpha=0.05, minimum_effect=0.05, rng=rng())

    assert found.units == found.needed == 6
    assert found.verdict == "insufficient_data"
    assert found.reason.startswith("The two differ on 3 of 6 examples")
