"""What every algorithm makes of the same calls on real tasks with the embedded model, judged on sealed examples.

Each algorithm gets the same agent, examples, model, seeds and number of calls. What it recommends, the best it measured
on val, and the baseline are run on the same sealed test examples, which no search saw; differences are paired by
example. The model also writes the instructions, which one of 135 million parameters does badly.
"""

import multiprocessing
import sys
import time
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

CALLS = 240
SEEDS = (1,)
_PROCESSES = 2
"""Each with a model of its own, on one core."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search on one task, and what it found on sealed examples."""

    task: str
    seed: int
    algorithm: str
    """Empty: the baseline."""
    sealed: Sequence[float]
    """A score an example."""
    results: tuple[ExampleResult, ...]
    val_score: float | None
    paid: int
    candidate: Json


def measure() -> Finding:
    """Return sealed scores by task and algorithm."""
    names = [task.name for task in tasks()]
    jobs = [(name, seed, algorithm) for name in names for seed in SEEDS for algorithm in ("", *ALGORITHMS)]
    with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
        runs = {(run.task, run.seed, run.algorithm): run for run in pool.imap_unordered(_run, jobs)}
    rows: list[tuple[str, ...]] = []
    data: dict[str, Json] = {}
    for task, (name, seed, algorithm) in ((task, job) for task in tasks() for job in jobs if job[0] == task.name):
        if not algorithm:
            continue
        run, before = runs[name, seed, algorithm], runs[name, seed, ""]
        objectives = _objectives(task)
        gain = paired_difference(objectives.primary, task.test, before.results, run.results, seed=seed)
        rows.append(
            (
                name,
                str(seed),
                algorithm,
                f"{_mean(before.sealed):.3f}",
                f"{_mean(run.sealed):.3f}",
                f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                "" if run.val_score is None else f"{run.val_score:.3f}",
                str(run.paid),
            )
        )
        data[f"{name}, {seed}, {algorithm}"] = {
            "baseline": list[Json](before.sealed),
            "sealed": list[Json](run.sealed),
            "val": run.val_score,
            "paid": run.paid,
            "candidate": run.candidate,
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
            "letter_counting and coin_flip can be won by one and the same answer every time: see docs/performance.md.",
        ),
        data=data,
    )


def _run(job: tuple[str, int, str]) -> Run:
    """Return what one algorithm recommends on one task; without an algorithm the baseline."""
    name, seed, algorithm = job
    began = time.monotonic()
    (task,) = (task for task in tasks() if task.name == name)
    builder, objectives = DspyAgents(Parts(allowed=AllowList())), _objectives(task)
    with closing(EmbeddedModel(threads=1)) as model, hushed():
        best, val_score, paid = builder.build(task.agent).baseline, None, 0
        if algorithm:
            found = search(
                algorithm,
                ALGORITHMS[algorithm],
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
            best, val_score, paid = found.best, found.val_score, found.paid
        results = _results(task, builder, best, objectives, model)
    sealed = [result.scores[task.metric.name].value for result in results]
    # An hour without a word is too long.
    print(
        f"{name}, {algorithm or 'baseline'}, seed {seed}: {_mean(sealed):.3f} sealed, {paid} calls, "
        f"{time.monotonic() - began:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return Run(
        task=name,
        seed=seed,
        algorithm=algorithm,
        sealed=sealed,
        results=results,
        val_score=val_score,
        paid=paid,
        candidate=best.to_json(),
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


def _objectives(task: Task) -> Objectives:
    return Objectives(items=(Objective(metric=task.metric.name),), ceilings={task.metric.name: 1.0})


def _results(
    task: Task, builder: DspyAgents, candidate: Candidate, objectives: Objectives, model: EmbeddedModel
) -> tuple[ExampleResult, ...]:
    with Evaluator(builder.build(task.agent), [task.metric], objectives, concurrency=4) as evaluator:
        return evaluator.evaluate(candidate, task.test, _Direct(model=model), StopSignal())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
