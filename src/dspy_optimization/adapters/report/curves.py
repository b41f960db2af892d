"""How the score on val rose while calls were paid."""

from collections.abc import Sequence
from dataclasses import dataclass

from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.objective import Objectives, mean_scalar
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.optimization.search import Measured, Scoreboard

BASELINE = "baseline"
"""What trials of the baseline name as their algorithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate measured on val."""

    paid_calls: int
    score: float
    """Mean utility; of all of val when `complete`, else of the examples of this trial."""
    algorithm: str
    candidate: Fingerprint
    iteration: int
    n_examples: int
    complete: bool
    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From here on this was the best candidate."""

    paid_calls: int
    score: float
    candidate: Fingerprint
    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The scores on val, in the order they were measured."""

    points: tuple[Point, ...]
    best: tuple[Step, ...]
    """Rises from step to step; candidates that hurt a guardrail are never the best."""
    leader: Measured | None
    """The best candidate and its results on val; None before one is measured on all of val."""
    baseline: Measured | None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Every algorithm with a point, in the order of their first ones; the baseline is none."""
        return tuple(dict.fromkeys(point.algorithm for point in self.points if point.algorithm != BASELINE))

    def complete_of(self, candidate: Fingerprint) -> Point | None:
        """Return the point of the candidate on all of val; None when it was not measured on all of it."""
        return next((point for point in self.points if point.complete and point.candidate == candidate), None)


def scaled(objectives: Objectives, trials: Sequence[Trial]) -> Objectives:
    """Return the goals measured against the baseline's means on val, as the search measured them."""
    baseline = next((one for one in trials if one.algorithm == BASELINE and one.split is Split.VAL), None)
    if baseline is None:
        return objectives
    return objectives.with_scales(
        {
            item.metric: sum(result.scores[item.metric].value for result in baseline.results) / len(baseline.results)
            for item in objectives.items
        }
    )


def score_curves(objectives: Objectives, val: Sequence[Example], trials: Sequence[Trial]) -> Curves:
    """Return the curves, with the optimizer's own rules for what is complete and what is best.

    Args:
        objectives: `scaled`.
        val: the examples of the split.
        trials: in the order they were recorded; those on train are left out.
    """
    board = Scoreboard(objectives, val)
    points: list[Point] = []
    steps: list[Step] = []
    leader: Measured | None = None
    baseline: Measured | None = None
    for trial in trials:
        if trial.split is not Split.VAL or board.on_val(trial.candidate) is not None:
            continue
        board.add(trial.candidate, trial.split, trial.results, trial.algorithm, trial.iteration)
        results = board.on_val(trial.candidate)
        point = _point(trial, results, objectives)
        points.append(point)
        if results is None:
            continue
        measured = _measured(trial, results)
        if trial.algorithm == BASELINE and baseline is None:
            baseline = measured
        best = _better(objectives, val, leader, measured)
        if best is not None and (leader is None or best.candidate != leader.candidate):
            leader = best
            steps.append(
                Step(
                    paid_calls=trial.paid_calls,
                    score=point.score,
                    candidate=trial.candidate.fingerprint,
                    trial=trial,
                )
            )
    return Curves(points=tuple(points), best=tuple(steps), leader=leader, baseline=baseline)


def on_val(curves_trials: Sequence[Trial], candidate: Candidate) -> dict[str, ExampleResult]:
    """Return example id → result of the candidate on val; the first result of an example counts."""
    found: dict[str, ExampleResult] = {}
    for trial in curves_trials:
        if trial.split is Split.VAL and trial.candidate == candidate:
            for result in trial.results:
                found.setdefault(result.example_id, result)
    return found


def _point(trial: Trial, results: Sequence[ExampleResult] | None, objectives: Objectives) -> Point:
    complete = results is not None
    score = mean_scalar(objectives, [one.scores for one in results]) if results is not None else trial.score
    return Point(
        paid_calls=trial.paid_calls,
        score=score,
        algorithm=trial.algorithm,
        candidate=trial.candidate.fingerprint,
        iteration=trial.iteration,
        n_examples=len(results) if results is not None else len(trial.results),
        complete=complete,
        trial=trial,
    )


def _measured(trial: Trial, results: Sequence[ExampleResult]) -> Measured:
    return Measured(
        candidate=trial.candidate,
        algorithm=trial.algorithm,
        iteration=trial.iteration,
        results={result.example_id: result for result in results},
    )


def _better(
    objectives: Objectives, val: Sequence[Example], leader: Measured | None, rival: Measured
) -> Measured | None:
    """Return the better of two by the optimizer's own rule (guardrails, ties)."""
    board = Scoreboard(objectives, val)
    for one in (leader, rival):
        if one is not None:
            board.add(one.candidate, Split.VAL, list(one.results.values()), one.algorithm, one.iteration)
    return board.best()
