"""Nouns as JSON documents, and back.

A document is the noun's fields by name and the version of this form. Fields that a document lacks take the noun's
default, so a field with a default may be added without a new version; anything else raises `VERSION` and teaches
`read` the older form. The types are the noun's own annotations: text, numbers, enums, ids, moments, tuples, mappings,
other nouns, plain JSON.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.evaluation.gate import ValidatedResult, restored
from dspy_optimization.events import Event, Json

VERSION = 1
Noun = TypeVar("Noun")

_PLAIN = get_args(get_type_hints(Event)["data"])[1]
_SEAL = "seal"
_MAKERS: Mapping[type, Callable[..., object]] = {ValidatedResult: restored}


def write(noun: object) -> dict[str, Json]:
    """Return the document of a noun. Raises `InvalidRequestError` when a number in it is not finite."""
    return {"version": VERSION, "noun": _plain(noun, type(noun).__name__)}


def read(kind: type[Noun], document: Json) -> Noun:
    """Return the noun of a document. Raises `StoreError` when the document is of another form."""
    if not isinstance(document, dict) or document.get("version") != VERSION:
        found = document.get("version") if isinstance(document, dict) else type(document).__name__
        raise StoreError(
            f"wanted: a stored {kind.__name__} of form {VERSION}; found: form {found!r};"
            " possible: the engine that wrote it"
        )
    return cast("Noun", _value(kind, document.get("noun"), kind.__name__))


def _plain(value: object, place: str) -> Json:
    match value:
        case StrEnum():
            return value.value
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise InvalidRequestError(f"wanted: a finite number at {place}; found: {value}; possible: leave it out")
            return value
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(_plain(key, place)): _plain(item, f"{place}.{key}") for key, item in value.items()}
        case tuple() | list():
            return [_plain(item, f"{place}[{number}]") for number, item in enumerate(value)]
        case _ if is_dataclass(value):
            return {
                field.name: _plain(getattr(value, field.name), f"{place}.{field.name}")
                for field in fields(value)
                if field.name != _SEAL
            }
        case _:
            raise TypeError(
                f"wanted: a noun at {place}; found: {type(value).__name__}; possible: the types named above"
            )


def _value(hint: object, value: Json, place: str) -> object:
    if isinstance(hint, NewType):
        return _value(hint.__supertype__, value, place)
    if hint == _PLAIN:
        return value
    origin = get_origin(hint)
    if origin in {Union, UnionType}:
        known = [one for one in get_args(hint) if one is not NoneType]
        return None if value is None else _value(known[0], value, place)
    if origin is tuple and isinstance(value, list):
        kinds = get_args(hint)
        each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(each) != len(value):
            raise _misfit(hint, value, place)
        return tuple(_value(kind, item, f"{place}[]") for kind, item in zip(each, value, strict=True))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        key_kind, kind = get_args(hint)
        return {_value(key_kind, key, place): _value(kind, item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(hint, type):
        return _scalar(hint, value, place)
    raise _misfit(hint, value, place)


def _scalar(kind: type, value: Json, place: str) -> object:
    if is_dataclass(kind) and isinstance(value, dict):
        return _noun(kind, value, place)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in {str, int, bool} and type(value) is kind:
        return value
    try:
        if isinstance(value, str) and issubclass(kind, StrEnum | UUID):
            return kind(value)
        if isinstance(value, str) and issubclass(kind, datetime):
            return kind.fromisoformat(value)
    except ValueError as error:
        raise _misfit(kind, value, place) from error
    raise _misfit(kind, value, place)


def _noun(kind: type, data: dict[str, Json], place: str) -> object:
    hints, required = _fields(kind)
    if not required <= data.keys() <= hints.keys():
        strange, missing = sorted(data.keys() - hints.keys()), sorted(required - data.keys())
        raise StoreError(
            f"wanted: the fields of {kind.__name__} at {place}; found: {strange} too many, {missing} missing;"
            " possible: the engine that wrote it"
        )
    values = {name: _value(hints[name], value, f"{place}.{name}") for name, value in data.items()}
    return _MAKERS.get(kind, kind)(**values)


@cache  # what a class declares does not change, and looking it up takes longer than reading a document
def _fields(kind: type) -> tuple[Mapping[str, object], frozenset[str]]:
    """Return field → type of a noun, and which fields have no default."""
    hints = get_type_hints(kind)
    members = [field for field in fields(kind) if field.name != _SEAL]
    required = [one.name for one in members if one.default is MISSING and one.default_factory is MISSING]
    return {one.name: hints[one.name] for one in members}, frozenset(required)


def _misfit(hint: object, value: Json, place: str) -> StoreError:
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    return StoreError(
        f"wanted: {name} at {place} of a stored document; found: {type(value).__name__};"
        " possible: the engine that wrote it"
    )
