"""States as plain JSON values, and back without losing a bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from dspy_optimization.errors import InvalidRequestError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

VERSION = 1
"""Of every stored state of this package."""


class PlainState:
    """Reads a stored state field by field.

    Raises:
        InvalidRequestError: kind or version differ, or a field is missing or holds something else; the message names
            the field.
    """

    def __init__(self, data: Mapping[str, Json]) -> None:
        self._data = data

    @staticmethod
    def of(data: Mapping[str, Json], kind: str) -> PlainState:
        """Return the state, once its kind and version are known to be right."""
        if data.get("kind") != kind or data.get("version") != VERSION:
            raise InvalidRequestError(
                f"wanted: a stored state of kind {kind}, version {VERSION}; found: kind {data.get('kind')}, version "
                f"{data.get('version')}; possible: what to_json of the same noun returned"
            )
        return PlainState(data)

    def integer(self, name: str, largest: int | None = None) -> int:
        """Return a whole number from 0 on, up to `largest` when that is given."""
        value = self._data.get(name)
        wanted = "a whole number from 0 on" if largest is None else f"a whole number from 0 to {largest}"
        if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (largest or value) < value:
            raise self._wrong(name, wanted, value)
        return value

    def optional_integer(self, name: str) -> int | None:
        """Return a whole number from 0 on, or None where null is stored."""
        return None if self._data.get(name) is None else self.integer(name)

    def number(self, name: str) -> float:
        """Return a finite number."""
        return self._checked(name, self._data.get(name))

    def optional_number(self, name: str) -> float | None:
        """Return a finite number, or None where null is stored."""
        value = self._data.get(name)
        return None if value is None else self._checked(name, value)

    def numbers(self, name: str, size: int | None = None) -> tuple[float, ...]:
        """Return a list of finite numbers, `size` of them when that is given."""
        values = self._data.get(name)
        if not isinstance(values, list) or (size is not None and len(values) != size):
            wanted = "a list of numbers" if size is None else f"a list of {size} numbers"
            raise self._wrong(name, wanted, values)
        return tuple(self._checked(name, value) for value in values)

    def integers(self, name: str, size: int) -> tuple[int, ...]:
        """Return a list of `size` whole numbers from 0 on."""
        values = self._data.get(name)
        wanted = f"a list of {size} whole numbers from 0 on"
        if not isinstance(values, list) or len(values) != size:
            raise self._wrong(name, wanted, values)
        found: list[int] = []
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise self._wrong(name, wanted, values)
            found.append(value)
        return tuple(found)

    def part(self, name: str) -> PlainState:
        """Return the part that is stored below `name`."""
        value = self._data.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "a mapping", value)
        return PlainState(value)

    def _checked(self, name: str, value: Json) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(name, "a finite number", value)
        return float(value)

    def _wrong(self, name: str, wanted: str, found: Json) -> InvalidRequestError:
        shown = str(found)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InvalidRequestError(
            f"wanted: {wanted} as {name} of a stored state; found: {shown}; possible: what to_json returned"
        )


def stored(kind: str, fields: Mapping[str, Json]) -> dict[str, Json]:
    """Return the fields with what `PlainState` wants to see beside them."""
    return {"kind": kind, "version": VERSION, **fields}
