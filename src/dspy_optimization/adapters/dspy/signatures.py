"""Signatures and field types of configurations as DSPy's own."""

import inspect
from types import GenericAlias
from typing import Any, Literal, Optional

import dspy
from pydantic.errors import PydanticUserError

from dspy_optimization.agents.config import Signature
from dspy_optimization.agents.field_type import FieldType, TypeKind, parse_field_type
from dspy_optimization.errors import InvalidRequestError

RESERVED_INPUTS = frozenset({"config", "demos", "lm", "new_signature", "prediction", "signature"})
"""Arguments that `dspy.Predict` keeps for itself: an input of that name would never reach the prompt."""


def dspy_signature(signature: Signature) -> Any:
    """Return the `dspy.Signature` class of a configuration's signature.

    Raises:
        InvalidRequestError: an input has a name that DSPy keeps for itself, or pydantic refuses a name.
    """
    taken = sorted(RESERVED_INPUTS & {field.name for field in signature.inputs})
    if taken:
        raise InvalidRequestError(
            f"input fields are wanted that DSPy does not use itself, found {', '.join(taken)}; possible: rename it"
        )
    fields: dict[str, tuple[Any, Any]] = {}
    for source, of in ((signature.inputs, dspy.InputField), (signature.outputs, dspy.OutputField)):
        for one in source:
            described = {"desc": one.description} if one.description else {}
            fields[one.name] = (python_type(parse_field_type(one.type)), of(**described))
    try:
        return dspy.Signature(fields, signature.instructions or None)
    except (PydanticUserError, ValueError, TypeError) as error:
        raise InvalidRequestError(
            f"a signature is wanted that DSPy can hold, found {', '.join(fields)}: {error}; possible: rename the field"
        ) from error


def python_type(kind: FieldType) -> Any:
    """Return the Python type that DSPy parses answers into."""
    result = _plain_type(kind)
    return Optional[result] if kind.optional else result  # noqa: UP045 - built at run time


def _plain_type(kind: FieldType) -> Any:
    match kind.kind:
        case TypeKind.STRING:
            return str
        case TypeKind.INTEGER:
            return int
        case TypeKind.NUMBER:
            return float
        case TypeKind.BOOLEAN:
            return bool
        case TypeKind.LITERAL:
            return Literal[kind.choices]
        case TypeKind.LIST:
            return list if kind.items is None else GenericAlias(list, (python_type(kind.items),))
        case TypeKind.DICT:
            return GenericAlias(dict, (str, Any if kind.items is None else python_type(kind.items)))


def canonical_instructions(signature: Any, instructions: str) -> str:
    """Return the instructions as DSPy reads them back: without common indentation, its own default where empty."""
    return inspect.cleandoc(instructions) or str(signature.with_instructions("").instructions)
