"""Searches in a world whose truth is known: an agent without DSPy, a ledger in memory, a run that remembers everything.

The truth is that of `benchmarks.simulated_agent`: instructions are worth the rules in them, demos help or hurt by what
they are. Who asks for an instruction gets the rules of the prompt and a new one. All of it is a function of the prompt.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeVar
from uuid import UUID

from benchmarks.simulated_agent import INSTRUCTIONS, SimulatedModel
from benchmarks.simulated_agent import World as Truth

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import Choices
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.example import Example, Prediction, Split, Step, Usage
from dspy_optimization.agents.metric import Metric, Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.algorithms.problem import Algorithm, Problem, Progress, SearchRun
from dspy_optimization.errors import CancelRequested, EngineError, StopSearch
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.calls import CallScope, LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import CallKey, LanguageModel, ModelRequest, ModelResponse, Role, call_key
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json
from dspy_optimization.testing.memory_ledger import MemoryLedger

Found = TypeVar("Found")
ANSWER = ComponentName("answer")
RIGHT = Objective(metric="right")
SHORT = Objective(metric="tokens", direction=Direction.MINIMIZE)


class Right:
    """1 for the right answer."""

    name = "right"
    floor = 0.0
    ceiling: float | None = 1.0

    def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.failure is not None:
            return Score(value=0.0, feedback=prediction.failure, failure=prediction.failure)
        said, wanted = prediction.outputs.get("answer"), example.expected.get("answer")
        return Score(value=float(said == wanted), feedback=f"expected {wanted}, got {said}")


class Tokens:
    """How long the prompt was."""

    name = "tokens"
    floor = 1_000.0
    ceiling: float | None = None

    def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(value=float(prediction.usage.prompt_tokens))


class PlainAgent:
    """A `RunnableAgent` that asks once a component, the same question each time; the last one's answer counts."""

    def __init__(
        self,
        *,
        before: tuple[str, ...] = (),
        frozen: tuple[str, ...] = (),
        choices: Mapping[ComponentName, Choices] | None = None,
        value: ComponentValue | None = None,
    ) -> None:
        """Prepare an agent.

        Args:
            before: names of components before the one that answers.
            frozen: which components are.
            choices: of components, nothing where they are left out.
            value: of the component that answers.
        """
        names = tuple(ComponentName(name) for name in (*before, ANSWER))
        own = value if value is not None else ComponentValue(instructions=INSTRUCTIONS)
        self._names = names
        self.baseline = Candidate(
            components={name: own if name == ANSWER else ComponentValue(instructions=INSTRUCTIONS) for name in names},
            origin="baseline",
        )
        self.frozen = frozenset(ComponentName(name) for name in frozen)
        self.choices = {name: (choices or {}).get(name, Choices()) for name in names}
        self.config = AgentConfig(
            name="plain",
            kind=AgentKind.PREDICT,
            signature=Signature(
                instructions=INSTRUCTIONS, inputs=(Field(name="question"),), outputs=(Field(name="answer"),)
            ),
        )

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        steps: list[Step] = []
        length = 0
        for name in self._names:
            value = candidate.components[name]
            contents = [f"{name}: {value.instructions}\n`answer` (str)"]
            for demo in value.demos:
                contents += [
                    f"[[ ## question ## ]]\n{demo.get('question')}",
                    f"[[ ## answer ## ]]\n{demo.get('answer')}",
                ]
            contents.append(f"[[ ## question ## ]]\n{inputs['question']}")
            messages: list[Json] = [{"role": "user", "content": one} for one in contents]
            body: dict[str, Json] = {"messages": messages, **dict(value.settings.parameters)}
            response = calls.call(Role.TASK, ModelRequest(body=body))
            length += sum(len(one) for one in contents) // 4
            outputs: dict[str, Json] = {"answer": _answer_in(response)}
            steps.append(Step(component=name, inputs=dict(inputs), outputs=outputs))
        usage = Usage(prompt_tokens=length, lm_calls=len(steps))
        return Prediction(outputs=steps[-1].outputs, steps=tuple(steps), usage=usage)


