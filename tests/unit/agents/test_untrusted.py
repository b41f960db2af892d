"""Values from outside: plain JSON within caps."""

from datetime import date

import pytest

from dspy_optimization.agents.untrusted import Block, checked_json, closest, listed, shown
from dspy_optimization.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ({"a": date(2024, 1, 1)}, "x: a: plain JSON is wanted, found date"),
        ({1: 2}, "keys are text, found int 1"),
        ({"a": [float("nan")]}, "x: a[0]: a finite number is wanted, found nan"),
        ({"a\x00": 1}, "a NUL character"),
        (["\ud83d"], "half a character (a lone surrogate) at position 0"),
        (2**63, "below 2^63"),
        ("x" * 101, "at most 100 bytes"),
        ([[[[[]]]]], "nest at most 3 deep"),
        (b"x", "found bytes"),
    ],
)
def test_what_is_no_plain_json(value: object, fragment: str) -> None:
    """The message names the place inside the value."""
    with pytest.raises(InvalidRequestError) as caught:
        checked_json(value, "x", max_bytes=100, max_depth=3)

    assert fragment in str(caught.value)


def test_a_copy_is_returned() -> None:
    """Tuples become lists, and nothing is shared with what was handed in."""
    inner = [1, 2.5, None, True]
    found = checked_json({"a": inner, "b": ("x",)}, "x")
    inner.append("later")

    assert {"a": [1, 2.5, None, True], "b": ["x"]} == found


def test_words_of_messages() -> None:
    """Values are shown short, names in order, near misses suggested."""
    assert "'" + "a" * 5 + "'" == shown("a" * 100, 5)
    assert shown(list(range(100)), 20) == "[0, 1, 2, 3, 4, 5..."
    assert listed([]) == "none"
    assert listed(["b", "a"]) == "a, b"
    assert listed(["b", "a", "c"], 2) == "a, b and 1 more"
    assert closest("anwser", ["answer"]) == ' (did you mean "answer"?)'
    assert closest("zzz", ["answer"]) == ""


BLOCK = Block(
    {"text": "a", "number": 0.5, "whole": 3, "flag": True, "items": [1, 2], "mapping": {"a": 1}, "nothing": None},
    "x",
    ("text", "number", "whole", "flag", "items", "mapping", "nothing", "absent"),
)


def test_a_block_reads_what_stands_there() -> None:
    """Null and absent are the same: the default counts."""
    found = (
        BLOCK.text("text"),
        BLOCK.text("absent", "b"),
        BLOCK.number("number", None, low=0, high=1),
        BLOCK.number("nothing", 2.0, low=0, high=1),
        BLOCK.whole("whole", None, low=0, high=3),
        BLOCK.whole("absent", 9, low=0, high=1),
        BLOCK.flag("flag", False),
        BLOCK.flag("nothing", False),
        BLOCK.items("items", 2),
        BLOCK.items("absent", 2),
        BLOCK.mapping("mapping"),
        BLOCK.mapping("nothing"),
        BLOCK.one_of("text", ("a", "b")),
        BLOCK.one_of("absent", ("a", "b"), "b"),
        "nothing" in BLOCK,
    )

    assert found == ("a", "b", 0.5, 2.0, 3, 9, True, False, [1, 2], [], {"a": 1}, {}, "a", "b", False)


@pytest.mark.parametrize(
    ("read", "fragment"),
    [
        (lambda: Block([], "x", ("a", "b")), "x: a mapping is wanted, found list []; possible keys: a, b"),
        (lambda: Block({"kid": 1}, "x", ("kind",)), "x: 'kid' is no known key (did you mean \"kind\"?)"),
        (lambda: Block({"k": 1}, "x", ("a",), {"k": "why"}), "x: k is refused: why; possible keys: a"),
        (lambda: BLOCK.text("absent"), "x: absent is missing"),
        (lambda: BLOCK.text("whole"), "x.whole: text is wanted, found int 3"),
        (lambda: BLOCK.text("text", max_bytes=0), "at most 0 bytes of text are accepted, found 1"),
        (lambda: BLOCK.one_of("text", ("aa",)), "x.text: 'a' is not known (did you mean \"aa\"?); possible: aa"),
        (lambda: BLOCK.flag("text", True), "true or false is wanted, found str 'a'"),
        (lambda: BLOCK.number("text", None, low=0, high=1), "a number is wanted, found str"),
        (lambda: BLOCK.number("flag", None, low=0, high=1), "a number is wanted, found bool"),
        (lambda: BLOCK.number("whole", None, low=0, high=1), "possible: from 0 to 1"),
        (lambda: BLOCK.number("whole", None, low=3, high=4, open_low=True), "possible: above 3 up to 4"),
        (lambda: BLOCK.number("whole", None, low=4, high=float("inf")), "possible: from 4 on"),
        (lambda: BLOCK.number("absent", None, low=0, high=float("inf"), open_low=True), "possible: above 0"),
        (lambda: BLOCK.whole("number", None, low=0, high=1), "a whole number is wanted, found float 0.5"),
        (lambda: BLOCK.whole("flag", None, low=0, high=1), "a whole number is wanted, found bool"),
        (lambda: BLOCK.items("text", 1), "a list is wanted"),
        (lambda: BLOCK.items("items", 1), "at most 1 entries are accepted, found 2"),
        (lambda: BLOCK.mapping("items"), "a mapping is wanted"),
    ],
)
def test_a_block_complains_with_the_place(read, fragment: str) -> None:
    """What was wanted, what was found, what is possible."""
    with pytest.raises(InvalidRequestError) as caught:
        read()

    assert fragment in str(caught.value)
