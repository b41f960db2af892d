"""The run of an algorithm as the algorithm sees it: what it may not do is refused, and every way out is watched.

An algorithm is foreign code. What it must not be able to do stands here: record results that nobody measured, touch
what is frozen or does not exist, pass examples of its own off as the dataset's, record on the test split. What it can
still do, score a prediction it made up, moves nothing but the numbers of its own search: the gate runs the candidate.
"""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.problem import Problem, Progress, SearchRun
from dspy_optimization.errors import AlgorithmError, CancelRequested, StopSearch
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.trial import ExampleResult

_SHOWN = 5


class Refused(StrEnum):
    """What an algorithm tried that it may not."""

    MADE_UP = "made up"  # results that were not measured, or of another candidate
    FOREIGN = "foreign"  # examples that are not those of the split, or not what they say they are
    SEALED = "sealed"  # anything on the test split
    FROZEN = "frozen"  # a component that may not be changed
    UNKNOWN = "unknown"  # a component that is not there, or one left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing an algorithm tried that it may not."""

    what: Refused
    sentence: str


class GuardedRun:
    """A `SearchRun` that keeps an algorithm to the rules. Thread-safe."""

    def __init__(self, run: SearchRun, problem: Problem) -> None:
        self._run = run
        self._baseline = problem.baseline
        self._frozen = problem.frozen
        self._ids: Mapping[Split, frozenset[ExampleId]] = {
            Split.TRAIN: frozenset(example.id for example in problem.train),
            Split.VAL: frozenset(example.id for example in problem.val),
        }
        self._examples = {example.id: example for example in (*problem.train, *problem.val)}
        self._lock = threading.Lock()
        self._measured: set[int] = set()
        self._scored: set[int] = set()
        self._inside = 0
        self._ending: StopSearch | None = None
        self._closed = False
        self._interrupted: BaseException | None = None
        self._refusals: list[Refusal] = []

    @property
    def refusals(self) -> Sequence[Refusal]:
        """What was refused, in order."""
        with self._lock:
            return list(self._refusals)

    @property
    def interrupted(self) -> BaseException | None:
        """What ended the engine's own work inside the search and is no error of anybody: it passes through."""
        return self._interrupted

    @property
    def busy(self) -> bool:
        """Whether something the algorithm asked for is under way."""
        with self._lock:
            return self._inside > 0

    def end(self, reason: StopSearch) -> None:
        """Answer everything from now on with this; a result may still be named."""
        with self._lock:
            self._ending = reason

    def close(self) -> None:
        """Let nothing through any more: the search has ended, and what it left behind may not go on."""
        with self._lock:
            self._closed = True

    @property
    def calls_left(self) -> int | None:
        """Distinct calls the search may still ask for; None: no bound is known."""
        return self._run.calls_left

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Ask a model through the ledger."""
        with self._within():
            return self._run.call(role, request)

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        """Return metric → score."""
        with self._within():
            self._check_example(example)
            scores = self._run.score(example, prediction)
            with self._lock:
                self._scored.add(_mark(example.id, scores))
            return scores

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        """Run the candidate on the examples."""
        with self._within():
            self._check_candidate(candidate)
            for example in examples:
                self._check_example(example)
            results = self._run.evaluate(candidate, examples)
            marks = [_mark(one.example_id, one.scores, candidate) for one in results]
            with self._lock:
                self._measured.update(marks)
            return results

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        """Keep a trial, if it is one."""
        with self._within():
            self._check_candidate(candidate)
            self._check_results(candidate, split, results)
            self._run.record(candidate, split, results, iteration)

    def submit(self, candidate: Candidate) -> None:
        """Name a candidate as a result of the search."""
        with self._within(ending=True):
            self._check_candidate(candidate)
            self._run.submit(candidate)

    def report(self, progress: Progress) -> None:
        """Tell where the search is."""
        with self._within():
            self._run.report(progress)

    @contextmanager
    def _within(self, *, ending: bool = False) -> Iterator[None]:
        """Hold a method open; `ending` says that it is allowed at the end as well."""
        with self._lock:
            if self._closed:
                raise CancelRequested("this search has ended")
            if self._ending is not None and not ending:
                raise self._ending
            self._inside += 1
        try:
            yield
        finally:
            error = sys.exception()
            with self._lock:
                self._inside -= 1
                if error is not None and not isinstance(error, (Exception, StopSearch)):
                    self._interrupted = error

    def _check_candidate(self, candidate: Candidate) -> None:
        wanted, found = self._baseline.components, candidate.components
        if set(found) != set(wanted):
            self._refuse(
                Refused.UNKNOWN,
                f"wanted: a candidate with a value for each of {', '.join(sorted(wanted))}; found: one for "
                f"{', '.join(sorted(found)) or 'none'}; possible: begin from problem.baseline.components and replace "
                "what may be changed",
            )
        for name in self._frozen:
            if name in wanted and found[name] != wanted[name]:
                self._refuse(
                    Refused.FROZEN,
                    f"wanted: frozen components as the baseline has them; found: another value for {name}; possible: "
                    "leave out those of problem.frozen",
                )

    def _check_example(self, example: Example) -> None:
        known = self._examples.get(example.id)
        if known is not None and known is not example and known != example:
            self._refuse(
                Refused.FOREIGN,
                f"wanted: the example {example.id} as the problem has it; found: other content under its id; possible: "
                "take examples from problem.train and problem.val, or give one of your own another id",
            )

    def _check_results(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult]) -> None:
        ids = self._ids.get(split)
        if ids is None:
            self._refuse(
                Refused.SEALED,
                f"wanted: a trial on train or val; found: {split.value}; possible: only the gate opens the test split",
            )
        if not results:
            self._refuse(
                Refused.MADE_UP,
                "wanted: a trial with at least one result; found: none; possible: record what evaluate returns",
            )
        strange = [one.example_id for one in results if one.example_id not in ids]
        if strange:
            self._refuse(
                Refused.FOREIGN,
                f"wanted: results on examples of {split.value}; found: others, {', '.join(strange[:_SHOWN])}; "
                "possible: record each split by itself",
            )
        with self._lock:
            unmeasured = [
                one.example_id
                for one in results
                if _mark(one.example_id, one.scores, candidate) not in self._measured
                and _mark(one.example_id, one.scores) not in self._scored
            ]
        if unmeasured:
            self._refuse(
                Refused.MADE_UP,
                f"wanted: results that this search got from evaluate for this candidate, or from score; found: "
                f"{len(unmeasured)} that it did not, e.g. on example {unmeasured[0]}; possible: record what evaluate "
                "returns, as it is",
            )

    def _refuse(self, what: Refused, sentence: str) -> NoReturn:
        with self._lock:
            self._refusals.append(Refusal(what=what, sentence=sentence))
        raise AlgorithmError(sentence)


def _mark(example_id: ExampleId, scores: Mapping[str, Score], candidate: Candidate | None = None) -> int:
    """Return what a measurement is known by again, small enough to keep for every one of them."""
    values = tuple(sorted((name, score.value) for name, score in scores.items()))
    return hash((example_id, values, None if candidate is None else candidate.fingerprint))
