"""What one past optimization showed of its algorithms: how much each gained on val for how many calls.

Gains are in utility, as trials are scored. Calls are what the optimization paid between trials, each stretch on the
account of the algorithm whose trial ends it, so that of a portfolio's turns everybody pays for their own. What an
answer of the ledger spared is not in them: where much was asked before, algorithms look cheaper than they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.situation import Situation

_NO_SEARCH = "no_headroom"
_TARGET_MET = "target_met"
_FINISHED = "finished"
_BROKE = "failed"
_BY_ITSELF = 0.5
"""Share of its calls below which a search that ended did not end because of them: some plan by what they may take."""


class Point(NamedTuple):
    """From so many calls on an algorithm had gained this much."""

    calls: int
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gained:
    """One algorithm in one optimization."""

    algorithm: str
    points: tuple[Point, ...]
    """Rising in both; empty: no candidate of its own was measured on all of val."""
    gain: float
    """Its best on val over the baseline's, at least 0: who finds nothing leaves the baseline."""
    calls: int
    """Paid while it searched, at least 1."""
    is_finished: bool
    """More calls would have made no difference: it had nothing more to try, or the target was met."""
    sealed: float | None = None
    """The same gain on the sealed split, where it was measured; below 0 when the candidate was worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One past optimization."""

    optimization_id: OptimizationId
    target: Fingerprint
    """Of the agent's name and the dataset: optimizations that share it are the same thing done again."""
    situation: Situation
    gained: tuple[Gained, ...]
    """By algorithm; those that showed nothing are absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is kept of the trials of one algorithm, or of the baseline."""

    last_paid_calls: int
    """Paid by the whole optimization at its last trial on val."""
    scores: tuple[float, ...] = ()
    """Of candidates measured on all of val at once, in their order."""
    paid_calls: tuple[int, ...] = ()
    """Paid by the whole optimization at each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTurn:
    """How the last turn of an algorithm ended."""

    outcome: str
    """finished, out_of_calls, or failed."""
    best_score: float | None
    """On all of val, guardrails held, measured at once or in parts; None: there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What the gate said of the chosen candidate."""

    algorithm: str | None
    """Whose candidate it was; None: the baseline was kept."""
    gain: float | None
    """Utility on the sealed split over the baseline's."""
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOptimization:
    """What is kept of one that ended, as far as it can teach."""

    optimization_id: OptimizationId
    target: Fingerprint
    """As of `Lesson`."""
    situation: Situation
    algorithms: tuple[str, ...]
    """Of its portfolio, those without options of their own: the others say nothing of what `auto` would run."""
    n_algorithms: int
    """Of the whole portfolio, at least 1."""
    failed: bool
    """It ended with an error."""
    ended_because: str | None
    """None: there is no result."""
    baseline: Measured | None
    measured: Mapping[str, Measured]
    turns: Mapping[str, EndedTurn]
    sealed: Sealed | None
    """None: the gate said nothing."""


def lesson_of(past: PastOptimization) -> Lesson | None:
    """Return what it teaches; None for nothing.

    Nothing is learned where there was no room to gain, where the baseline was not measured on all of val, and from
    scores outside 0 to 1, whose unit is another one. An error teaches of the turns that had ended before it, a
    cancelled or capped optimization what its algorithms had shown until then.
    """
    base = past.baseline
    if past.ended_because == _NO_SEARCH or base is None or not base.scores:
        return None
    scores = [*base.scores, *(score for one in past.measured.values() for score in one.scores)]
    if min(scores) < 0.0 or max(scores) > 1.0:
        return None
    spent = _spent(past.measured, base.last_paid_calls)
    found = [_gained(past, name, base.scores[0], spent.get(name, ())) for name in sorted(set(past.algorithms))]
    gained = tuple(one for one in found if one is not None)
    if not gained:
        return None
    return Lesson(optimization_id=past.optimization_id, target=past.target, situation=past.situation, gained=gained)


def _gained(past: PastOptimization, name: str, baseline: float, spent: Sequence[int]) -> Gained | None:
    measured, turn = past.measured.get(name), past.turns.get(name)
    if turn is None and (past.failed or measured is None):
        return None
    best, points = 0.0, list[Point]()
    for calls, score in zip(spent, () if measured is None else measured.scores, strict=False):
        if not points or score - baseline > best:
            best = max(score - baseline, best)
            points.append(Point(calls, best))
    told = None if turn is None else turn.best_score
    gain = best if told is None else max(best, told - baseline)
    # What the gate did not get, because its guardrails broke or the policy did not want it, was no gain.
    if past.sealed is not None and past.sealed.algorithm is None:
        gain, points = 0.0, [Point(points[0].calls, 0.0)] if points else []
    calls = max(spent[-1] if spent else 0, 1)
    return Gained(
        algorithm=name,
        points=tuple(points),
        gain=gain,
        calls=calls,
        is_finished=past.ended_because == _TARGET_MET or (turn is not None and _ended_by_itself(past, turn, calls)),
        sealed=_sealed_gain(past.sealed, name),
    )


def _ended_by_itself(past: PastOptimization, turn: EndedTurn, calls: int) -> bool:
    if turn.outcome != _FINISHED:
        return turn.outcome == _BROKE
    allowed = past.situation.search_calls
    turns = 2 * past.n_algorithms if past.n_algorithms > 1 else 1
    return allowed is None or calls <= _BY_ITSELF * allowed / turns


def _sealed_gain(sealed: Sealed | None, name: str) -> float | None:
    if sealed is None or sealed.algorithm != name or sealed.gain is None:
        return None
    return min(sealed.gain, 0.0) if sealed.verdict == "regressed" else sealed.gain


def _spent(measured: Mapping[str, Measured], before: int) -> Mapping[str, tuple[int, ...]]:
    """Return algorithm → calls it had paid itself at each of its whole trials, and at its last trial of any kind."""
    marks = sorted(
        (paid, name, number)
        for name, one in measured.items()
        for number, paid in enumerate((*one.paid_calls, max(one.last_paid_calls, *one.paid_calls, 0)))
    )
    found: dict[str, list[int]] = {name: [] for name in measured}
    totals = dict.fromkeys(measured, 0)
    for paid, name, _ in marks:
        totals[name] += max(paid - before, 0)
        before = max(paid, before)
        found[name].append(totals[name])
    return {name: tuple(spent) for name, spent in found.items()}
