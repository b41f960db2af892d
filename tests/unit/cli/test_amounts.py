import pytest

from dspy_optimization.cli.amounts import number_of, seconds_of, whole_number_of
from dspy_optimization.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("30m", 1800), ("30min", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5 h", 5400), ("3D", 259200)],
)
def test_times_read_as_people_write_them(text: str, seconds: float) -> None:
    """A number and a unit, several together."""
    assert seconds == seconds_of(text, "x")


@pytest.mark.parametrize("text", ["", "2", "h", "2 weeks", "-1h", "0s", "400d", "1h-2m", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """The message shows how times are written."""
    with pytest.raises(InvalidRequestError, match=r"x: a time .* is wanted, found .*; possible: 45s, 30m, 2h"):
        seconds_of(text, "x")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "many", ""])
def test_what_is_no_cap_is_refused(text: str) -> None:
    """A cap of 0, or one that is no number, would say nothing."""
    with pytest.raises(InvalidRequestError, match="--max-usd: a finite number above 0 is wanted, found '"):
        number_of(text, "--max-usd", above=0.0)


@pytest.mark.parametrize("text", ["0", "11", "2.5", "many", "9" * 5000])
def test_counts_are_whole_and_in_their_range(text: str) -> None:
    """The message names the range."""
    with pytest.raises(InvalidRequestError, match=r"--count: a whole number is wanted, .*possible: from 1 to 10"):
        whole_number_of(text, "--count", low=1, high=10)
    assert (10, -2.5) == (whole_number_of("10", "x", low=1, high=10), number_of("-2.5", "x"))
