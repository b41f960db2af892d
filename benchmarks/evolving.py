"""What every algorithm makes of the same calls, on agents whose true quality is known.

Each world is an agent of its own (`simulated_agent`): binary scores, rules that help or hurt or only help together,
demos that help or hurt. All algorithms ask the same model for instructions and have the same examples; what they
recommend is judged by its true quality. The worlds were not used to tune anything.
"""

import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.finding import Finding, Table
from benchmarks.search_floor import search
from benchmarks.simulated_agent import AGENT, SimulatedModel, World
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.events import Json

TITLE = "true quality of what every algorithm recommends, by calls, on 16 simulated agents"

WORLDS = tuple(range(901, 917))
CALLS = (500, 1_000, 2_000)
# Every one may go on until its calls are spent, or until it has nothing more to try.
OPTIONS: Mapping[str, Mapping[str, Json]] = {
    "genetic": {},
    "genetic without surrogate": {"surrogate": False},
    "racing": {"pool": 120, "instructions": 12},
    "gepa": {"iterations": 100_000},
    "gepa racing": {"iterations": 100_000, "evaluation": "racing"},
    "miprov2": {"candidates": 12, "trials": 400},
    "miprov2 racing": {"candidates": 12, "trials": 400, "search": "racing"},
    "simba": {"minibatch_size": 8, "candidates": 3},
    "capo": {},
    "bootstrap_random_search": {"candidates": 200},
}
_PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search on one world."""

    algorithm: str
    calls: int
    world: int
    quality: float
    val_score: float
    paid: int


def measure() -> Finding:
    """Return mean true quality by algorithm and calls, and what the surrogate's calls are worth in others' calls."""
    jobs = list(product(OPTIONS, CALLS, WORLDS))
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with context.Pool(_PROCESSES) as pool:
        runs = pool.starmap(_run, jobs, chunksize=4)
    best = sum(World(seed=seed).best for seed in WORLDS) / len(WORLDS)
    base = sum(_baseline(seed) for seed in WORLDS) / len(WORLDS)
    by = {(run.algorithm, run.calls, run.world): run for run in runs}
    rows = [
        (name, *(_mean([by[name, calls, world].quality for world in WORLDS]) for calls in CALLS)) for name in OPTIONS
    ]
    ahead = [
        (
            f"genetic at {calls:,}",
            f"{name} at {2 * calls:,}",
            _difference([by["genetic", calls, one].quality - by[name, 2 * calls, one].quality for one in WORLDS]),
        )
        for calls in CALLS
        if 2 * calls in CALLS
        for name in OPTIONS
        if not name.startswith("genetic")
    ]
    optimism = [
        (
            name,
            *(
                _mean([by[name, calls, world].val_score - by[name, calls, world].quality for world in WORLDS])
                for calls in CALLS
            ),
        )
        for name in OPTIONS
    ]
    spent = [
        (name, *(f"{sum(by[name, calls, world].paid for world in WORLDS) / len(WORLDS):.0f}" for calls in CALLS))
        for name in OPTIONS
    ]
    heads = tuple(f"{calls:,} calls" for calls in CALLS)
    return Finding(
        tables=(
            Table(title="True quality, mean ± standard error", columns=("algorithm", *heads), rows=tuple(rows)),
            Table(
                title="Half the calls against the whole, paired by world: mean difference and its 95 % interval",
                columns=("with half the calls", "against", "difference"),
                rows=tuple(ahead),
            ),
            Table(title="Score on val less true quality", columns=("algorithm", *heads), rows=tuple(optimism)),
            Table(title="Calls paid", columns=("algorithm", *heads), rows=tuple(spent)),
        ),
        notes=(
            f"{len(WORLDS)} worlds; the baseline's true quality is {base:.3f}, the best prompt's {best:.3f}.",
            (
                "A call is a run of the agent on one example or an answer of the model that writes; what is asked "
                "twice counts once. The winner is completed on val (60 examples) beyond the calls, for everybody alike."
            ),
            "A simulation: one component, rules and demos as genes. Real tasks are in `real_tasks`.",
        ),
        data={
            f"{run.algorithm}, {run.calls}, {run.world}": {
                "quality": run.quality,
                "val_score": run.val_score,
                "paid": run.paid,
            }
            for run in runs
        },
    )


def _run(name: str, calls: int, seed: int) -> Run:
    world = World(seed=seed)
    found = search(
        name.split(" ")[0],
        _options(name, calls),
        agent=AGENT,
        builder=DspyAgents(Parts(allowed=AllowList())),
        model=SimulatedModel(world),
        train=world.train,
        val=world.val,
        objectives=OBJECTIVES,
        metrics=[exact_match()],
        calls=calls,
        seed=seed,
    )
    return Run(
        algorithm=name,
        calls=calls,
        world=seed,
        quality=world.quality(found.best),
        val_score=found.val_score,
        paid=found.paid,
    )


def _options(name: str, calls: int) -> Mapping[str, Json]:
    # SIMBA names its winners when it has ended: it has to end within its calls.
    return {**OPTIONS[name], "steps": calls // 100} if name == "simba" else OPTIONS[name]


OBJECTIVES = Objectives(items=(Objective(metric="exact_match"),), ceilings={"exact_match": 1.0})


def exact_match() -> Metric:
    """Return the metric of all worlds."""
    metric = metrics_from_specs([{"type": "exact_match"}], allowed=AllowList())["exact_match"]
    if not isinstance(metric, Metric):
        raise TypeError(f"wanted: a metric that asks no model; found: {metric.name}")
    return metric


def _baseline(seed: int) -> float:
    return World(seed=seed).quality(DspyAgents(Parts(allowed=AllowList())).build(AGENT).baseline)


def _mean(values: Sequence[float]) -> str:
    mean, error = _moments(values)
    return f"{mean:.3f} ± {error:.3f}"


def _difference(values: Sequence[float]) -> str:
    mean, error = _moments(values)
    # Student's t for 15 degrees of freedom.
    return f"{mean:+.3f} ({mean - 2.131 * error:+.3f} to {mean + 2.131 * error:+.3f})"


def _moments(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
