"""The curves of `curves.score_curves` without the trials themselves: from their rows, and the few answers that decide.

A row says how good a trial was. What it does not say is only asked where it matters: whether trials on parts of val
make a whole together, whether a guardrail forbids a candidate to lead, which of two equally good ones says less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dspy_optimization.adapters.postgres.evidence_store import TrialRow
from dspy_optimization.adapters.report.curves import BASELINE
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objectives, mean_scalar
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.optimization.search import Scoreboard, size_of

AT_ONCE = 50
"""Documents opened with one question."""
_DIGITS = 12
"""Scores that agree so far are equally good, as the optimizer has it."""

Marks = Mapping[ExampleId, Mapping[str, Score]]


class Answers(Protocol):
    """Opens documents of trials."""

    def marks(self, trials: Sequence[int]) -> Mapping[int, Marks]:
        """Return trial → example → metric → score."""
        ...

    def candidates(self, trials: Sequence[int]) -> Mapping[int, Candidate]:
        """Return trial → its candidate."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPoint:
    """One candidate measured on val."""

    paid_calls: int
    score: float
    """Mean utility; of all of val when `complete`, else of the examples of this trial."""
    algorithm: str
    candidate: Fingerprint
    complete: bool
    trial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCurves:
    """The scores on val, in the order they were measured."""

    points: tuple[RowPoint, ...]
    best: tuple[RowPoint, ...]
    """From each on it was the best; rises from step to step; who hurts a guardrail is never the best."""
    baseline: RowPoint | None

    @property
    def leader(self) -> RowPoint | None:
        """The best candidate; None before one is measured on all of val."""
        return self.best[-1] if self.best else None

    @property
    def scores(self) -> Mapping[Fingerprint, float]:
        """Candidate → its score, of those measured on all of val."""
        return {point.candidate: point.score for point in self.points if point.complete}


