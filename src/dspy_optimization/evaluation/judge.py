"""A metric that asks a model: a rubric in, a grade with its reason out."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Protocol, runtime_checkable

from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.untrusted import Block
from dspy_optimization.errors import InvalidRequestError, ModelError
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json

_RETRIES = 2
_DRAWING_TEMPERATURE = 0.7
_OPTIONS = ("type", "name", "rubric", "low", "high", "samples", "max_tokens", "structured")
_MOST_SAMPLES = 32
_WIDEST_SCALE = 100


@runtime_checkable
class ModelMetric(Protocol):
    """A metric that has to ask a model; like `agents.metric.Metric` otherwise."""

    @property
    def name(self) -> str:
        """How objectives call it."""
        ...

    @property
    def floor(self) -> float:
        """What an answer that cannot be used is worth."""
        ...

    @property
    def ceiling(self) -> float | None:
        """The best value there is; None when there is none."""
        ...

    def score_with(self, example: Example, prediction: Prediction, calls: Calls) -> Score:
        """Return what the prediction is worth; raises `InfrastructureError` when it cannot tell."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Grades an answer by a rubric; the value is the grade on its scale, turned to [0, 1].

    What is graded stands as JSON between markers made of its own hash, so it can neither close the markers nor
    end a string; and the grade is read only from the judge's answer. That stops text that breaks out of its
    place. It does not stop text that persuades: a judge is a language model, and an answer that pleads well
    may be graded well. Do not let a judge alone guard something that matters.
    """

    name: str
    rubric: str
    low: int = 1
    """The worst grade."""
    high: int = 5
    """The best grade; 0 and 1 make a judge that says no or yes."""
    samples: int = 1
    """Grades that are averaged, from 1; more than one are drawn at temperature 0.7 instead of 0."""
    max_tokens: int = 512
    """Of one answer of the judge."""
    structured: bool = True
    """Whether the server is asked to keep to the JSON schema; False for servers that refuse `response_format`."""

    def __post_init__(self) -> None:
        for right, wanted, found in (
            (self.name.strip(), "a judge with a name", f"name {self.name!r}"),
            (self.rubric.strip(), "a rubric in words", f"rubric {self.rubric!r}"),
            (
                0 < self.high - self.low <= _WIDEST_SCALE,
                f"a scale of at most {_WIDEST_SCALE} steps with low below high",
                f"low {self.low}, high {self.high}",
            ),
            (1 <= self.samples <= _MOST_SAMPLES, f"samples from 1 to {_MOST_SAMPLES}", f"samples {self.samples}"),
            (self.max_tokens >= 1, "max_tokens from 1 up", f"max_tokens {self.max_tokens}"),
        ):
            if not right:
                raise InvalidRequestError(
                    f"judge {self.name}: wanted: {wanted}; found: {found}; possible: low 1 and high 5, samples 1, "
                    "max_tokens 512, a rubric such as 'names the cause and one way to mend it'"
                )

    @property
    def floor(self) -> float:
        """0: the worst grade."""
        return 0.0

    @property
    def ceiling(self) -> float | None:
        """1: the best grade."""
        return 1.0

    def score_with(self, example: Example, prediction: Prediction, calls: Calls) -> Score:
        """Return the mean grade and the reasons; the floor, without asking, when there is no usable answer.

        Raises:
            ModelError: no usable grade in three tries of one draw, or the model failed: nobody can tell.
        """
        if prediction.failure is not None:
            return Score(
                value=self.floor, feedback=f"No usable answer: {prediction.failure}", failure=prediction.failure
            )
        messages = self._messages(example, prediction)
        grades = [self._grade(draw, messages, calls, example) for draw in range(self.samples)]
        values = [(grade.score - self.low) / (self.high - self.low) for grade in grades]
        reasons = [f"{grade.score} of {self.high}: {grade.reason}" for grade in grades]
        return Score(value=sum(values) / len(values), feedback="\n".join(reasons))

    def _grade(self, draw: int, messages: Json, calls: Calls, example: Example) -> "_Grade":
        said = ""
        for attempt in range(_RETRIES + 1):
            response = calls.call(Role.JUDGE, self._request(draw, attempt, messages))
            said = _text(response)
            grade = self._read(said)
            if grade is not None:
                return grade
        raise ModelError(
            f"judge {self.name}, example {example.id}: wanted: a JSON object with reason and a whole score from "
            f"{self.low} to {self.high}; found, {_RETRIES + 1} times: {said[:200]!r}; possible: a more capable "
            "judge model, a larger max_tokens, or a simpler rubric, then resume"
        )

    def _request(self, draw: int, attempt: int, messages: Json) -> ModelRequest:
        alone = self.samples == 1 and attempt == 0
        body: dict[str, Json] = {
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": 0.0 if alone else _DRAWING_TEMPERATURE,
        }
        if self.structured:
            body["response_format"] = self._schema()
        tries = str(attempt) if attempt else ""
        return ModelRequest(body=body, sample=f"draw {draw} {tries}".rstrip() if draw else tries)

    def _messages(self, example: Example, prediction: Prediction) -> Json:
        values: dict[str, str] = {"rubric": self.rubric.strip(), "low": str(self.low), "high": str(self.high)}
        template = (resources.files(__package__) / "prompts" / "judge.md").read_text(encoding="utf-8")
        system = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)
        case = json.dumps(
            {"inputs": dict(example.inputs), "expected": dict(example.expected), "answer": dict(prediction.outputs)},
            ensure_ascii=False,
            indent=1,
        )
        marker = f"=== case {hashlib.sha256(case.encode()).hexdigest()[:16]} ==="
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": f"{marker}\n{case}\n{marker}"},
        ]

    def _schema(self) -> Json:
        grades: list[Json] = list(range(self.low, self.high + 1))
        return {
            "type": "json_schema",
            "json_schema": {
                "name": "grade",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "enum": grades}},
                    "required": ["reason", "score"],
                    "additionalProperties": False,
                },
            },
        }

    def _read(self, said: str) -> "_Grade | None":
        """Return the last usable grade in the text; None when there is none. Nothing is clamped or guessed."""
        usable = [grade for grade in map(self._usable, _objects(said)) if grade is not None]
        return usable[-1] if usable else None

    def _usable(self, found: Mapping[str, Json]) -> "_Grade | None":
        score = found.get("score")
        if isinstance(score, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", score):
            score = int(score)
        if isinstance(score, bool) or not isinstance(score, int | float):
            return None
        if not self.low <= score <= self.high or score != int(score):
            return None
        return _Grade(score=int(score), reason=str(found.get("reason") or "").strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grade:
    score: int
    reason: str


def judge_from_json(specification: Mapping[str, Json]) -> Judge:
    """Return the judge of a metric specification of type `judge`.

    Raises:
        InvalidRequestError: an option is unknown, missing, of the wrong type or out of range.
    """
    block = Block(dict(specification), "judge", _OPTIONS)
    return Judge(
        name=block.text("name", "judge"),
        rubric=block.text("rubric", possible="what a good answer is, in words"),
        low=block.whole("low", 1, low=-_WIDEST_SCALE, high=_WIDEST_SCALE),
        high=block.whole("high", 5, low=-_WIDEST_SCALE, high=_WIDEST_SCALE),
        samples=block.whole("samples", 1, low=1, high=_MOST_SAMPLES),
        max_tokens=block.whole("max_tokens", 512, low=1, high=1 << 20),
        structured=block.flag("structured", True),
    )


def _text(response: ModelResponse) -> str:
    """Return what the only choice says; empty when it says nothing."""
    match response.body:
        case {"choices": [{"message": {"content": str(text)}}]}:
            return text
        case _:
            return ""


def _objects(said: str) -> Iterator[Mapping[str, Json]]:
    """Yield the JSON objects in a text from left to right; an object inside another is not one of its own."""
    decoder = json.JSONDecoder()
    position = said.find("{")
    while position >= 0:
        try:
            found, end = decoder.raw_decode(said, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            yield found
        position = said.find("{", end)
