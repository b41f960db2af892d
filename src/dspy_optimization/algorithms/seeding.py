"""What a pool of candidates begins with: labelled examples and good runs of the agent as demos, fresh instructions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, canonical_json
from dspy_optimization.agents.config import Signature
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.objective import Direction
from dspy_optimization.algorithms.genome import Demo, GenePool
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.algorithms.watching import watch

_SHOWN = 5
"""Examples that a fresh instruction is made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedTerms:
    """How much there is to begin with."""

    demo_pool: int
    """Demos a component, labelled and bootstrapped ones; 0: none."""
    bootstrap_examples: int
    """Train examples the baseline is run on to find them; 0: labelled ones alone."""
    instructions: int
    """Fresh instructions a component."""


def seed_pool(problem: Problem, run: SearchRun, pool: GenePool, proposals: Proposals, terms: SeedTerms) -> None:
    """Fill the pool. Same problem and answers, same pool."""
    rng = problem.rng("seeding")
    train = sorted(problem.train, key=lambda example: example.id)
    rng.shuffle(train)
    if pool.slots and terms.demo_pool:
        _add_demos(problem, run, pool, train, terms)
    for component in pool.components:
        current = problem.baseline.components[component].instructions
        for number in range(terms.instructions):
            shown = rng.sample(train, min(_SHOWN, len(train)))
            text = proposals.fresh(component, current, shown, number, pool.instructions(component))
            if text is not None:
                pool.add_instruction(component, text)


def first_candidates(problem: Problem, pool: GenePool, count: int, rng: np.random.Generator) -> list[Candidate]:
    """Return candidates to begin with, (count) at most, all different: the baseline, single changes, then random ones.

    Single changes come first: they say what one instruction or one set of demos is worth.
    """
    found: dict[object, Candidate] = {problem.baseline.fingerprint: problem.baseline}

    def add(candidate: Candidate) -> None:
        if len(found) < count:
            found.setdefault(candidate.fingerprint, candidate)

    for candidate in _single_changes(problem.baseline, pool):
        add(candidate)
    for _ in range(4):
        for row in pool.drawn(count, rng).codes:
            add(pool.decode(row, origin="random genes"))
    return list(found.values())


def _single_changes(baseline: Candidate, pool: GenePool) -> Sequence[Candidate]:
    found: list[Candidate] = []
    if pool.slots:
        shown: dict[ComponentName, ComponentValue] = {}
        for component in pool.components:
            demos = tuple(pool.demos(component)[: pool.slots])
            shown[component] = _changed(baseline.components[component], demos=demos)
        found.append(_of(baseline, shown, "seed: demos"))
        other = {
            component: _changed(
                baseline.components[component], demos=tuple(pool.demos(component)[pool.slots : 2 * pool.slots])
            )
            for component in pool.components
        }
        found.append(_of(baseline, other, "seed: other demos"))
    longest = max((len(pool.instructions(component)) for component in pool.components), default=1)
    for place in range(1, longest):
        texts = {
            component: _changed(
                baseline.components[component],
                text=pool.instructions(component)[min(place, len(pool.instructions(component)) - 1)],
            )
            for component in pool.components
        }
        found.append(_of(baseline, texts, "seed: instructions"))
    return found


def _changed(
    value: ComponentValue, *, text: str | None = None, demos: tuple[Demo, ...] | None = None
) -> ComponentValue:
    return ComponentValue(
        instructions=value.instructions if text is None else text,
        demos=value.demos if demos is None else demos,
        settings=value.settings,
    )


def _of(baseline: Candidate, values: Mapping[ComponentName, ComponentValue], origin: str) -> Candidate:
    return Candidate(components={**baseline.components, **values}, origin=origin, parents=(baseline.fingerprint,))


def _add_demos(problem: Problem, run: SearchRun, pool: GenePool, train: Sequence[Example], terms: SeedTerms) -> None:
    """Add bootstrapped demos, then labelled ones until there are enough; of both about half where there are both.

    Where no metric is to be raised no answer can be told to be right, and nothing is run.
    """
    made: dict[ComponentName, list[Demo]] = {component: [] for component in pool.components}
    tried = train[: terms.bootstrap_examples]
    if tried and any(item.direction is Direction.MAXIMIZE and not item.guardrail for item in problem.objectives.items):
        runs = watch(problem, run, problem.baseline, tried)
        run.record(problem.baseline, Split.TRAIN, [one.result for one in runs], 0)
        for one in runs:
            if not problem.objectives.full_marks(one.result.scores):
                continue
            for step in one.prediction.steps:
                if step.component in made and step.failure is None:
                    made[step.component].append({**step.inputs, **step.outputs})
    alone = len(problem.baseline.components) == 1
    labelled = _labelled(problem.agent.signature, train) if alone else []
    for component in pool.components:
        # A right answer of an agent that says nothing else is the labelled example.
        different = {canonical_json(dict(demo)): demo for demo in _interleaved(made[component], labelled)}
        for demo in list(different.values())[: terms.demo_pool]:
            pool.add_demo(component, demo)


def _labelled(signature: Signature | None, train: Sequence[Example]) -> list[Demo]:
    """Return train examples as demos: where one component does it all its fields stand in the examples."""
    if signature is None:
        return []
    fields = [field.name for field in (*signature.inputs, *signature.outputs)]
    found: list[Demo] = []
    for example in train:
        known = {**example.inputs, **example.expected}
        if all(field.name in example.expected for field in signature.outputs):
            found.append({name: known[name] for name in fields if name in known})
    return found


def _interleaved(one: Sequence[Demo], other: Sequence[Demo]) -> list[Demo]:
    """Return both in turn, so that every few have some of each."""
    found: list[Demo] = []
    for place in range(max(len(one), len(other))):
        found.extend(part[place] for part in (one, other) if place < len(part))
    return found
