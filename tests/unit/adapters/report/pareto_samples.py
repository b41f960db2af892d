"""Optimizations with several goals, with the front that the engine computes of their trials."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from report_sample import BASELINE, ID, NOON, candidate, dataset, material, optimization, result, trial, validated

from dspy_optimization.adapters.report.curves import scaled
from dspy_optimization.adapters.report.facts import Material
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Example, Split, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.evaluation.gate import ValidatedResult
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.events import Event, EventType, Json, RecordedEvent
from dspy_optimization.optimization.contender import contenders
from dspy_optimization.optimization.front import Completed, front_of
from dspy_optimization.optimization.policy import Knee, Pick, pick
from dspy_optimization.optimization.search import Scoreboard

QUALITY = Objective(metric="exact_match")
TOKENS = Objective(metric="tokens", direction=Direction.MINIMIZE)
SECONDS = Objective(metric="latency_seconds", direction=Direction.MINIMIZE)
DOLLARS = Objective(metric="cost_usd", direction=Direction.MINIMIZE, guardrail=True, margin=1.2)

# Candidate → right on this share, tokens, seconds and dollars an answer.
POOL = (
    (0.42, 180, 1.1, 0.0002), (0.52, 210, 1.0, 0.0002), (0.58, 260, 1.4, 0.0003), (0.50, 300, 1.6, 0.0003),
    (0.66, 330, 1.5, 0.0004), (0.70, 480, 2.2, 0.0005), (0.71, 640, 1.9, 0.0006), (0.44, 500, 2.5, 0.0005),
    (0.61, 270, 2.0, 0.0003), (0.36, 120, 0.8, 0.0001), (0.55, 420, 2.1, 0.0004), (0.74, 900, 3.4, 0.0007),
)  # fmt: skip


def measured(cases: Sequence[Example], row: Sequence[float], salt: str) -> tuple[ExampleResult, ...]:
    """Results of one candidate; hard cases are hard for everybody."""
    share, tokens, seconds, dollars = row
    found = []
    for case in cases:
        shared, own = random.Random(case.id), random.Random(f"{salt}/{case.id}")
        right = float(0.8 * shared.random() + 0.2 * own.random() < share)
        size = 0.75 + 0.5 * shared.random()
        found.append(
            ExampleResult(
                example_id=case.id,
                scores={
                    "exact_match": Score(value=right),
                    "tokens": Score(value=round(tokens * size)),
                    "latency_seconds": Score(value=seconds * (0.7 + 0.6 * own.random())),
                    "cost_usd": Score(value=dollars * size),
                },
                outputs={"team": "billing"},
                usage=Usage(prompt_tokens=round(tokens * size), completion_tokens=9, lm_calls=1),
            )
        )
    return tuple(found)


def family() -> list[Candidate]:
    """The baseline and eleven others; the sixth and the last one are crossed from two."""
    made = [BASELINE]
    for place in range(1, len(POOL)):
        parents = [made[0]] if place < 3 else [made[place // 2]]
        if place in {5, 11}:
            parents = [made[place - 1], made[place // 2]]
        made.append(
            candidate(
                f"Way {place} of asking.",
                origin="crossed: classify" if len(parents) == 2 else "child of one",
                parents=parents,
            )
        )
    return made


def told(number: int, trust: float, doubt: str | None, **tries: tuple[int, float]) -> RecordedEvent:
    """What `genetic` tells after a round."""
    data: dict[str, Json] = {
        "algorithm": "genetic", "phase": "round", "iteration": number, "iterations": None, "score": None,
        "candidates": 20 + 4 * number, "newcomers": 4, "evaluations": 240 + 60 * number, "evaluations_at_most": 1000,
        "population": 1024, "instructions": 5 + number, "surrogate_trust": trust, "surrogate_doubt": doubt,
        "operators": {name: {"tries": one[0], "wins": one[1]} for name, one in tries.items()},
        "unreadable_proposals": 2, "last_failure": None,
    }  # fmt: skip
    return RecordedEvent(id=100 + number, event=Event(type=EventType.PROGRESS, optimization_id=ID, at=NOON, data=data))


ROUNDS = (
    told(1, 0.0, "too little to tell: 12 rows, 30 are wanted", child=(3, 0.4), champion=(0, 0.0)),
    told(2, 0.0, "too little to tell: 16 rows, 30 are wanted", child=(5, 0.9), stranger=(2, 0.1)),
    told(3, 0.41, None, child=(5, 0.9), stranger=(2, 0.1), champion=(4, 1.7)),
    told(4, 0.38, None, child=(6, 1.0), stranger=(3, 0.1), champion=(7, 2.9), crossed=(1, 0.35)),
    told(5, 0.0, "features do not foretell candidates never run: +0.03", champion=(7, 2.9), child=(9, 1.4)),
)  # fmt: skip


def several(objectives: Sequence[Objective] = (QUALITY, TOKENS, DOLLARS), **changes: Any) -> Material:
    """What is kept of an optimization with these objectives, decided by the knee."""
    data = dataset(n_val=60)
    val = data[Split.VAL]
    members = family()
    trials: list[Trial] = []
    for place, (one, row) in enumerate(zip(members, POOL, strict=True)):
        algorithm = "baseline" if place == 0 else "genetic"
        results = measured(val, row, str(place))
        trials.append(trial(one, results, algorithm=algorithm, iteration=place, paid_calls=60 + 50 * place))
    goals = scaled(Objectives(items=tuple(objectives)), trials)
    board = Scoreboard(goals, val)
    for one in trials:
        board.add(one.candidate, one.split, one.results, one.algorithm, one.iteration)
    everybody = contenders(board, BASELINE)
    taken: Pick = pick(Knee(objectives=goals), everybody)
    front = front_of(
        everybody,
        goals,
        val,
        taken.candidate,
        completed=[Completed(candidate=one.candidate.fingerprint, paid_calls=one.paid_calls) for one in trials],
        unbounded=frozenset({"tokens", "latency_seconds", "cost_usd"}),
        seed=7,
    )
    chosen = next(one for one in members if one.fingerprint == taken.candidate)
    plain = optimization()
    whole = material(
        optimization=replace(plain, request=replace(plain.request, objectives=tuple(objectives))),
        result=result(chosen, _proof(objectives, data, chosen), front=front, pick=taken, algorithm_used="genetic"),
        trials=tuple(trials),
        dataset=data,
        events=ROUNDS,
    )
    return replace(whole, **changes)


def _proof(objectives: Sequence[Objective], data: Dataset, chosen: Candidate) -> ValidatedResult:
    """The verdict on quality alone: what the gate says of the others is no matter here."""
    proof = validated(data, chosen, objectives=(QUALITY,))
    return replace(proof, objectives=dict.fromkeys((one.metric for one in objectives), proof.objectives["exact_match"]))
