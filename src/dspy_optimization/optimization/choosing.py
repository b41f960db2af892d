"""Which algorithms `auto` stands for, and why: by what the tenant's past showed, by rules while that is too little."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.events import Json
from dspy_optimization.optimization.experience import (
    NEEDED,
    NEEDED_ALGORITHMS,
    NEEDED_EACH,
    ExpectedGain,
    Judgement,
    TooLittle,
    judge,
)
from dspy_optimization.optimization.lesson import Lesson
from dspy_optimization.optimization.request import AlgorithmChoice
from dspy_optimization.optimization.situation import Situation

AUTO = "auto"
EXPLORED = 0.1
"""Share of requests in which an algorithm with little data gets a place."""
_FEW_EXAMPLES = 20
_CALLS_FOR_PROPOSALS = 300
_COARSE = 0.01
_NAMED = 4
"""Algorithms whose gains a reason tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The algorithms in their order, and the reason in a sentence."""

    algorithms: tuple[AlgorithmChoice, ...]
    reason: str


def choose(situation: Situation, lessons: Sequence[Lesson], *, can_run: Callable[[str], bool], seed: int) -> Choice:
    """Return the portfolio for a situation; the same for the same arguments, in whatever order the lessons come.

    Args:
        situation: of the request.
        lessons: of the tenant's past.
        can_run: says whether an algorithm of the past can still be used.
        seed: of the request.
    """
    rules = by_rules(situation)
    names = [one.name for one in rules.algorithms]
    ran = {gained.algorithm for lesson in lessons for gained in lesson.gained}
    usable = frozenset(name for name in sorted(ran) if can_run(name))
    found = judge(situation, lessons, usable=usable, preferred=names)
    if isinstance(found, TooLittle):
        return Choice(algorithms=rules.algorithms, reason=f"{rules.reason}; {_too_little(found)}")
    return _by_experience(found, names, _draw(seed, lessons))


def by_rules(situation: Situation) -> Choice:
    """Return what the rules say.

    The first match counts. Why: instructions need a model that can write them (a 135 M one repeats the prompt);
    proposals cost calls before they pay; demos need examples to come from; several goals are a front and no single
    best; no single algorithm wins everywhere (arXiv 2507.19457 tables 1 and 2), so two share the budget where there is
    room for two.
    """
    if situation.kind is AgentKind.HTTP:
        return _choice("the agent is a black box that only takes texts: gepa rewrites texts", {"gepa": {}})
    if not situation.can_propose:
        if situation.n_train < _FEW_EXAMPLES:
            return _choice(
                f"the reflection model is too small to write instructions and {situation.n_train} training examples "
                "are few: show them as they are",
                {"labeled_fewshot": {}, "bootstrap_fewshot": {}},
            )
        return _choice(
            "the reflection model is too small to write instructions: search over demos that the metric approved",
            {"bootstrap_random_search": {}},
        )
    if situation.max_lm_calls is not None and situation.max_lm_calls < _CALLS_FOR_PROPOSALS:
        return _choice(
            f"{situation.max_lm_calls} calls are too few to try many instructions: bootstrap demos",
            {"bootstrap_random_search": {}},
        )
    if situation.goals > 1:
        return _choice(
            f"{situation.goals} goals have no single best candidate: genetic keeps a Pareto front", {"genetic": {}}
        )
    if situation.n_train < _FEW_EXAMPLES:
        return _choice(
            f"{situation.n_train} training examples are too few for demo sets: reflect on their failures",
            {"gepa": {}},
        )
    return _choice(
        "enough examples and budget for both: instructions and demos together, and reflection on failures; the "
        "better one gets the rest of the budget",
        {"miprov2": {}, "gepa": {}},
    )


def _by_experience(found: Judgement, rules: Sequence[str], draw: random.Random) -> Choice:
    """Return the best and, where the past does not say that it is worse, the next one or what the rules would take."""
    best = found.gains[0]
    alike = [one.algorithm for one in found.gains[1:] if one.algorithm not in found.worse]
    unknown = [name for name in rules if found.optimizations.get(name, 0) < NEEDED_EACH]
    taken = [best.algorithm]
    told = f"{best.algorithm} is shown to gain more"
    if alike:
        taken.append(alike[0])
        told = (
            f"the past cannot tell {_listed([best.algorithm, *alike])} apart: {_listed(taken)} share the calls and the "
            "better one gets the rest"
        )
    if best.gain - best.margin <= 0.0 and unknown:
        taken = [best.algorithm, unknown[0]]
        told += f"; none is shown to gain anything, so {unknown[0]}, which the rules would take, has a place"
    elif draw.random() < EXPLORED:
        explored = _explored(found, rules, draw)
        if explored is not None:
            taken = [best.algorithm, explored]
            told += (
                f"; {explored}, of which little is known, has a place, as in {EXPLORED:.0%} of requests, drawn by seed"
            )
    return _choice(f"{_evidence(found)}: {told}", {name: {} for name in taken})


def _explored(found: Judgement, rules: Sequence[str], draw: random.Random) -> str | None:
    """Return an algorithm with too little data: one of the rules', or one that ran here now and then."""
    little = {name for name in (*rules, *found.optimizations) if found.optimizations.get(name, 0) < NEEDED_EACH}
    return draw.choice(sorted(little)) if little else None


def _draw(seed: int, lessons: Sequence[Lesson]) -> random.Random:
    # Most requests have seed 0: what was learned last makes the draws of one tenant differ.
    newest = max((str(one.optimization_id) for one in lessons), default="")
    return random.Random(f"{seed}/auto/{newest}")


def _evidence(found: Judgement) -> str:
    told = [_told(one) for one in found.gains[:_NAMED]]
    more = len(found.gains) - len(told)
    others = f" and {more} more" if more else ""
    at = "" if found.calls is None else f" at {found.calls} calls for searching"
    return (
        f"{found.comparable} past optimizations like this one: {', '.join(told)}{others}{at} "
        "(utility, 95 % intervals, gains on val shrunk by what held on sealed splits, a "
        "target done again counted once)"
    )


def _told(one: ExpectedGain) -> str:
    verb = "gained" if one.gain >= 0.0 else "lost"
    digits = 2 if one.margin >= _COARSE else 3
    return f"{one.algorithm} {verb} {abs(one.gain):.{digits}f} ± {one.margin:.{digits}f} in {one.optimizations}"


def _too_little(found: TooLittle) -> str:
    ran = ", ".join(f"{name} in {count}" for name, count in found.optimizations.items())
    return (
        f"experience is not enough yet: {found.comparable} past optimizations like this one{f' ({ran})' if ran else ''}"
        f", needed are {NEEDED} with {NEEDED_ALGORITHMS} algorithms in {NEEDED_EACH} each"
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _choice(reason: str, algorithms: Mapping[str, Mapping[str, Json]]) -> Choice:
    return Choice(
        algorithms=tuple(AlgorithmChoice(name=name, options=options) for name, options in algorithms.items()),
        reason=reason,
    )
