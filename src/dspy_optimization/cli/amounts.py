"""Amounts as people type them."""

import math
import re

from dspy_optimization.agents.untrusted import shown
from dspy_optimization.errors import InvalidRequestError

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:min|[smhd])\s*)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhd])")
LONGEST_SECONDS = 366 * 86400.0
_MOST_DIGITS = 20
_POSSIBLE = "45s, 30m, 2h, 1h30m, 3d; at most a year"


def seconds_of(text: str, where: str) -> float:
    """Return the seconds that `45s`, `30m`, `2h`, `1h30m` or `3d` stand for, above 0.

    Raises:
        InvalidRequestError: it is no such time.
    """
    if _TIME.fullmatch(text.strip().lower()) is None:
        raise InvalidRequestError(
            f"{where}: a time with its unit is wanted, found {shown(text)}; possible: {_POSSIBLE}"
        )
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text.lower()))
    if not 0.0 < seconds <= LONGEST_SECONDS:
        raise InvalidRequestError(
            f"{where}: a time above 0 and up to a year is wanted, found {shown(text)}; possible: {_POSSIBLE}"
        )
    return seconds


def number_of(text: str, where: str, *, above: float = -math.inf, possible: str = "0.05, 5") -> float:
    """Return the finite number a text spells, greater than `above`.

    Raises:
        InvalidRequestError: it spells none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > above):
        wanted = "a finite number" if above == -math.inf else f"a finite number above {above:g}"
        raise InvalidRequestError(f"{where}: {wanted} is wanted, found {shown(text)}; possible: {possible}")
    return value


def whole_number_of(text: str, where: str, *, low: int, high: int) -> int:
    """Return the whole number from `low` to `high` that a text spells.

    Raises:
        InvalidRequestError: it spells none.
    """
    try:
        value = int(text) if len(text) <= _MOST_DIGITS else high + 1
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise InvalidRequestError(
            f"{where}: a whole number is wanted, found {shown(text)}; possible: from {low} to {high}"
        )
    return value
