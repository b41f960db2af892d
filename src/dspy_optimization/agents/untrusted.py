"""Values from outside: plain JSON within caps, read field by field, every complaint with its place."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MAX_DEPTH = 32
MAX_BYTES = 1 << 20

_Known = TypeVar("_Known", bound=str)


def shown(value: object, limit: int = 80) -> str:
    """Return a value as a message shows it: short and on one line."""
    text = repr(value[:limit]) if isinstance(value, str) and len(value) > limit else repr(value)
    return text if len(text) <= limit + 2 else text[: limit - 3] + "..."


def listed(names: Iterable[str], limit: int = 40) -> str:
    """Return names in a fixed order, as the "possible" part of a message; "none" when there are none."""
    ordered = sorted(set(names))
    if not ordered:
        return "none"
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more


def closest(name: str, names: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` for a near miss, else nothing."""
    near = difflib.get_close_matches(name.lower(), sorted(names), n=1, cutoff=0.6)
    return f' (did you mean "{near[0]}"?)' if near else ""


def checked_text(text: str, where: str) -> str:
    """Return the text, or refuse what no database and no hash can hold: NUL and half characters."""
    if "\x00" in text:
        raise InvalidRequestError(f"{where}: text is wanted, found a NUL character; possible: remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{where}: Unicode text is wanted, found half a character (a lone surrogate) at position "
            f"{error.start}; possible: the whole character, or remove it"
        ) from error
    return text


