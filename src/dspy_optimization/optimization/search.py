"""One search: what an algorithm may do, and what is kept of what it does."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, Protocol

from dspy_optimization.agents.candidate import Candidate, Fingerprint, content_hash
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.algorithms.problem import Progress
from dspy_optimization.errors import (
    InfrastructureError,
    InfrastructureFailed,
    InvalidRequestError,
    RequestFailed,
    StopSearch,
)
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.events import Event, EventType, Json


class CountedCalls(Calls, Protocol):
    """Calls that know how many distinct ones were asked."""

    @property
    def asked_calls(self) -> int:
        """Distinct calls asked so far, paid or not."""
        ...

    @property
    def calls_left(self) -> int | None:
        """Distinct calls that may still be asked; None: as many as are wanted."""
        ...


class TrialSink(Protocol):
    """Where trials are kept."""

    def record(self, optimization_id: OptimizationId, trial: Trial) -> bool:
        """Keep a trial; False when it is known already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One candidate with everything known of it on one split."""

    candidate: Candidate
    algorithm: str
    """Who measured it first."""
    iteration: int
    results: Mapping[ExampleId, ExampleResult]


class Scoreboard:
    """Every candidate of one optimization and what it was worth on which example. Thread-safe."""

    def __init__(self, objectives: Objectives, val: Sequence[Example]) -> None:
        self._lock = threading.Lock()
        self._measured: dict[tuple[Fingerprint, Split], Measured] = {}
        self._val = frozenset(example.id for example in val)
        self.objectives = objectives

    def add(
        self,
        candidate: Candidate,
        split: Split,
        results: Sequence[ExampleResult],
        algorithm: str,
        iteration: int,
    ) -> None:
        """Merge new results into what is known of the candidate on this split."""
        key = (candidate.fingerprint, split)
        with self._lock:
            known = self._measured.get(key)
            if known is None:
                known = Measured(candidate=candidate, algorithm=algorithm, iteration=iteration, results={})
            merged = dict(known.results) | {result.example_id: result for result in results}
            self._measured[key] = Measured(
                candidate=known.candidate,
                algorithm=known.algorithm,
                iteration=known.iteration,
                results=merged,
            )

    def on_val(self, candidate: Candidate) -> tuple[ExampleResult, ...] | None:
        """Return the candidate's results on all of val, ordered by example id; None while some are missing."""
        with self._lock:
            known = self._measured.get((candidate.fingerprint, Split.VAL))
        if known is None or not self._val <= set(known.results):
            return None
        return tuple(known.results[example_id] for example_id in sorted(self._val))

    @property
    def val(self) -> Sequence[ExampleId]:
        """The ids of all val examples, sorted."""
        return sorted(self._val)

    def complete(self) -> list[Measured]:
        """Return every candidate measured on all of val, in the order they were met."""
        with self._lock:
            everything = list(self._measured.items())
        return [one for (_, split), one in everything if split is Split.VAL and self._val <= set(one.results)]

    def score(self, measured: Measured) -> float:
        """Return the mean utility on val of a candidate measured on all of it."""
        results = [measured.results[example_id] for example_id in sorted(self._val)]
        return sum(self.objectives.scalar(result.scores) for result in results) / len(results)

    def best(self, algorithm: str | None = None) -> Measured | None:
        """Return the best candidate measured on all of val whose guardrails hold; None when there is none.

        Ties go to the shorter candidate, then to the smaller fingerprint: the answer does not depend on the
        order in which results came in.

        Args:
            algorithm: only candidates this one measured first; None: all.
        """
        pool = [one for one in self.complete() if algorithm in (None, one.algorithm) and self.guardrails_hold(one)]
        if not pool:
            return None
        return min(
            pool,
            key=lambda one: (-round(self.score(one), 12), size_of(one.candidate), one.candidate.fingerprint),
        )

    def mean(self, measured: Measured, metric: str) -> float:
        """Return the mean of one metric on val."""
        return sum(measured.results[example_id].scores[metric].value for example_id in self._val) / len(self._val)

    def guardrails_hold(self, measured: Measured) -> bool:
        """Say whether no guardrail is hurt by more than its margin, as far as val can tell."""
        guardrails = [item for item in self.objectives.items if item.guardrail]
        for item in guardrails:
            reference = self.objectives.scales.get(item.metric)
            if reference is not None and not item.holds(self.mean(measured, item.metric), reference):
                return False
        return True


