"""Populations against pymoo's and DEAP's NSGA-II: how long a generation takes, what is found with equal evaluations.

Problems are pymoo's own, so all are asked the same. Scores cost next to nothing here: a few products a point.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from deap import base, creator, tools
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.optimize import minimize
from pymoo.problems import get_problem
from scipy import stats

from benchmarks.finding import Finding, Table, spread
from dspy_optimization.compute.hypervolume import hypervolume
from dspy_optimization.compute.nsga import Scores, evolve, first_generation, next_generation
from dspy_optimization.compute.variation import Population, Space
from dspy_optimization.events import Json

TITLE = "populations: one generation, and what is found, against pymoo and DEAP"

GENES = 40
SIZES = (1_000, 5_000, 20_000)
REPEATS = 5
DEAP_CROSSOVER, DEAP_MUTATION = 0.9, 1.0
PROBLEMS = ("zdt1", "zdt2", "zdt3", "dtlz2", "mw1")
SEEDS = 10
POPULATION, GENERATIONS = 100, 250
CORNER = 1.1
"""The reference of every objective: all these fronts lie between 0 and 1, that of ZDT3 below it."""


def measure() -> Finding:
    """Return times of a generation and hypervolumes."""
    speed = [_speed(size, objectives) for size in SIZES for objectives in (2, 3)]
    quality = [_quality(name) for name in PROBLEMS]
    return Finding(tables=(_speed_table(speed), _quality_table(quality)), notes=_NOTES, data={
        "speed": list[Json](speed), "quality": list[Json](quality),
    })  # fmt: skip


_NOTES = (
    (
        f"Speed: {GENES} numbers a point; variation, scores and survival of one generation, alternating in a process; "
        f"median and range of {REPEATS} generations after a first one. Numbers alone, for DEAP and pymoo's NSGA-II "
        "know no codes. DEAP sorts with nd='log', its faster way."
    ),
    (
        f"Quality: {POPULATION} points, {GENERATIONS} generations, {SEEDS} seeds; hypervolume up to {CORNER} in each "
        "objective. The interval is that of the mean difference over seeds, which are independent: Welch, 95 %."
    ),
)


def _speed(size: int, objectives: int) -> dict[str, Json]:
    weights = np.random.default_rng(0).random((GENES, objectives))

    def score(numbers: np.ndarray) -> np.ndarray:
        # Opposing objectives, so that there are fronts of some size.
        return np.cos(3.0 * numbers) @ weights + (numbers - 0.5) ** 2 @ weights[::-1]

    ways = {
        "ours": _ours(size, score),
        "pymoo": _pymoo(size, objectives, score),
        "deap": _deap(size, objectives, score),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS + 1):
        for name, generation in ways.items():
            began = time.perf_counter()
            generation()
            if turn:
                times[name].append(1000.0 * (time.perf_counter() - began))
    return {"size": size, "objectives": objectives, **{name: list[Json](found) for name, found in times.items()}}


def _ours(size: int, score: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    space, rng = Space(bounds=((0.0, 1.0),) * GENES), np.random.default_rng(1)

    def told(points: Population) -> Scores:
        return Scores(values=score(points.numbers))

    now = [first_generation(space, told, size, rng)]

    def generation() -> None:
        now[0] = next_generation(space, now[0], told, size, rng)

    return generation


def _pymoo(size: int, objectives: int, score: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    class Scored(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=GENES, n_obj=objectives, xl=0.0, xu=1.0)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_args: object, **_kwargs: object) -> None:
            out["F"] = score(x)

    algorithm = NSGA2(pop_size=size)
    algorithm.setup(Scored(), termination=("n_gen", 10_000), seed=1, verbose=False)
    algorithm.next()
    return lambda: algorithm.next()


def _deap(size: int, objectives: int, score: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    fitness = f"Smaller{objectives}"
    if not hasattr(creator, fitness):
        creator.create(fitness, base.Fitness, weights=(-1.0,) * objectives)
        creator.create(f"Point{objectives}", list, fitness=getattr(creator, fitness))
    make = getattr(creator, f"Point{objectives}")
    cross = partial(tools.cxSimulatedBinaryBounded, eta=15.0, low=0.0, up=1.0)
    mutate = partial(tools.mutPolynomialBounded, eta=20.0, low=0.0, up=1.0, indpb=1.0 / GENES)
    rng = np.random.default_rng(1)

    def scored(points: list[Any]) -> list[Any]:
        for point, values in zip(points, score(np.array(points)), strict=True):
            point.fitness.values = tuple(values)
        return points

    now = [tools.selNSGA2(scored([make(row) for row in rng.random((size, GENES)).tolist()]), size, nd="log")]

    def generation() -> None:
        # The tournament takes multiples of four.
        parents = tools.selTournamentDCD(now[0], size)
        children = [make(point) for point in parents]
        for one, other in zip(children[::2], children[1::2], strict=True):
            if rng.random() <= DEAP_CROSSOVER:
                cross(one, other)
            mutate(one)
            mutate(other)
        now[0] = tools.selNSGA2(now[0] + scored(children), size, nd="log")

    return generation


def _quality(name: str) -> dict[str, Json]:
    problem = get_problem(name)
    space = Space(bounds=tuple(zip(problem.xl.tolist(), problem.xu.tolist(), strict=True)))
    corner = [CORNER] * problem.n_obj

    def told(points: Population) -> Scores:
        found = problem.evaluate(points.numbers, return_as_dictionary=True)
        excess = np.maximum(found["G"], 0.0).sum(axis=1) if problem.n_ieq_constr else None
        return Scores(values=found["F"], violations=excess)

    ours, theirs = [], []
    for seed in range(SEEDS):
        mine = evolve(space, told, size=POPULATION, generations=GENERATIONS - 1, rng=np.random.default_rng(seed))
        ours.append(_allowed_volume(mine.scores.values, mine.scores.violations, corner))
        result = minimize(problem, NSGA2(pop_size=POPULATION), ("n_gen", GENERATIONS), seed=seed, verbose=False)
        theirs.append(_allowed_volume(result.pop.get("F"), result.pop.get("CV").ravel(), corner))
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return {
        "problem": name,
        "ours": list[Json](ours),
        "pymoo": list[Json](theirs),
        "difference": float(np.mean(ours) - np.mean(theirs)),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _allowed_volume(values: np.ndarray, violations: np.ndarray | None, corner: Sequence[float]) -> float:
    allowed = values if violations is None else values[np.asarray(violations) <= 0.0]
    return hypervolume(allowed.reshape(-1, len(corner)), corner)


def _speed_table(rows: Sequence[dict[str, Json]]) -> Table:
    def cells(row: dict[str, Json]) -> tuple[str, ...]:
        ours, pymoo, deap = ([float(str(one)) for one in _listed(row[name])] for name in ("ours", "pymoo", "deap"))
        pymoo_ratio = [theirs / mine for theirs, mine in zip(pymoo, ours, strict=True)]
        deap_ratio = [theirs / mine for theirs, mine in zip(deap, ours, strict=True)]
        return (
            f"{row['size']:,}", str(row["objectives"]), spread(ours, ".1f"), spread(pymoo, ".1f"),
            spread(deap, ".0f"), spread(pymoo_ratio, ".1f"), spread(deap_ratio, ".0f"),
        )  # fmt: skip

    return Table(
        title="One generation of NSGA-II",
        columns=("points", "objectives", "ours, ms", "pymoo, ms", "DEAP, ms", "pymoo / ours", "DEAP / ours"),
        rows=tuple(cells(row) for row in rows),
    )


def _quality_table(rows: Sequence[dict[str, Json]]) -> Table:
    return Table(
        title=f"Hypervolume after {POPULATION * GENERATIONS:,} evaluations",
        columns=("problem", "ours", "pymoo's NSGA-II", "difference of means", "95 % interval"),
        rows=tuple(
            (
                str(row["problem"]),
                spread([float(str(one)) for one in _listed(row["ours"])], ".4f"),
                spread([float(str(one)) for one in _listed(row["pymoo"])], ".4f"),
                f"{row['difference']:+.4f}",
                f"{row['low']:+.4f} to {row['high']:+.4f}",
            )
            for row in rows
        ),
    )


def _listed(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else []
