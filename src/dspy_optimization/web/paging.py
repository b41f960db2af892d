"""Cursors: where a page begins, as a text that says nothing to people."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import TypeVar

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.web.answers import Page

Item = TypeVar("Item")


def cursor_of(place: Json) -> str:
    """Return the text of a place."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str) -> Json:
    """Return the place of a text. Raises `InvalidRequestError` for one that no answer gave."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found: Json = json.loads(base64.b64decode(padded.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise unknown_cursor() from error
    return found


def unknown_cursor() -> InvalidRequestError:
    """Return the error of a cursor that no answer gave."""
    return InvalidRequestError(
        "cursor: wanted: the next_cursor of an earlier answer; found: another text; possible: leave it out to begin "
        "at the beginning"
    )


def number_of(cursor: str | None) -> int:
    """Return the number a cursor stands for; 0 without one. Raises `InvalidRequestError`."""
    place = 0 if cursor is None else place_of(cursor)
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < 1 << 63:
        raise unknown_cursor()
    return place


def page_of(items: Sequence[Item], limit: int, cursor: str | None) -> Page[Item]:
    """Return a part of a list that is at hand whole."""
    begin = number_of(cursor)
    end = begin + limit
    return Page(items=list(items[begin:end]), next_cursor=cursor_of(end) if end < len(items) else None)
