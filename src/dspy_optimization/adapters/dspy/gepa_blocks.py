"""GEPA on a part of val: which examples an accepted child is run on, who becomes a parent, who is raced at the end.

gepa averages whatever a candidate was run on, and compares such averages; an example that only one candidate has seen
makes it the best there is on that example, and a parent for good. So here everybody meets one half of a block that
never changes, the other half comes from what the parents have met, and means and fronts are of completed rows.
Merging alone still picks its pairs by gepa's own averages; what it then accepts it has compared on shared examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gepa.gepa_utils import select_program_candidate_from_pareto_front
from gepa.proposer.reflective_mutation.base import CandidateSelector
from gepa.strategies.eval_policy import EvaluationPolicy
from gepa.strategies.proposal_selection import SelectionStrategy

from dspy_optimization.adapters.dspy.completing import Completion, Expected
from dspy_optimization.adapters.dspy.gepa_adapter import SearchAdapter
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.algorithms.measuring import Measurements
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.evaluation.trial import ExampleResult

_TIE = 1e-9


class ValBlocks(EvaluationPolicy, SelectionStrategy, CandidateSelector):
    """Everything gepa asks about val, answered from a table of what was measured. Used by gepa's one thread."""

    def __init__(
        self, problem: Problem, run: SearchRun, *, block: int, greedy: bool, perfect: float | None = None
    ) -> None:
        """Know nothing yet.

        Args:
            problem: whose val it is.
            run: of the search.
            block: val examples for each child.
            greedy: whether the best so far is always the parent; otherwise whoever is on the front.
            perfect: the utility of a train example that nothing is learned from; None: something is from all.
        """
        self._problem, self._perfect = problem, perfect
        self._mastered: dict[Fingerprint, set[ExampleId]] = {}
        """Train examples with full marks."""
        self._table = Measurements(problem, run)
        self._results: dict[Fingerprint, dict[ExampleId, ExampleResult]] = {}
        columns = {example.id: column for column, example in enumerate(self._table.examples)}
        self._columns = np.array([columns[example.id] for example in problem.val])
        """gepa counts val examples as the problem does, the table has them by id."""
        order = problem.rng("gepa/block").sample(range(len(problem.val)), len(problem.val))
        self.block = min(block, len(problem.val))
        self._fixed, self._others = order[: -(-self.block // 2)], order[-(-self.block // 2) :]
        self._greedy, self._rng = greedy, problem.rng("gepa/parents")
        self._completion = Completion(problem.seed)
        self._known: Floats | None = None
        """Scores of gepa's candidates by their numbers; None: something came since."""
        self._expected: Expected | None = None
        """Of those scores."""
        self._rows: list[int] = []
        """gepa's number of a candidate → its row."""
        self._adapter: SearchAdapter | None = None
        self._parents: list[Sequence[int]] = []
        """Of the children that gepa is about to run on val, in its order."""

    def serve(self, adapter: SearchAdapter) -> None:
        """Take over what the adapter measures from now on."""
        self._adapter = adapter
        adapter.watch = self._keep

    def get_eval_batch(self, loader: Any, state: Any, target_program_idx: int | None = None) -> list[int]:  # noqa: ARG002
        """Return the block of the next child: the fixed half, and what tells most of what its parents have met."""
        parents = self._parents.pop(0) if self._parents else ()
        expected = self.expected(state)
        seen = self._seen(parents) if parents else np.ones(len(self._columns), dtype=bool)
        others = self._others
        if expected.information is not None:
            telling = expected.information[self._columns]
            others = sorted(others, key=lambda position: -telling[position])
        others = sorted(others, key=lambda position: not seen[position])
        return sorted([*self._fixed, *others[: self.block - len(self._fixed)]])

    def get_best_program(self, state: Any) -> int:
        """Return whoever is expected to be best on all of val."""
        return int(np.argmax(self.expected(state).means))

    def get_valset_score(self, program_idx: int, state: Any) -> float:
        """Return the mean of what was measured."""
        return float(state.get_program_average_val_subset(program_idx)[0])

    def select(self, proposals: list[Any], state: Any, acceptance_criterion: Any) -> list[Any]:
        """Return the proposals that are accepted, each text once, and note whose children they are."""
        accepted: dict[tuple[tuple[str, str], ...], Any] = {}
        for one in proposals:
            if acceptance_criterion.should_accept(one, state):
                accepted.setdefault(tuple(sorted(one.candidate.items())), one)
        self._parents = [one.parent_program_ids for one in accepted.values()]
        return list(accepted.values())

    def on_merge_attempted(self, event: Mapping[str, Any]) -> None:
        """Note whose child a merged candidate is."""
        self._parents = [event["parent_ids"]]

    def select_candidate_idx(self, state: Any) -> int:
        """Return a parent: the best, or one that is on the front, the more likely the more examples it is best on."""
        expected = self.expected(state)
        known = ~np.isnan(self._scores(state))
        able = self._learning(state)
        if self._greedy:
            return int(able[np.argmax(expected.means[able])])
        # What few have met tells nothing about who is best on it.
        met = known.all(axis=0) if expected.information is None else 2 * known.sum(axis=0) > len(known)
        front = {
            int(column): set(able[values >= np.max(values) - _TIE].tolist())
            for column in np.flatnonzero(met)
            for values in (expected.table[able, column],)
        }
        return int(select_program_candidate_from_pareto_front(front, expected.means.tolist(), self._rng))

    def expected(self, state: Any) -> Expected:
        """Return what is expected of gepa's candidates, by their numbers."""
        scores = self._scores(state)
        if self._expected is None:
            self._expected = self._completion.of(scores)
        return self._expected

    def measured(self, state: Any) -> tuple[float, int]:
        """Return the mean of what was measured of the best candidate, and how many examples that were."""
        mean, count = state.get_program_average_val_subset(self.get_best_program(state))
        return float(mean), int(count)

    @property
    def doubt(self) -> str | None:
        """Why means over shared examples count and no model; None: a model does."""
        return None if self._expected is None else self._expected.doubt

    @property
    def results(self) -> Mapping[Fingerprint, Sequence[ExampleResult]]:
        """What was measured on val, by candidate."""
        return {fingerprint: tuple(found.values()) for fingerprint, found in self._results.items()}

    def best(self, most: int) -> list[Candidate]:
        """Return the candidates expected to be best, guardrails first, each once; empty: none was run on val."""
        if not self._rows:
            return []
        expected = self._completion.of(self._table.utilities()[self._rows])
        excess = self._table.excess()[self._rows]
        found: dict[int, None] = {}
        for number in np.lexsort((np.arange(len(excess)), -expected.means, excess)):
            found.setdefault(self._rows[number])
        return [self._table.candidates[row] for row in list(found)[:most]]

    def _scores(self, state: Any) -> Floats:
        adapter, news = self._adapter, state.program_candidates[len(self._rows) :]
        if adapter is not None and news:
            self._rows.extend(self._table.row(adapter.candidate(texts)) for texts in news)
            self._known = self._expected = None
        if self._known is None:
            self._known = self._table.utilities()[self._rows]
        return self._known

    def _learning(self, state: Any) -> Integers:
        """Return the numbers of who still fails on train, all if nobody does: others have nothing to reflect on."""
        found = [
            number
            for number, row in enumerate(self._rows)
            if len(self._mastered.get(self._table.candidates[row].fingerprint, ())) < len(self._problem.train)
        ]
        return np.array(found or range(len(state.program_candidates)), dtype=np.int64)

    def _seen(self, parents: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return which val examples all parents have met, as gepa counts them."""
        known: npt.NDArray[np.bool_] = ~np.isnan(self._table.utilities()[[self._rows[one] for one in parents]])
        met: npt.NDArray[np.bool_] = np.all(known, axis=0, keepdims=True)[0]
        return np.asarray(met[self._columns])

    def _keep(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult]) -> None:
        if split is Split.VAL:
            self._known = self._expected = None
            self._table.know(candidate, results)
            self._results.setdefault(candidate.fingerprint, {}).update({one.example_id: one for one in results})
        elif self._perfect is not None:
            scalar, perfect = self._problem.objectives.scalar, self._perfect
            best = {one.example_id for one in results if scalar(one.scores) >= perfect}
            self._mastered.setdefault(candidate.fingerprint, set()).update(best)
