"""Writes down what DSPy measured: one trial a candidate, one progress report a trial."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dspy_optimization.adapters.dspy.components import read_candidate
from dspy_optimization.adapters.dspy.latch import LatchedRun
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objectives, mean_scalar
from dspy_optimization.algorithms.problem import Progress
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json


class TrialBook:
    """The trials of one search, numbered in the order they are written. Thread-safe."""

    def __init__(self, run: LatchedRun, objectives: Objectives, algorithm: str, baseline: Candidate) -> None:
        self._run = run
        self._objectives = objectives
        self._algorithm = algorithm
        self._baseline = baseline
        self._lock = threading.Lock()
        self._written = 0
        self._phase = "search"
        self._iterations: int | None = None
        self._parents: dict[Fingerprint, tuple[Fingerprint, ...]] = {}

    @property
    def written(self) -> int:
        """How many trials there are."""
        with self._lock:
            return self._written

    def begin(self, phase: str, iterations: int | None = None, *, data: Mapping[str, Json] | None = None) -> None:
        """Name what the next trials belong to, and report it.

        Args:
            phase: a word or two for people.
            iterations: how many trials there will be in all, as far as the algorithm knows.
            data: what else there is to tell.
        """
        with self._lock:
            self._phase, self._iterations = phase, iterations
            iteration = self._written
        self._run.report(Progress(phase=phase, iteration=iteration, iterations=iterations, data=data or {}))

    def descend(self, child: Candidate, parents: Sequence[Candidate]) -> None:
        """Note what a candidate was made of; what is noted first stays."""
        with self._lock:
            self._parents.setdefault(child.fingerprint, tuple(parent.fingerprint for parent in parents))

    def candidate(self, program: Any) -> Candidate:
        """Return the candidate of a program, named after this search; its parent is the baseline or what was noted."""
        found = read_candidate(program, origin=self._algorithm)
        if found == self._baseline:
            return self._baseline
        with self._lock:
            parents = self._parents.get(found.fingerprint, (self._baseline.fingerprint,))
        return replace(found, parents=parents)

    def write(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult]) -> None:
        """Keep a trial and report it; nothing is kept of no results."""
        if not results:
            return
        with self._lock:
            self._written += 1
            iteration, phase, iterations = self._written, self._phase, self._iterations
        self._run.record(candidate, split, results, iteration)
        self._run.report(
            Progress(
                phase=phase,
                iteration=iteration,
                iterations=max(iterations, iteration) if iterations is not None else None,
                candidate=candidate,
                score=mean_scalar(self._objectives, [result.scores for result in results]),
                data={"split": split.value, "examples": len(results)},
            )
        )
