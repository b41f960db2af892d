"""A small world for searches: a task, a model that gets better with better prompts, a run with a ledger.

The task: shout a word. The model shouts about a third of the words by itself, more of them with demos that shout, and
all of them once its instructions say SHOUT. Asked to reflect, it proposes instructions, some of which say so.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgent, DspyAgents
from dspy_optimization.agents.candidate import Candidate, ComponentName, content_hash
from dspy_optimization.agents.config import AgentConfig, AgentKind, Component, Field, PipelineStep, Signature
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.algorithms.problem import Algorithm, Problem, Progress
from dspy_optimization.errors import CancelRequested
from dspy_optimization.evaluation.model import CallKey, ModelRequest, ModelResponse, Role, call_key
from dspy_optimization.evaluation.trial import ExampleResult

WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "tiger",
    "lemon",
    "chair",
    "horse",
    "piano",
    "bread",
    "green",
    "light",
    "queen",
    "storm",
    "table",
    "uncle",
    "voice",
    "water",
    "yacht",
    "zebra",
    "amber",
    "beach",
    "coral",
    "dance",
    "eagle",
    "flame",
    "grape",
    "honey",
    "ivory",
    "jelly",
    "knife",
    "lunar",
]

PROPOSALS = (
    "Repeat the word.",
    "Answer politely.",
    "SHOUT the word: write it in capital letters.",
    "Think about the word first.",
    "Say the word loudly: SHOUT it.",
)


def chance(*parts: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the parts."""
    return int(hashlib.sha256("/".join(parts).encode()).hexdigest()[:8], 16) / 2**32


def examples(words: Sequence[str]) -> tuple[Example, ...]:
    """Return the task's examples for these words."""
    return tuple(
        Example(id=ExampleId(content_hash({"word": word})), inputs={"word": word}, expected={"answer": word.upper()})
        for word in words
    )


class Shouter:
    """The model behind both roles. A pure function of the request: same question, same draw, same answer."""

    def __init__(self, *, garbled: Callable[[str], bool] = lambda word: False) -> None:
        self._garbled = garbled

    def answer(self, role: Role, request: ModelRequest) -> str:
        """Return what the model says."""
        messages = [(message["role"], str(message["content"])) for message in request.body["messages"]]
        if role is Role.REFLECTION:
            return self._reflect(messages, request.sample)
        return self._shout(messages, request.sample)

    def _shout(self, messages: list[tuple[str, str]], sample: str) -> str:
        system = messages[0][1]
        word = re.findall(r"\[\[ ## (?:word|draft) ## \]\]\n(\S+)", messages[-1][1])[-1]
        listed = system.split("Your output fields are:")[1].split("All interactions")[0]
        outputs = re.findall(r"^\d+\. `(\w+)`", listed, re.M)
        if self._garbled(word) and "SHOUT" not in system:
            return "I would rather not."
        demos = sum(1 for role, text in messages if role == "assistant" and re.search(r"\]\]\n[A-Z]{3,}\n", text))
        share = 1.0 if "SHOUT" in system else min(0.35 + 0.15 * demos, 0.8)
        said = word.upper() if chance(word, sample) < share else word.lower()
        return "\n\n".join(f"[[ ## {name} ## ]]\n{said}" for name in outputs) + "\n\n[[ ## completed ## ]]"

    def _reflect(self, messages: list[tuple[str, str]], sample: str) -> str:
        system = messages[0][1]
        fields = re.findall(r"^\d+\. `(\w+)` \(([^)]*)\)", system.split("Your output fields are:")[1], re.M)
        drawn = PROPOSALS[int(chance(json.dumps(messages), sample) * len(PROPOSALS))]
        values: dict[str, object] = {}
        for name, kind in fields:
            if kind.startswith("dict"):
                modules = json.loads(re.findall(r"\[\[ ## module_names ## \]\]\n(\[.*?\])", messages[-1][1], re.S)[-1])
                values[name] = dict.fromkeys(modules, drawn)
            else:
                values[name] = drawn
        if "Outputs will be a JSON object" in system:
            return json.dumps(values)
        said = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
        return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in said.items()) + "\n\n[[ ## completed ## ]]"


class Ledger:
    """Every answer once; identical calls in flight are one call."""

    def __init__(self) -> None:
        self.answers: dict[CallKey, Future[ModelResponse]] = {}
        self.lock = threading.Lock()


