"""Histories of a tenant, drawn from a truth that is known."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.lesson import Gained, Lesson, Point
from dspy_optimization.optimization.situation import Situation

ROOMY = Situation(
    kind=AgentKind.PREDICT,
    n_train=100,
    n_val=100,
    n_test=100,
    optimizable_components=1,
    can_propose=True,
    max_lm_calls=None,
    metric="exact_match",
    goals=1,
    input_length=200,
)
CAPPED = replace(ROOMY, max_lm_calls=1600)
"""1,000 calls for searching."""


def optimization_id(number: int) -> OptimizationId:
    return OptimizationId(UUID(int=number))


def gained(
    algorithm: str,
    gain: float,
    *,
    sealed: float | None = None,
    calls: int = 1000,
    points: Sequence[tuple[int, float]] | None = None,
    is_finished: bool = False,
) -> Gained:
    """Return what an algorithm showed; at its end alone where no points are given."""
    return Gained(
        algorithm=algorithm,
        points=tuple(Point(*one) for one in ([(calls, gain)] if points is None else points)),
        gain=gain,
        calls=calls,
        is_finished=is_finished,
        sealed=sealed,
    )


def lesson(number: int, situation: Situation, *some: Gained) -> Lesson:
    """Return what one taught, of a target that no other one has."""
    target = Fingerprint(f"target {number}")
    return Lesson(optimization_id=optimization_id(number), target=target, situation=situation, gained=some)


def history(
    chance: random.Random,
    n: int,
    truth: Mapping[str, float],
    *,
    situation: Situation = CAPPED,
    optimism: Mapping[str, float] | None = None,
    spread: float = 0.08,
    first: int = 1,
    sealed: bool = True,
) -> list[Lesson]:
    """Return so many optimizations, each of one algorithm or of two that share.

    What holds on the sealed split is the truth, a share of it for the target (targets differ) and noise; val shows that
    and the optimism of the algorithm, never less than 0. The better one on val went to the gate.

    Args:
        chance: draws everything.
        n: how many.
        truth: algorithm → mean gain.
        situation: of all of them, but for the size of their data.
        optimism: algorithm → what val adds.
        spread: standard deviation of noise, and half of it of targets.
        first: number of the first one.
        sealed: whether the gate's answers are known.
    """
    found = []
    for number in range(first, first + n):
        size = round(situation.n_train * chance.choice((0.7, 1.0, 1.4)))
        running = chance.sample(sorted(truth), chance.choice((1, 2)))
        target = chance.gauss(0.0, spread / 2)
        holds = {name: truth[name] + target + chance.gauss(0.0, spread) for name in running}
        val = {name: max(holds[name] + (optimism or {}).get(name, 0.0), 0.0) for name in running}
        best = max(running, key=lambda name: val[name])
        shown = [
            gained(
                name,
                val[name],
                sealed=holds[name] if sealed and name == best and val[name] > 0.0 else None,
                calls=chance.randint(700, 1000),
            )
            for name in sorted(running)
        ]
        found.append(lesson(number, replace(situation, n_train=size), *shown))
    return found
