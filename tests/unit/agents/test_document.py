"""Documents of others: what is read, and what is refused."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dspy_optimization.agents.document import parse_json, parse_yaml, read_document, read_text
from dspy_optimization.errors import InvalidRequestError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), inner),
    max_leaves=8,
)


@given(values)
def test_yaml_and_json_say_the_same(value: object) -> None:
    """JSON is YAML, and both readers agree on it."""
    text = json.dumps(value, ensure_ascii=False)

    assert value == parse_json(text, "x") == parse_yaml(text, "x")


@given(st.text(max_size=80))
@example('"\\UFFFFFFFF"')
@example("1" * 5000)
@example("- " * 100)
@example("? [a]\n: b")
@example("\x07")
@example("%YAML 9.9\n--- a")
def test_no_text_is_more_than_refused(text: str) -> None:
    """Whatever stands there, the answer is a value or InvalidRequestError."""
    for parse in (parse_yaml, parse_json):
        with suppress(InvalidRequestError):
            parse(text, "here")


def test_labels_and_times_stay_text() -> None:
    """`yes`, `no`, 12:30, dates, 007 and 1_000 are what people wrote, not what YAML 1.1 makes of them."""
    found = parse_yaml("[yes, no, on, 12:30, 2024-01-01, 007, 1_000, 0x1F, ~, true, 1, -2.5, 1e3, '']", "x")

    assert [
        "yes", "no", "on", "12:30", "2024-01-01", "007", "1_000", "0x1F", None, True, 1, -2.5, 1000.0, "",
    ] == found  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: &x [1]\nb: *x", "YAML without aliases is wanted, found *x at line 2"),
        ("a: !!python/object:os.system x", "without tags is wanted, found 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !!timestamp 2024-01-01", "without tags"),
        ("a: !x 1", "without tags"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' twice"),
        ("[a]: 1", "a key that is no text"),
        ("{1: 2}", "keys are text, found int 1"),
        ("a: [1", "line 1, column 6"),
        ("a: 1\n--- b", "another document"),
        ("[" * 40 + "]" * 40, "nest at most 32 deep"),
        ("a: \x07", "unacceptable character"),
        ('"\\UFFFFFFFF"', "a value cannot be read"),
        ("9" * 5000, "a value cannot be read"),
        ("1e999", "1e999"),
        ("<<: {a: 1}", None),
    ],
)
def test_yaml_refusals(text: str, fragment: str | None) -> None:
    """Aliases, tags, double keys, depth and unreadable scalars are refused by name; `<<` is a key as any other."""
    if fragment is None:
        assert {"<<": {"a": 1}} == parse_yaml(text, "x")
        return
    if fragment == "1e999":
        fragment = "a finite number is wanted, found inf"
    with pytest.raises(InvalidRequestError) as caught:
        parse_yaml(text, "x")

    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ('{"a": 1,}', "line 1, column 9"),
        ('{"a": 1, "a": 2}', "found 'a' twice"),
        ('{"a": NaN}', "JSON has no NaN"),
        ("[-Infinity]", "JSON has no -Infinity"),
        ("[1e999]", "a finite number is wanted, found inf"),
        ("[" * 100_000, "nest at most 32 deep"),
        ("9" * 5000, "at most 4,300 digits"),
        ('"\\ud800"', "half a character"),
        ('"a\\u0000"', "a NUL character"),
        ("99999999999999999999", "below 2^63"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "at most 1,048,576 bytes"),
    ],
)
def test_json_refusals(text: str, fragment: str) -> None:
    """What no hash and no database can hold is refused with its place."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_json(text, "x")

    assert fragment in str(caught.value)


def test_files(tmp_path: Path) -> None:
    """YAML and JSON by suffix, a byte-order mark does not matter."""
    (tmp_path / "a.yml").write_bytes(b"\xef\xbb\xbfa: 1")
    (tmp_path / "a.json").write_text('{"a": 1}')

    assert read_document(tmp_path / "a.yml") == read_document(tmp_path / "a.json") == {"a": 1}


def test_file_refusals(tmp_path: Path) -> None:
    """No such file, a folder, a foreign encoding, another suffix, too much: each says what to do."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: é".encode("latin-1"))
    large = tmp_path / "large.yaml"
    large.write_text("a" * 200)
    cases = {
        tmp_path / "none.yaml": "No such file",
        latin: "UTF-8 text is wanted, found the byte 0xe9 in line 2",
        tmp_path / "a.toml": "a .yaml, .yml or .json file is wanted, found .toml",
        tmp_path / "a": "found no suffix",
        large: "at most 100 bytes are read",
    }
    for path, fragment in cases.items():
        with pytest.raises(InvalidRequestError) as caught:
            read_document(path, max_bytes=100)

        assert fragment in str(caught.value)
    with pytest.raises(InvalidRequestError, match="Is a directory"):
        read_text(tmp_path, max_bytes=1)
