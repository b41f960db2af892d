"""What every algorithm makes of the same calls on real tasks with the embedded model, judged on sealed examples.

Each algorithm gets the same agent, examples, model, seeds and number of calls. What it recommends, the best it measured
on val, and the baseline are run on the same sealed test examples, which no search saw; differences are paired by
example. The model also writes the instructions, which one of 135 million parameters does badly.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import islice
from urllib.parse import urlencode

from benchmarks.bare import hushed
from benchmarks.finding import Finding, Table
from benchmarks.search_floor import search
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.models import EmbeddedModel
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, ModelChoice, Signature
from dspy_optimization.agents.dataset_loading import read_source
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.agents.reading import fields_of
from dspy_optimization.agents.reasoning_tasks import PREFIX
from dspy_optimization.cli.job_file import read_job_file
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.gate import paired_difference
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json

TITLE = "sealed scores of what every algorithm recommends, on three real tasks with the embedded model"

CALLS = 300
SEEDS = (1,)
N_TRAIN, N_VAL, N_TEST = 40, 30, 100
# As many proposals and trials as the calls allow: who is done before is done.
ALGORITHMS: Mapping[str, Mapping[str, Json]] = {
    "genetic": {},
    "racing": {},
    "miprov2": {"candidates": 6, "trials": 60},
    "gepa": {"iterations": 10_000},
    "simba": {"steps": 100, "minibatch_size": 8},
    "capo": {"block": 10, "population": 6},
}
TASKS: Mapping[str, Mapping[str, int]] = {
    "letter_counting": {"min_words": 3, "max_words": 6},
    "coin_flip": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An agent with its examples."""

    name: str
    agent: AgentConfig
    metric: Metric
    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direct:
    """Calls that go to the model at once: what the gate asks is nobody's search."""

    model: EmbeddedModel

    def call(self, _role: Role, request: ModelRequest) -> ModelResponse:
        """Return what the model answers."""
        return self.model.complete(request)


def measure() -> Finding:
    """Return sealed scores by task and algorithm."""
    rows: list[tuple[str, ...]] = []
    data: dict[str, Json] = {}
    with closing(EmbeddedModel()) as model, hushed():
        for task in tasks():
            builder = DspyAgents(Parts(allowed=AllowList()))
            objectives = Objectives(items=(Objective(metric=task.metric.name),), ceilings={task.metric.name: 1.0})
            for seed in SEEDS:
                baseline = builder.build(task.agent).baseline
                before = _scores(task, builder, baseline, objectives, model)
                for name, options in ALGORITHMS.items():
                    found = search(
                        name,
                        options,
                        agent=task.agent,
                        builder=builder,
                        model=model,
                        train=task.train,
                        val=task.val,
                        objectives=objectives,
                        metrics=[task.metric],
                        calls=CALLS,
                        seed=seed,
                        concurrency=4,
                    )
                    after = before if found.best == baseline else _scores(task, builder, found.best, objectives, model)
                    gain = paired_difference(objectives.primary, task.test, before, after, seed=seed)
                    rows.append(
                        (
                            task.name,
                            str(seed),
                            name,
                            f"{_mean(task, before):.3f}",
                            f"{_mean(task, after):.3f}",
                            f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                            f"{found.val_score:.3f}",
                            str(found.paid),
                        )
                    )
                    data[f"{task.name}, {seed}, {name}"] = {
                        "baseline": _values(task, before),
                        "sealed": _values(task, after),
                        "val": found.val_score,
                        "paid": found.paid,
                        "candidate": found.best.to_json(),
                    }
    columns = ("task", "seed", "algorithm", "baseline", "sealed score", "gain (95 %)", "score on val", "calls paid")
    return Finding(
        tables=(Table(title=f"{CALLS} calls each, {N_TEST} sealed examples", columns=columns, rows=tuple(rows)),),
        notes=(
            (
                f"{N_TRAIN} train and {N_VAL} val examples, temperature 0; baseline and recommendation answer the same "
                "sealed examples. Calls paid are of the search, the baseline's val run apart; the winner is completed "
                "on val beyond them."
            ),
            "One seed and a hundred examples a task: differences between algorithms below about 0.1 mean nothing.",
        ),
        data=data,
    )


def tasks() -> Iterator[Task]:
    """Yield the tasks."""
    with as_file(files("dspy_optimization.cli").joinpath("demo")) as folder:
        job = read_job_file(folder / "agent.yaml", AllowList())
        reading = read_source(job.needed_data.source, fields_of(job.agent))
        by_split: dict[Split, list[Example]] = {split: [] for split in Split}
        for example, split in zip(reading.examples, reading.splits or (), strict=True):
            by_split[split].append(example)
        yield Task(
            name="order in a message",
            agent=job.agent,
            metric=_metric("exact_match"),
            train=by_split[Split.TRAIN][:N_TRAIN],
            val=by_split[Split.VAL][:N_VAL],
            test=by_split[Split.TEST][:N_TEST],
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
            model=ModelChoice(parameters={"temperature": 0.0, "max_tokens": 48}),
        )
        source = f"{PREFIX}{name}?{urlencode({'size': 800, 'seed': 7, **options})}"
        distinct = {one.id: one for one in read_source(source, fields_of(agent)).examples}
        some = list(islice(distinct.values(), N_TRAIN + N_VAL + N_TEST))
        if len(some) < N_TRAIN + N_VAL + N_TEST:
            raise RuntimeError(f"{name}: wanted: {N_TRAIN + N_VAL + N_TEST} different examples; found: {len(some)}")
        yield Task(
            name=name,
            agent=agent,
            metric=_metric("reasoning_gym"),
            train=some[:N_TRAIN],
            val=some[N_TRAIN : N_TRAIN + N_VAL],
            test=some[N_TRAIN + N_VAL :],
        )


def _metric(kind: str) -> Metric:
    metric = metrics_from_specs([{"type": kind}], allowed=AllowList())[kind]
    if not isinstance(metric, Metric):
        raise TypeError(f"wanted: a metric that asks no model; found: {metric.name}")
    return metric


def _scores(
    task: Task, builder: DspyAgents, candidate: Candidate, objectives: Objectives, model: EmbeddedModel
) -> tuple[ExampleResult, ...]:
    with Evaluator(builder.build(task.agent), [task.metric], objectives, concurrency=4) as evaluator:
        return evaluator.evaluate(candidate, task.test, _Direct(model=model), StopSignal())


def _values(task: Task, results: Sequence[ExampleResult]) -> list[Json]:
    return [result.scores[task.metric.name].value for result in results]


def _mean(task: Task, results: Sequence[ExampleResult]) -> float:
    return sum(result.scores[task.metric.name].value for result in results) / len(results)
