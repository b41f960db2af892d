"""A small world in which algorithms are checked: a task, models that answer it, and a run that remembers everything.

The task: a program of two steps shouts a word. The first step is frozen. The task model shouts about a third of the
words by itself, more of them with demos that shout, and all of them once the second step's instructions say SHOUT. The
reflection model, asked in whatever form, proposes instructions, some of which say so. Both are pure functions of the
request, so what comes of a search depends on the algorithm alone.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.agents.candidate import Candidate, ComponentName, content_hash
from dspy_optimization.agents.config import AgentConfig, AgentKind, Component, Field, PipelineStep, Signature
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.algorithms.problem import Problem, Progress, Shape
from dspy_optimization.errors import CancelRequested, StopSearch
from dspy_optimization.evaluation.agent import RunnableAgent
from dspy_optimization.evaluation.calls import CallScope, LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import CallKey, ModelRequest, ModelResponse, Role, call_key
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_model import ScriptedModel

_FROZEN = "draft"
CALLS_PER_RUN = 2
"""Calls one run of the agent takes."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PROPOSALS = (
    "Repeat the word.",
    "Answer politely.",
    "SHOUT the word: write it in capital letters.",
    "Think about the word first.",
    "Say the word loudly: SHOUT it.",
)
_METRIC = "shout"


