"""Comparing structures."""

import pytest
from agent_samples import answered
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.json_metrics import JsonMatch
from dspy_optimization.errors import InvalidRequestError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def _score(expected: dict[str, object], outputs: dict[str, object], **more):
    return JsonMatch(name="m", **more).score(
        Example(id="e" * 64, inputs={}, expected=expected), Prediction(outputs=outputs)
    )


@pytest.mark.parametrize(
    ("expected", "outputs", "value"),
    [
        ({"a": "x", "b": 1}, {"a": "x", "b": 1, "reasoning": "…"}, 1.0),
        ({"a": "x", "b": 1}, {"a": "x", "b": 2}, 0.5),
        ({"a": "x", "b": 1}, {"a": "x"}, 0.5),
        ({"a": {"city": "Rome", "zip": 1}}, {"a": {"city": "Rome", "zip": 2}}, 0.5),
        ({"a": {"city": "Rome"}}, {"a": {"city": "Rome", "zip": 2}}, 0.5),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, 2 / 3),
        ({"a": [1, 2]}, {"a": "[1, 2]"}, 1.0),
        ({"a": [1, 2]}, {"a": "[1, 2"}, 0.0),
        ({"a": [1, 2]}, {"a": 1}, 0.0),
        ({"a": []}, {"a": []}, 1.0),
        ({"a": True}, {"a": 1}, 0.0),
        ({"a": None}, {"a": None}, 0.0),
        ({"a": 1}, {"a": 1.0}, 1.0),
    ],
)
def test_values(expected, outputs, value: float) -> None:
    """Right parts over all parts, the superfluous included."""
    assert value == pytest.approx(_score(expected, outputs).value)


def test_feedback_names_the_wrong_parts() -> None:
    """Path, expected, got; missing and superfluous."""
    score = _score(
        {"a": {"city": "Rome", "zip": 1, "at": "x"}, "b": [1]}, {"a": {"city": "Oslo", "zip": 1, "more": 2}, "b": "{"}
    )

    assert score.feedback.startswith(
        "1 of 5 parts are right. Wrong: a.city: expected 'Rome', got 'Oslo'; a.at is missing (expected 'x'); "
        "a.more is too many (2); b is no JSON ("
    )
    many = _score({"a": list(range(30))}, {"a": list(range(1, 31))})
    assert many.feedback.endswith("; ….")


def test_choice_of_fields_and_form() -> None:
    """Some fields only; texts but for form."""
    expected, outputs = {"a": "The cat.", "b": 1}, {"a": "cat", "b": 2}

    assert 1.0 == _score(expected, outputs, fields=("a",), normalize=True).value
    assert 0.0 == _score(expected, outputs, fields=("a",)).value


def test_failures() -> None:
    """The floor with the reason; a missing label stops the run."""
    metric = JsonMatch(name="m", fields=("a",))
    failed = metric.score(Example(id="e", inputs={}, expected={"a": 1}), Prediction(outputs={}, failure="no JSON"))

    assert (0.0, "no JSON", "No usable answer: no JSON. Expected a: 1.") == (
        failed.value,
        failed.failure,
        failed.feedback,
    )
    for expected in ({"b": 1}, {}):
        with pytest.raises(InvalidRequestError, match="the metric m wants the expected field a in example e, found"):
            metric.score(Example(id="e", inputs={}, expected=expected), answered(1))
    with pytest.raises(InvalidRequestError, match="of any name"):
        JsonMatch(name="m").score(Example(id="e", inputs={}, expected={}), answered(1))


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), values.filter(lambda one: one is not None), min_size=1, max_size=3)
)
def test_equal_structures_are_worth_one(expected) -> None:
    """Reflexive, and in [0, 1] against anything."""
    assert 1.0 == _score(expected, expected).value
    assert 0.0 <= _score(expected, dict.fromkeys(expected, 0)).value <= 1.0


def test_an_answer_nested_beyond_reason_is_wrong() -> None:
    """Small models repeat one bracket until they are cut off; that is a wrong answer and no crash."""
    for depth in (300, 500, 900, 5000):
        score = _score({"a": [1, 2]}, {"a": "[" * depth + "1" + "]" * depth})

        assert 0.0 == score.value
