"""Sample ratio mismatch against the notes' vector, scipy, and the law that nobody can win against right shares."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import SampleRatio, sample_ratio_log_e, sample_ratio_p_value

SHARES = st.sampled_from([(0.9, 0.1), (0.5, 0.5), (0.2, 0.3, 0.5), (0.99, 0.01)])


def test_vector_of_the_research_notes() -> None:
    """statistics.md 4: 9120/880 at 90/10 has log E = 5.958521 at c = 100 and a chi-square p of 6.334e-05."""
    assert sample_ratio_log_e((9120, 880), (0.9, 0.1), concentration=100.0) == pytest.approx(5.958521, abs=5e-7)
    assert sample_ratio_p_value((9120, 880), (0.9, 0.1)) == pytest.approx(6.334e-05, abs=5e-9)


def test_a_thousand_is_the_concentration() -> None:
    """What `SampleRatio` decides by (statistics.md 3b: c = 1000)."""
    arms = [False] * 912 + [True] * 88

    assert SampleRatio.start((0.9, 0.1)).extend(arms).log_e == sample_ratio_log_e(
        (912, 88), (0.9, 0.1), concentration=1000.0
    )


@given(SHARES, st.lists(st.integers(0, 400), min_size=3, max_size=3), st.sampled_from([10.0, 100.0, 1000.0]))
def test_is_a_ratio_of_likelihoods(shares: tuple[float, ...], counts: list[int], concentration: float) -> None:
    """Against scipy: Dirichlet-multinomial over multinomial, and chi-square."""
    n = counts[: len(shares)]
    weights = np.array(shares)
    expected = stats.dirichlet_multinomial.logpmf(n, concentration * weights, sum(n)) - stats.multinomial.logpmf(
        n, sum(n), weights
    )

    assert sample_ratio_log_e(n, shares, concentration=concentration) == pytest.approx(expected, abs=1e-8)
    if sum(n):
        chi = stats.chisquare(n, sum(n) * weights).pvalue
        assert sample_ratio_p_value(n, shares) == pytest.approx(chi, rel=1e-9, abs=1e-300)


@given(SHARES, st.lists(st.integers(0, 5000), min_size=3, max_size=3))
def test_a_fair_unit_gains_nothing_on_average(shares: tuple[float, ...], counts: list[int]) -> None:
    """Exact mean over the next arm: the e-value stays where it is."""
    n = counts[: len(shares)]
    before = sample_ratio_log_e(n, shares)
    after = [sample_ratio_log_e(np.add(n, np.eye(len(shares), dtype=int)[arm]), shares) for arm in range(len(shares))]
    mean = sum(share * math.exp(value - before) for share, value in zip(shares, after, strict=True))

    assert mean == pytest.approx(1.0, abs=1e-8)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 600), max_size=5))
@settings(max_examples=30)
def test_pieces_do_not_matter(seed: int, cuts: list[int]) -> None:
    """Bit for bit, through JSON, and with every look counted."""
    arms = np.random.default_rng(seed).random(600) < 0.3
    start = SampleRatio.start((0.9, 0.1))
    pieces, edges = start, [0, *sorted(cuts), 600]
    for first, last in pairwise(edges):
        pieces = SampleRatio.from_json(json.loads(json.dumps(pieces.extend(arms[first:last]).to_json())))
    looks, largest = start, 0.0
    for arm in arms:
        looks = looks.extend([arm])
        largest = max(largest, looks.log_e)

    assert pieces == start.extend(arms) == looks
    assert largest == looks.max_log_e


def test_an_alarm_stays() -> None:
    """200 treated units at a promised 10 % are proven wrong, and later right ones do not take that back."""
    start = SampleRatio.start((0.9, 0.1))
    wrong = start.extend([True] * 200)
    later = wrong.extend([False] * 1800)

    assert start.is_mismatch is False
    assert start.p_value is None
    assert wrong.is_mismatch is True
    assert later.is_mismatch is True
    assert later.log_e < math.log(1000)
    assert later.counts == (1800, 200)
    assert later.p_value == pytest.approx(1.0)


def test_the_alarm_is_at_a_thousand() -> None:
    """Alone: just under 1,000 is none."""
    arms = [1] * 200
    path = [float(sample_ratio_log_e((0, n), (0.9, 0.1))) for n in range(1, 201)]
    first = next(n for n, value in enumerate(path, start=1) if value >= math.log(1000))

    assert SampleRatio.start((0.9, 0.1)).extend(arms[: first - 1]).is_mismatch is False
    assert SampleRatio.start((0.9, 0.1)).extend(arms[:first]).is_mismatch is True


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.4), (1.0, 0.0), (0.5, math.nan), (1.2, -0.2)])
def test_shares_that_cannot_be(shares: tuple[float, ...]) -> None:
    """Shares of a traffic that is not all of it."""
    with pytest.raises(InvalidRequestError, match="wanted: at least two shares in"):
        SampleRatio.start(shares)


@pytest.mark.parametrize("arms", [[2], [-1], [0.5], [[0, 1]], ["a"]])
def test_arms_that_cannot_be(arms: list[object]) -> None:
    """Arms that were not promised."""
    with pytest.raises(InvalidRequestError, match=r"wanted: .*arm.*found: .*possible"):
        SampleRatio.start((0.9, 0.1)).extend(arms)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [(1, 2, 3), (-1, 2), (0.5, 1.0), 4])
def test_counts_that_cannot_be(counts: object) -> None:
    """One whole count an arm."""
    with pytest.raises(InvalidRequestError, match="wanted: a count from 0 on for each of 2 arms"):
        sample_ratio_log_e(counts, (0.9, 0.1))  # type: ignore[arg-type]


def test_concentration_must_be_positive() -> None:
    """c = 0 is no prior."""
    with pytest.raises(InvalidRequestError, match="wanted: a concentration above 0; found: 0"):
        sample_ratio_log_e((1, 2), (0.9, 0.1), concentration=0.0)


@pytest.mark.parametrize(("field", "value"), [("counts", [1]), ("counts", [1, -2]), ("shares", [0.9, 0.2])])
def test_stored_states_that_cannot_be(field: str, value: object) -> None:
    """What is wrong with a stored state is named."""
    data = {**SampleRatio.start((0.9, 0.1)).to_json(), field: value}
    with pytest.raises(InvalidRequestError, match=r"wanted: .*found: .*possible: "):
        SampleRatio.from_json(data)
