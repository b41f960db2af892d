"""Field types: the closed grammar."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.field_type import FieldType, TypeKind, parse_field_type
from dspy_optimization.errors import InvalidRequestError

plain_types = st.sampled_from([TypeKind.STRING, TypeKind.INTEGER, TypeKind.NUMBER, TypeKind.BOOLEAN]).map(
    lambda kind: FieldType(kind=kind)
)
choices = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["C", "Z"]), max_size=8),
        st.integers(-(10**6), 10**6),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda one: (type(one), one),
)
literals = choices.map(lambda some: FieldType(kind=TypeKind.LITERAL, choices=tuple(some)))
types = st.recursive(
    plain_types | literals,
    lambda inner: st.builds(
        FieldType,
        kind=st.sampled_from([TypeKind.LIST, TypeKind.DICT]),
        items=st.none() | inner,
        optional=st.booleans(),
    ),
    max_leaves=4,
)


@given(types)
def test_what_a_type_writes_is_read_back(field_type: FieldType) -> None:
    """str() and parse are inverse."""
    assert field_type == parse_field_type(str(field_type))


@given(st.text(max_size=60))
def test_no_text_is_more_than_refused(text: str) -> None:
    """Whatever stands there, the answer is a type or InvalidRequestError."""
    with suppress(InvalidRequestError):
        parse_field_type(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("str", "str"),
        ("string", "str"),
        (" integer ", "int"),
        ("number", "float"),
        ("boolean", "bool"),
        ("list", "list"),
        ("dict", "dict"),
        ("List[str]", "list[str]"),
        ("Dict[str,int]", "dict[str, int]"),
        ("dict[string, list[int]]", "dict[str, list[int]]"),
        ("Optional[int]", "int | None"),
        ("list[int|None] | None", "list[int | None] | None"),
        ("Literal['yes', \"no\"]", "Literal['yes', 'no']"),
        ("Literal[1, -2, True, False]", "Literal[1, -2, True, False]"),
        (r"Literal['it\'s']", 'Literal["it\'s"]'),
        ("Literal['None', 'a|b']", "Literal['None', 'a|b']"),
    ],
)
def test_spellings(text: str, canonical: str) -> None:
    """Every spelling of a type is one type."""
    assert canonical == str(parse_field_type(text))


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "it ends too early"),
        ("strr", "'strr' is no type"),
        ("__import__('os').system('x')", "cannot read \"('os')"),
        ("int | str", "the only union is with None"),
        ("int str", "'str' stands where the type has ended"),
        ("list[", "it ends too early"),
        ("list[int", "it ends too early"),
        ("list[int,", "']' is wanted where ',' stands"),
        ("dict[int, str]", "the keys of a dict are str"),
        ("dict[str]", "',' is wanted where ']' stands"),
        ("Literal[]", "a choice is quoted text"),
        ("Literal['a', 'a']", "a choice stands twice"),
        ("Literal[yes]", "not 'yes'"),
        ("Literal['a'", "it ends too early"),
        ("Optional", "it ends too early"),
        ("'str'", "is no type"),
        ("Literal[99999999999999999999]", "cannot read"),
        ("list[" * 9 + "str" + "]" * 9, "nest at most 8 deep"),
        ("x" * 2001, "at most 2000 characters, found 2001"),
    ],
)
def test_refusals(text: str, fragment: str) -> None:
    """What is not in the grammar is refused with the reason."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_field_type(text)

    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("text", "accepted", "refused"),
    [
        ("str", ["", "a"], [1, None, True, []]),
        ("int", [0, -3], [1.0, True, "1"]),
        ("float", [0, 1.5], [True, "1", None]),
        ("bool", [True, False], [0, 1, "true"]),
        ("list", [[], [1, "a"]], [{}, "[]"]),
        ("list[int]", [[], [1]], [["1"], [1, None]]),
        ("dict", [{}, {"a": 1}], [[]]),
        ("dict[str, bool]", [{"a": True}], [{"a": 1}]),
        ("Literal['yes', 1]", ["yes", 1], ["no", True, 1.0, None]),
        ("int | None", [1, None], ["1"]),
    ],
)
def test_what_a_type_accepts(text: str, accepted: list[object], refused: list[object]) -> None:
    """A bool is no number, a whole number is a float, null only where it says so."""
    field_type = parse_field_type(text)

    assert ([True] * len(accepted), [False] * len(refused)) == (
        [field_type.accepts(json.loads(json.dumps(one))) for one in accepted],
        [field_type.accepts(one) for one in refused],
    )
