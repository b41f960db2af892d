"""Answers of the service as frozen dataclasses: what they do not know is passed over, what they need has to be there.

A field is read as its annotation says. Known are str, int, float, bool, datetime, `StrEnum`, dataclasses of these,
`X | None`, `tuple[X, ...]`, `tuple[X, X]`, `Mapping[str, X]` and `Json` (which is text at run time: anything).
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import ClassVar, NoReturn, Protocol, TypeVar, get_args, get_origin

from dspy_optimization.errors import InfrastructureError
from dspy_optimization.events import Json

JSON_NAME = "json_name"
"""Key in a field's metadata: what the service calls it, where Python cannot (`from`)."""
UNKNOWN = "unknown"
"""The value of the member that stands for what a newer service may say."""


class Readable(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


Answer = TypeVar("Answer", bound=Readable)


def read(kind: type[Answer], value: Json, where: str) -> Answer:
    """Return the answer as a `kind`.

    Raises:
        InfrastructureError: a field is missing or of another type; names it.
    """
    if not isinstance(value, dict):
        _refuse(where, "an object", value)
    arguments: dict[str, object] = {}
    for one in fields(kind):
        name = one.metadata.get(JSON_NAME, one.name)
        given = value.get(name)
        optional = one.default is not MISSING or one.default_factory is not MISSING
        if given is None and optional:
            continue
        if name not in value:
            _refuse(f"{where}.{name}", "a value", None)
        arguments[one.name] = _convert(one.type, given, f"{where}.{name}")
    return kind(**arguments)


def _convert(kind: object, value: Json, where: str) -> object:
    if isinstance(kind, str):
        return value
    if isinstance(kind, UnionType):
        if value is None:
            return None
        return _convert(next(one for one in get_args(kind) if one is not NoneType), value, where)
    origin = get_origin(kind)
    if origin is tuple:
        return _tuple(get_args(kind), value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            _refuse(where, "an object", value)
        return {key: _convert(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if not isinstance(kind, type):
        raise TypeError(f"{where}: wanted: a type this module reads; found: {kind!r}; possible: see its docstring")
    return _plain(kind, value, where)


def _tuple(kinds: tuple[object, ...], value: Json, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        _refuse(where, "a list", value)
    if kinds[-1] is Ellipsis:
        return tuple(_convert(kinds[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if len(kinds) != len(value):
        _refuse(where, f"{len(kinds)} values", value)
    return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))


def _plain(kind: type, value: Json, where: str) -> object:
    if is_dataclass(kind):
        return read(kind, value, where)
    if issubclass(kind, StrEnum):
        known = {one.value: one for one in kind}
        return known.get(value if isinstance(value, str) else UNKNOWN) or kind(UNKNOWN)
    if kind is datetime:
        return _time(value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        _refuse(where, kind.__name__, value)
    return value


def _time(value: Json, where: str) -> datetime:
    if not isinstance(value, str):
        _refuse(where, "a time", value)
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise InfrastructureError(
            f"{where}: wanted: a time in ISO 8601; found: {value[:60]!r}; possible: a client of the service's version"
        ) from error


def _refuse(where: str, wanted: str, found: Json) -> NoReturn:
    shown = "nothing" if found is None else f"{type(found).__name__} {str(found)[:60]!r}"
    raise InfrastructureError(
        f"{where}: wanted: {wanted}; found: {shown}; possible: a client and a service of the same version"
    )
