"""Who came from whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.adapters.report.curves import Curves
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.evaluation.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """One candidate in the family."""

    fingerprint: Fingerprint
    algorithm: str
    origin: str
    iteration: int
    parents: tuple[Fingerprint, ...]
    """Those that were measured too."""
    generation: int
    """0 for those without measured parents, else one more than the youngest parent."""
    score: float | None
    """On all of val; None when it was not measured on all of it."""
    paid_calls: int
    chosen: bool
    on_path: bool
    """The chosen candidate or one of its ancestors."""

    @property
    def short(self) -> str:
        """The first characters of the fingerprint, enough to tell candidates apart by eye."""
        return self.fingerprint[:7]


def lineage(trials: Sequence[Trial], curves: Curves, chosen: Candidate | None) -> tuple[Ancestor, ...]:
    """Return every measured candidate in the order it was met, parents linked where they were measured."""
    first: dict[Fingerprint, Trial] = {}
    for trial in trials:
        first.setdefault(trial.candidate.fingerprint, trial)
    parents = {
        name: tuple(one for one in trial.candidate.parents if one in first and one != name)
        for name, trial in first.items()
    }
    generations = _generations(parents)
    path = _ancestors(parents, chosen.fingerprint) if chosen is not None else frozenset()
    scores = {point.candidate: point.score for point in curves.points if point.complete}
    return tuple(
        Ancestor(
            fingerprint=name,
            algorithm=trial.algorithm,
            origin=trial.candidate.origin,
            iteration=trial.iteration,
            parents=parents[name],
            generation=generations[name],
            score=scores.get(name),
            paid_calls=trial.paid_calls,
            chosen=chosen is not None and name == chosen.fingerprint,
            on_path=name in path,
        )
        for name, trial in first.items()
    )


def _generations(parents: Mapping[Fingerprint, tuple[Fingerprint, ...]]) -> Mapping[Fingerprint, int]:
    """Return how deep each stands; what an algorithm says in a circle stands where it is first reached."""
    found: dict[Fingerprint, int] = {}
    for start in parents:
        stack = [(start, False)]
        open_ones: set[Fingerprint] = set()
        while stack:
            name, done = stack.pop()
            if done:
                found[name] = 1 + max((found[one] for one in parents[name] if one in found), default=-1)
                open_ones.discard(name)
            elif name not in found and name not in open_ones:
                open_ones.add(name)
                stack.append((name, True))
                stack += [(one, False) for one in parents[name] if one not in open_ones]
    return found


def _ancestors(parents: Mapping[Fingerprint, tuple[Fingerprint, ...]], name: Fingerprint) -> frozenset[Fingerprint]:
    found: set[Fingerprint] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += parents.get(one, ())
    return frozenset(found)
