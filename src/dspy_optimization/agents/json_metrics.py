"""Comparing structures: which parts of an answer are right."""

import json
from dataclasses import dataclass

from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.field_metric import Comparison, brief, failed
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.text_metrics import ExactMatch, NormalizedMatch
from dspy_optimization.agents.untrusted import listed
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonMatch:
    """The share of parts that are right, over all expected fields.

    A part is a leaf of the expected or of the given structure (`address.city`, `items[2]`): one that is missing, wrong
    or too many counts against the answer. Text is read as JSON where a list or a mapping is expected.
    """

    name: str
    fields: tuple[str, ...] = ()
    """Which expected fields count; empty: all."""
    normalize: bool = False
    """True: texts are equal but for case, punctuation, articles and spaces."""
    floor: float = 0.0
    ceiling: float | None = 1.0

    def score(self, example: Example, prediction: Prediction) -> Score:
        """Return the share of parts that are right, with feedback that names the wrong ones.

        Raises:
            InvalidRequestError: the example lacks an expected field.
        """
        fields = self.fields or tuple(example.expected)
        missing = [name for name in fields if name not in example.expected]
        if missing or not fields:
            raise InvalidRequestError(
                f"the metric {self.name} wants the expected field {', '.join(missing) or 'of any name'} in example "
                f"{example.id[:12]}, found {listed(example.expected)}; possible: other fields in the metric"
            )
        if prediction.failure is not None:
            return failed(prediction, self.floor, {name: example.expected[name] for name in fields})
        right, complaints = 0, list[str]()
        for name in fields:
            wrong, correct = self._field(name, example.expected[name], prediction.outputs.get(name))
            right += correct
            complaints += wrong
        total = right + len(complaints)
        if not complaints:
            return Score(value=1.0, feedback="Every part is right.")
        shown_wrong = "; ".join(complaints[:20]) + ("; …" if len(complaints) > 20 else "")
        return Score(value=right / total, feedback=f"{right} of {total} parts are right. Wrong: {shown_wrong}.")

    def _field(self, name: str, wanted: Json, found: Json) -> tuple[list[str], int]:
        """Return the complaints about one field, and how many of its parts are right."""
        expected = _leaves(wanted, name)
        said = found
        try:
            if isinstance(wanted, list | dict) and isinstance(found, str):
                found = json.loads(found)
            given = _leaves(found, name) if found is not None else {}
        except (ValueError, RecursionError) as error:
            complaint = f"{name} is no JSON ({error}): {brief(said)}"
            return [complaint, *(f"{path} is missing" for path in list(expected)[1:])], 0
        comparison: Comparison = NormalizedMatch() if self.normalize else ExactMatch()
        wrong: list[str] = []
        for path in dict.fromkeys((*expected, *given)):
            if path not in given:
                wrong.append(f"{path} is missing (expected {brief(expected[path])})")
            elif path not in expected:
                wrong.append(f"{path} is too many ({brief(given[path])})")
            elif not _equal(comparison, expected[path], given[path]):
                wrong.append(f"{path}: expected {brief(expected[path])}, got {brief(given[path])}")
        return wrong, len(expected.keys() | given.keys()) - len(wrong)


def _equal(comparison: Comparison, wanted: Json, found: Json) -> bool:
    if isinstance(wanted, bool | list | dict) or wanted is None or isinstance(found, bool) or found is None:
        return type(wanted) is type(found) and wanted == found
    return comparison.compare(wanted, found).value >= 1.0


def _leaves(value: Json, path: str) -> dict[str, Json]:
    """Return path → leaf; an empty list or mapping is a leaf of its own."""
    if isinstance(value, dict) and value:
        return {place: leaf for key, one in value.items() for place, leaf in _leaves(one, f"{path}.{key}").items()}
    if isinstance(value, list) and value:
        parts = (_leaves(one, f"{path}[{number}]") for number, one in enumerate(value))
        return {place: leaf for part in parts for place, leaf in part.items()}
    return {path: value}
