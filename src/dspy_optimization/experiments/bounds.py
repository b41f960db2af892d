"""What a caller hands in, within its bounds: numbers that are numbers, moments that say where on earth they are."""

import math
from datetime import UTC, datetime

from dspy_optimization.agents.untrusted import shown
from dspy_optimization.errors import InvalidRequestError


def checked_number(
    name: str, value: object, *, low: float = 0.0, high: float = math.inf, open_low: bool = False, possible: str
) -> float:
    """Return a finite number in [low, high], or in (low, high] with `open_low`.

    Raises:
        InvalidRequestError: no number (true and false are none), NaN, infinite or out of range.
    """
    wanted = f"a finite number {'above' if open_low else 'of at least'} {low:g}"
    if not math.isinf(high):
        wanted += f" and at most {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(
            f"{name}: wanted: {wanted}; found: {type(value).__name__} {shown(value)}; possible: {possible}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high) or (open_low and number == low):
        raise InvalidRequestError(f"{name}: wanted: {wanted}; found: {shown(value)}; possible: {possible}")
    # Minus zero is zero, and has another JSON.
    return number + 0.0


def checked_count(name: str, value: object, *, low: int, possible: str) -> int:
    """Return a whole number of at least `low`.

    Raises:
        InvalidRequestError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InvalidRequestError(
            f"{name}: wanted: a whole number of at least {low}; found: {type(value).__name__} {shown(value)}; "
            f"possible: {possible}"
        )
    return value


def checked_moment(name: str, value: datetime) -> datetime:
    """Return an aware moment, in UTC.

    Raises:
        InvalidRequestError: it does not say its time zone.
    """
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidRequestError(
            f"{name}: wanted: a moment with its time zone; found: {value.isoformat()}; possible: "
            f"{value.isoformat()}+00:00"
        )
    return value.astimezone(UTC)


def checked_name(name: str, value: object, *, most: int = 256) -> str:
    """Return a text of 1 to `most` characters that is not blank.

    Raises:
        InvalidRequestError: it is none.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise InvalidRequestError(
            f"{name}: wanted: text of 1 to {most} characters; found: {type(value).__name__} {shown(value)}; possible: "
            "a short text that means something to you"
        )
    return value
