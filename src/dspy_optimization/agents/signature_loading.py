"""Reading signatures: which typed fields go in and come out."""

import keyword
import re

from dspy_optimization.agents.config import Field, Signature
from dspy_optimization.agents.field_type import parse_field_type
from dspy_optimization.agents.untrusted import Block, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MAX_INSTRUCTIONS_BYTES = 64 << 10
MAX_FIELDS = 64

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FORMS = "[question], {question: str}, or [{name: question, type: str, description: ...}]"


def signature_from_json(value: Json, where: str) -> Signature:
    """Return the signature that a mapping or the short form `question, context -> answer: int` describes.

    Without instructions it says what DSPy says by default: which fields to produce from which.

    Raises:
        InvalidRequestError: names the place, what stands there and what is possible.
    """
    if isinstance(value, str):
        inputs, outputs, instructions = *_short_form(value, where), ""
    else:
        block = Block(value, where, ("instructions", "inputs", "outputs"))
        inputs = _fields(block.need("inputs", _FORMS), block.at("inputs"))
        outputs = _fields(block.need("outputs", _FORMS), block.at("outputs"))
        instructions = block.text("instructions", "", max_bytes=MAX_INSTRUCTIONS_BYTES)
    _refuse_doubles(inputs + outputs, where)
    return Signature(instructions=instructions or _default(inputs, outputs), inputs=inputs, outputs=outputs)


def checked_identifier(name: str, where: str, what: str) -> str:
    """Return a name that can be a Python argument.

    Raises:
        InvalidRequestError: it is no identifier, longer than 64 characters, or a Python keyword.
    """
    if _IDENTIFIER.fullmatch(name) is None:
        raise InvalidRequestError(
            f"{where}: {what} is wanted, found {shown(name)}; possible: letters, digits and _, at most 64, not "
            "beginning with a digit"
        )
    if keyword.iskeyword(name):
        raise InvalidRequestError(
            f"{where}: {what} is wanted, found the Python keyword {name}; possible: {name}_, or another name"
        )
    return name


def _default(inputs: tuple[Field, ...], outputs: tuple[Field, ...]) -> str:
    given, wanted = (", ".join(f"`{one.name}`" for one in fields) for fields in (inputs, outputs))
    return f"Given the fields {given}, produce the fields {wanted}."


def _fields(value: Json, where: str) -> tuple[Field, ...]:
    """Return the fields of a list of names, a mapping name → type, or a list of mappings."""
    entries: list[tuple[str, str | None, Json]]
    if isinstance(value, dict):
        entries = [(f"{where}.{name}", name, one) for name, one in value.items()]
    elif isinstance(value, list):
        entries = [(f"{where}[{number}]", None, one) for number, one in enumerate(value)]
    else:
        raise InvalidRequestError(
            f"{where}: fields are wanted, found {type(value).__name__} {shown(value)}; possible: {_FORMS}"
        )
    if not 1 <= len(entries) <= MAX_FIELDS:
        raise InvalidRequestError(
            f"{where}: 1 to {MAX_FIELDS} fields are wanted, found {len(entries)}; possible: {_FORMS}"
        )
    return tuple(_field(one, place, name) for place, name, one in entries)


def _field(value: Json, where: str, name: str | None) -> Field:
    if isinstance(value, dict):
        known = ("type", "description") if name is not None else ("name", "type", "description")
        block = Block(value, where, known)
        if name is None:
            name = block.text("name", possible="the field's name")
        type_text = block.text("type", "str", possible="str, int, list[str], ...")
        return _checked_field(name, type_text, block.text("description", ""), where)
    if isinstance(value, str) and name is not None:
        return _checked_field(name, value, "", where)
    if isinstance(value, str):
        return _annotated(value, where)
    if value is None and name is not None:
        return _checked_field(name, "str", "", where)
    raise InvalidRequestError(
        f"{where}: a field is wanted, found {type(value).__name__} {shown(value)}; possible: {_FORMS}"
    )


def _annotated(text: str, where: str) -> Field:
    name, colon, type_text = (part.strip() for part in text.partition(":"))
    return _checked_field(name, type_text if colon else "str", "", where)


def _checked_field(name: str, type_text: str, description: str, where: str) -> Field:
    checked_identifier(name, where, "a field name")
    try:
        parse_field_type(type_text)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error}") from error
    return Field(name=name, type=type_text, description=description)


def _short_form(text: str, where: str) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    given, arrow, wanted = text.partition("->")
    if not arrow or "->" in wanted:
        raise InvalidRequestError(
            f'{where}: a signature is wanted, found {shown(text)}; possible: "question -> answer", or a mapping with '
            "instructions, inputs and outputs"
        )
    inputs, outputs = (
        _fields([one for one in _split_at_commas(side) if one], f"{where} ({place})")
        for side, place in ((given, "before ->"), (wanted, "after ->"))
    )
    return inputs, outputs


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas that stand in no brackets and no quotes: those belong to a type."""
    parts, depth, quote, start = [], 0, "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and text[position - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[]":
            depth += 1 if letter == "[" else -1
        elif letter == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def _refuse_doubles(fields: tuple[Field, ...], where: str) -> None:
    names = [field.name for field in fields]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise InvalidRequestError(
            f"{where}: every field has a name of its own, found twice: {', '.join(doubles)}; possible: rename one"
        )
