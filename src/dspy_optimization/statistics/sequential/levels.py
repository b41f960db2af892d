"""Levels and thresholds: which evidence proves what, when several claims or stages share one alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability

ROLLOUT_STAGES = 4
"""1, 10, 50 and 100 %."""


def two_sided_threshold(alpha: float, *, comparisons: int = 1) -> float:
    """Return the e-value that proves superiority or harm: 2 comparisons / alpha, 40 at 0.05.

    Args:
        alpha: for both directions and all comparisons together, in (0, 1).
        comparisons: variants that are each compared with the baseline (e-Bonferroni).
    """
    checked_probability("alpha", alpha)
    return 2.0 * _count("comparisons", comparisons) / alpha


def non_inferiority_threshold(alpha: float) -> float:
    """Return the e-value that proves a guardrail not inferior: 1 / alpha.

    One-sided, and not corrected for the number of guardrails: all of them have to be proven.

    Args:
        alpha: in (0, 1).
    """
    return 1.0 / checked_probability("alpha", alpha)


def breach_threshold(alpha: float, *, guardrails: int) -> float:
    """Return the e-value that proves a guardrail breached: guardrails / alpha, because any one of them may.

    Args:
        alpha: for all guardrails together, in (0, 1).
        guardrails: how many the experiment has.
    """
    return _count("guardrails", guardrails) / checked_probability("alpha", alpha)


def stage_alpha(alpha: float, *, stages: int = ROLLOUT_STAGES) -> float:
    """Return the level of one stage of a rollout: its harm and guardrail processes start afresh, with this alpha.

    Args:
        alpha: for the whole rollout, in (0, 1).
        stages: how many it has.
    """
    return checked_probability("alpha", alpha) / _count("stages", stages)


def stage_average(log_e_values: Sequence[float]) -> float:
    """Return the log of the mean e-value of several stages, the one way they may be put together.

    Returning users have the arm they had, so the stages are dependent and their e-values must not be multiplied.

    Args:
        log_e_values: natural logs of the current e-values, one for each stage, never of running maxima.
    """
    if not log_e_values:
        raise InvalidRequestError("wanted: an e-value for each stage; found: none; possible: at least one stage")
    largest = max(log_e_values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in log_e_values) / len(log_e_values))


def _count(name: str, value: int) -> int:
    if value < 1:
        raise InvalidRequestError(f"wanted: {name} of at least 1; found: {value}; possible: a whole number from 1 on")
    return value
