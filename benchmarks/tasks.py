"""Which task leaves a 135-million-parameter model something to learn: the demo's own data and reasoning-gym's tasks.

The embedded model answers the same val examples as it is and with four labelled demos, once with the chat layout and
once held to a JSON schema. Little can be shown on a task where both score 0, or where one answer fits most examples.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from itertools import islice
from urllib.parse import urlencode

from benchmarks.bare import hushed
from benchmarks.finding import Finding, Table
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.models import EmbeddedModel
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, ModelChoice, Signature
from dspy_optimization.agents.dataset_loading import read_source
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.agents.reading import fields_of
from dspy_optimization.agents.reasoning_tasks import PREFIX
from dspy_optimization.cli.job_file import read_job_file
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json

TITLE = "what the embedded model scores on several tasks, as it is and with four labelled demos"

N_VAL = 24
DEMOS = 4
ADAPTERS = ("chat", "json")
SEED = 1

# Task → its options, as easy as the task allows: with its defaults a model this small scores 0 nearly everywhere.
TASKS: Mapping[str, Mapping[str, int]] = {
    "letter_counting": {"min_words": 3, "max_words": 6},
    "coin_flip": {},
    "spell_backward": {"min_word_len": 3, "max_word_len": 4},
    "leg_counting": {"min_animals": 1, "max_animals": 2, "max_instances": 4},
    "basic_arithmetic": {"min_terms": 2, "max_terms": 2, "max_digits": 1},
    "chain_sum": {"min_terms": 2, "max_terms": 2, "max_digits": 1},
    "isomorphic_strings": {"max_string_length": 4},
    "syllogism": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An agent with its examples."""

    name: str
    agent: AgentConfig
    metric: Metric
    train: Sequence[Example]
    val: Sequence[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one candidate did on val; of `N_VAL`."""

    parsed: int
    right: int
    """Scored 1: some tasks give credit for near answers."""
    score: float
    """Mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direct:
    """Calls that go to the model at once: no ledger, so nothing is known and nothing is kept."""

    model: EmbeddedModel

    def call(self, _role: Role, request: ModelRequest) -> ModelResponse:
        """Return what the model answers."""
        return self.model.complete(request)


def measure() -> Finding:
    """Return parsed and right answers for every task and adapter, without and with demos."""
    rows: list[tuple[str, ...]] = []
    data: dict[str, Json] = {}
    with closing(EmbeddedModel()) as model, hushed():
        for task in _tasks():
            constant = _constant(task)
            for adapter in ADAPTERS:
                began = time.monotonic()
                bare, shown = _answers(task, adapter, model)
                rows.append(
                    (
                        task.name,
                        adapter,
                        f"{bare.parsed} of {N_VAL}",
                        f"{shown.parsed} of {N_VAL}",
                        f"{bare.right} of {N_VAL}",
                        f"{shown.right} of {N_VAL}",
                        f"{bare.score:.2f}",
                        f"{shown.score:.2f}",
                        f"{constant:.2f}",
                    )
                )
                data[f"{task.name}, {adapter}"] = {
                    "options": dict(TASKS.get(task.name, {})),
                    "zero_shot": asdict(bare),
                    "with_demos": asdict(shown),
                    "constant_answer": constant,
                    "seconds": time.monotonic() - began,
                }
    columns = (
        "task", "adapter", "parsed, as it is", f"parsed, {DEMOS} demos", "right, as it is", f"right, {DEMOS} demos",
        "score, as it is", f"score, {DEMOS} demos", "score of one constant answer",
    )  # fmt: skip
    return Finding(
        tables=(Table(title="The embedded model on several tasks", columns=columns, rows=tuple(rows)),),
        notes=(
            (
                f"{N_VAL} val examples, the first {DEMOS} train examples as demos, temperature 0; one measurement of "
                "each, so a share near a half is known to about 20 points."
            ),
            (
                "Constant answer: the most frequent one in 24 train examples, scored on val; what is gained up to "
                "there may be no more than a habit."
            ),
        ),
        data=data,
    )


def _tasks() -> Iterator[Task]:
    with as_file(files("dspy_optimization.cli").joinpath("demo")) as folder:
        job = read_job_file(folder / "agent.yaml", AllowList())
        for agent in (job.agent, _typed(job.agent, "int")):
            reading = read_source(job.needed_data.source, fields_of(agent))
            rows = list(zip(reading.examples, reading.splits or (), strict=True))
            train = [one for one, split in rows if split is Split.TRAIN]
            val = [one for one, split in rows if split is Split.VAL]
            kind = agent.signature.outputs[0].type if agent.signature is not None else ""
            yield Task(
                name=f"demo: order as {kind}",
                agent=agent,
                metric=_metric("exact_match"),
                train=train[:N_VAL],
                val=val[:N_VAL],
            )
    for name, options in TASKS.items():
        agent = AgentConfig(
            name=name,
            kind=AgentKind.PREDICT,
            signature=Signature(
                instructions="Answer the question.",
                inputs=(Field(name="question"),),
                outputs=(Field(name="answer"),),
            ),
            model=ModelChoice(parameters={"temperature": 0.0, "max_tokens": 64}),
        )
        source = f"{PREFIX}{name}?{urlencode({'size': 400, 'seed': SEED, **options})}"
        distinct = {one.id: one for one in read_source(source, fields_of(agent)).examples}
        examples = list(islice(distinct.values(), 2 * N_VAL))
        if len(examples) < 2 * N_VAL:
            raise RuntimeError(f"{name}: wanted: {2 * N_VAL} different examples; found: {len(examples)}")
        yield Task(
            name=name, agent=agent, metric=_metric("reasoning_gym"), train=examples[:N_VAL], val=examples[N_VAL:]
        )


def _typed(agent: AgentConfig, kind: str) -> AgentConfig:
    if agent.signature is None:
        raise RuntimeError("wanted: an agent with a signature; found: none")
    outputs = tuple(replace(field, type=kind) for field in agent.signature.outputs)
    return replace(agent, signature=replace(agent.signature, outputs=outputs))


def _metric(kind: str) -> Metric:
    metric = metrics_from_specs([{"type": kind}], allowed=AllowList())[kind]
    if not isinstance(metric, Metric):
        raise TypeError(f"wanted: a metric that asks no model; found: {metric.name}")
    return metric


def _answers(task: Task, adapter: str, model: EmbeddedModel) -> tuple[Answers, Answers]:
    agent = DspyAgents(Parts(allowed=AllowList())).build(replace(task.agent, adapter=adapter))
    demos = tuple({**one.inputs, **one.expected} for one in task.train[:DEMOS])
    with_demos = Candidate(
        components={name: replace(value, demos=demos) for name, value in agent.baseline.components.items()}
    )
    objectives = Objectives(items=(Objective(metric=task.metric.name),))
    found = []
    with Evaluator(agent, [task.metric], objectives, concurrency=1) as evaluator:
        for candidate in (agent.baseline, with_demos):
            results = evaluator.evaluate(candidate, task.val, _Direct(model=model), StopSignal())
            scores = [result.scores[task.metric.name].value for result in results]
            found.append(
                Answers(
                    parsed=sum(result.failure is None for result in results),
                    right=sum(score >= 1.0 for score in scores),
                    score=sum(scores) / len(scores),
                )
            )
    return found[0], found[1]


def _constant(task: Task) -> float:
    """Return the mean score on val of the answer that is most frequent in train."""
    answers = Counter(str(dict(one.expected)) for one in task.train)
    frequent = answers.most_common(1)[0][0]
    outputs = next(one.expected for one in task.train if str(dict(one.expected)) == frequent)
    return sum(task.metric.score(one, Prediction(outputs=outputs)).value for one in task.val) / len(task.val)
