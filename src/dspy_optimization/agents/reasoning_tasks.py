"""Generated reasoning tasks: the ones of reasoning-gym, by name, with their own scorer.

reasoning-gym takes seconds to import and warns while it is compiled, so it is imported where it is used.
An example keeps how its task was generated, not what its scorer needs: several scorers compare tuples, which do
not survive JSON. The scorer generates the task again and holds its question against the example's.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from dspy_optimization.agents.allow_list import ForeignCode
from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.reading import Reading, RecordFields, example_id
from dspy_optimization.agents.untrusted import checked_json, closest, listed, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

PREFIX = "reasoning_gym:"
METADATA_KEY = "reasoning_gym"
MAX_SIZE = 20_000
DEFAULTS: Mapping[str, Json] = {"size": 200, "seed": 0}


class TaskSource(Protocol):
    """What reasoning-gym calls a dataset: tasks by index, and their scorer."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return question, answer and metadata."""
        ...

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        """Return what an answer is worth, 0 to 1."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningTask:
    """A generator of tasks with its configuration: equal content, equal tasks."""

    name: str
    config: Mapping[str, Json]
    """size, seed, and what this generator takes."""

    @property
    def source(self) -> TaskSource:
        """The generator. Raises `InvalidRequestError` when name or configuration are not known."""
        return _created(self.name, self.config)


def reasoning_task(spec: str | Mapping[str, object], where: str = "dataset") -> ReasoningTask:
    """Return the task that `reasoning_gym:letter_counting?size=200&seed=1&min_words=5` names.

    A mapping says the same: `{"reasoning_gym": "letter_counting", "size": 200, "seed": 1, "min_words": 5}`.
    Without size and seed they are 200 and 0. Values are JSON; what is no JSON is text.

    Raises:
        InvalidRequestError: no such task, no such option, or a value the task refuses.
    """
    if isinstance(spec, str):
        name, _, query = spec.removeprefix(PREFIX).partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        given: dict[str, object] = {key: _value(text) for key, text in pairs}
        if len(given) < len(pairs):
            raise InvalidRequestError(f"{where}: every option stands once, found one twice in {shown(spec)}")
    else:
        given = dict(spec)
        name = str(given.pop(METADATA_KEY, ""))
    checked = checked_json(given, where)
    config: dict[str, Json] = {**DEFAULTS, **(checked if isinstance(checked, dict) else {})}
    for key, low, high in (("size", 1, MAX_SIZE), ("seed", 0, (1 << 31) - 1)):
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidRequestError(
                f"{where}: {key} is wanted as a whole number, found {shown(value)}; possible: {low} to {high}"
            )
    task = ReasoningTask(name=name, config=config)
    _created(name, config, where)
    return task


def read_reasoning_task(task: ReasoningTask, fields: RecordFields) -> Reading:
    """Return the examples of a task: its question as the agent's input, its answer as what should come out.

    Raises:
        InvalidRequestError: the agent has several inputs or outputs and none is called question or answer.
    """
    question = _matching(fields.inputs, "question", "input")
    answer = _matching(fields.outputs, "answer", "output")
    source = task.source
    version = importlib.metadata.version("reasoning_gym")
    examples: list[Example] = []
    size = task.config["size"]
    for index in range(size if isinstance(size, int) else 0):
        with ForeignCode(f"reasoning_gym:{task.name} cannot make task {index}", "another seed or other options"):
            entry = source[index]
        inputs: dict[str, Json] = {question: str(entry["question"])}
        expected: dict[str, Json] = {} if entry["answer"] is None else {answer: str(entry["answer"])}
        origin: dict[str, Json] = {
            "task": task.name, "config": dict(task.config), "index": index, "input": question, "version": version,
        }  # fmt: skip
        examples.append(
            Example(id=example_id(inputs, expected), inputs=inputs, expected=expected, metadata={METADATA_KEY: origin})
        )
    return Reading(examples=tuple(examples))


class TaskScorer:
    """Scores answers with the task's own scorer. Thread-safe; generates every task once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, TaskSource] = {}
        self._entries: dict[str, dict[str, Any]] = {}

    def score(self, example: Example, answer: str) -> float:
        """Return what an answer is worth, 0 to 1.

        Raises:
            InvalidRequestError: the example is no such task, or this version generates another one.
        """
        origin = example.metadata.get(METADATA_KEY)
        if not isinstance(origin, dict):
            raise InvalidRequestError(
                f"the metric reasoning_gym wants an example read from reasoning_gym:<task>, found example "
                f"{example.id[:12]} without its origin; possible: another metric, or a dataset {PREFIX}<task>"
            )
        name, config, index = origin.get("task"), origin.get("config"), origin.get("index")
        if not isinstance(name, str) or not isinstance(config, dict) or not isinstance(index, int):
            raise InvalidRequestError(
                f"example {example.id[:12]}: task, config and index are wanted as its origin, found {shown(origin)}; "
                f"possible: read the dataset {PREFIX}<task> again"
            )
        with self._lock:
            source, entry = self._entry(name, config, index)
        self._check_same(example, origin, entry)
        with ForeignCode(f"the scorer of {name} failed on example {example.id}", "another metric for this task"):
            return float(source.score_answer(answer, entry))

    def _entry(self, name: str, config: dict[str, Json], index: int) -> tuple[TaskSource, dict[str, Any]]:
        key = canonical_json([name, config])
        if key not in self._sources:
            self._sources[key] = _created(name, config)
        place = f"{index}/{key}"
        if place not in self._entries:
            with ForeignCode(f"reasoning_gym:{name} cannot make task {index}", "read the dataset again"):
                self._entries[place] = self._sources[key][index]
        return self._sources[key], self._entries[place]

    def _check_same(self, example: Example, origin: dict[str, Json], entry: dict[str, Any]) -> None:
        if example.inputs.get(str(origin.get("input"))) != entry["question"]:
            raise InvalidRequestError(
                f"example {example.id[:12]}: the question that {PREFIX}{origin.get('task')} makes is wanted, found "
                f"another; the example comes from reasoning-gym {origin.get('version')}, installed is "
                f"{importlib.metadata.version('reasoning_gym')}; possible: that version, or read the dataset again"
            )


