"""Ranges of options, with messages that say what was wanted and found."""

from dspy_optimization.errors import InvalidRequestError


def at_least(name: str, value: float, lowest: float) -> None:
    """Refuse a smaller value.

    Raises:
        InvalidRequestError: names the option, the value and the least that is possible.
    """
    if value < lowest:
        raise InvalidRequestError(f"{name}: wanted {lowest:g} or more; found {value:g}; possible: {lowest:g}, …")


def above(name: str, value: float, bound: float) -> None:
    """Refuse a value that is not greater.

    Raises:
        InvalidRequestError: names the option, the value and the bound.
    """
    if value <= bound:
        raise InvalidRequestError(f"{name}: wanted more than {bound:g}; found {value:g}")
