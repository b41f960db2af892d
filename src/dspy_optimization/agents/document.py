"""Documents of others: YAML or JSON text within caps, without aliases, duplicate keys or surprises."""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import NoReturn

import yaml

from dspy_optimization.agents.untrusted import MAX_DEPTH, checked_json, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MAX_DOCUMENT_BYTES = 1 << 20
_YAML = (".yaml", ".yml")


def read_text(path: Path, *, max_bytes: int) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark.

    Raises:
        InvalidRequestError: there is no such file, it is too large, or it is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidRequestError(
            f"{path}: a readable file is wanted, found: {error.strerror}; possible: check the path and its rights"
        ) from error
    if len(raw) > max_bytes:
        raise InvalidRequestError(f"{path}: at most {max_bytes:,} bytes are read, found more; possible: a smaller file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InvalidRequestError(
            f"{path}: UTF-8 text is wanted, found the byte 0x{raw[error.start]:02x} in line {line}; possible: save "
            "the file as UTF-8"
        ) from error


def read_document(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Json:
    """Return what a `.yaml`, `.yml` or `.json` file holds.

    Raises:
        InvalidRequestError: names the file, the line and column, and what is wrong there.
    """
    if path.suffix.lower() not in (*_YAML, ".json"):
        raise InvalidRequestError(f"{path}: a .yaml, .yml or .json file is wanted, found {path.suffix or 'no suffix'}; "
                                  "possible: rename it")  # fmt: skip
    text = read_text(path, max_bytes=max_bytes)
    if path.suffix.lower() in _YAML:
        return parse_yaml(text, path.name, max_bytes=max_bytes)
    return parse_json(text, path.name, max_bytes=max_bytes)


def parse_json(text: str, where: str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Json:
    """Return the value of a JSON text; duplicate keys, NaN and Infinity are refused.

    Raises:
        InvalidRequestError: names the line and column.
    """

    def refuse(word: str) -> NoReturn:
        raise InvalidRequestError(f"{where}: JSON has no {word}; possible: null, or leave it out")

    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where), parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"{where}: JSON is wanted, found at line {error.lineno}, column {error.colno}: {error.msg}; possible: "
            f"mend it there: {shown(error.doc[max(0, error.pos - 10) : error.pos + 20])}"
        ) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise InvalidRequestError(
            f"{where}: numbers of at most 4,300 digits are read, found a longer one; possible: quote it as text"
        ) from error
    return checked_json(value, where, max_bytes=max_bytes)


def parse_yaml(text: str, where: str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Json:
    """Return the value of one YAML document, with the scalars of YAML 1.2.

    Only null, true, false and numbers are more than text: `yes`, `no`, `on`, 12:30 and 2024-01-01 stay text, for
    they are labels and answers in people's examples. Aliases and tags are refused.

    Raises:
        InvalidRequestError: names the line and column.
    """
    try:
        _check_events(text, where)
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with fewer types
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "an unknown place"
        raise InvalidRequestError(
            f"{where}: YAML is wanted, found at {place}: {error.problem}; possible: mend it there"
        ) from error
    except yaml.YAMLError as error:
        raise InvalidRequestError(f"{where}: YAML is wanted, found {error}; possible: printable text only") from error
    except (ValueError, OverflowError) as error:  # a number of 4,300 digits, an escape beyond Unicode
        raise InvalidRequestError(
            f"{where}: a value cannot be read ({shown(str(error))}); possible: quote numbers as text"
        ) from error
    return checked_json(value, where, max_bytes=max_bytes)


def _unique(pairs: list[tuple[str, Json]], where: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidRequestError(f"{where}: every key stands once, found {shown(key)} twice; possible: remove one")
        found[key] = value
    return found


def _check_events(text: str, where: str) -> None:
    """Refuse aliases, tags and depth before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        place = "" if event.start_mark is None else f" at line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise InvalidRequestError(
                f"{where}: YAML without aliases is wanted, found *{event.anchor}{place}; possible: write its value out"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise InvalidRequestError(
                f"{where}: YAML without tags is wanted, found {shown(tag)}{place}; possible: text, numbers, true, "
                "false, null, lists and mappings"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _too_deep(where)


def _too_deep(where: str) -> InvalidRequestError:
    return InvalidRequestError(f"{where}: values nest at most {MAX_DEPTH} deep, found far more; possible: flatten it")


class _Loader(yaml.SafeLoader):
    """YAML that is no more than JSON: no aliases, no tags, no duplicate keys, no clever scalars."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name; filled below, once

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {shown(key.value)} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Do nothing: `<<` merges aliases, and there are none."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:[Tt]rue|TRUE|[Ff]alse|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(?:0|[1-9][0-9]*)$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"),
    list("-0123456789"),
)