def row_curves(objectives: Objectives, n_val: int, rows: Sequence[TrialRow], answers: Answers) -> RowCurves:
    """Return the curves.

    Args:
        objectives: as they were asked for.
        n_val: examples of val.
        rows: in the order the trials were recorded; those on train are left out.
        answers: opens documents, of few trials.
    """
    on_val = [row for row in rows if row.split is Split.VAL]
    baseline = next((row for row in on_val if row.algorithm == BASELINE), None)
    course = _Course(objectives=objectives, n_val=n_val, answers=answers, baseline=baseline)
    points = course.points(on_val)
    whole = [point for point in points if point.complete]
    return RowCurves(
        points=tuple(points),
        best=tuple(course.best(whole)),
        baseline=next((point for point in whole if point.algorithm == BASELINE), None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rank:
    """What decides between candidates of one score."""

    may_lead: bool
    size: int


@dataclass(slots=True, kw_only=True)
class _Course:
    """One reading of the rows; remembers what it asked."""

    objectives: Objectives
    n_val: int
    answers: Answers
    baseline: TrialRow | None
    _parts: dict[int, list[int]] = field(default_factory=dict)
    """Trial that made a candidate whole → every trial of it up to there."""
    _ranks: dict[int, _Rank] = field(default_factory=dict)
    _goals: Objectives | None = None

    @property
    def _is_guarded(self) -> bool:
        return any(item.guardrail for item in self.objectives.items)

    def points(self, rows: Sequence[TrialRow]) -> list[RowPoint]:
        pieces: dict[Fingerprint, list[TrialRow]] = {}
        whole: set[Fingerprint] = set()
        open_ones: list[TrialRow] = []
        for row in rows:
            if row.candidate not in whole:
                mine = pieces.setdefault(row.candidate, [])
                mine.append(row)
                open_ones.append(row)
                if row.n_results >= self.n_val:
                    whole.add(row.candidate)
        together = self._together([mine for mine in pieces.values() if len(mine) > 1])
        ended: set[Fingerprint] = set()
        found = []
        for row in open_ones:
            if row.candidate in ended:
                continue
            score = row.score if row.n_results >= self.n_val else together.get(row.id)
            if score is not None:
                ended.add(row.candidate)
                known = [one.id for one in pieces[row.candidate]]
                self._parts[row.id] = [row.id] if row.n_results >= self.n_val else known[: known.index(row.id) + 1]
            found.append(
                RowPoint(
                    paid_calls=row.paid_calls,
                    score=row.score if score is None else score,
                    algorithm=row.algorithm,
                    candidate=row.candidate,
                    complete=score is not None,
                    trial=row.id,
                )
            )
        return found

    def best(self, whole: Sequence[RowPoint]) -> list[RowPoint]:
        """Return who led one after the other, by the optimizer's rule."""
        steps: list[RowPoint] = []
        for place, point in enumerate(whole):
            leader = steps[-1] if steps else None
            lead = 1 if leader is None else _compared(point, leader)
            if lead < 0:
                continue
            if self._is_guarded and not self._rank(whole[place:], point, leader).may_lead:
                continue
            if lead == 0 and leader is not None:
                mine, other = (self._rank(whole[place:], one, leader) for one in (point, leader))
                if (mine.size, point.candidate) >= (other.size, leader.candidate):
                    continue
            steps.append(point)
        return steps

    def _rank(self, rest: Sequence[RowPoint], wanted: RowPoint, leader: RowPoint | None) -> _Rank:
        """Return the rank of one; those that will probably be asked for are looked up with it."""
        if wanted.trial not in self._ranks:
            most = 1 if self._is_guarded else 0  # what is better leads, unless a guardrail forbids it
            likely = [
                one.trial
                for one in rest
                if one.trial not in self._ranks and (leader is None or 0 <= _compared(one, leader) <= most)
            ]
            self._look_up(list(dict.fromkeys([wanted.trial, *likely]))[:AT_ONCE])
        return self._ranks[wanted.trial]

    def _look_up(self, trials: Sequence[int]) -> None:
        candidates = self.answers.candidates(trials)
        asked = [one for trial in trials for one in self._parts[trial]]
        marks = self.answers.marks(asked) if self._is_guarded else {}
        for trial in trials:
            may_lead = not self._is_guarded or self._may_lead(
                candidates[trial], _merged([marks[one] for one in self._parts[trial]])
            )
            self._ranks[trial] = _Rank(may_lead=may_lead, size=size_of(candidates[trial]))

    def _may_lead(self, candidate: Candidate, marks: Marks) -> bool:
        """Say whether guardrails hold, by the optimizer's own rule."""
        board = Scoreboard(self._scaled(), [Example(id=one, inputs={}, expected={}) for one in marks])
        results = [ExampleResult(example_id=one, scores=scores, outputs={}) for one, scores in marks.items()]
        board.add(candidate, Split.VAL, results, "", 0)
        return board.best() is not None

    def _together(self, candidates: Sequence[Sequence[TrialRow]]) -> Mapping[int, float]:
        """Return trial → score on all of val, of trials that made a candidate whole together with earlier ones."""
        found: dict[int, float] = {}
        possible = [rows for rows in candidates if _may_be_whole(rows, self.n_val)]
        for begin in range(0, len(possible), AT_ONCE):
            some = possible[begin : begin + AT_ONCE]
            marks = self.answers.marks([row.id for rows in some for row in rows])
            for rows in some:
                merged: dict[ExampleId, Mapping[str, Score]] = {}
                for row in rows:
                    if row.n_results >= self.n_val:
                        break
                    merged |= marks[row.id]
                    if len(merged) >= self.n_val:
                        found[row.id] = mean_scalar(self._scaled(), [merged[one] for one in sorted(merged)])
                        break
        return found

    def _scaled(self) -> Objectives:
        """Return the goals measured against the baseline's means on val, as the search measured them."""
        if self._goals is None:
            self._goals = self.objectives
            if self.baseline is not None:
                marks = self.answers.marks([self.baseline.id])[self.baseline.id].values()
                self._goals = self.objectives.with_scales(
                    {
                        item.metric: sum(scores[item.metric].value for scores in marks) / len(marks)
                        for item in self.objectives.items
                    }
                )
        return self._goals


def completions(rows: Sequence[TrialRow], n_val: int) -> Sequence[TrialRow]:
    """Return the row with which each candidate may have been measured on all of val, in their order.

    Enough results for all of val: trials that meet the same example twice may have fewer, which their answers tell.
    """
    results: dict[Fingerprint, int] = {}
    found: dict[Fingerprint, TrialRow] = {}
    for row in rows:
        if row.split is Split.VAL and row.candidate not in found:
            results[row.candidate] = results.get(row.candidate, 0) + row.n_results
            if results[row.candidate] >= n_val:
                found[row.candidate] = row
    return list(found.values())


def _compared(one: RowPoint, other: RowPoint) -> int:
    mine, theirs = round(one.score, _DIGITS), round(other.score, _DIGITS)
    return (mine > theirs) - (mine < theirs)


def _may_be_whole(rows: Sequence[TrialRow], n_val: int) -> bool:
    """Say whether trials on parts, before the first on all of val, have enough results to be all of it."""
    total = 0
    for row in rows:
        if row.n_results >= n_val:
            return False
        total += row.n_results
        if total >= n_val:
            return True
    return False


def _merged(parts: Sequence[Marks]) -> Marks:
    found: dict[ExampleId, Mapping[str, Score]] = {}
    for one in parts:
        found |= one
    return found
