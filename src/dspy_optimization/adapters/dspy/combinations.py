"""Combinations of proposed instructions and bootstrapped demo sets, as candidates that can race."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dspy_optimization.adapters.dspy.trial_book import TrialBook
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.algorithms.genome import GenePool
from dspy_optimization.algorithms.problem import Problem
from dspy_optimization.algorithms.racing import Features, gene_features


@dataclass(frozen=True, slots=True, kw_only=True)
class Combinations:
    """Who may race."""

    candidates: tuple[Candidate, ...]
    """The default program, then what was drawn, in the order it was drawn; each once."""
    possible: int
    """Combinations there are, equal ones counted as often as they come about."""

    def features(self, problem: Problem) -> Features:
        """Return how a response model sees them: each instruction and each demo, and what instructions say."""
        parts = [part for one in self.candidates for part in one.components.values()]
        pool = GenePool(
            problem.baseline,
            problem.frozen,
            problem.runnable.choices,
            slots=max(len(part.demos) for part in parts),
        )
        return partial(gene_features, pool)


def drawn_combinations(
    program: Any,
    instructions: Mapping[int, Sequence[str]],
    demo_sets: Mapping[int, Sequence[Sequence[Any]]] | None,
    book: TrialBook,
    *,
    most: int,
    rng: random.Random,
) -> Combinations:
    """Return the default program with all combinations in a random order, or as many as are wanted.

    Args:
        program: the default one.
        instructions: by the number of the predictor.
        demo_sets: likewise; None: demos stay as they are.
        book: names the candidates.
        most: combinations at most, beside the default program.
        rng: draws.
    """
    choices = [
        count
        for number, texts in sorted(instructions.items())
        for count in (len(texts), *([] if demo_sets is None else [len(demo_sets[number])]))
    ]
    found = {(default := book.candidate(program)).fingerprint: default}
    for drawn in _drawn(math.prod(choices), most, rng):
        codes = _digits(drawn, choices)
        one = program.deepcopy()
        for number, predictor in enumerate(one.predictors()):
            predictor.signature = predictor.signature.with_instructions(instructions[number][next(codes)])
            if demo_sets is not None:
                predictor.demos = list(demo_sets[number][next(codes)])
        candidate = book.candidate(one)
        found.setdefault(candidate.fingerprint, candidate)
    return Combinations(candidates=tuple(found.values()), possible=math.prod(choices))


def _drawn(possible: int, most: int, rng: random.Random) -> list[int]:
    """Return different numbers below `possible`, which may be larger than any sequence."""
    if possible <= most:
        return rng.sample(range(possible), possible)
    found: dict[int, None] = {}
    while len(found) < most:
        found[rng.randrange(possible)] = None
    return list(found)


def _digits(number: int, choices: Sequence[int]) -> Iterator[int]:
    for count in choices:
        number, digit = divmod(number, count)
        yield digit
