"""Comparing numbers."""

import math

import pytest
from agent_samples import answered, example
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.field_metric import FieldMetric
from dspy_optimization.agents.numeric_metric import NumericMatch, parse_number
from dspy_optimization.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        (" -3.5 ", -3.5),
        ("1,234.5", 1234.5),
        ("12,345,678", 12345678),
        ("1e6", 1e6),
        ("1.5E-3", 0.0015),
        (".5", 0.5),
        ("+7", 7),
        ("−7", -7),
        ("$12", 12),
        ("€ 12.50", 12.5),
        ("7%", 7),
        (8, 8),
        (8.5, 8.5),
    ],
)
def test_what_is_a_number(text: object, number: float) -> None:
    """One number and nothing else."""
    assert number == parse_number(text)


@pytest.mark.parametrize(
    "text",
    ["", "42 apples", "1.234,5", "12,34", "1,2345", "one", "e5", "-", "$", "%", "1 2", "1e99999", "1/2", "0x1F", True,
     None, [1], "nan", "inf", "5-", "--5"],
)  # fmt: skip
def test_what_is_none(text: object) -> None:
    """Nothing is guessed."""
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42 apples", 42),
        ("The answer is 42.", 42),
        ("3 + 4 = 7", 7),
        ("between -1 and -2,500.75!", -2500.75),
        ("x1 is no number", None),
        ("none", None),
        ("version 1.2.3", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    """Only where it is asked for."""
    assert number == parse_number(text, extract=True)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15))
def test_what_python_writes_is_read(number: float) -> None:
    """repr, and the form with thousands."""
    assert float(number) == parse_number(repr(number))
    if abs(number) < 1e15:
        assert math.isclose(number, parse_number(f"{number:,.6f}"), abs_tol=1e-6)


@pytest.mark.parametrize(
    ("match", "wanted", "found", "value"),
    [
        (NumericMatch(), 42, "42.0", 1.0),
        (NumericMatch(), "1,000", 1000, 1.0),
        (NumericMatch(), 0.3, 0.1 + 0.2, 1.0),
        (NumericMatch(), 42, 43, 0.0),
        (NumericMatch(tolerance=1.0), 42, 43, 1.0),
        (NumericMatch(relative_tolerance=0.1), -100, -109, 1.0),
        (NumericMatch(relative_tolerance=0.1), 100, 111, 0.0),
        (NumericMatch(extract=True), 42, "42 apples", 1.0),
    ],
)
def test_values(match: NumericMatch, wanted: object, found: object, value: float) -> None:
    """Equal within the larger of the two tolerances."""
    assert value == match.compare(wanted, found).value


def test_feedback() -> None:
    """How far off, or why it is no number."""
    off, none = NumericMatch().compare(42, "40"), NumericMatch().compare(42, "42 apples")

    assert off.feedback == "Expected 42; got 40, off by -2."
    assert "which is not a number alone; answer with the number only" in none.feedback
    assert none.failure == "not a number"


def test_an_expected_value_that_is_no_number_stops_the_run() -> None:
    """That is the dataset's fault, not the agent's."""
    metric = FieldMetric(name="n", comparison=NumericMatch())
    with pytest.raises(
        InvalidRequestError, match=r"the metric n, example .*: the expected value is wanted as a number"
    ):
        metric.score(example("q", "many"), answered(1))


def test_a_number_too_long_to_hold_is_no_number() -> None:
    """A model may write a whole number of any length; that is a wrong answer and no crash."""
    score = NumericMatch().compare(42, 10**400)

    assert (0.0, "not a number") == (score.value, score.failure)
