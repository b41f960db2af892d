"""Agents made of agents: named steps that feed each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_optimization.adapters.dspy.model_use import ModelUse
from dspy_optimization.agents.pipeline_reading import INPUT
from dspy_optimization.errors import InvalidRequestError, ProgramError


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltStep:
    """One step, ready to run."""

    name: str
    program: Any
    use: ModelUse
    inputs: Mapping[str, str] | None
    """Input of the step → `input.<field>` or `<step>.<field>`; None: everything the pipeline was given."""


class Pipeline(dspy.Module):
    """Runs its steps in their order, each asked in its own way; answers what the last one answers.

    Each step is an attribute of its name, so components are called `<step>` or `<step>.<component>`.
    """

    def __init__(self, steps: Sequence[BuiltStep]) -> None:
        super().__init__()
        self._order = tuple((step.name, step.use, step.inputs) for step in steps)
        for step in steps:
            if hasattr(self, step.name):
                raise InvalidRequestError(
                    f"a step name is wanted that DSPy modules do not use themselves, found {step.name}; "
                    f"possible: {step.name}_step"
                )
            setattr(self, step.name, step.program)

    def forward(self, **inputs: Any) -> Any:
        """Return the last step's answer.

        Raises:
            ProgramError: a step refers to something that the input or an earlier answer lacks.
        """
        lm = dspy.settings.lm
        known: dict[str, Mapping[str, Any]] = {INPUT: inputs}
        answer: Any = None
        for name, use, references in self._order:
            given = inputs if references is None else _taken(name, references, known)
            with use.context(lm):
                answer = getattr(self, name)(**given)
            known[name] = dict(answer.items())
        return answer


def _taken(step: str, references: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for key, reference in references.items():
        source, _, field = reference.partition(".")
        if field not in known[source]:
            raise ProgramError(
                f"the step {step} needs {reference} for its input {key}; {source} has "
                f"{', '.join(known[source]) or 'nothing'}"
            )
        taken[key] = known[source][field]
    return taken
