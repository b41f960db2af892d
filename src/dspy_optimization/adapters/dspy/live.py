"""Programs and examples handed over as Python objects."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_optimization.adapters.dspy.components import components, read_candidate
from dspy_optimization.adapters.dspy.json_values import json_object
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.reading import RecordFields
from dspy_optimization.errors import InvalidRequestError

MODULE = "live"
"""What stands for the package in the entrypoint of a program that only this process has."""

_REASONING = "reasoning"
"""What chains of thought put before the outputs that somebody asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAgent:
    """A program of this process, and the configuration that names it."""

    config: AgentConfig
    program: Any
    """A `dspy.Module`."""
    fields: RecordFields
    """How flat records read; records of `inputs` and `expected` always do."""


def live_agent(program: object, name: str | None = None) -> LiveAgent:
    """Return the agent of a `dspy.Module` that somebody built.

    Args:
        program: not changed; what it says now is the baseline.
        name: what to call the agent; None: the class of the program.
    Raises:
        InvalidRequestError: it is no module, or has nothing that can be optimized.
    """
    if not isinstance(program, dspy.Module):
        raise InvalidRequestError(
            f"agent: wanted: an AgentConfig, a dspy.Module or the path of an agent file; found: "
            f"{type(program).__name__}; possible: dspy.Predict('question -> answer')"
        )
    if not components(program):
        raise InvalidRequestError(
            f"agent: wanted: a module with a predictor in it; found: {type(program).__name__} without any; possible: "
            "keep predictors as attributes of the module"
        )
    called = re.sub(r"\W", "_", name if name is not None else type(program).__name__)
    config = AgentConfig(name=called, kind=AgentKind.ENTRYPOINT, entrypoint=f"{MODULE}:{called}")
    # What the program says belongs to the version: two of one class are two agents.
    said = config.with_candidate(read_candidate(program))
    return LiveAgent(config=said, program=program, fields=_fields(program))


def _fields(program: Any) -> RecordFields:
    """Return the fields of a program that has one signature for the whole of it; none for any other."""
    predictors = list(components(program).values())
    signature: Any = getattr(program, "signature", None)
    if signature is None and len(predictors) == 1:
        signature = predictors[0].signature
    if not _is_signature(signature):
        return RecordFields()
    outputs = tuple(name for name in signature.output_fields if name != _REASONING)
    return RecordFields(inputs=tuple(signature.input_fields), outputs=outputs)


def _is_signature(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, dspy.Signature)


def records(examples: Iterable[object]) -> Iterator[object]:
    """Yield `dspy.Example`s as records of inputs and expected; everything else as it is."""
    for number, example in enumerate(examples, start=1):
        yield _record(example, number) if isinstance(example, dspy.Example) else example


def _record(example: Any, number: int) -> Mapping[str, object]:
    try:
        inputs = example.inputs()
    except ValueError as error:
        raise InvalidRequestError(
            f"example {number}: wanted: a dspy.Example that says which fields are inputs; found: one that does not; "
            "possible: dspy.Example(...).with_inputs('question')"
        ) from error
    return {"inputs": json_object(inputs), "expected": json_object(example.labels())}
