"""The types a field may have: a closed grammar, parsed by hand and never evaluated.

type    = base [ "|" "None" ]
base    = "str" | "int" | "float" | "bool" | "list" [ "[" type "]" ] | "dict" [ "[" "str" "," type "]" ]
        | "Literal" "[" choice { "," choice } "]" | "Optional" "[" type "]"
choice  = quoted text | whole number | "True" | "False"
"""

import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

Choice: TypeAlias = "str | int | bool"

MAX_LENGTH = 2000
MAX_DEPTH = 8
POSSIBLE = "str, int, float, bool, list[T], dict[str, T], Literal['a', 'b'], Optional[T] or T | None"


class TypeKind(StrEnum):
    """What a value is."""

    STRING = "str"
    INTEGER = "int"
    NUMBER = "float"
    BOOLEAN = "bool"
    LIST = "list"
    DICT = "dict"  # keys are always text
    LITERAL = "Literal"  # one of `choices`


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldType:
    """The parsed type of a field."""

    kind: TypeKind
    items: "FieldType | None" = None
    """Of a list's elements or a dict's values; None: any JSON."""
    choices: tuple[Choice, ...] = ()
    """Of a Literal, in the order written; never empty there."""
    optional: bool = False
    """True: null is a value too."""

    def __str__(self) -> str:
        match self.kind:
            case TypeKind.LITERAL:
                text = f"Literal[{', '.join(repr(choice) for choice in self.choices)}]"
            case TypeKind.LIST if self.items is not None:
                text = f"list[{self.items}]"
            case TypeKind.DICT if self.items is not None:
                text = f"dict[str, {self.items}]"
            case _:
                text = self.kind.value
        return f"{text} | None" if self.optional else text

    def accepts(self, value: Json) -> bool:
        """Return whether a JSON value is of this type. A whole number is a float; a bool is no number."""
        if value is None:
            return self.optional
        if self.kind is TypeKind.LIST:
            return isinstance(value, list) and self._all(value)
        if self.kind is TypeKind.DICT:
            return isinstance(value, dict) and self._all(list(value.values()))
        return self._is_plain(value)

    def _all(self, values: list[Json]) -> bool:
        items = self.items
        return items is None or all(items.accepts(value) for value in values)

    def _is_plain(self, value: Json) -> bool:
        match self.kind:
            case TypeKind.STRING:
                return isinstance(value, str)
            case TypeKind.BOOLEAN:
                return isinstance(value, bool)
            case TypeKind.INTEGER:
                return isinstance(value, int) and not isinstance(value, bool)
            case TypeKind.NUMBER:
                return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            case _:
                return any(type(choice) is type(value) and choice == value for choice in self.choices)


_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>-?\d{1,18}(?!\d))|(?P<mark>[\[\],|])"""
    r"""|(?P<text>'(?:[^'\\\n]|\\['"\\])*'|"(?:[^"\\\n]|\\['"\\])*"))"""
)
_ESCAPE = re.compile(r"""\\(['"\\])""")
_BASES = {
    "str": TypeKind.STRING,
    "string": TypeKind.STRING,
    "int": TypeKind.INTEGER,
    "integer": TypeKind.INTEGER,
    "float": TypeKind.NUMBER,
    "number": TypeKind.NUMBER,
    "bool": TypeKind.BOOLEAN,
    "boolean": TypeKind.BOOLEAN,
}


def parse_field_type(text: str) -> FieldType:
    """Return the type a text names.

    `string`, `integer`, `number`, `boolean`, `List` and `Dict` are read as their Python names.

    Raises:
        InvalidRequestError: the text is not in the grammar, nests deeper than 8, or is longer than 2,000 characters.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidRequestError(
            f"a field type has at most {MAX_LENGTH} characters, found {len(text)}; possible: {POSSIBLE}"
        )
    parser = _Parser(text, _tokens(text))
    result = parser.type(0)
    parser.end()
    return result


def _tokens(text: str) -> list[tuple[str, str]]:
    """Return (group, token) pairs, so that a quoted 'None' is never mistaken for the name None."""
    found: list[tuple[str, str]] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _refused(text, f"cannot read {text[position:].strip()[:40]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return found


def _refused(text: str, reason: str) -> InvalidRequestError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InvalidRequestError(f"a field type is wanted, found {shown!r}: {reason}; possible: {POSSIBLE}")


class _Parser:
    """Recursive descent over the tokens of one type."""

    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def type(self, depth: int) -> FieldType:
        if depth > MAX_DEPTH:
            raise _refused(self._text, f"types nest at most {MAX_DEPTH} deep")
        result = self._base(depth)
        while self._peek() == ("mark", "|"):
            self._take()
            if self._take() != ("name", "None"):
                raise _refused(self._text, "the only union is with None")
            result = replace(result, optional=True)
        return result

    def end(self) -> None:
        if self._peek() is not None:
            raise _refused(self._text, f"{self._take()[1]!r} stands where the type has ended")

    def _base(self, depth: int) -> FieldType:
        group, name = self._take()
        if group == "name" and name in _BASES:
            return FieldType(kind=_BASES[name])
        if group == "name" and name in ("list", "List"):
            items = self._in_brackets(depth) if self._peek() == ("mark", "[") else None
            return FieldType(kind=TypeKind.LIST, items=items)
        if group == "name" and name in ("dict", "Dict"):
            return FieldType(kind=TypeKind.DICT, items=self._values(depth))
        if group == "name" and name == "Optional":
            return replace(self._in_brackets(depth), optional=True)
        if group == "name" and name == "Literal":
            return FieldType(kind=TypeKind.LITERAL, choices=self._choices())
        raise _refused(self._text, f"{name!r} is no type")

    def _in_brackets(self, depth: int) -> FieldType:
        self._expect("[")
        inner = self.type(depth + 1)
        self._expect("]")
        return inner

    def _values(self, depth: int) -> FieldType | None:
        if self._peek() != ("mark", "["):
            return None
        self._expect("[")
        if self._take() not in (("name", "str"), ("name", "string")):
            raise _refused(self._text, "the keys of a dict are str")
        self._expect(",")
        inner = self.type(depth + 1)
        self._expect("]")
        return inner

    def _choices(self) -> tuple[Choice, ...]:
        self._expect("[")
        choices = [self._choice()]
        while self._peek() == ("mark", ","):
            self._take()
            choices.append(self._choice())
        self._expect("]")
        kinds = [(type(choice), choice) for choice in choices]
        if len(set(kinds)) != len(kinds):
            raise _refused(self._text, "a choice stands twice")
        return tuple(choices)

    def _choice(self) -> Choice:
        group, written = self._take()
        if group == "text":
            return _ESCAPE.sub(r"\1", written[1:-1])
        if group == "number":
            return int(written)
        if (group, written) in (("name", "True"), ("name", "False")):
            return written == "True"
        raise _refused(self._text, f"a choice is quoted text, a whole number, True or False and not {written!r}")

    def _expect(self, mark: str) -> None:
        group, found = self._take()
        if (group, found) != ("mark", mark):
            raise _refused(self._text, f"{mark!r} is wanted where {found!r} stands")

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        if token is None:
            raise _refused(self._text, "it ends too early")
        self._next += 1
        return token
