"""Tasks of reasoning-gym as datasets, and their own scorer."""

import json
from dataclasses import replace

import pytest
from agent_samples import agent, answered, example

from dspy_optimization.agents.dataset_loading import load_dataset
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.reading import RecordFields, fields_of
from dspy_optimization.agents.reasoning_metric import ReasoningMetric
from dspy_optimization.agents.reasoning_tasks import ReasoningTask, TaskScorer, read_reasoning_task, reasoning_task
from dspy_optimization.errors import InvalidRequestError

LETTERS = "reasoning_gym:letter_counting?size=6&seed=1&min_words=3"


def _stored(one: Example) -> Example:
    """Return the example as a database gives it back."""
    data = json.loads(json.dumps(one.to_json()))
    return Example(
        id=one.id, inputs=data["inputs"], expected=data["expected"], cluster=data["cluster"], metadata=data["metadata"]
    )


def test_text_and_mapping_name_the_same_task() -> None:
    """Values are JSON; size and seed have defaults."""
    mapping = {"reasoning_gym": "letter_counting", "size": 6, "seed": 1, "min_words": 3}

    assert reasoning_task(LETTERS) == reasoning_task(mapping)
    assert reasoning_task("reasoning_gym:coin_flip").config == {"size": 200, "seed": 0}


def test_question_in_answer_out() -> None:
    """The agent's only input gets the question, its only output the answer, read again the same."""
    task = reasoning_task(LETTERS)
    fields = fields_of(agent("text -> count: int"))
    first = read_reasoning_task(task, fields)

    assert first == read_reasoning_task(task, fields)
    assert len(first.examples) == 6
    assert [["text"], ["count"]] == [list(first.examples[0].inputs), list(first.examples[0].expected)]


def test_one_source_for_everything() -> None:
    """The name goes all the way to a split dataset."""
    for source in (LETTERS, {"reasoning_gym": "letter_counting", "size": 6, "seed": 1, "min_words": 3}):
        dataset = load_dataset(source, agent())

        assert ("letter_counting", 6) == (dataset.name, len(dataset.examples))
        assert all(dataset[split] for split in Split)


@pytest.mark.parametrize("name", ["letter_counting", "coin_flip", "arc_1d", "arc_agi", "graph_color", "puzzle24"])
def test_the_tasks_own_scorer_after_storage(name: str) -> None:
    """The right answer is worth 1, also where the scorer compares what JSON cannot hold (arc_agi: tuples)."""
    one = read_reasoning_task(reasoning_task(f"reasoning_gym:{name}?size=1&seed=3"), RecordFields()).examples[0]
    metric = ReasoningMetric(name="task")
    if not one.expected:  # graph_color has many right answers and names none
        assert metric.score(_stored(one), answered("nonsense")).value < 1.0
        return

    assert metric.score(_stored(one), answered(one.expected["answer"])).value == 1.0
    assert metric.score(_stored(one), answered("nonsense")).value < 1.0


def test_feedback() -> None:
    """What was expected, what came, and why there was nothing to score."""
    one = read_reasoning_task(reasoning_task(LETTERS), RecordFields()).examples[0]
    metric = ReasoningMetric(name="task")
    wrong, none, failure = (
        metric.score(one, prediction)
        for prediction in (
            answered(999),
            Prediction(outputs={"other": 1}),
            Prediction(outputs={}, failure="no JSON"),
        )
    )

    assert wrong.feedback.startswith(f"Expected '{one.expected['answer']}'; got 999. Task score 0.")
    assert (0.0, "the answer has no answer; it has: other") == (none.value, none.failure)
    assert (0.0, "no JSON") == (failure.value, failure.failure)


def test_an_example_of_another_version() -> None:
    """When the installed generator makes another question, no number is invented."""
    one = read_reasoning_task(reasoning_task(LETTERS), RecordFields()).examples[0]
    other = replace(one, inputs={"question": "another"})
    with pytest.raises(InvalidRequestError, match="possible: that version, or read the dataset again"):
        TaskScorer().score(other, "1")


@pytest.mark.parametrize(
    ("metadata", "fragment"),
    [
        ({}, "without its origin"),
        ({"reasoning_gym": {"task": 1}}, "task, config and index are wanted"),
        ({"reasoning_gym": {"task": "nope", "config": {}, "index": 0}}, "a reasoning-gym task is wanted, found 'nope'"),
        (
            {"reasoning_gym": {"task": "letter_counting", "config": {"size": 1, "seed": 0}, "index": 5}},
            "cannot make task 5|another one|the question",
        ),
    ],
)
def test_examples_from_elsewhere(metadata: dict[str, object], fragment: str) -> None:
    """A scorer without its task cannot tell, and says so."""
    with pytest.raises(InvalidRequestError, match=fragment):
        TaskScorer().score(example("q", "a", **metadata), "1")


@pytest.mark.parametrize(
    ("source", "fragment"),
    [
        ("reasoning_gym:leter_counting", 'did you mean "letter_counting"'),
        ("reasoning_gym:", "a reasoning-gym task is wanted, found ''"),
        ("reasoning_gym:coin_flip?sise=3", "no option 'sise' (did you mean \"size\"?)"),
        ("reasoning_gym:coin_flip?size=0", "size is wanted as a whole number, found 0; possible: 1 to 20000"),
        ("reasoning_gym:coin_flip?size=many", "found 'many'"),
        ("reasoning_gym:coin_flip?seed=-1", "seed is wanted as a whole number, found -1"),
        ("reasoning_gym:coin_flip?size=1&size=2", "every option stands once"),
        ("reasoning_gym:letter_counting?min_words=0", "min_words must be positive"),
        ("reasoning_gym:letter_counting?min_words=x", "refuses"),
    ],
)
def test_refusals(source: str, fragment: str) -> None:
    """Unknown tasks and options, and values a task refuses."""
    with pytest.raises(InvalidRequestError) as caught:
        reasoning_task(source)

    assert fragment in str(caught.value)


def test_an_agent_with_several_inputs() -> None:
    """Which of them is the question? One called so, or none of them."""
    task = ReasoningTask(name="coin_flip", config={"size": 1, "seed": 0})
    fields = RecordFields(inputs=("question", "context"), outputs=("a", "b"))
    with pytest.raises(
        InvalidRequestError, match="an agent with one output or one called answer is wanted, found a, b"
    ):
        read_reasoning_task(task, fields)
