"""A metric that holds one field of the answer against the same field of what was expected."""

from dataclasses import dataclass
from typing import Protocol

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.untrusted import closest, listed, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

SHOWN_CHARACTERS = 500


class Comparison(Protocol):
    """How two values are compared."""

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return a value in [0, 1] with feedback; raise `InvalidRequestError` when `wanted` makes no sense."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMetric:
    """Compares one field. Where the expected value is a list and the answer is none, the best match counts."""

    name: str
    comparison: Comparison
    field: str | None = None
    """None: the only expected field of the example."""
    floor: float = 0.0
    ceiling: float | None = 1.0

    def score(self, example: Example, prediction: Prediction) -> Score:
        """Return what the answer is worth.

        Raises:
            InvalidRequestError: the example has no such expected field, or several and none is chosen.
        """
        field = self._field(example)
        wanted = example.expected[field]
        if prediction.failure is not None:
            return failed(prediction, self.floor, {field: wanted})
        if prediction.outputs.get(field) is None:
            present = [name for name, value in prediction.outputs.items() if value is not None]
            reason = f"the answer has no {field}; it has: {listed(present)}"
            return Score(value=self.floor, feedback=f"{reason}. Expected {field}: {brief(wanted)}.", failure=reason)
        return self._best(example, wanted, prediction.outputs[field])

    def _field(self, example: Example) -> str:
        present = [name for name, value in example.expected.items() if value is not None]
        if self.field is None and len(present) == 1:
            return present[0]
        if self.field is not None and self.field in present:
            return self.field
        wanted = "one expected field" if self.field is None else f"the expected field {self.field}"
        hint = "" if self.field is None else closest(self.field, present)
        raise InvalidRequestError(
            f"the metric {self.name} wants {wanted} in example {example.id[:12]}, found {listed(present)}{hint}; "
            'possible: "field": one of these in the metric, or label the example'
        )

    def _best(self, example: Example, wanted: Json, found: Json) -> Score:
        choices = wanted if isinstance(wanted, list) and wanted and not isinstance(found, list) else [wanted]
        try:
            return max((self.comparison.compare(one, found) for one in choices), key=lambda score: score.value)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"the metric {self.name}, example {example.id[:12]}: {error}") from error


def failed(prediction: Prediction, floor: float, expected: dict[str, Json]) -> Score:
    """Return the score of an answer that cannot be used: what failed, in which step, and what was expected."""
    steps = [f"Step {step.component}: {step.failure}." for step in prediction.steps if step.failure is not None]
    wanted = ", ".join(f"{name}: {brief(value)}" for name, value in expected.items())
    parts = [f"No usable answer: {prediction.failure}.", *steps, f"Expected {wanted}." if wanted else ""]
    return Score(value=floor, feedback=" ".join(part for part in parts if part), failure=prediction.failure)


def brief(value: Json) -> str:
    """Return a value as feedback shows it: at most 500 characters."""
    return shown(value, SHOWN_CHARACTERS)


def as_text(value: Json) -> str:
    """Return a value as text: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else canonical_json(value)
