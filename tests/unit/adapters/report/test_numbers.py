"""Numbers as people read them."""

import pytest

from dspy_optimization.adapters.report.numbers import (
    count,
    dollars,
    duration,
    number,
    p_text,
    per_hundred,
    percent,
    signed,
)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (per_hundred(0.234), "23"),
        (per_hundred(-0.025), "2.5"),
        (per_hundred(0.03), "3"),
        (percent(0.615), "61.5%"),
        (percent(1), "100%"),
        (number(0), "0"),
        (number(1234567.8), "1,234,568"),
        (number(0.123456), "0.123"),
        (number(12.0), "12"),
        (number(999.4), "999"),
        (number(0.0000123), "1.2e-05"),
        (signed(0.5), "+0.5"),
        (signed(-2), "−2"),
        (signed(0.0), "0"),
        (p_text(0.00001), "p < 0.0001"),
        (p_text(0.0134), "p = 0.013"),
        (p_text(1.0), "p = 1"),
        (dollars(0), "$0"),
        (dollars(0.00001), "less than $0.0001"),
        (dollars(0.05), "$0.05"),
        (dollars(1234.5), "$1,234.50"),
        (duration(42.2), "42 s"),
        (duration(200), "3 min 20 s"),
        (duration(180), "3 min"),
        (duration(7500), "2 h 5 min"),
        (duration(7200), "2 h"),
        (count(1, "call"), "1 call"),
        (count(1200, "call"), "1,200 calls"),
        (count(2, "it was", "they were"), "2 they were"),
    ],
)
def test_numbers_read_well(shown: str, expected: str) -> None:
    """Three digits that count, thousands set apart, a true minus, no exponent that is not needed."""
    assert expected == shown.replace("\u00a0", " ")
