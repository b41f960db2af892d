"""The e-process against the notes' vector, a scalar rewrite of the formulas, and the laws it has to keep."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import BetDesign, EProcess, Units
from dspy_optimization.statistics.sequential.confidence_sequence import GRID

MULTIPLES = (0.5, 1.0, 2.0, 4.0)
WEIGHTS = (0.25, 0.40, 0.25, 0.10)
DIFFERENCE = BetDesign.difference(effect=0.05, historical_mean=0.8)
GUARDRAIL = BetDesign.guardrail(margin=0.1, historical_mean=0.3)


def congruential(n: int, seed: int) -> npt.NDArray[np.float64]:
    """Return n numbers in [0, 1) of the 32-bit generator of Numerical Recipes."""
    row, state = np.empty(n), seed
    for place in range(n):
        state = (1664525 * state + 1013904223) & 0xFFFFFFFF
        row[place] = state / 2**32
    return row


def stream_win() -> Units:
    """Return the notes' stream `win`: 6,000 units, an arm and an outcome each, 10/90, .80 against .87."""
    row = congruential(12_000, seed=2)
    treated = row[0::2] < 0.1
    return Units.of(treated, row[1::2] < np.where(treated, 0.87, 0.80), 0.1)


def drawn(rng: np.random.Generator, n: int, *, share: float = 0.3, gain: float = 0.0) -> Units:
    """Return units with outcomes between 0 and 1, many of them at the ends."""
    treated = rng.random(n) < share
    outcome = np.clip(rng.normal(0.6 + gain * treated, 0.5, n), 0.0, 1.0)
    return Units.of(treated, outcome, share)


def by_hand(design: BetDesign, units: Units, tau: float = 0.0) -> tuple[list[float], list[float]]:
    """Return the log e-values above and below after each unit, one plain number at a time, as the notes write them."""
    k, h = design.factor, design.historical_mean
    weight, weighted, squares = 0.0, 0.0, 0.0
    above, below = [1.0] * 4, [1.0] * 4
    rows: tuple[list[float], list[float]] = ([], [])
    for a, y, pi in zip(units.treated.tolist(), units.outcome.tolist(), units.propensity.tolist(), strict=True):
        m = (20 * h + weighted) / (20 + weight)
        v = max((20 * h + squares) / (20 + weight) - m * m, 1e-6)
        phis = {
            (arm, value): (value - m) / pi + m * (1 - k) if arm else -k * (value - m) / (1 - pi) + m * (1 - k)
            for arm in (True, False)
            for value in (0.0, 1.0, y)
        }
        b, c, phi = -min(phis.values()), max(phis.values()), phis[(a, y)]
        for j, multiple in enumerate(MULTIPLES):
            aim = multiple * design.effect / (v / pi + k**2 * v / (1 - pi))
            above[j] *= 1 + min(aim, 0.95 / (b + k)) * (phi - tau)
            below[j] *= 1 - min(aim, 0.95 / (c + k)) * (phi - tau)
        rows[0].append(math.log(math.fsum(w * e for w, e in zip(WEIGHTS, above, strict=True))))
        rows[1].append(math.log(math.fsum(w * e for w, e in zip(WEIGHTS, below, strict=True))))
        unit_weight = 0.5 / pi if a else 0.5 / (1 - pi)
        weight, weighted, squares = weight + unit_weight, weighted + unit_weight * y, squares + unit_weight * y * y
    return rows


def test_the_stream_of_the_research_notes() -> None:
    """statistics.md 4, stream `win`: first crossing at unit 3546, p = 4.065e-04, interval [0.02729, 0.11827]."""
    units = stream_win()
    start = EProcess.start(BetDesign.difference(effect=0.05, historical_mean=0.5))
    process = start.extend(units)
    interval = process.current_interval

    assert start.extend(units.between(0, 3545)).is_superior(0.05) is False
    assert start.extend(units.between(0, 3546)).is_superior(0.05) is True
    assert process.p_value == pytest.approx(4.065e-04, abs=5e-8)
    assert interval == pytest.approx((0.02729, 0.11827), abs=5e-6)
    assert process.interval is not None
    assert process.interval.upper < 0.11827