class FakeRun:
    """What a search may do, on a dictionary."""

    def __init__(
        self,
        agent: DspyAgent,
        *,
        ledger: Ledger | None = None,
        model: Shouter | None = None,
        stop_at_call: int | None = None,
        allowance: int | None = None,
        latency_seconds: float = 0.0,
        metric: Callable[[Example, Prediction], Score] | None = None,
    ) -> None:
        self.agent = agent
        self.ledger = ledger if ledger is not None else Ledger()
        self.model = model if model is not None else Shouter()
        self.stop_at_call = stop_at_call
        self.allowance = allowance
        self.latency_seconds = latency_seconds
        self.metric = metric if metric is not None else shouts
        self.lock = threading.Lock()
        self.calls = 0
        self.calls_by_role: dict[Role, int] = {}
        self.calls_after_stop = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.asked: list[CallKey] = []
        self.paid: list[CallKey] = []
        self.stopped = False
        self.scored: list[ExampleId] = []
        self.recorded: list[tuple[Candidate, Split, tuple[ExampleResult, ...], int]] = []
        self.submitted: list[Candidate] = []
        self.progress: list[Progress] = []

    @property
    def calls_left(self) -> int | None:
        """Distinct calls that may still be asked; None: as many as are wanted. Nobody is stopped who asks for more."""
        with self.lock:
            return None if self.allowance is None else max(self.allowance - len(set(self.asked)), 0)

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return the answer, from the ledger when it is known."""
        key = call_key(role.value, request)
        with self.lock:
            self.calls += 1
            self.calls_by_role[role] = self.calls_by_role.get(role, 0) + 1
            self.asked.append(key)
            self.calls_after_stop += self.stopped
            if self.calls == self.stop_at_call:
                # Once, and never again: that nothing goes on after it is the search's own business.
                self.stopped = True
                raise CancelRequested(f"stopped at call {self.calls}")
        with self.ledger.lock:
            known = self.ledger.answers.get(key)
            mine = known is None
            if known is None:
                known = self.ledger.answers[key] = Future()
        if mine:
            with self.lock:
                self.paid.append(key)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
            time.sleep(self.latency_seconds)
            with self.lock:
                self.in_flight -= 1
            known.set_result(_response(self.model.answer(role, request)))
        return known.result()

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        """Return metric → score."""
        with self.lock:
            self.scored.append(example.id)
        return {"shout": self.metric(example, prediction)}

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        """Run the candidate on the examples."""
        results = []
        for example in examples:
            prediction = self.agent.run(candidate, example.inputs, self)
            results.append(
                ExampleResult(
                    example_id=example.id,
                    scores=self.score(example, prediction),
                    outputs=prediction.outputs,
                    failure=prediction.failure,
                    usage=prediction.usage,
                )
            )
        return tuple(results)

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        """Keep a trial."""
        with self.lock:
            self.recorded.append((candidate, split, tuple(results), iteration))

    def submit(self, candidate: Candidate) -> None:
        """Keep a result."""
        with self.lock:
            self.submitted.append(candidate)

    def report(self, progress: Progress) -> None:
        """Keep a report."""
        with self.lock:
            self.progress.append(progress)

    def best(self, problem: Problem) -> tuple[Candidate, float]:
        """Return the best candidate on all of val, as the optimizer finds it: recorded or submitted."""
        wanted = {example.id for example in problem.val}
        scores: dict[str, tuple[Candidate, float]] = {}
        for candidate, split, results, _ in self.recorded:
            if split is Split.VAL and {result.example_id for result in results} >= wanted:
                scores[candidate.fingerprint] = (candidate, _mean(results))
        for candidate in self.submitted:
            if candidate.fingerprint not in scores:
                scores[candidate.fingerprint] = (candidate, _mean(self.evaluate(candidate, problem.val)))
        return max(scores.values(), key=lambda one: one[1])


def shouts(example: Example, prediction: Prediction) -> Score:
    """Exact match."""
    if prediction.failure is not None:
        return Score(value=0.0, feedback=prediction.failure, failure=prediction.failure)
    said, wanted = prediction.outputs.get("answer"), example.expected["answer"]
    return Score(value=float(said == wanted), feedback=f"expected {wanted}, got {said}")


def agent_of(kind: AgentKind = AgentKind.PREDICT, *, frozen: Sequence[str] = ()) -> DspyAgent:
    """Return the agent that shouts."""
    return DspyAgents(Parts()).build(config_of(kind, frozen=frozen))


def config_of(kind: AgentKind = AgentKind.PREDICT, *, frozen: Sequence[str] = ()) -> AgentConfig:
    """Return its configuration."""
    marks = {ComponentName(name): Component(frozen=True) for name in frozen}
    if kind is not AgentKind.PIPELINE:
        return AgentConfig(name="shouter", kind=kind, signature=_signature("word", "answer"), components=marks)
    steps = (
        PipelineStep(
            name="first",
            agent=AgentConfig(name="first", kind=AgentKind.PREDICT, signature=_signature("word", "draft")),
            inputs={"word": "input.word"},
        ),
        PipelineStep(
            name="second",
            agent=AgentConfig(name="second", kind=AgentKind.PREDICT, signature=_signature("draft", "answer")),
            inputs={"draft": "first.draft"},
        ),
    )
    return AgentConfig(name="shouter", kind=kind, steps=steps, components=marks)


def problem_of(
    algorithm: Algorithm,
    agent: DspyAgent,
    options: object | None = None,
    *,
    train: int = 10,
    val: int = 8,
    seed: int = 0,
    concurrency: int = 4,
    frozen: Sequence[str] = (),
) -> Problem:
    """Return the task as a problem; the words after train and val are never handed out: they are the test split."""
    return Problem(
        agent=agent.config,
        runnable=agent,
        baseline=agent.baseline,
        frozen=agent.frozen | {ComponentName(name) for name in frozen},
        train=examples(WORDS[:train]),
        val=examples(WORDS[train : train + val]),
        objectives=Objectives(items=(Objective(metric="shout"),)),
        seed=seed,
        concurrency=concurrency,
        options=algorithm.options() if options is None else options,
    )


def _signature(given: str, wanted: str) -> Signature:
    return Signature(instructions="Say the word.", inputs=(Field(name=given),), outputs=(Field(name=wanted),))


def _response(text: str) -> ModelResponse:
    return ModelResponse(
        body={
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "shouter",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        },
        prompt_tokens=10,
        completion_tokens=5,
        latency_seconds=0.01,
    )


def _mean(results: Sequence[ExampleResult]) -> float:
    return sum(result.scores["shout"].value for result in results) / len(results)