def size_of(candidate: Candidate) -> int:
    """Return how much a candidate says, in characters: of two that are equally good the shorter one is better."""
    return sum(
        len(part.instructions) + sum(len(str(demo)) for demo in part.demos) for part in candidate.components.values()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContext:
    """What every search of one optimization shares."""

    optimization_id: OptimizationId
    evaluator: Evaluator
    scoreboard: Scoreboard
    trials: TrialSink
    emit: Callable[[Event], None]
    now: Callable[[], datetime]
    paid_calls: Callable[[], int]
    settle: Callable[[], None]
    """Returns when every answer so far is durable: a trial never outlives the answers it came from."""
    after_trial: Callable[[Trial], None]
    """Told of every new trial; may end the search (target met)."""
    standing: Callable[[], Mapping[str, Json]]
    """Spend and time so far, for progress events."""
    reported: Callable[[], None]
    """Told after every progress event."""


class Search:
    """The run of one algorithm in one turn; what `algorithms.problem.SearchRun` promises."""

    def __init__(self, context: SearchContext, algorithm: str, calls: CountedCalls, stop: StopSignal) -> None:
        self._context = context
        self.algorithm = algorithm
        self._calls = calls
        self._stop = stop
        self._lock = threading.Lock()
        self._submitted: dict[Fingerprint, Candidate] = {}
        self.iterations = 0

    @property
    def submitted(self) -> Sequence[Candidate]:
        """The candidates the algorithm named as results, in its order."""
        with self._lock:
            return list(self._submitted.values())

    @property
    def calls_left(self) -> int | None:
        """Distinct calls the search may still ask for; None: no bound is known."""
        return self._calls.calls_left

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Ask a model through the ledger."""
        return self._calls.call(role, request)

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        """Return metric → score."""
        with self._stopping():
            return self._context.evaluator.score(example, prediction, self._calls)

    def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> tuple[ExampleResult, ...]:
        """Run the candidate on the examples."""
        with self._stopping():
            return self._context.evaluator.evaluate(candidate, examples, self._calls, self._stop)

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        """Keep a trial and tell of it."""
        self._stop.check()
        if split is Split.TEST:
            raise ValueError(
                "wanted: a trial on train or val; found: test; possible: only the gate opens the test split"
            )
        context = self._context
        context.scoreboard.add(candidate, split, results, self.algorithm, iteration)
        objectives = context.scoreboard.objectives
        trial = Trial(
            algorithm=self.algorithm,
            candidate=candidate,
            split=split,
            results=tuple(results),
            score=sum(objectives.scalar(result.scores) for result in results) / len(results),
            iteration=iteration,
            paid_calls=context.paid_calls(),
            recorded_at=context.now(),
        )
        with self._stopping():
            context.settle()
            context.trials.record(context.optimization_id, trial)
            # Also of one that is known: whoever recorded it may have died before it told. Its key tells it once.
            self._emit(self._trial_event(trial))
        with self._lock:
            self.iterations = max(self.iterations, iteration)
        context.after_trial(trial)
        self._stop.check()

    def submit(self, candidate: Candidate) -> None:
        """Remember the candidate as a result of the search."""
        with self._lock:
            self._submitted.setdefault(candidate.fingerprint, candidate)

    def report(self, progress: Progress) -> None:
        """Tell where the search is."""
        with self._lock:
            self.iterations = max(self.iterations, progress.iteration)
        best = self._context.scoreboard.best()
        self._emit(
            Event(
                type=EventType.PROGRESS,
                optimization_id=self._context.optimization_id,
                at=self._context.now(),
                data={
                    "algorithm": self.algorithm,
                    "phase": progress.phase,
                    "iteration": progress.iteration,
                    "iterations": progress.iterations,
                    "candidate": progress.candidate.fingerprint if progress.candidate is not None else None,
                    "score": progress.score,
                    "best_score": self._context.scoreboard.score(best) if best is not None else None,
                    **self._context.standing(),
                    **progress.data,
                },
                key=f"progress/{self.algorithm}/{progress.phase}/{progress.iteration}",
            )
        )
        with self._stopping():
            self._context.reported()
        self._stop.check()

    def _emit(self, event: Event) -> None:
        with self._stopping():
            self._context.emit(event)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """End the search for what no optimizer may swallow and score 0: a broken metric, a lost database."""
        try:
            yield
        except InvalidRequestError as error:
            self._end(RequestFailed(error), error)
        except InfrastructureError as error:
            self._end(InfrastructureFailed(error), error)

    def _end(self, reason: StopSearch, error: Exception) -> NoReturn:
        self._stop.stop(reason)
        raise reason from error

    def _trial_event(self, trial: Trial) -> Event:
        ids = trial.example_ids
        return Event(
            type=EventType.TRIAL_RECORDED,
            optimization_id=self._context.optimization_id,
            at=trial.recorded_at,
            data={
                "algorithm": trial.algorithm,
                "candidate": trial.candidate.fingerprint,
                "origin": trial.candidate.origin,
                "parents": list(trial.candidate.parents),
                "split": trial.split.value,
                "n_examples": len(ids),
                "score": trial.score,
                "iteration": trial.iteration,
                "paid_calls": trial.paid_calls,
            },
            key=f"trial/{trial.algorithm}/{trial.candidate.fingerprint}/{trial.split.value}/{content_hash(list(ids))}",
        )