def _answer_in(response: ModelResponse) -> str:
    match response.body:
        case {"choices": [{"message": {"content": str(text)}}]}:
            return text.partition("[[ ## answer ## ]]\n")[2].partition("\n")[0]
        case _:
            return ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An agent with its examples and models."""

    truth: Truth = field(default_factory=lambda: Truth(seed=3))
    agent: PlainAgent = field(default_factory=PlainAgent)
    n_train: int = 20
    n_val: int = 30
    goals: tuple[Objective, ...] = (RIGHT,)
    scales: Mapping[str, float] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = (Right(), Tokens())
    model: LanguageModel | None = None
    """None: the one of the truth."""

    @cached_property
    def train(self) -> tuple[Example, ...]:
        return self.truth.train[: self.n_train]

    @cached_property
    def val(self) -> tuple[Example, ...]:
        return self.truth.val[: self.n_val]

    @property
    def objectives(self) -> Objectives:
        return Objectives(items=self.goals, scales=self.scales, ceilings={"right": 1.0})

    def problem(
        self, options: object, *, seed: int = 7, concurrency: int = 4, known: tuple[Candidate, ...] = ()
    ) -> Problem:
        return Problem(
            agent=self.agent.config,
            runnable=self.agent,
            baseline=self.agent.baseline,
            frozen=self.agent.frozen,
            train=self.train,
            val=self.val,
            objectives=self.objectives,
            seed=seed,
            concurrency=concurrency,
            options=options,
            known=known,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A trial."""

    candidate: Candidate
    split: Split
    results: tuple[ExampleResult, ...]
    iteration: int

    @property
    def content(self) -> tuple[str, str, int, tuple[tuple[str, float], ...]]:
        values = [(str(one.example_id), sum(score.value for score in one.scores.values())) for one in self.results]
        return (self.candidate.fingerprint, self.split.value, self.iteration, tuple(values))


class RememberingRun:
    """A `SearchRun` on a ledger. Thread-safe."""

    def __init__(
        self,
        scope: CallScope,
        evaluator: Evaluator,
        stop: StopSignal,
        *,
        shuffled: str = "",
        stop_at_call: int | None = None,
    ) -> None:
        self._scope, self._evaluator, self._stop = scope, evaluator, stop
        self._shuffled, self._stop_at_call = shuffled, stop_at_call
        self._lock = threading.Lock()
        self._told = threading.local()
        self.asked: dict[CallKey, tuple[Role, ModelRequest]] = {}
        self.cells: list[tuple[str, str]] = []
        """Candidate and example of everything that was to be evaluated."""
        self.answered: dict[str, dict[str, ExampleResult]] = {}
        """Candidate → example → what came, recorded or not."""
        self.trials: list[Kept] = []
        self.submitted: list[Candidate] = []
        self.reports: list[Progress] = []
        self.after_end: list[str] = []
        """What a thread still wanted that had been told that the search has to end."""

    @property
    def calls_left(self) -> int | None:
        return self._scope.calls_left

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        key = call_key(role.value, request)
        with self._lock:
            self.asked.setdefault(key, (role, request))
            number = len(self.asked)
        if self._stop_at_call is not None and number >= self._stop_at_call:
            self._stop.stop(CancelRequested(f"ended at call {number}"))
        if self._shuffled:
            time.sleep(0.003 * _chance(self._shuffled, key))
        return self._entered("call", lambda: self._scope.call(role, request))

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        return self._entered("score", lambda: self._evaluator.score(example, prediction, self))

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        with self._lock:
            self.cells.extend((candidate.fingerprint, example.id) for example in examples)
        found = self._entered("evaluate", lambda: self._evaluator.evaluate(candidate, examples, self, self._stop))
        with self._lock:
            self.answered.setdefault(candidate.fingerprint, {}).update({str(one.example_id): one for one in found})
        return found

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        one = Kept(candidate=candidate, split=split, results=tuple(results), iteration=iteration)
        self._entered("record", lambda: self.trials.append(one))

    def submit(self, candidate: Candidate) -> None:
        with self._lock:
            if candidate not in self.submitted:
                self.submitted.append(candidate)

    def report(self, progress: Progress) -> None:
        self._entered("report", lambda: self.reports.append(progress))

    def _entered(self, what: str, act: Callable[[], Found]) -> Found:
        if getattr(self._told, "ending", False):
            self.after_end.append(what)
        try:
            self._stop.check()
            return act()
        except StopSearch:
            self._told.ending = True
            raise


