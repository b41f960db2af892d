"""What is wrong with somebody's settings, in sentences: which name, what was wanted, what was found."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ValidationError

from dspy_optimization.adapters.models.failures import scrub

_SECRET_NAME = re.compile(r"(?i)key|secret|token(?!s)|password|url|uri")
_FOUND_CHARACTERS = 80


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence a mistake; values that may be secrets are not repeated."""
    return [
        _sentence(model, tuple(fact["loc"]), kind=fact["type"], message=fact["msg"], value=fact["input"])
        for fact in error.errors(include_url=False, include_context=False)
    ]


def _sentence(model: type[BaseModel], place: tuple[int | str, ...], *, kind: str, message: str, value: object) -> str:
    where = name_of(place)
    if kind == "extra_forbidden":
        return f"{where}: {unknown(str(place[-1]), _keys_at(model, place[:-1]))}"
    if kind == "value_error":
        return f"{where}: {message.removeprefix('Value error, ')}"
    if kind == "missing":
        return f"{where}: wanted a value, found none"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = _keys_at(model, place)
        message = "a block of keys" + (f" ({', '.join(keys)})" if keys else "")
    elif kind == "list_type":
        message = "a list"
    wanted = message.removeprefix("Input should be ").removesuffix(", unable to parse string as a number")
    if wanted.startswith(("greater", "less")):
        wanted = f"a number {wanted}"
    return f"{where}: wanted {wanted}, found {shown(where, value)}"


def name_of(place: Iterable[int | str]) -> str:
    """Return `models.task.fallbacks[1].price` for a place in a document."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".").replace(".model.model", ".model") or "the file"


def unknown(name: str, known: Sequence[str]) -> str:
    """Return what to say about a key nobody knows."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if name == "api_key":
        return (
            "a key does not belong into a file; possible: put it into an environment variable and name that "
            "variable in api_key_env"
        )
    return f"unknown key{hint} Known: {', '.join(known)}" if close else f"unknown key; known: {', '.join(known)}"


def shown(name: str, value: object) -> str:
    """Return a value as a message may show it: cut short, nothing that may be a secret."""
    if isinstance(value, str) and _SECRET_NAME.search(name.rpartition(".")[2]):
        return "something else (not shown: it may hold a secret)"
    text = scrub(repr(value))
    return text if len(text) <= _FOUND_CHARACTERS else text[:_FOUND_CHARACTERS] + " …"


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the keys of the block at a place; empty where any key may stand."""
    kind: object = model
    for part in place:
        if isinstance(part, int):
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(part)
            kind = _without_none(field.annotation) if field is not None else None
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            return []
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _without_none(annotation: object) -> object:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return annotation