@pytest.mark.parametrize("design", [DIFFERENCE, GUARDRAIL, BetDesign(effect=1.0, historical_mean=0.0, factor=2.5)])
def test_equals_the_formulas_one_by_one(design: BetDesign) -> None:
    """Every e-value and both maxima against the scalar rewrite, with changing propensities."""
    rng = np.random.default_rng(4)
    propensity = rng.choice([0.01, 0.1, 0.5, 0.95], 300)
    treated = rng.random(300) < propensity
    units = Units.of(treated, np.clip(rng.normal(0.5 + 0.2 * treated, 0.4), 0.0, 1.0), propensity)
    above, below = by_hand(design, units)
    process = EProcess.start(design)
    for place in range(300):
        process = process.extend(units.between(place, place + 1))

        assert process.log_e_above == pytest.approx(above[place], abs=1e-9)
        assert process.log_e_below == pytest.approx(below[place], abs=1e-9)
    assert process.max_log_e_above == pytest.approx(max(0.0, *above), abs=1e-9)
    assert process.max_log_e_below == pytest.approx(max(0.0, *below), abs=1e-9)
    assert process.p_value == pytest.approx(min(1.0, 2 * math.exp(-max(0.0, *above, *below))), rel=1e-9)


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 2500), max_size=6))
@settings(max_examples=15, deadline=None)
def test_pieces_do_not_matter(seed: int, cuts: list[int]) -> None:
    """Bit for bit the same state at once, in pieces (through JSON between them) and across the inner blocks."""
    units = drawn(np.random.default_rng(seed), 2500, gain=0.1)
    for design in (DIFFERENCE, GUARDRAIL):
        process, edges = EProcess.start(design), [0, *sorted(cuts), 2500]
        for start, stop in pairwise(edges):
            process = EProcess.from_json(json.loads(json.dumps(process.extend(units.between(start, stop)).to_json())))

        assert process == EProcess.start(design).extend(units)


def test_one_by_one_is_the_same() -> None:
    """Bit for bit, each unit alone."""
    units = drawn(np.random.default_rng(11), 400, gain=0.2)
    process = EProcess.start(DIFFERENCE)
    for place in range(400):
        process = process.extend(units.between(place, place + 1))

    assert process == EProcess.start(DIFFERENCE).extend(units)


@given(
    seed=st.integers(0, 2**32),
    pi=st.floats(0.01, 0.99),
    history=st.integers(0, 200),
    outcomes=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    chances=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    k=st.sampled_from([1.0, 1.1, 2.0]),
)
@settings(max_examples=150, deadline=None)
def test_no_bet_gains_on_average_where_its_claim_is_false(
    seed: int, pi: float, history: int, outcomes: tuple[float, float], chances: tuple[float, float], k: float
) -> None:
    """Exact mean over both arms and two outcomes each, after any history, for every kept difference and bet.

    The mean factor of a bet is 1 + lam (mu1 - k mu0 - tau): at most 1 above where tau is at least the true
    difference, at most 1 below where it is at most that, and never negative for any unit.
    """
    rng = np.random.default_rng(seed)
    design = BetDesign(effect=0.05, historical_mean=0.6, factor=k, interval_alpha=0.05 if k == 1.0 else None)
    before = EProcess.start(design).extend(drawn(rng, history))
    taus = np.array(kept_differences(before))
    low, high = min(outcomes), max(outcomes)
    means = [chance * high + (1 - chance) * low for chance in chances]
    truth = means[0] - k * means[1]
    mean_above, mean_below = np.zeros((taus.size, 4)), np.zeros((taus.size, 4))
    for treated, chance in ((True, chances[0]), (False, chances[1])):
        for outcome, likelihood in ((high, chance), (low, 1 - chance)):
            after = before.extend(Units.of([treated], [outcome], pi))
            probability = likelihood * (pi if treated else 1 - pi)
            mean_above += probability * np.exp(np.subtract(after.above, before.above)).reshape(-1, 4)
            mean_below += probability * np.exp(np.subtract(after.below, before.below)).reshape(-1, 4)

    assert (mean_above[taus >= truth] <= 1 + 1e-9).all()
    assert (mean_below[taus <= truth] <= 1 + 1e-9).all()
    assert (mean_above[taus <= truth] >= 1 - 1e-9).all()
    assert (mean_below[taus >= truth] >= 1 - 1e-9).all()