def _created(name: str, config: Mapping[str, Json], where: str = "dataset") -> TaskSource:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own: what it compiles, files it leaves open
        factory = importlib.import_module("reasoning_gym.factory")
        importlib.import_module("reasoning_gym")
        _check_known(name, config, factory.DATASETS, where)
        known = ", ".join(one.name for one in dataclasses.fields(factory.DATASETS[name][1]))
        with ForeignCode(
            f"{where}: the task {name} refuses {canonical_json(dict(config))}", f"other values for {known}"
        ):
            source: TaskSource = factory.create_dataset(name, **config)
    return source


def _check_known(name: str, config: Mapping[str, Json], known: Mapping[str, Any], where: str) -> None:
    if name not in known:
        raise InvalidRequestError(
            f"{where}: a reasoning-gym task is wanted, found {shown(name)}{closest(name, known)}; possible: "
            f"{listed(known, 120)}"
        )
    options = [one.name for one in dataclasses.fields(known[name][1])]
    for key in config:
        if key not in options:
            raise InvalidRequestError(
                f"{where}: {name} has no option {shown(key)}{closest(key, options)}; possible: {', '.join(options)}"
            )


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _matching(names: tuple[str, ...], wanted: str, what: str) -> str:
    if wanted in names or not names:
        return wanted
    if len(names) == 1:
        return names[0]
    raise InvalidRequestError(
        f"reasoning-gym tasks have one question and one answer: an agent with one {what} or one called {wanted} is "
        f"wanted, found {', '.join(names)}; possible: rename one to {wanted}"
    )
