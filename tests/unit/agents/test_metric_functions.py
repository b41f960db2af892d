"""Metrics that people write."""

from types import SimpleNamespace

import numpy as np
import pytest
from agent_samples import answered, example

from dspy_optimization.agents.example import Prediction
from dspy_optimization.agents.metric_functions import FunctionMetric, Record
from dspy_optimization.errors import CancelRequested, InvalidRequestError, ModelError

ONE = example("q", "yes", source="web")


def _metric(function, **more) -> FunctionMetric:
    return FunctionMetric(name="mine", function=function, **more)


class _Truthy:
    """Like dspy.Prediction(score=0.0): true whatever its score."""

    score = 0.0
    feedback = "wrong"

    def __bool__(self) -> bool:
        return True


def test_the_three_forms() -> None:
    """Two, three and five arguments; trace and the rest are None."""

    def two(example, prediction):
        return example.answer == prediction.answer

    def three(example, prediction, trace=None):
        return two(example, prediction) and trace is None

    def five(gold, pred, trace, pred_name, pred_trace):
        return {"score": two(gold, pred), "feedback": f"{trace} {pred_name} {pred_trace}"}

    def any_number(*arguments):
        return len(arguments) / 5

    assert [1.0, 1.0, 1.0, 1.0] == [
        _metric(one).score(ONE, answered("yes")).value for one in (two, three, five, any_number)
    ]
    assert _metric(five).score(ONE, answered("yes")).feedback == "None None None"
    assert _metric(two).score(ONE, answered("no")).feedback == (
        "mine 0. Expected {'answer': 'yes'}; got {'answer': 'no'}."
    )


@pytest.mark.parametrize(
    ("result", "value", "feedback"),
    [
        (True, 1.0, None),
        (0.25, 0.25, None),
        (1, 1.0, None),
        (np.float32(0.5), 0.5, None),
        (np.bool_(False), 0.0, None),
        (_Truthy(), 0.0, "wrong"),
        (SimpleNamespace(score=True, feedback="good"), 1.0, "good"),
        ({"score": 0.5, "feedback": ""}, 0.5, None),
        ({"score": np.int64(1)}, 1.0, None),
    ],
)
def test_what_it_may_return(result: object, value: float, feedback: str | None) -> None:
    """A number is read, never the truth of an object."""
    score = _metric(lambda example, prediction: result).score(ONE, answered("no"))

    assert value == score.value
    assert feedback is None or feedback == score.feedback
    assert score.feedback


@pytest.mark.parametrize(
    ("result", "fragment"),
    [
        (None, "returned NoneType None"),
        ("0.5", "returned str '0.5'"),
        ({}, "returned dict {}"),
        ({"score": None, "feedback": "x"}, "returned dict"),
        (float("nan"), "returned nan"),
        (float("inf"), "returned inf"),
        (-0.1, "returned -0.1"),
        (1.5, "a finite number from 0 to 1, or other bounds (low, high)"),
        (1 + 2j, "returned complex"),
        ([1], "returned list"),
    ],
)
def test_what_it_may_not_return(result: object, fragment: str) -> None:
    """It stops the run with metric and example, and never counts as 0."""
    with pytest.raises(InvalidRequestError) as caught:
        _metric(lambda example, prediction: result).score(ONE, answered("no"))

    assert fragment in str(caught.value)
    assert f"the metric mine returned {fragment.split()[1]}" in str(caught.value) or "bounds" in fragment
    assert ONE.id in str(caught.value)


def test_its_bugs_stop_the_run() -> None:
    """A metric that raises is no score of 0; a stop and a model that failed pass unchanged."""

    def raising(error):
        def function(example, prediction):
            raise error

        return function

    with pytest.raises(InvalidRequestError, match=rf"the metric mine failed on example {ONE.id}, found KeyError: 'x'"):
        _metric(raising(KeyError("x"))).score(ONE, answered("no"))
    with pytest.raises(InvalidRequestError, match="AttributeError: no field anser; possible: answer, question, source"):
        _metric(lambda example, prediction: example.anser == 1).score(ONE, answered("no"))
    for error in (ModelError("503"), CancelRequested()):
        with pytest.raises(type(error)):
            _metric(raising(error)).score(ONE, answered("no"))


def test_bounds() -> None:
    """Other bounds, or none above."""
    assert -5.0 == _metric(lambda example, prediction: -5, floor=-10.0, ceiling=10.0).score(ONE, answered("x")).value
    assert 99.0 == _metric(lambda example, prediction: 99, ceiling=None).score(ONE, answered("x")).value
    with pytest.raises(InvalidRequestError, match="returned inf"):
        _metric(lambda example, prediction: float("inf"), ceiling=None).score(ONE, answered("x"))


def test_a_failed_answer_is_not_shown_to_it() -> None:
    """There is nothing to measure: the floor."""

    def never(example, prediction):
        raise AssertionError

    score = _metric(never, floor=-1.0).score(ONE, Prediction(outputs={}, failure="no JSON"))

    assert (-1.0, "no JSON") == (score.value, score.failure)


def _one(example):
    return 1


def _four(a, b, c, d):
    return 1


def _keyword(a, b, *, c):
    return 1


async def _later(a, b):
    return 1


@pytest.mark.parametrize("function", [_one, _keyword, _later])
def test_other_forms_are_refused_at_once(function) -> None:
    """Before anything is spent."""
    with pytest.raises(InvalidRequestError, match="the metric mine is wanted"):
        _metric(function)


def test_four_arguments_are_refused() -> None:
    """There is no such form."""
    with pytest.raises(InvalidRequestError, match=r"with 2, 3 or 5 arguments .*, found \(a, b, c, d\)"):
        _metric(_four)


def test_a_function_that_tells_nothing_takes_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions written in C have no signature."""

    class Untold:
        __signature__ = "not a signature"

        def __call__(self, example, prediction):
            return 1.0

    assert 1.0 == _metric(Untold()).score(ONE, answered("x")).value


def test_a_record_looks_like_an_example_of_dspy() -> None:
    """Attributes, keys, inputs(), labels(), toDict(); expected wins over inputs."""
    record = Record({"a": 1, "b": 2}, {"b": 3, "c": None})

    assert (1, 3, None, 3, {"a", "b", "c"}) == (record.a, record["b"], record.c, len(record), set(record))
    assert ({"a": 1, "b": 2}, {"b": 3, "c": None}) == (record.inputs().toDict(), record.labels().toDict())
    assert (True, 5) == ("c" in record, record.get("d", 5))
    with pytest.raises(AttributeError, match="no field d; possible: a, b, c"):
        _ = record.d