def kept_differences(process: EProcess) -> tuple[float, ...]:
    """Return the differences whose wealth a process keeps."""
    return (0.0,) if process.design.interval_alpha is None else GRID


def test_a_wrong_propensity_gains_without_a_difference() -> None:
    """The control of the law above: with logged .5 and drawn .1, equal arms let the bet grow on average."""
    start = EProcess.start(BetDesign(effect=0.05, historical_mean=0.5))
    mean = 0.0
    for treated, share in ((True, 0.1), (False, 0.9)):
        for outcome, likelihood in ((1.0, 0.8), (0.0, 0.2)):
            mean += share * likelihood * math.exp(start.extend(Units.of([treated], [outcome], 0.5)).log_e_below)

    assert mean > 1.01


@pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
def test_is_the_growth_optimal_bet_on_two_rates(pi: float) -> None:
    """Grunwald, de Heide, Koolen 2024: where no cap binds, a bet multiplies by P1(arm | outcome) / P(arm)."""
    m, effect = 0.6, 0.01
    start = EProcess.start(BetDesign(effect=effect, historical_mean=m))
    for treated in (True, False):
        for outcome in (1.0, 0.0):
            after = start.extend(Units.of([treated], [outcome], pi))
            for j, multiple in enumerate(MULTIPLES):
                delta = multiple * effect
                rates = (m + (1 - pi) * delta, m - pi * delta)
                chance1, chance0 = (rate if outcome else 1 - rate for rate in rates)
                posterior = pi * chance1 / (pi * chance1 + (1 - pi) * chance0)
                expected = posterior / pi if treated else (1 - posterior) / (1 - pi)

                assert math.exp(after.above[j]) == pytest.approx(expected, rel=1e-12)


@given(seed=st.integers(0, 2**32), gain=st.sampled_from([-0.4, -0.1, 0.0, 0.1, 0.4]))
@settings(max_examples=25, deadline=None)
def test_p_never_rises_and_the_interval_agrees(seed: int, gain: float) -> None:
    """Looking again never takes back a p-value or widens the interval; 0 is out exactly when a side is proven."""
    rng = np.random.default_rng(seed)
    process = EProcess.start(DIFFERENCE)
    for _ in range(12):
        after = process.extend(drawn(rng, 60, share=0.5, gain=gain))
        old, new = process.interval, after.interval

        assert after.p_value <= process.p_value <= 1.0
        if new is not None:
            assert old is not None
            assert old.lower <= new.lower < new.upper <= old.upper
            assert (new.lower >= 0.0) is after.is_superior(0.05)
            assert (new.upper <= 0.0) is after.is_harmful(0.05)
            assert (not new.lower < 0.0 < new.upper) is (after.p_value <= 0.05)
        process = after


@given(seed=st.integers(0, 2**32), gain=st.floats(-0.5, 0.4), share=st.sampled_from([0.1, 0.5]))
@settings(max_examples=8, deadline=None)
def test_the_interval_is_never_narrower_than_the_exact_one(seed: int, gain: float, share: float) -> None:
    """Against bisection in tau on the scalar rewrite: outward, by less than 0.002 although cells have 0.01 to 0.3."""
    units = drawn(np.random.default_rng(seed), 200, share=share, gain=gain)
    process = EProcess.start(DIFFERENCE).extend(units)
    for found, exact in (
        (process.current_interval, exact_interval(units, looks=False)),
        (process.interval, exact_interval(units, looks=True)),
    ):
        if exact[0] < exact[1]:
            assert found is not None
            assert exact[0] - 0.002 <= found.lower <= exact[0] + 1e-9
            assert exact[1] - 1e-9 <= found.upper <= exact[1] + 0.002