@dataclass(frozen=True, kw_only=True)
class Course:
    """A search and what came of it."""

    run: RememberingRun
    ended: BaseException | None
    """What it raised."""
    paid: int
    """Calls that the model answered."""
    place: Place

    @property
    def content(self) -> tuple[object, ...]:
        """What it did: calls, trials in their order, results in their order."""
        return (
            tuple(sorted(self.run.asked)),
            tuple(one.content for one in self.run.trials),
            tuple(one.fingerprint for one in self.run.submitted),
            tuple((one.phase, one.iteration) for one in self.run.reports),
        )

    @property
    def best(self) -> Candidate:
        """What was submitted first."""
        return self.run.submitted[0]

    @property
    def gain(self) -> float:
        """How much better the best is in truth than the baseline."""
        quality = self.place.truth.quality
        return quality(self.best) - quality(self.place.agent.baseline)

    def asked_of(self, role: Role) -> list[ModelRequest]:
        return [request for asked, request in self.run.asked.values() if asked is role]

    def on_val(self) -> dict[str, dict[str, ExampleResult]]:
        """Return fingerprint → example → result."""
        found: dict[str, dict[str, ExampleResult]] = {}
        for one in self.run.trials:
            if one.split is Split.VAL:
                found.setdefault(one.candidate.fingerprint, {}).update({str(r.example_id): r for r in one.results})
        return found


class Counted:
    """A model that counts, and may answer out of order."""

    price = None

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.identity = model.identity
        self.answered = 0

    def complete(self, request: ModelRequest) -> ModelResponse:
        with self._lock:
            self.answered += 1
        return self._model.complete(request)

    def close(self) -> None:
        self._model.close()


def value_of(candidate: Candidate, example: Example, metric: str) -> float:
    """Any number that depends on both and on nothing else."""
    return (int(candidate.fingerprint[:6], 16) * 7 + int(example.id) * 13 + len(metric)) % 11 / 10.0


@dataclass
class MadeUpRun:
    """A run that makes scores up and notes what it is asked, in any number of threads."""

    metrics: tuple[str, ...] = ("right",)
    value: Callable[[Candidate, Example, str], float] = value_of
    before: Callable[[Candidate], None] = lambda _: None
    calls_a_run: int = 1
    allowance: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    trials: list[tuple[str, tuple[ExampleResult, ...], int]] = field(default_factory=list)
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def as_run(self) -> SearchRun:
        """Itself, as far as measuring asks of it."""
        return self  # type: ignore[return-value]

    @property
    def calls_left(self) -> int | None:
        return None if self.allowance is None else self.allowance - len(self.asked) * self.calls_a_run

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        with self.lock:
            self.asked.extend((candidate.fingerprint, example.id) for example in examples)
        self.before(candidate)
        return tuple(
            ExampleResult(
                example_id=example.id,
                scores={name: Score(value=self.value(candidate, example, name)) for name in self.metrics},
                outputs={},
            )
            for example in examples
        )

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        if self.ended:
            raise CancelRequested("it has ended")
        assert split is Split.VAL
        self.trials.append((candidate.fingerprint, tuple(results), iteration))


def searched(
    place: Place,
    algorithm: Algorithm,
    options: object,
    *,
    seed: int = 7,
    concurrency: int = 4,
    calls: int | None = None,
    ledger: MemoryLedger | None = None,
    shuffled: str = "",
    stop_at_call: int | None = None,
    known: tuple[Candidate, ...] = (),
) -> Course:
    """Search, and return what came of it; what ended it before its time is in there too.

    Args:
        place: where.
        algorithm: who.
        options: of it.
        seed: of the search.
        concurrency: examples in flight at once.
        calls: distinct ones that the turn allows.
        ledger: what is known before; a new one.
        shuffled: not empty: answers come in an order of their own, another for every text.
        stop_at_call: the distinct call that is answered with the end.
        known: candidates of algorithms before.
    """
    model = Counted(place.model if place.model is not None else SimulatedModel(place.truth))
    stop, ended = StopSignal(), None
    with (
        LedgerSession.open(
            ledger if ledger is not None else MemoryLedger(),
            OptimizationId(UUID(int=1)),
            models={Role.TASK: model, Role.REFLECTION: model},
            limits=Limits(),
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            warn=lambda _warning: None,
            remembered_answers=100_000,
        ) as session,
        Evaluator(place.agent, place.metrics, place.objectives, concurrency=concurrency) as evaluator,
    ):
        run = RememberingRun(
            session.scope("search", stop, calls), evaluator, stop, shuffled=shuffled, stop_at_call=stop_at_call
        )
        try:
            algorithm.search(place.problem(options, seed=seed, concurrency=concurrency, known=known), run)
        except (StopSearch, EngineError) as error:
            ended = error
    return Course(run=run, ended=ended, paid=model.answered, place=place)


def _chance(*parts: str) -> float:
    return int(hashlib.sha256("/".join(parts).encode()).hexdigest()[:8], 16) / 2**32