def _chance(*parts: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the parts."""
    return int(hashlib.sha256("/".join(parts).encode()).hexdigest()[:8], 16) / 2**32


def _word(split: Split, number: int) -> str:
    digest = hashlib.sha256(f"{split.value}/{number}".encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:9])


def _examples(split: Split, count: int) -> tuple[Example, ...]:
    words = [_word(split, number) for number in range(count)]
    return tuple(
        Example(
            id=ExampleId(content_hash({"inputs": {"word": word}, "expected": {"answer": word.upper()}})),
            inputs={"word": word},
            expected={"answer": word.upper()},
        )
        for word in words
    )


class _Shout:
    """1 when the answer is the word in capitals."""

    name = _METRIC
    floor = 0.0
    ceiling: float | None = 1.0

    def score(self, example: Example, prediction: Prediction) -> Score:
        """Return what the answer is worth."""
        if prediction.failure is not None:
            return Score(value=0.0, feedback=prediction.failure, failure=prediction.failure)
        said, wanted = prediction.outputs.get("answer"), example.expected["answer"]
        return Score(value=float(said == wanted), feedback=f"expected {wanted}, got {said}")


def _answer_task(request: ModelRequest) -> str:
    messages = _messages(request)
    system = messages[0][1]
    given = re.findall(r"\[\[ ## (?:word|draft) ## \]\]\n(\S+)", messages[-1][1])
    word = given[-1] if given else ""
    listed = system.partition("Your output fields are:")[2].partition("All interactions")[0]
    outputs = re.findall(r"^\d+\. `(\w+)`", listed, re.M) or ["answer"]
    demos = sum(1 for role, text in messages if role == "assistant" and re.search(r"\]\]\n[A-Z]{3,}\n", text))
    share = 1.0 if "SHOUT" in system else min(0.35 + 0.15 * demos, 0.8)
    said = word.upper() if _chance(word.lower(), request.sample) < share else word.lower()
    return "\n\n".join(f"[[ ## {name} ## ]]\n{said}" for name in outputs) + "\n\n[[ ## completed ## ]]"


def _answer_reflection(request: ModelRequest) -> str:
    messages = _messages(request)
    text = "\n".join(one for _, one in messages)
    drawn = _PROPOSALS[int(_chance(json.dumps(messages), request.sample) * len(_PROPOSALS))]
    if "Your output fields are:" not in text:
        if "<instruction>" in text:
            return f"<instruction>{drawn}</instruction>"
        return f"```\n{drawn}\n```" if "```" in text else drawn
    fields = re.findall(r"^\d+\. `(\w+)` \(([^)]*)\)", messages[0][1].partition("Your output fields are:")[2], re.M)
    values: dict[str, object] = {}
    for name, kind in fields:
        if kind.startswith("dict"):
            asked = re.findall(r"\[\[ ## module_names ## \]\]\n(\[.*?\])", messages[-1][1], re.S)
            values[name] = dict.fromkeys(json.loads(asked[-1]), drawn)
        else:
            values[name] = drawn
    if "Outputs will be a JSON object" in messages[0][1]:
        return json.dumps(values)
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{one}" for name, one in told.items()) + "\n\n[[ ## completed ## ]]"


def _messages(request: ModelRequest) -> list[tuple[str, str]]:
    told = request.body.get("messages")
    found = [
        (str(one.get("role")), str(one.get("content")))
        for one in (told if isinstance(told, list) else [])
        if isinstance(one, dict)
    ]
    return found or [("user", "")]


def _signature(given: str, wanted: str) -> Signature:
    return Signature(instructions="Say the word.", inputs=(Field(name=given),), outputs=(Field(name=wanted),))


def _config() -> AgentConfig:
    def step(name: str, given: str, wanted: str, wire: str) -> PipelineStep:
        agent = AgentConfig(name=name, kind=AgentKind.PREDICT, signature=_signature(given, wanted))
        return PipelineStep(name=name, agent=agent, inputs={given: wire})

    return AgentConfig(
        name="shouter",
        kind=AgentKind.PIPELINE,
        steps=(step("draft", "word", "draft", "input.word"), step("answer", "draft", "answer", "draft.draft")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The task with its examples; the test split is there, as it is in the engine, and nobody hands it out."""

    agent: RunnableAgent
    train: tuple[Example, ...]
    val: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: _Shout = field(default_factory=_Shout)

    @property
    def objectives(self) -> Objectives:
        """Shout."""
        return Objectives(items=(Objective(metric=_METRIC),))

    @property
    def shape(self) -> Shape:
        """How large the problem is."""
        changeable = set(self.agent.baseline.components) - self.agent.frozen
        return Shape(n_train=len(self.train), n_val=len(self.val), n_components=len(changeable))

    @property
    def sealed(self) -> Sequence[str]:
        """Words of the test split, as they are and as they should be answered."""
        words = [str(one.inputs["word"]) for one in self.test]
        return [*words, *(word.upper() for word in words)]

    def problem(self, options: object, *, seed: int = 7, concurrency: int = 4) -> Problem:
        """Return the task as a new problem that shares nothing that could be changed with another one."""
        return Problem(
            agent=self.agent.config,
            runnable=self.agent,
            baseline=replace(self.agent.baseline),
            frozen=self.agent.frozen,
            train=tuple(replace(one, inputs=dict(one.inputs), expected=dict(one.expected)) for one in self.train),
            val=tuple(replace(one, inputs=dict(one.inputs), expected=dict(one.expected)) for one in self.val),
            objectives=self.objectives,
            seed=seed,
            concurrency=concurrency,
            options=options,
        )


def build_world(*, train: int = 10, val: int = 8, test: int = 8) -> World:
    """Return the world; its agent is a program of two steps, of which the first is frozen."""
    config = _config()
    frozen = ComponentName(f"{_FROZEN}")
    names = DspyAgents(Parts()).build(config).baseline.components
    marked = next(name for name in names if name.startswith(frozen))
    agent = DspyAgents(Parts()).build(replace(config, components={marked: Component(frozen=True)}))
    return World(
        agent=agent,
        train=_examples(Split.TRAIN, train),
        val=_examples(Split.VAL, val),
        test=_examples(Split.TEST, test),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What happens to a search."""

    stop_at_call: int | None = None
    """The call that is answered with the end; None: none is."""
    cancel_at_call: int | None = None
    """The call while which somebody cancels; it is answered, and nothing after it."""
    stop_at: str | None = None
    """"record" or "report": the first of them is answered with the end."""
    allowance_calls: int | None = None
    """Distinct calls the turn allows."""
    shuffled: str = ""
    """Not empty: answers come in an order of their own, another for every text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One trial."""

    candidate: Candidate
    split: Split
    results: tuple[ExampleResult, ...]
    iteration: int

    @property
    def content(self) -> tuple[str, str, tuple[tuple[str, float], ...]]:
        """What it says, whoever recorded it when."""
        scores = sorted((str(one.example_id), one.scores[_METRIC].value) for one in self.results)
        return (self.candidate.fingerprint, self.split.value, tuple(scores))


class WorldRun:
    """A `SearchRun` on a ledger in memory that remembers what it was asked. Thread-safe."""

    def __init__(self, world: World, session: LedgerSession, evaluator: Evaluator, trouble: Trouble) -> None:
        self.stop = StopSignal()
        self._trouble = trouble
        self._evaluator = evaluator
        self._lock = threading.Lock()
        self._told = threading.local()
        self._counted = _CountedCalls(session.scope("check", self.stop, trouble.allowance_calls), self.stop, trouble)
        self._world = world
        self.recorded: list[Recorded] = []
        self.submitted: list[Candidate] = []
        self.reports: list[Progress] = []
        self.after_end: list[str] = []
        """Methods called by a thread that had been told that the search has to end."""

    @property
    def asked(self) -> Mapping[CallKey, tuple[Role, ModelRequest]]:
        """Distinct calls in the order they were first asked."""
        return self._counted.asked

    @property
    def calls(self) -> int:
        """How often a model was to be asked, repeats included."""
        return self._counted.calls

    @property
    def calls_left(self) -> int | None:
        """Distinct calls the search may still ask for."""
        return self._counted.scope.calls_left

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Ask a model through the ledger."""
        with self._entering("call"):
            return self._counted.call(role, request)

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        """Return metric → score."""
        with self._entering("score"):
            return self._evaluator.score(example, prediction, self._counted)

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        """Run the candidate on the examples."""
        with self._entering("evaluate"):
            return self._evaluator.evaluate(candidate, examples, self._counted, self.stop)

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        """Keep a trial."""
        with self._entering("record"):
            one = Recorded(candidate=candidate, split=split, results=tuple(results), iteration=iteration)
            with self._lock:
                self.recorded.append(one)

    def submit(self, candidate: Candidate) -> None:
        """Keep a result; allowed at the end as well."""
        with self._lock:
            if candidate not in self.submitted:
                self.submitted.append(candidate)

    def report(self, progress: Progress) -> None:
        """Keep a report."""
        with self._entering("report"), self._lock:
            self.reports.append(progress)

    def complete(self) -> None:
        """Measure what was submitted on val, as the optimizer does when the search has ended."""
        for candidate in self.submitted:
            self._evaluator.evaluate(candidate, self._world.val, self._counted, StopSignal())

    @contextmanager
    def _entering(self, method: str) -> Iterator[None]:
        if getattr(self._told, "ending", False):
            with self._lock:
                self.after_end.append(method)
        try:
            self.stop.check()
            if method == self._trouble.stop_at:
                reason = CancelRequested(f"the check ends the search at its first {method}")
                self.stop.stop(reason)
                raise reason
            yield
            self.stop.check()
        except StopSearch:
            self._told.ending = True
            raise


class _CountedCalls:
    """The calls of a search, its agent's included."""

    def __init__(self, scope: CallScope, stop: StopSignal, trouble: Trouble) -> None:
        self.scope = scope
        self.calls = 0
        self.asked: dict[CallKey, tuple[Role, ModelRequest]] = {}
        self._stop = stop
        self._trouble = trouble
        self._lock = threading.Lock()

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return the answer, or the end that was ordered."""
        key = call_key(role.value, request)
        with self._lock:
            self.calls += 1
            number = self.calls
            self.asked.setdefault(key, (role, request))
        if number == self._trouble.stop_at_call:
            self._stop.stop(CancelRequested(f"the check ends the search at call {number}"))
            self._stop.check()
        if self._trouble.shuffled:
            # Some candidates are slow in all they do, so that whole evaluations overtake each other too.
            spoken = _messages(request)[0][1]
            slow = _chance(self._trouble.shuffled, spoken)
            time.sleep(0.015 * slow + 0.003 * _chance(self._trouble.shuffled, key))
        answer = self.scope.call(role, request)
        if number == self._trouble.cancel_at_call:
            self._stop.stop(CancelRequested(f"the check cancels the search after call {number}"))
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Who answers in a world."""

    task: ScriptedModel = field(default_factory=lambda: ScriptedModel(_answer_task, identity="task"))
    reflection: ScriptedModel = field(default_factory=lambda: ScriptedModel(_answer_reflection, identity="reflection"))

    @property
    def paid(self) -> int:
        """Calls that were answered by a model and not by the ledger."""
        return len(self.task.requests) + len(self.reflection.requests)


@contextmanager
def world_run(
    world: World, ledger: MemoryLedger, models: Models, trouble: Trouble, *, concurrency: int
) -> Iterator[WorldRun]:
    """Yield a run; closed, nothing of it runs any more."""
    with (
        LedgerSession.open(
            ledger,
            OptimizationId(UUID(int=1)),
            models={Role.TASK: models.task, Role.REFLECTION: models.reflection, Role.JUDGE: models.task},
            limits=Limits(),
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            warn=lambda _: None,
            max_in_flight=concurrency,
        ) as session,
        Evaluator(world.agent, [world.metric], world.objectives, concurrency=concurrency) as evaluator,
    ):
        yield WorldRun(world, session, evaluator, trouble)
