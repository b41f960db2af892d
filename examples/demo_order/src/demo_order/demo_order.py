"""Which demos, and in which order: both decide how well a model follows them, and trying is cheap.

1. The agent runs on the train examples; the steps of runs with full marks are the demos there are.
2. It begins with a random few of them and changes one thing a round: two change places, one gives way to another, one
   goes, one comes. Old and new run on the same minibatch, drawn anew each round; the new one stays when it is better.
3. What is left is measured on val and submitted.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias, cast

from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

Demo: TypeAlias = Mapping[str, Json]
Demos: TypeAlias = Mapping[ComponentName, tuple[Demo, ...]]
"""Component → demos, in the order the model sees them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOrderOptions:
    """How far it climbs."""

    demos: int = 4
    """Demos a component shows at most, at least 1."""
    rounds: int = 12
    """Changes that are tried, at least 1."""
    minibatch: int = 8
    """Train examples on which a change is compared with what was, at least 1."""

    def __post_init__(self) -> None:
        for name in ("demos", "rounds", "minibatch"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"{name}: wanted: at least 1; found: {getattr(self, name)}; possible: 1")


class DemoOrder:
    """Climbs over demos and their order."""

    name: ClassVar[str] = "demo_order"
    description: ClassVar[str] = "hill-climbs over which demos an agent shows, and in which order"
    options: ClassVar[type] = DemoOrderOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most: all of train once, two minibatches a round, val once."""
        chosen = cast("DemoOrderOptions", options)
        return Forecast(
            runs=shape.n_train + 2 * chosen.rounds * min(chosen.minibatch, shape.n_train) + shape.n_val, proposals=0
        )

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record the winner on val and submit it; nothing when no run succeeded."""
        options = cast("DemoOrderOptions", problem.options)
        pool = self._successes(problem, run)
        if not any(pool.values()):
            run.report(Progress(phase="demos", iteration=1, data={"demos": 0}))
            return
        shown = {
            name: tuple(problem.rng(f"begin/{name}").sample(demos, min(options.demos, len(demos))))
            for name, demos in pool.items()
        }
        best = _showing(problem, shown)
        for number in range(1, options.rounds + 1):
            chance = problem.rng(f"round/{number}")
            changed = _changed(shown, pool, options.demos, chance)
            rival = _showing(problem, changed)
            examples = chance.sample(problem.train, min(options.minibatch, len(problem.train)))
            before, after = (_utility(problem, run, candidate, examples) for candidate in (best, rival))
            if after > before:
                shown, best = changed, rival
            score = max(before, after)
            run.report(
                Progress(phase="rounds", iteration=number, iterations=options.rounds, candidate=best, score=score)
            )
        results = run.evaluate(best, problem.val)
        run.record(best, Split.VAL, results, options.rounds)
        run.submit(best)

    def _successes(self, problem: Problem, run: SearchRun) -> Mapping[ComponentName, Sequence[Demo]]:
        """Return component → demos, from runs with full marks on train, in the order of the examples."""
        results = run.evaluate(problem.baseline, problem.train)
        good = [
            example
            for example, result in zip(problem.train, results, strict=True)
            if problem.objectives.full_marks(result.scores)
        ]
        # The same questions once more: the ledger answers them, and a prediction says what each step did.
        steps = [step for one in good for step in problem.runnable.run(problem.baseline, one.inputs, run).steps]
        return {
            name: [{**step.inputs, **step.outputs} for step in steps if step.component == name]
            for name in problem.baseline.components
            if name not in problem.frozen
        }


def _changed(
    shown: Demos, pool: Mapping[ComponentName, Sequence[Demo]], most: int, chance: random.Random
) -> dict[ComponentName, tuple[Demo, ...]]:
    """Return the demos with one change in one component."""
    name = chance.choice(sorted(one for one, demos in pool.items() if demos))
    demos = list(shown[name])
    others = [demo for demo in pool[name] if demo not in demos]
    moves = [
        *(["swap"] if len(demos) > 1 else []),
        *(["replace"] if demos and others else []),
        *(["drop"] if len(demos) > 1 else []),
        *(["add"] if others and len(demos) < most else []),
    ]
    match chance.choice(moves) if moves else None:
        case "swap":
            one, two = chance.sample(range(len(demos)), 2)
            demos[one], demos[two] = demos[two], demos[one]
        case "replace":
            demos[chance.randrange(len(demos))] = chance.choice(others)
        case "drop":
            demos.pop(chance.randrange(len(demos)))
        case "add":
            demos.insert(chance.randrange(len(demos) + 1), chance.choice(others))
    return {**shown, name: tuple(demos)}


def _showing(problem: Problem, shown: Demos) -> Candidate:
    return Candidate(
        components={
            name: replace(value, demos=shown[name]) if shown.get(name) else value
            for name, value in problem.baseline.components.items()
        },
        origin=DemoOrder.name,
        parents=(problem.baseline.fingerprint,),
    )


def _utility(problem: Problem, run: SearchRun, candidate: Candidate, examples: Sequence[Example]) -> float:
    results = run.evaluate(candidate, examples)
    return sum(problem.objectives.scalar(one.scores) for one in results) / len(results)
