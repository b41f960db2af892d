"""Values as programs hold them, turned into JSON that every store and every hash takes."""

import math
from collections.abc import Mapping
from typing import Any

import dspy
from pydantic_core import PydanticSerializationError, to_jsonable_python

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.events import Json


def json_value(value: object) -> Json:
    """Return the value as JSON; the same value always gives the same JSON.

    Objects become what pydantic makes of them, sets are sorted, numbers that JSON lacks become their names, and text
    that UTF-8 or PostgreSQL cannot carry (lone surrogates, NUL) gets replacement marks. What nothing can read
    becomes its `str`.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return _text(str.__str__(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, dspy.Example | Mapping):
        return json_object(value)
    if isinstance(value, list | tuple):
        return [json_value(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((json_value(one) for one in value), key=canonical_json)
    return _object(value)


def json_object(value: Any) -> dict[str, Json]:
    """Return the JSON object of a mapping or a `dspy.Example`; keys become text."""
    return {_text(str(key)): json_value(one) for key, one in value.items()}


def _object(value: object) -> Json:
    try:
        plain = to_jsonable_python(value, fallback=str)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError):
        return _text(str(value))
    return json_value(plain)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
