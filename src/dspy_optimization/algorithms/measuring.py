"""What was paid for: candidates by examples of val, measured where they are wanted and never twice."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.algorithms.guarding import Margin
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.algorithms.watching import at_once
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.evaluation.trial import ExampleResult


class Measurements:
    """A table of candidates (rows) by examples of val (columns). Rows are added, never taken away."""

    def __init__(self, problem: Problem, run: SearchRun) -> None:
        self._problem = problem
        self._run = run
        self._examples = tuple(sorted(problem.val, key=lambda example: example.id))
        self._goals = tuple(item for item in problem.objectives.items if not item.guardrail)
        self._rows: dict[Fingerprint, int] = {}
        self._results: list[dict[int, ExampleResult]] = []
        self._width = max(1, problem.concurrency // 4)
        self.candidates: list[Candidate] = []
        self.cells = 0
        """How many were measured."""
        self._asked = 0

    @property
    def examples(self) -> tuple[Example, ...]:
        """The columns, by id."""
        return self._examples

    @property
    def columns(self) -> int:
        """How many examples there are."""
        return len(self._examples)

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives to be improved."""
        return self._goals

    @property
    def calls_a_run(self) -> float:
        """Distinct calls that one run takes, by what was measured; 1 where nobody counts."""
        return max(self._asked / self.cells, 1.0) if self.cells else 1.0

    def __len__(self) -> int:
        return len(self.candidates)

    def row(self, candidate: Candidate) -> int:
        """Return the candidate's row; a new one for a new candidate."""
        found = self._rows.get(candidate.fingerprint)
        if found is None:
            found = self._rows[candidate.fingerprint] = len(self.candidates)
            self.candidates.append(candidate)
            self._results.append({})
        return found

    def know(self, candidate: Candidate, results: Iterable[ExampleResult]) -> int:
        """Return the candidate's row, with results on val that were paid for and recorded before."""
        row = self.row(candidate)
        columns = {example.id: column for column, example in enumerate(self._examples)}
        self._results[row].update((columns[one.example_id], one) for one in results)
        return row

    def knows(self, candidate: Candidate) -> bool:
        """Say whether the candidate has a row."""
        return candidate.fingerprint in self._rows

    def seen(self, row: int) -> Integers:
        """Return the columns the row was measured on, ascending."""
        return np.array(sorted(self._results[row]), dtype=np.int64)

    def missing(self, row: int) -> Integers:
        """Return the columns the row was not measured on, ascending."""
        return np.array([one for one in range(self.columns) if one not in self._results[row]], dtype=np.int64)

    def measure(self, wanted: Mapping[int, Sequence[int] | Integers], iteration: int) -> None:
        """Run rows on columns, those that were not, and record a trial a row. What ends the search passes through.

        A few rows are run at once; what is known afterwards does not depend on who was first. Rows that were complete
        when the search had to end are known too, though no trial can be recorded any more.
        """
        todo = {
            row: list(dict.fromkeys(int(column) for column in columns if int(column) not in self._results[row]))
            for row, columns in sorted(wanted.items())
        }
        todo = {row: columns for row, columns in todo.items() if columns}
        before = self._run.calls_left
        done: dict[int, tuple[ExampleResult, ...]] = {}
        try:
            self._evaluate_all(todo, done)
        finally:
            for row, results in sorted(done.items()):
                self._results[row].update(zip(todo[row], results, strict=True))
                self.cells += len(results)
        for row in todo:
            self._run.record(self.candidates[row], Split.VAL, done[row], iteration)
        after = self._run.calls_left
        if before is not None and after is not None:
            self._asked += before - after

    def utilities(self, goal: Objective | None = None) -> Floats:
        """Return (rows, columns) in [0, 1], higher is better, NaN where not measured; None: of all goals together."""
        found = np.full((len(self), self.columns), np.nan)
        objectives = self._problem.objectives
        for row, results in enumerate(self._results):
            for column, result in results.items():
                found[row, column] = (
                    objectives.scalar(result.scores) if goal is None else objectives.utility(goal, result.scores)
                )
        return scaled(found, self._goals if goal is None else (goal,), objectives)

    @property
    def margins(self) -> tuple[Margin, ...]:
        """The guardrails that the baseline's mean is known of."""
        objectives = self._problem.objectives
        return tuple(
            Margin(item=item, reference=objectives.scales[item.metric])
            for item in objectives.items
            if item.guardrail and item.metric in objectives.scales
        )

    def values(self, item: Objective) -> Floats:
        """Return a metric itself, (rows, columns), oriented so that higher is better; NaN where not measured."""
        found = np.full((len(self), self.columns), np.nan)
        for row, results in enumerate(self._results):
            for column, result in results.items():
                found[row, column] = item.oriented(result.scores[item.metric].value)
        return found

    def excess(self) -> Floats:
        """Return how much each row hurts its guardrails, (rows,), as far as is sure; 0: not at all, or not known.

        A guardrail that is hurt by twice its margin counts 1. A row that was measured on some examples only is held
        against the baseline on the same ones, as far as that was measured on them, and a standard error is taken off:
        a few unlucky answers, or dear examples, are no reason to drop it.
        """
        found = np.zeros(len(self))
        base = self._rows.get(self._problem.baseline.fingerprint)
        for margin in self.margins:
            values = self.values(margin.item)
            baseline = np.full(self.columns, np.nan) if base is None else values[base]
            mean = margin.item.oriented(margin.reference)
            found += margin.excess(np.array([_hurt(row, baseline, mean) for row in values]))
        return found

    def means(self, goal: Objective) -> Floats:
        """Return the mean of the metric itself a row, over what was measured, (rows,); NaN: nothing was."""
        return np.array(
            [
                sum(one.scores[goal.metric].value for one in results.values()) / len(results) if results else np.nan
                for results in self._results
            ]
        )

    def _evaluate_all(self, todo: Mapping[int, Sequence[int]], done: dict[int, tuple[ExampleResult, ...]]) -> None:
        def evaluate(row: int, columns: Sequence[int]) -> None:
            done[row] = self._run.evaluate(self.candidates[row], [self._examples[column] for column in columns])

        at_once([partial(evaluate, row, columns) for row, columns in todo.items()], self._width, "measuring")


def scaled(values: Floats, goals: Sequence[Objective], objectives: Objectives) -> Floats:
    """Return utilities between 0 and 1: by the best values where they are known, by what was met elsewhere."""
    total = sum(goal.weight for goal in goals)
    best = (
        sum(
            goal.weight * (objectives.ceilings.get(goal.metric, 1.0) if goal.direction is Direction.MAXIMIZE else 1.0)
            for goal in goals
        )
        / total
    )
    known = values[~np.isnan(values)]
    low = min(0.0, float(known.min())) if known.size else 0.0
    high = max(best, float(known.max())) if known.size else best
    return np.asarray((values - low) / max(high - low, 1e-12))


def _hurt(row: Floats, baseline: Floats, mean: float) -> float:
    """Return by how much a row is worse than the baseline, as far as is sure; -inf: nothing is known."""
    known = ~np.isnan(row)
    count = int(known.sum())
    if count == len(row):
        return mean - float(row.mean())
    shared = known & ~np.isnan(baseline)
    # Paired where most of the row can be; differences vary less than values, and dear examples are dear to both.
    paired = 2 * shared.sum() > count
    losses = baseline[shared] - row[shared] if paired else mean - row[known]
    if len(losses) < 2:
        return -np.inf
    open_share = 1.0 - len(losses) / len(row)
    return float(losses.mean() - losses.std(ddof=1) * np.sqrt(open_share / len(losses)))
