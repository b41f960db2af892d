"""The options of an algorithm: from plain JSON to its dataclass, and as a schema for forms and help."""

import ast
import dataclasses
import difflib
import inspect
import itertools
import textwrap
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OptionField:
    """One option as people see it."""

    name: str
    type: str
    """int, float, bool, str, mapping, one of 'a', 'b', …, list of …; followed by "or null" where nothing may be."""
    default: Json
    description: str
    choices: tuple[Json, ...] = ()
    """The allowed values, where they are a closed list."""


def option_fields(options: type) -> tuple[OptionField, ...]:
    """Return the options of a class in the order they are declared; descriptions are the texts below the fields."""
    hints = get_type_hints(options)
    texts = _texts_below_fields(options)
    return tuple(
        OptionField(
            name=field.name,
            type=_described(hints[field.name]),
            default=_default(field),
            description=texts.get(field.name, ""),
            choices=_choices(hints[field.name]),
        )
        for field in dataclasses.fields(options)
    )


def options_from_json(algorithm: str, options: type, given: Mapping[str, Json]) -> object:
    """Return the options built from JSON; what is not given keeps its default.

    Raises:
        InvalidRequestError: an unknown option (names the closest and all known ones), a value of the wrong
            type, or what the class itself refuses.
    """
    hints = get_type_hints(options)
    known = [field.name for field in dataclasses.fields(options)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InvalidRequestError(
                f"{algorithm} has no option {name!r}; {hint}possible: {', '.join(known) or 'no options'}"
            )
    values = {name: _checked(algorithm, name, value, hints[name]) for name, value in given.items()}
    try:
        return options(**values)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"options of {algorithm}: {error}") from error


def _checked(algorithm: str, name: str, value: Json, wanted: object) -> object:
    if _fits(value, wanted):
        if isinstance(value, list):
            return tuple(value)
        return float(value) if isinstance(value, int) and not isinstance(value, bool) and _is_float(wanted) else value
    raise InvalidRequestError(f"the option {name} of {algorithm}: wanted {_described(wanted)}; found {_found(value)}")


def _fits(value: Json, wanted: object) -> bool:
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(wanted))
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, get_args(wanted)[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted in (None, NoneType):
        return value is None
    return isinstance(wanted, type) and isinstance(value, wanted)


def _is_float(wanted: object) -> bool:
    options = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    return float in options and int not in options


def _described(wanted: object) -> str:
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        return " or ".join(_described(one) for one in get_args(wanted))
    if origin is Literal:
        return "one of " + ", ".join(repr(one) for one in get_args(wanted))
    if origin is tuple:
        return f"list of {_described(get_args(wanted)[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    if wanted in (None, NoneType):
        return "null"
    return str(getattr(wanted, "__name__", wanted))


def _choices(wanted: object) -> tuple[Json, ...]:
    if get_origin(wanted) in (Union, UnionType):
        return tuple(choice for one in get_args(wanted) for choice in _choices(one))
    return get_args(wanted) if get_origin(wanted) is Literal else ()


def _found(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | dict():
            return f"a {'list' if isinstance(value, list) else 'mapping'}: {value!r}"
        case _:
            return f"{type(value).__name__} {value!r}"


def _default(field: "dataclasses.Field[Any]") -> Json:
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    if value is dataclasses.MISSING:
        return None
    return list(value) if isinstance(value, tuple) else value


def _texts_below_fields(options: type) -> dict[str, str]:
    """Return field → the string literal that stands below it, over the class and its bases."""
    texts: dict[str, str] = {}
    for owner in reversed(options.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        except (OSError, TypeError, SyntaxError):
            continue  # no source at hand (a plug-in made at run time): the option has no text
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for before, after in itertools.pairwise(body):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                texts[before.target.id] = inspect.cleandoc(after.value.value)
    return texts
