"""Probabilities handed in by callers."""

from __future__ import annotations

import math

import pytest

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability


def test_a_probability_comes_back() -> None:
    """A number strictly inside (0, 1) is returned as it is."""
    assert checked_probability("level", 0.95) == 0.95


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 2.0, math.nan, math.inf])
def test_anything_else_is_refused_by_name(value: float) -> None:
    """The ends are refused as well."""
    with pytest.raises(InvalidRequestError, match=f"level must be .* found {value}"):
        checked_probability("level", value)
