"""New instructions from a language model: from nothing, from failures, from two parents."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from string import Formatter

from dspy_optimization.agents.candidate import ComponentName, canonical_json
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.example import Example
from dspy_optimization.algorithms.text_vectors import similarity, words_apart
from dspy_optimization.algorithms.watching import Watched
from dspy_optimization.errors import AlgorithmError, ModelRequestError
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json

NEAR = 0.97
FEW_WORDS = 3
"""Texts that are more alike than `NEAR` and differ in so many words at most say the same: one rule more in a long text
leaves it as alike as a comma does in a short one."""
LONGEST_VALUE = 1_500
"""Characters of one value that a prompt shows."""
_TRIES = 2
_TAGGED = re.compile(r"<instruction>\s*(.*?)\s*</instruction>", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[a-z]*\n(.*?)\n```", re.DOTALL)
_TIPS = (
    "Be clear and short.",
    "Be precise about the form of the answer.",
    "Say step by step how the answer is found.",
    "Say which mistakes are easy to make, and how to avoid them.",
    "Tell the model who it is: an expert of just this task.",
    "Describe the task as if to somebody who has never seen it.",
)


@dataclass(slots=True, kw_only=True)
class Proposals:
    """Asks the reflection model for instructions; counts what came of it."""

    agent: AgentConfig
    calls: Calls
    algorithm: str
    """Whose draws they are: a part of the ledger's key."""
    temperature: float
    most: int
    """Calls of the model at most."""
    asked: int = 0
    unreadable: int = 0
    refused: int = 0
    """Said what an instruction there is says."""
    last_failure: str | None = field(default=None)

    @property
    def left(self) -> int:
        """Calls that may still be made."""
        return self.most - self.asked

    def fresh(
        self, component: ComponentName, current: str, examples: Sequence[Example], number: int, known: Sequence[str]
    ) -> str | None:
        """Return an instruction made of what the task looks like; None when nothing usable came.

        Args:
            component: whose.
            current: what it says now.
            examples: what is shown.
            number: of this draw: another number, another tip and another answer.
            known: what there is already; nothing near to one of them is returned.
        """
        shown = "\n".join(f"{_values(one.inputs)} -> {_values(one.expected)}" for one in examples)
        text = _prompt("propose").format(
            purpose=_purpose(self.agent),
            component=component,
            current=current,
            examples=shown or "none",
            tip=_TIPS[number % len(_TIPS)],
        )
        return self._new(text, f"fresh/{component}/{number}", known)

    def mutated(
        self, component: ComponentName, current: str, runs: Sequence[Watched], draw: str, known: Sequence[str]
    ) -> str | None:
        """Return an instruction that answers to what went wrong; None when nothing usable came."""
        text = _prompt("mutate").format(
            purpose=_purpose(self.agent),
            component=component,
            current=current,
            runs="\n\n".join(_run(component, one) for one in runs),
        )
        return self._new(text, f"mutated/{component}/{draw}", known)

    def crossed(
        self,
        component: ComponentName,
        parents: tuple[str, str],
        scores: tuple[float, float],
        draw: str,
        known: Sequence[str],
    ) -> str | None:
        """Return an instruction made of two; None when nothing usable came.

        Args:
            component: whose.
            parents: the two.
            scores: how often each is expected to be right, 0 to 1.
            draw: tells draws apart.
            known: what there is already.
        """
        text = _prompt("cross").format(
            purpose=_purpose(self.agent),
            component=component,
            first=parents[0],
            second=parents[1],
            first_score=f"{scores[0]:.0%}",
            second_score=f"{scores[1]:.0%}",
        )
        return self._new(text, f"crossed/{component}/{draw}", known)

    def _new(self, text: str, draw: str, known: Sequence[str]) -> str | None:
        for tried in range(min(_TRIES, self.left)):
            found = self._ask(text, f"{draw}/{tried}")
            if found is None:
                continue
            if not any(_says_the_same(found, one) for one in known):
                return found
            self.refused += 1
        return None

    def _ask(self, text: str, draw: str) -> str | None:
        body: dict[str, Json] = {
            "messages": [{"role": "user", "content": text}],
            "temperature": self.temperature,
        }
        self.asked += 1
        try:
            answer = self.calls.call(Role.REFLECTION, ModelRequest(body=body, sample=f"{self.algorithm}/{draw}"))
        except ModelRequestError as error:
            self.unreadable += 1
            self.last_failure = str(error)
            return None
        found = instruction_in(_said(answer))
        if found is None:
            self.unreadable += 1
            self.last_failure = (
                "wanted: a text between <instruction> and </instruction>; found: "
                f"{_said(answer)[:80]!r}; possible: a stronger model for the role reflection"
            )
        return found


def instruction_in(answer: str) -> str | None:
    """Return the instruction an answer holds: between its tags, else in its only code block; None: in neither."""
    tagged = _TAGGED.findall(answer)
    if tagged:
        return str(tagged[-1]).strip() or None
    fenced = _FENCED.findall(answer)
    return str(fenced[0]).strip() or None if len(fenced) == 1 else None


def _says_the_same(one: str, other: str) -> bool:
    return similarity(one, other) >= NEAR and words_apart(one, other) <= FEW_WORDS


def _said(response: ModelResponse) -> str:
    match response.body:
        case {"choices": [{"message": {"content": str(text)}}]}:
            return text
        case _:
            return ""


@lru_cache
def _prompt(name: str) -> "_Template":
    text = files("dspy_optimization.algorithms").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")
    return _Template(text.strip())


@dataclass(frozen=True, slots=True)
class _Template:
    """A prompt with named gaps; what fills them is not read again."""

    text: str

    def format(self, **values: str) -> str:
        """Return the prompt. Raises `AlgorithmError` when a gap is not filled: the installation is broken then."""
        gaps = {name for _, name, _, _ in Formatter().parse(self.text) if name is not None}
        if gaps != set(values):
            raise AlgorithmError(
                f"prompt: wanted: values for {', '.join(sorted(gaps))}; found: {', '.join(sorted(values))}; possible: "
                "install again"
            )
        return self.text.format(**values)


def _purpose(agent: AgentConfig) -> str:
    if agent.signature is None:
        return agent.name
    inputs = ", ".join(one.name for one in agent.signature.inputs)
    outputs = ", ".join(f"{one.name} ({one.type})" for one in agent.signature.outputs)
    return f"{agent.signature.instructions}\nIt is given {inputs} and gives {outputs}."


def _run(component: ComponentName, shown: Watched) -> str:
    steps = [step for step in shown.prediction.steps if step.component == component]
    answered = "; ".join(step.failure or _values(step.outputs) for step in steps) or _values(shown.prediction.outputs)
    lines = [
        f"in: {_values(shown.example.inputs)}",
        f"answered: {answered}",
        f"expected: {_values(shown.example.expected)}",
    ]
    said = shown.prediction.failure or shown.feedback
    return "\n".join([*lines, f"said of it: {_short(said)}"] if said else lines)


def _values(values: Mapping[str, Json]) -> str:
    return _short(canonical_json(dict(values)))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} …"
