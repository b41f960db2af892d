"""Text and JSON that PostgreSQL accepts, whatever a model said.

PostgreSQL refuses the character NUL in text and both NUL and half surrogate pairs in JSON; models and broken decoders
produce both. Each such character is kept as SUB (U+001A) and four hexadecimal digits, a literal SUB likewise, so that
what is read is exactly what was written.
"""

import json
import re
from collections.abc import Callable

from sqlalchemy import Dialect
from sqlalchemy.types import Text, TypeDecorator

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

_REFUSED = re.compile("[\x00\x1a\ud800-\udfff]")
_KEPT = re.compile("\x1a([0-9a-f]{4})")
_REFUSED_JSON = re.compile("\\\\u00(?:00|1a)|[\ud800-\udfff]")


def escape(text: str) -> str:
    """Return the text in a form PostgreSQL keeps; nearly always the text itself."""
    return _REFUSED.sub(lambda found: f"\x1a{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """Return what `escape` was given."""
    return _KEPT.sub(lambda found: chr(int(found[1], 16)), text)


def to_text(value: object) -> str:
    """Return the JSON of a value, keys in their order. Raises `InvalidRequestError` at NaN, infinity, other objects."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(
            f"wanted: a value that can be kept as JSON; found: {error}; possible: finite numbers, text, lists, objects"
        ) from error
    if _REFUSED_JSON.search(text) is None:
        return text
    return json.dumps(_each_text(json.loads(text), escape), ensure_ascii=False, separators=(",", ":"))


def from_text(text: str | bytes) -> Json:
    """Return the value that `to_text` was given."""
    value: Json = json.loads(text)
    marked = b"\\u001a" in text if isinstance(text, bytes) else "\\u001a" in text
    return _each_text(value, unescape) if marked else value


def _each_text(value: Json, change: Callable[[str], str]) -> Json:
    match value:
        case str():
            return change(value)
        case list():
            return [_each_text(item, change) for item in value]
        case dict():
            return {change(key): _each_text(item, change) for key, item in value.items()}
        case _:
            return value


class KeptText(TypeDecorator[str]):
    """A text column that takes every Python string."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the base class's signature
        """Return what is stored."""
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the base class's signature
        """Return what was given."""
        return None if value is None else unescape(value)
