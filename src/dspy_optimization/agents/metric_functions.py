"""Metrics that people write: the 2-, 3- and 5-argument functions of DSPy.

    metric(example, prediction)
    metric(example, prediction, trace=None)
    metric(gold, prediction, trace=None, pred_name=None, pred_trace=None)

They return a bool, a number, or an object or mapping with `score` and perhaps `feedback`. What they return is never
asked for its truth: a `dspy.Prediction(score=0.0)` is true.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dspy_optimization.agents.allow_list import ForeignCode
from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.field_metric import brief, failed
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.untrusted import listed, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

FORMS = (5, 3, 2)
RESULTS = "a bool, a number, or an object or mapping with score and feedback"


class Record(Mapping[str, Json]):
    """Fields by attribute and by key, as functions written for DSPy expect of examples and predictions."""

    def __init__(self, inputs: Mapping[str, Json], others: Mapping[str, Json]) -> None:
        self._inputs = dict(inputs)
        self._others = dict(others)

    def __getattr__(self, name: str) -> Json:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"no field {name}; possible: {listed(self)}") from error

    def __getitem__(self, key: str) -> Json:
        return self._others[key] if key in self._others else self._inputs[key]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._inputs, **self._others})

    def __len__(self) -> int:
        return len({**self._inputs, **self._others})

    def inputs(self) -> "Record":
        """Return what goes in."""
        return Record(self._inputs, {})

    def labels(self) -> "Record":
        """Return the rest: what should come out, and the metadata."""
        return Record({}, self._others)

    def toDict(self) -> dict[str, Json]:  # noqa: N802 - DSPy's name
        """Return all fields as a dict."""
        return dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionMetric:
    """Scores with a function of the 2-, 3- or 5-argument form."""

    name: str
    function: Callable[..., object]
    floor: float = 0.0
    ceiling: float | None = 1.0
    """The function has to stay between floor and ceiling."""

    def __post_init__(self) -> None:
        _form(self.function, self.name)

    def score(self, example: Example, prediction: Prediction) -> Score:
        """Return what the function says.

        Raises:
            InvalidRequestError: the function raised, or returned no number between floor and ceiling. That is a bug
                in the function and never a score.
        """
        if prediction.failure is not None:
            return failed(prediction, self.floor, dict(example.expected))
        gold = Record(example.inputs, {**example.metadata, **example.expected})
        answer = Record({}, prediction.outputs)
        rest = (None,) * (_form(self.function, self.name) - 2)
        possible = "mend the function; it is given the example's fields and the answer's as attributes"
        with ForeignCode(f"the metric {self.name} failed on example {example.id}", possible):
            result = self.function(gold, answer, *rest)
        value = self._number(result, example)
        feedback = _part(result, "feedback")
        if not isinstance(feedback, str) or not feedback:
            wanted, given = brief(dict(example.expected)), brief(dict(prediction.outputs))
            feedback = f"{self.name} {value:g}. Expected {wanted}; got {given}."
        return Score(value=value, feedback=feedback)

    def _number(self, result: object, example: Example) -> float:
        score = _part(result, "score")
        found = result if score is None else score
        as_python = getattr(found, "item", None)
        if not isinstance(found, numbers.Real) and callable(as_python):  # numpy's bool is no number of Python's
            found = as_python()
        if not isinstance(found, numbers.Real):
            raise InvalidRequestError(
                f"the metric {self.name} returned {type(found).__name__} {shown(found)} on example {example.id}; "
                f"possible: {RESULTS}"
            )
        value = float(found)
        ceiling = math.inf if self.ceiling is None else self.ceiling
        if not (math.isfinite(value) and self.floor <= value <= ceiling):
            raise InvalidRequestError(
                f"the metric {self.name} returned {value} on example {example.id}; possible: a finite number from "
                f"{self.floor:g} to {ceiling:g}, or other bounds (low, high) in the metric"
            )
        return value


def _part(result: object, name: str) -> object:
    """Return an attribute or entry of a result; None when it has none."""
    if isinstance(result, Mapping):
        return result.get(name)
    return getattr(result, name, None)


def _form(function: Callable[..., object], name: str) -> int:
    """Return with how many arguments a function is called: the most of 5, 3 and 2 that it takes."""
    if inspect.iscoroutinefunction(function):
        raise InvalidRequestError(
            f"the metric {name} is wanted as a plain function, found an async one; possible: def instead of async def"
        )
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # a function written in C tells nothing
        return 2
    for count in FORMS:
        try:
            signature.bind(*([None] * count))
        except TypeError:
            continue
        return count
    raise InvalidRequestError(
        f"the metric {name} is wanted with 2, 3 or 5 arguments (example, prediction, trace, pred_name, pred_trace), "
        f"found {signature}; possible: def {name}(example, prediction)"
    )
