"""Levels and thresholds of the notes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential import (
    breach_threshold,
    non_inferiority_threshold,
    stage_alpha,
    stage_average,
    two_sided_threshold,
)


def test_thresholds() -> None:
    """statistics.md 3b: 40 for superiority and harm, 2 m / alpha for m variants, 1 / alpha and G / alpha."""
    assert two_sided_threshold(0.05) == pytest.approx(40.0)
    assert two_sided_threshold(0.05, comparisons=3) == pytest.approx(120.0)
    assert non_inferiority_threshold(0.05) == pytest.approx(20.0)
    assert breach_threshold(0.05, guardrails=4) == pytest.approx(80.0)


def test_stages_share_alpha() -> None:
    """A quarter each in four stages; an e-value of 160 stops one of them."""
    assert stage_alpha(0.05) == pytest.approx(0.0125)
    assert stage_alpha(0.05, stages=2) == pytest.approx(0.025)
    assert two_sided_threshold(stage_alpha(0.05)) == pytest.approx(160.0)


def test_stages_are_averaged() -> None:
    """The log of the mean, also where the e-values themselves have no number."""
    assert stage_average([math.log(2.0), math.log(6.0)]) == pytest.approx(math.log(4.0))
    assert stage_average([1000.0, -1000.0]) == pytest.approx(1000.0 - math.log(2.0))
    assert stage_average([0.3]) == pytest.approx(0.3)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    """Everywhere."""
    for call in (
        lambda: two_sided_threshold(alpha),
        lambda: non_inferiority_threshold(alpha),
        lambda: breach_threshold(alpha, guardrails=1),
        lambda: stage_alpha(alpha),
    ):
        with pytest.raises(InvalidRequestError, match="alpha must be a probability"):
            call()


def test_counts_start_at_one() -> None:
    """No comparison, guardrail or stage is no threshold."""
    for call in (
        lambda: two_sided_threshold(0.05, comparisons=0),
        lambda: breach_threshold(0.05, guardrails=0),
        lambda: stage_alpha(0.05, stages=0),
    ):
        with pytest.raises(InvalidRequestError, match=r"of at least 1; found: 0; possible"):
            call()
    with pytest.raises(InvalidRequestError, match="found: none"):
        stage_average([])


def test_multiplying_stages_would_be_wrong() -> None:
    """Why they are averaged: the same users decide both stages, and their product is no e-value."""
    e_values = np.array([1.9, 0.1])

    assert float(np.mean(e_values)) <= 1.0
    assert float(np.mean(e_values * e_values)) > 1.0
