"""Text of strangers, made safe to look at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.adapters.report.visible import shortened, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("nul\x00", "nul⟨U+0000⟩"),
        ("half \ud800", "half ⟨U+D800⟩"),
        ("a\r\nb\rc", "a\nb⟨U+000D⟩c"),
        ("می‌خواهم 👩‍💻", "می‌خواهم 👩‍💻"),
    ],
)
def test_what_acts_is_spelled_out_and_what_is_seen_stays(text: str, expected: str) -> None:
    """Escape sequences and direction marks would repaint what stands beside them; joiners are needed to write."""
    assert expected == visible(text)


@given(st.text(alphabet=st.characters()))
def test_the_result_can_be_encoded_and_is_stable(text: str) -> None:
    """Whatever comes in, what comes out is UTF-8 and stays the same when it is shown again."""
    shown = visible(text)

    shown.encode()
    assert shown == visible(shown)


def test_a_long_text_says_how_much_is_left_out() -> None:
    """A reader must know that there was more."""
    assert "abc … (2,000 more characters)" == shortened("abc" + "x" * 2000, 3)
    assert "abc" == shortened("abc", 3)
