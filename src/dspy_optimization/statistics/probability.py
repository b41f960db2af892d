"""Probabilities that a caller hands in: levels, powers, shares."""

from __future__ import annotations

import math

from dspy_optimization.errors import InvalidRequestError


def checked_probability(name: str, value: float) -> float:
    """Return `value` when it lies strictly between 0 and 1.

    Raises:
        InvalidRequestError: it does not; the message calls it `name`.
    """
    if not (math.isfinite(value) and 0.0 < value < 1.0):
        raise InvalidRequestError(
            f"{name} must be a probability strictly between 0 and 1, found {value}; possible: for example 0.05"
        )
    return value
