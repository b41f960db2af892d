"""How often the engine says `improved` where nothing is better: the best of 20 equals, chosen on val, tested on test.

Every world has a baseline and 20 candidates that are worth exactly as much: an example is answered as well by each,
and only chance differs. The best on val is chosen as the optimizer chooses (only when it beats the baseline there) and
compared on the sealed split by the public `compare`, at alpha 0.05 two-sided. The negative control tests on val, where
the choice was made: it must fail, or this benchmark could not see a broken gate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.finding import Finding, Table
from dspy_optimization.events import Json
from dspy_optimization.statistics import PairedSample, Verdict, compare, wilson_interval

TITLE = 'false "improved" over null pools of 20 candidates, with a negative control'

WORLDS = 3000
CANDIDATES = 20
N_VAL = 60
N_TEST = 120
CLUSTER = 4
ALPHA = 0.05
RESAMPLES = 1999
"""The engine draws 9,999; fewer make p-values coarser, never smaller than 1 / 2,000."""

Scores = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Scores]


def _binary(rng: np.random.Generator, n: int) -> Scores:
    """Return (1 + candidates, n) of right and wrong; an example is as easy for all."""
    ease = rng.beta(1.0, 1.0, n)
    return (rng.random((1 + CANDIDATES, n)) < ease).astype(float)


def _continuous(rng: np.random.Generator, n: int) -> Scores:
    """Return scores in [0, 1] with a tail: most near their example's mean, some at 0."""
    mean = rng.beta(2.0, 2.0, n)
    scores = np.clip(mean + rng.normal(0.0, 0.2, (1 + CANDIDATES, n)), 0.0, 1.0)
    return np.where(rng.random(scores.shape) < 0.1, 0.0, scores)


def _clustered(rng: np.random.Generator, n: int) -> Scores:
    """Return scores whose luck is shared within a cluster of examples."""
    luck = np.repeat(rng.normal(0.0, 0.25, (1 + CANDIDATES, n // CLUSTER)), CLUSTER, axis=1)
    return rng.beta(2.0, 2.0, n) + luck + rng.normal(0.0, 0.1, (1 + CANDIDATES, n))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A kind of world."""

    draw: Draw
    clustered: bool = False


POOLS: Mapping[str, Pool] = {
    "right or wrong": Pool(draw=_binary),
    "scores in between": Pool(draw=_continuous),
    f"clusters of {CLUSTER}": Pool(draw=_clustered, clustered=True),
}


@dataclass(slots=True)
class Tally:
    """Verdicts over all worlds."""

    improved: int = 0
    regressed: int = 0
    other: int = 0

    def count(self, verdict: Verdict) -> None:
        match verdict:
            case Verdict.IMPROVED:
                self.improved += 1
            case Verdict.REGRESSED:
                self.regressed += 1
            case _:
                self.other += 1


def measure() -> Finding:
    """Return the share of worlds with a false verdict, for every kind of world and way of testing."""
    rows: list[tuple[str, ...]] = []
    data: dict[str, Json] = {}
    for number, (name, pool) in enumerate(POOLS.items()):
        tallies = _worlds(pool, np.random.default_rng(1000 + number))
        for way, tally in tallies.items():
            interval = wilson_interval(tally.improved, WORLDS, level=0.95)
            allowed = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / WORLDS)
            rows.append(
                (
                    name,
                    way,
                    f"{tally.improved / WORLDS:.2%}",
                    f"{interval.lower:.2%} to {interval.upper:.2%}",
                    f"{tally.regressed / WORLDS:.2%}",
                    "at most 5 %" if tally.improved / WORLDS <= allowed else "FAILS",
                    "has to hold" if way == SEALED else "has to fail",
                )
            )
            data[f"{name}: {way}"] = {"worlds": WORLDS, "improved": tally.improved, "regressed": tally.regressed}
    columns = ("scores", "tested on", 'false "improved"', "95 % interval", 'false "regressed"', "outcome", "wanted")
    table = Table(title="False verdicts where nothing is better", columns=columns, rows=tuple(rows))
    notes = (
        (
            f"{WORLDS:,} worlds of each kind, {CANDIDATES} candidates, {N_VAL} val and {N_TEST} test examples, minimum "
            f"effect 0, {RESAMPLES:,} resamples; two-sided at {ALPHA}, so an exact test says improved in 2.5 %."
        ),
        "A world in which no candidate beats the baseline on val counts and is not tested, as in the engine.",
    )
    return Finding(tables=(table,), notes=notes, data=data)


SEALED = "sealed split"
CONTROL = "val again (control)"
UNCLUSTERED = "sealed split, clusters ignored (control)"


def _worlds(pool: Pool, rng: np.random.Generator) -> dict[str, Tally]:
    tallies = {SEALED: Tally(), CONTROL: Tally()}
    if pool.clustered:
        tallies[UNCLUSTERED] = Tally()
    for _ in range(WORLDS):
        val, test = pool.draw(rng, N_VAL), pool.draw(rng, N_TEST)
        means = val.mean(axis=1)
        best = 1 + int(np.argmax(means[1:]))
        if means[best] <= means[0] + 1e-9:
            for tally in tallies.values():
                tally.count(Verdict.NO_IMPROVEMENT)
            continue
        tallies[SEALED].count(_verdict(test, best, pool.clustered, rng))
        tallies[CONTROL].count(_verdict(val, best, pool.clustered, rng))
        if pool.clustered:
            tallies[UNCLUSTERED].count(_verdict(test, best, False, rng))
    return tallies


def _verdict(scores: Scores, best: int, clustered: bool, rng: np.random.Generator) -> Verdict:
    n = scores.shape[1]
    sample = PairedSample(
        baseline=tuple(scores[0].tolist()),
        candidate=tuple(scores[best].tolist()),
        clusters=tuple(f"cluster {index // CLUSTER}" for index in range(n)) if clustered else None,
    )
    return compare(sample, alpha=ALPHA, minimum_effect=0.0, rng=rng, resamples=RESAMPLES).verdict
