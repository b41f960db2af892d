"""Comparing texts."""

import math
import string

import pytest
from agent_samples import answered, example
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.example import Example, Prediction, Step
from dspy_optimization.agents.field_metric import FieldMetric
from dspy_optimization.agents.text_metrics import Contains, ExactMatch, NormalizedMatch, Similarity, TokenF1, normalized
from dspy_optimization.errors import InvalidRequestError, ModelError

COMPARISONS = [ExactMatch(), NormalizedMatch(), Contains(), TokenF1(), Similarity()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat, sat!", "cat sat"),
        ("A", "a"),
        ("the a", "the a"),
        ("?!", "?!"),
        ("-5", "-5"),
        ("3.5", "3.5"),
        ("1,234.", "1,234"),
        (".5", ".5"),
        ("-.5", "-.5"),
        ("COVID-19", "covid19"),
        ("«Straße»", "strasse"),
        ("ｆｕｌｌ", "full"),
        ("an apple a day", "apple day"),
    ],
)
def test_normalized(text: str, expected: str) -> None:
    """Form goes, numbers and lonely letters stay."""
    assert expected == normalized(text)


@pytest.mark.parametrize(
    ("comparison", "wanted", "found", "value"),
    [
        (ExactMatch(), "a", "a", 1.0),
        (ExactMatch(), "a", "A", 0.0),
        (ExactMatch(), 1, 1.0, 1.0),
        (ExactMatch(), "3", 3, 1.0),
        (ExactMatch(), True, 1, 0.0),
        (ExactMatch(), True, True, 1.0),
        (ExactMatch(), {"a": [1]}, {"a": [1]}, 1.0),
        (NormalizedMatch(), "The Answer!", "answer", 1.0),
        (NormalizedMatch(), "-5", "5", 0.0),
        (NormalizedMatch(), "3.5", "35", 0.0),
        (NormalizedMatch(), "A", "B", 0.0),
        (Contains(), "Paris", "It is Paris, of course.", 1.0),
        (Contains(), "3", "13", 0.0),
        (Contains(), "3", "There are 3.", 1.0),
        (TokenF1(), "the cat sat", "a cat sat", 1.0),
        (TokenF1(), "cat sat on mat", "cat on", 2 * 2 / 6),
        (TokenF1(), "cat", "dog", 0.0),
        (TokenF1(), "cat cat", "cat", 2 / 3),
        (TokenF1(), "cat cat", "cat cat dog", 4 / 5),
        (Similarity(), "Hello world", "hello  WORLD", 1.0),
        (Similarity(), "abc", "xyz", 0.0),
        (Similarity(), "", "", 1.0),
        (Similarity(), "", "a", 0.0),
    ],
)
def test_values(comparison, wanted: object, found: object, value: float) -> None:
    """Against numbers worked out by hand; F1 as 2·shared/(expected + given)."""
    assert value == pytest.approx(comparison.compare(wanted, found).value)


def test_similarity_against_a_second_computation() -> None:
    """The cosine of 1 + log count over trigrams, written out once more for two short texts.

    " abab " has ab_ x1, _ab x1, aba x1, bab x1; " aba " has _ab, aba, ba_.
    """
    value = Similarity().compare("abab", "aba").value

    assert value == pytest.approx(2 / math.sqrt(4 * 3))


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda one: type(one).__name__)
@given(wanted=st.text(string.printable, max_size=20), found=st.text(string.printable, max_size=20))
def test_laws(comparison, wanted: str, found: str) -> None:
    """Every value lies in [0, 1], equal texts are worth 1, and there is always something to say."""
    score, same = comparison.compare(wanted, found), comparison.compare(wanted, wanted)

    assert 0.0 <= score.value <= 1.0
    assert same.value == 1.0
    assert score.feedback
    assert score.failure is None


def test_an_embedding_makes_it_semantic() -> None:
    """The cosine of the vectors, not below 0."""
    vectors = {"big": [1.0, 0.0], "large": [0.8, 0.6], "anti": [-1.0, 0.0], "zero": [0.0, 0.0], "nan": [math.nan, 1.0]}
    metric = Similarity(embed=lambda texts: [vectors[text] for text in texts])

    assert 0.8 == pytest.approx(metric.compare("big", "large").value)
    assert [1.0, 0.0] == [metric.compare("big", "big").value, metric.compare("big", "anti").value]
    for bad in ("zero", "nan"):
        with pytest.raises(InvalidRequestError, match="finite vectors that are not all zero"):
            metric.compare("big", bad)
    with pytest.raises(InvalidRequestError, match="the embedding function failed, found KeyError"):
        metric.compare("big", "unknown")


def test_a_model_behind_an_embedding_that_fails_is_no_score() -> None:
    """An infrastructure failure stays one."""

    def embed(texts):
        raise ModelError("503")

    with pytest.raises(ModelError):
        Similarity(embed=embed).compare("a", "b")


METRIC = FieldMetric(name="exact", comparison=ExactMatch())


def test_the_only_expected_field_is_meant() -> None:
    """No field needs naming where there is one."""
    assert METRIC.score(example("q", "yes"), answered("yes")).value == 1.0
    assert METRIC.score(example("q", "yes"), answered("no")).feedback == "Expected 'yes'; got 'no'."


def test_any_of_several_answers_will_do() -> None:
    """A list of expected values is a choice, unless the answer is a list itself."""
    accepted = example("q", ["NYC", "New York"])

    assert METRIC.score(accepted, answered("New York")).value == 1.0
    assert METRIC.score(accepted, answered("Boston")).value == 0.0
    assert METRIC.score(accepted, answered(["NYC", "New York"])).value == 1.0


def test_answers_that_cannot_be_used() -> None:
    """The floor, with what failed, in which step, and what was expected."""
    steps = (
        Step(component="extract", inputs={}, outputs={}),
        Step(component="answer", inputs={}, outputs={}, failure="the field answer is missing"),
    )
    metric = FieldMetric(name="exact", comparison=ExactMatch(), floor=-1.0)
    failed = metric.score(example("q", "yes"), Prediction(outputs={}, steps=steps, failure="unparsable"))
    absent = metric.score(example("q", "yes"), Prediction(outputs={"reply": "x", "answer": None}))

    assert (-1.0, "unparsable") == (failed.value, failed.failure)
    assert failed.feedback == (
        "No usable answer: unparsable. Step answer: the field answer is missing. Expected answer: 'yes'."
    )
    assert (-1.0, "the answer has no answer; it has: reply") == (absent.value, absent.failure)
    assert "Expected answer: 'yes'" in absent.feedback


@pytest.mark.parametrize(
    ("field", "expected", "fragment"),
    [
        (None, {"a": 1, "b": 2}, "wants one expected field in example"),
        (None, {}, "found none"),
        ("anwser", {"answer": 1}, 'found answer (did you mean "answer"?)'),
        ("answer", {"answer": None}, "wants the expected field answer"),
    ],
)
def test_examples_without_the_field_stop_the_run(field: str | None, expected, fragment: str) -> None:
    """A missing label is never a score."""
    metric = FieldMetric(name="exact", comparison=ExactMatch(), field=field)
    with pytest.raises(InvalidRequestError) as caught:
        metric.score(Example(id="0123456789abcdef", inputs={}, expected=expected), answered(1))

    assert fragment in str(caught.value)
    assert "0123456789ab" in str(caught.value)
