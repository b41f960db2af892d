"""Comparing numbers, however they are written."""

import math
import re
from dataclasses import dataclass

from dspy_optimization.agents.field_metric import brief
from dspy_optimization.agents.metric import Score
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

_NUMBER = r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,4})?"
_WHOLE = re.compile(rf"[$€£¥]?\s*(?P<number>{_NUMBER})\s*%?")
_INSIDE = re.compile(rf"(?<![\w.,])(?=[-+−.\d])(?P<number>{_NUMBER})(?!\w|[.,]\d)")
READABLE = "42, -3.5, 1,234.5, 1e6, $12, 7%"


def parse_number(value: Json, *, extract: bool = False) -> float | None:
    """Return the number a value is; None when it is none.

    Text has to be one number and nothing else: a sign, digits with or without commas between thousands, a decimal
    point, an exponent; one currency sign before it and one % after it count for nothing. "42 apples" and "1.234,5"
    are no numbers.

    Args:
        value: a number or text.
        extract: True: of a longer text the last number counts; "42 apples" is 42.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:  # a model may write a whole number of any length
            return None
    match = _WHOLE.fullmatch(value.strip())
    written = match.group("number") if match is not None else ""
    if not any(letter.isdigit() for letter in written) and extract:
        inside = [one.group("number") for one in _INSIDE.finditer(value)]
        written = next((one for one in reversed(inside) if any(letter.isdigit() for letter in one)), "")
    if not any(letter.isdigit() for letter in written) or written[:1] in "eE":
        return None
    number = float(written.replace(",", "").replace("−", "-"))
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericMatch:
    """1 when two numbers are equal within a tolerance."""

    tolerance: float = 1e-9
    """Absolute, in the unit of the number."""
    relative_tolerance: float = 0.0
    """Share of the expected number."""
    extract: bool = False
    """True: the last number in the answer's text counts."""

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return 1 or 0; an answer that is no number is 0 and says so.

        Raises:
            InvalidRequestError: what was expected is no number.
        """
        expected = parse_number(wanted)
        if expected is None:
            raise InvalidRequestError(
                f"the expected value is wanted as a number, found {brief(wanted)}; possible: {READABLE}"
            )
        number = parse_number(found, extract=self.extract)
        if number is None:
            reason = f"got {brief(found)}, which is not a number alone; answer with the number only, for example 42"
            return Score(value=0.0, feedback=f"Expected {expected:g}; {reason}.", failure="not a number")
        if abs(number - expected) <= max(self.tolerance, self.relative_tolerance * abs(expected)):
            return Score(value=1.0, feedback=f"Correct: {number:.15g}.")
        return Score(
            value=0.0, feedback=f"Expected {expected:.15g}; got {number:.15g}, off by {number - expected:+.6g}."
        )