def exact_interval(units: Units, *, looks: bool) -> tuple[float, float]:
    """Return the bounds by bisection in tau, at the last look or over all looks."""
    threshold, ends = math.log(40), []
    for side in (0, 1):
        low, high = -1.0, 1.0
        for _ in range(32):
            middle = (low + high) / 2
            row = by_hand(DIFFERENCE, units, middle)[side]
            refuted = (max(row) if looks else row[-1]) >= threshold
            if refuted is (side == 0):
                low = middle
            else:
                high = middle
        ends.append(low if side == 0 else high)
    return ends[0], ends[1]


def test_an_effect_that_turns_leaves_no_interval() -> None:
    """No one difference fits +.4 first and -.4 later: no interval, and the p-value stays."""
    rng = np.random.default_rng(3)
    better = EProcess.start(DIFFERENCE).extend(drawn(rng, 2000, share=0.5, gain=0.4))
    turned = better.extend(drawn(rng, 6000, share=0.5, gain=-0.6))

    assert better.interval is not None
    assert turned.interval is None
    assert turned.p_value <= better.p_value
    assert turned.is_superior(0.05)
    assert turned.is_harmful(0.05)
    assert turned == EProcess.from_json(turned.to_json())


def test_thresholds_are_those_of_the_claims() -> None:
    """40 for both sides, 20 for non-inferiority, 20 a guardrail for a breach; more variants ask for more."""
    start = EProcess.start(GUARDRAIL)

    def proven(e_value: float) -> EProcess:
        return replace(start, max_log_e_above=math.log(e_value), max_log_e_below=math.log(e_value))

    assert [False, True] == [proven(e).is_superior(0.05) for e in (39.9, 40.1)]
    assert [False, True] == [proven(e).is_harmful(0.05) for e in (39.9, 40.1)]
    assert [False, True] == [proven(e).is_superior(0.05, comparisons=3) for e in (119.9, 120.1)]
    assert [False, True] == [proven(e).is_non_inferior(0.05) for e in (19.9, 20.1)]
    assert [False, True] == [proven(e).is_breached(0.05, guardrails=4) for e in (79.9, 80.1)]
    assert proven(40.0).p_value == pytest.approx(0.05)


def test_a_slower_arm_breaches_and_an_equal_one_is_proven() -> None:
    """A guardrail on cost, 50/50: the direction of both claims."""
    rng = np.random.default_rng(8)
    treated = rng.random(20_000) < 0.5
    cost = rng.beta(6.0, 14.0, 20_000) * 0.7
    start = EProcess.start(BetDesign.guardrail(margin=0.1, historical_mean=0.21))
    equal = start.extend(Units.of(treated, cost, 0.5))
    dearer = start.extend(Units.of(treated, np.where(treated, 1.3 * cost, cost), 0.5))

    assert (equal.is_non_inferior(0.05), equal.is_breached(0.05, guardrails=3)) == (True, False)
    assert (dearer.is_non_inferior(0.05), dearer.is_breached(0.05, guardrails=3)) == (False, True)


def test_estimates_are_plain_means() -> None:
    """Means by arm; the difference is unbiased although a ramp biases the means."""
    rng = np.random.default_rng(5)
    propensity = np.repeat([0.05, 0.5], 50_000)
    base = np.repeat([0.9, 0.5], 50_000)
    treated = rng.random(100_000) < propensity
    process = EProcess.start(BetDesign(effect=0.05, historical_mean=0.7)).extend(
        Units.of(treated, rng.random(100_000) < base + 0.05 * treated, propensity)
    )

    assert process.n_units == 100_000
    assert process.mean_treated is not None
    assert process.mean_control is not None
    assert process.mean_treated - process.mean_control < -0.1
    assert process.difference == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("historical_mean", [0.0, 1.0])
