"""Who came from whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.adapters.postgres.evidence_store import TrialRow
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
    scores = {point.candidate: point.score for point in curves.points if point.complete}
    rows = [_row(place, trial) for place, trial in enumerate(trials)]
    return family(rows, scores, None if chosen is None else chosen.fingerprint)


def family(
    rows: Sequence[TrialRow], scores: Mapping[Fingerprint, float], chosen: Fingerprint | None
) -> tuple[Ancestor, ...]:
    """Return what `lineage` does.

    Args:
        rows: of trials, in the order they were recorded.
        scores: candidate → score, of those measured on all of val.
        chosen: the result's candidate, or the best so far.
    """
    first: dict[Fingerprint, TrialRow] = {}
    for row in rows:
        first.setdefault(row.candidate, row)
    parents = {name: tuple(one for one in row.parents if one in first and one != name) for name, row in first.items()}
    generations = _generations(parents)
    path = _ancestors(parents, chosen) if chosen is not None else frozenset()
    return tuple(
        Ancestor(
            fingerprint=name,
            algorithm=row.algorithm,
            origin=row.origin,
            iteration=row.iteration,
            parents=parents[name],
            generation=generations[name],
            score=scores.get(name),
            paid_calls=row.paid_calls,
            chosen=name == chosen,
            on_path=name in path,
        )
        for name, row in first.items()
    )


def _row(place: int, trial: Trial) -> TrialRow:
    return TrialRow(
        id=place,
        algorithm=trial.algorithm,
        candidate=trial.candidate.fingerprint,
        split=trial.split,
        score=trial.score,
        n_results=len(trial.results),
        iteration=trial.iteration,
        paid_calls=trial.paid_calls,
        origin=trial.candidate.origin,
        parents=trial.candidate.parents,
        recorded_at=trial.recorded_at,
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