def checked_json(value: object, where: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Json:
    """Return a copy that is plain JSON: text keys, finite numbers, whole characters, within the caps.

    Raises:
        InvalidRequestError: names the place inside `value` and what stands there.
    """
    checker = _JsonCheck(where, max_bytes, max_depth)
    return checker.value(value, "", 0)


class _JsonCheck:
    """Walks one value and counts its size as it goes, so that nothing large is ever built."""

    def __init__(self, where: str, max_bytes: int, max_depth: int) -> None:
        self._where = where
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._bytes = 0

    def value(self, value: object, path: str, depth: int) -> Json:
        if depth > self._max_depth:
            raise InvalidRequestError(
                f"{self._at(path)}: values nest at most {self._max_depth} deep, found more; possible: flatten it"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            self._count(len(value.encode(errors="surrogatepass")))
            return checked_text(str(value), self._at(path))
        if isinstance(value, int):
            return self._whole(value, path)
        if isinstance(value, float):
            return self._number(value, path)
        if isinstance(value, Mapping):
            return {self._key(key, path): self.value(one, f"{path}.{key}", depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple):
            self._count(len(value))
            return [self.value(one, f"{path}[{number}]", depth + 1) for number, one in enumerate(value)]
        raise InvalidRequestError(
            f"{self._at(path)}: plain JSON is wanted, found {type(value).__name__} {shown(value)}; possible: text, "
            "number, true, false, null, list, mapping"
        )

    def _whole(self, value: int, path: str) -> int:
        self._count(8)
        if abs(value) >= 1 << 63:
            raise InvalidRequestError(
                f"{self._at(path)}: a whole number below 2^63 is wanted, found a longer one; possible: quote it as text"
            )
        return int(value)

    def _number(self, value: float, path: str) -> float:
        self._count(8)
        if not math.isfinite(value):
            raise InvalidRequestError(
                f"{self._at(path)}: a finite number is wanted, found {value}; possible: null, or leave it out"
            )
        return float(value)

    def _key(self, key: object, path: str) -> str:
        if not isinstance(key, str):
            raise InvalidRequestError(
                f"{self._at(path)}: keys are text, found {type(key).__name__} {shown(key)}; possible: quote it"
            )
        self._count(len(key.encode(errors="surrogatepass")))
        return checked_text(str(key), self._at(path))

    def _count(self, size: int) -> None:
        self._bytes += size + 1
        if self._bytes > self._max_bytes:
            raise InvalidRequestError(
                f"{self._where}: at most {self._max_bytes:,} bytes are accepted, found more; possible: shorten it"
            )

    def _at(self, path: str) -> str:
        return f"{self._where}: {path.lstrip('.')}" if path else self._where


class Block:
    """One mapping of a document: known keys only, each read with its type, range and place."""

    def __init__(self, value: Json, where: str, known: Sequence[str], reasons: Mapping[str, str] | None = None) -> None:
        """Refuse anything but a mapping with known keys.

        Args:
            value: what stands there.
            where: the place, as messages name it.
            known: the keys that are possible.
            reasons: keys that are refused for a reason of their own.
        """
        if not isinstance(value, dict):
            raise InvalidRequestError(
                f"{where}: a mapping is wanted, found {type(value).__name__} {shown(value)}; possible keys: "
                f"{', '.join(known)}"
            )
        for key in value:
            if key in known:
                continue
            if reasons is not None and key in reasons:
                raise InvalidRequestError(
                    f"{where}: {key} is refused: {reasons[key]}; possible keys: {', '.join(known)}"
                )
            raise InvalidRequestError(
                f"{where}: {shown(key)} is no known key{closest(key, known)}; possible keys: {', '.join(known)}"
            )
        self._value = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def at(self, key: str) -> str:
        """Return the place of a key, as messages name it."""
        return f"{self.where}.{key}"

    def get(self, key: str) -> Json:
        """Return what stands there; None when nothing does."""
        return self._value.get(key)

    def need(self, key: str, possible: str) -> Json:
        """Return what stands there, or say that it is missing."""
        value = self._value.get(key)
        if value is None:
            raise InvalidRequestError(f"{self.where}: {key} is missing; possible: {possible}")
        return value

    def text(self, key: str, default: str | None = None, *, max_bytes: int = 1 << 16, possible: str = "text") -> str:
        """Return a text; without a default it has to be there."""
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        value = self.need(key, possible)
        if not isinstance(value, str):
            raise self.wrong(key, "text", f"{possible} (quote it)")
        size = len(value.encode())
        if size > max_bytes:
            raise InvalidRequestError(
                f"{self.at(key)}: at most {max_bytes:,} bytes of text are accepted, found {size:,}; possible: cut it"
            )
        return value

    def one_of(self, key: str, known: Iterable[_Known], default: _Known | None = None) -> _Known:
        """Return one of the known words."""
        words = {str(word): word for word in known}
        if self._value.get(key) is None and default is not None:
            return default
        found = self.text(key, possible=", ".join(words))
        if found not in words:
            raise InvalidRequestError(
                f"{self.at(key)}: {shown(found)} is not known{closest(found, words)}; possible: {', '.join(words)}"
            )
        return words[found]

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", "true, false")
        return value

    def number(self, key: str, default: float | None, *, low: float, high: float, open_low: bool = False) -> float:
        """Return a number in [low, high], or in (low, high] with `open_low`; the default is not checked."""
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        value = self.need(key, _range(low, high, open_low))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number", _range(low, high, open_low))
        if not low <= value <= high or (open_low and value == low):
            raise self.wrong(key, f"a number {_range(low, high, open_low)}", _range(low, high, open_low))
        return value

    def whole(self, key: str, default: int | None, *, low: int, high: int) -> int:
        """Return a whole number in [low, high]; the default is not checked."""
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        value = self.need(key, f"a whole number {_range(low, high, False)}")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, "a whole number", _range(low, high, False))
        return value

    def items(self, key: str, most: int) -> list[Json]:
        """Return a list; an absent one is empty."""
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, "a list", "[...]")
        if len(value) > most:
            raise InvalidRequestError(
                f"{self.at(key)}: at most {most} entries are accepted, found {len(value)}; possible: the first {most}"
            )
        return value

    def mapping(self, key: str) -> dict[str, Json]:
        """Return a mapping; an absent one is empty."""
        value = self._value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(key, "a mapping", "{name: value, ...}")
        return value

    def wrong(self, key: str, wanted: str, possible: str) -> InvalidRequestError:
        """Return the complaint about what stands at a key."""
        value = self._value.get(key)
        return InvalidRequestError(
            f"{self.at(key)}: {wanted} is wanted, found {type(value).__name__} {shown(value)}; possible: {possible}"
        )


def _range(low: float, high: float, open_low: bool) -> str:
    if math.isinf(high):
        return f"above {low:g}" if open_low else f"from {low:g} on"
    return f"above {low:g} up to {high:g}" if open_low else f"from {low:g} to {high:g}"