@pytest.mark.parametrize("pi", [0.0001, 0.5, 0.9999])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_stays_finite_where_nothing_varies(historical_mean: float, pi: float, outcome: float) -> None:
    """The same outcome 3,000 times, then the opposite: JSON takes it, without NaN or infinity."""
    rng = np.random.default_rng(6)
    start = EProcess.start(BetDesign.difference(effect=0.05, historical_mean=historical_mean))
    process = start.extend(Units.of(rng.random(3000) < pi, np.full(3000, outcome), pi))
    process = process.extend(Units.of([True, False] * 50, np.full(100, 1.0 - outcome), pi))

    assert process == EProcess.from_json(json.loads(json.dumps(process.to_json(), allow_nan=False)))
    assert math.isfinite(process.log_e_above)
    assert math.isfinite(process.log_e_below)


def test_before_the_first_unit() -> None:
    """Nothing is known: e-values of 1, p of 1, all differences, no means; no units change nothing."""
    start = EProcess.start(DIFFERENCE)

    assert (start.p_value, start.p_superior, start.p_harmful) == (1.0, 1.0, 1.0)
    assert (start.log_e_above, start.log_e_below) == pytest.approx((0.0, 0.0), abs=1e-15)
    assert start.interval == (-1.0, 1.0) == start.current_interval
    assert (start.mean_treated, start.mean_control, start.difference, start.n_units) == (None, None, None, 0)
    assert start == start.extend(Units.of([], [], 0.5))
    assert EProcess.start(GUARDRAIL).interval is None
    assert EProcess.start(GUARDRAIL).current_interval is None


def test_is_fast_enough() -> None:
    """A million units in less than 5 s, ten further ones with their JSON in less than 6 ms, of processor time."""
    rng = np.random.default_rng(9)
    treated = rng.random(1_000_000) < 0.1
    units = Units.of(treated, rng.random(1_000_000) < 0.8, 0.1)
    begun = time.process_time()
    process = EProcess.start(DIFFERENCE).extend(units)
    whole = time.process_time() - begun
    stored = json.dumps(process.to_json())
    begun = time.process_time()
    for place in range(100):
        json.dumps(EProcess.from_json(json.loads(stored)).extend(units.between(place, place + 10)).to_json())
    increment = (time.process_time() - begun) / 100

    assert whole < 5.0
    assert increment < 0.006


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"effect": 0.0}, r"wanted: an effect in \(0, 1\]; found: 0.0; possible"),
        ({"effect": math.nan}, "found: nan"),
        ({"historical_mean": 1.2}, r"wanted: a historical_mean in \[0, 1\]; found: 1.2"),
        ({"factor": 0.9}, "wanted: a factor of at least 1; found: 0.9"),
        ({"factor": 1.1, "interval_alpha": 0.05}, "wanted: a factor of 1 with an interval"),
        ({"interval_alpha": 0.0}, "interval_alpha must be a probability"),
    ],
)
def test_designs_that_cannot_be(fields: dict[str, float], message: str) -> None:
    """Each wrong number is named."""
    with pytest.raises(InvalidRequestError, match=message):
        BetDesign(**{"effect": 0.05, "historical_mean": 0.8, **fields})


@pytest.mark.parametrize(("margin", "mean"), [(0.0, 0.2), (0.1, 0.0), (math.inf, 0.2), (0.1, 1.1)])
def test_guardrails_that_cannot_be(margin: float, mean: float) -> None:
    """Without a margin or a mean, equal arms could never be proven."""
    with pytest.raises(InvalidRequestError, match="wanted: a margin above 0 and a historical_mean"):
        BetDesign.guardrail(margin=margin, historical_mean=mean)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "sample_ratio"),
        ("version", 2),
        ("design", None),
        ("above", [0.0]),
        ("below", None),
        ("pseudo_sum", "0"),
        ("max_log_e_above", math.nan),
        ("lower_place", -1),
        ("upper_place", 10**12),
        ("lower_place", True),
    ],
)
def test_stored_states_that_cannot_be(field: str, value: object) -> None:
    """What is wrong with a stored state is named."""
    data = {**EProcess.start(DIFFERENCE).to_json(), field: value}
    with pytest.raises(InvalidRequestError, match=rf"wanted: .*{field}.*found: .*possible: "):
        EProcess.from_json(data)
