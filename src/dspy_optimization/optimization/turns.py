"""One turn of one algorithm: it searches, and every candidate it names gets a complete trial on val."""

import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.problem import Algorithm, Problem
from dspy_optimization.errors import TurnOver
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.guarded_run import GuardedRun
from dspy_optimization.optimization.portfolio import Turn, TurnOutcome, TurnReport
from dspy_optimization.optimization.search import CountedCalls, Search, SearchContext

GRACE_SECONDS = 30.0
"""How long an algorithm may go on by itself when its search has to end; then it is left behind."""
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmFailure:
    """What an algorithm raised that was no reason to stop."""

    algorithm: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTaker:
    """Carries out turns."""

    context: SearchContext
    stop: StopSignal
    """Of all searches together."""
    open_calls: Callable[[str, StopSignal, int | None], CountedCalls]
    """Opens the calls of an algorithm that end with a stop, and after so many distinct calls (None: no bound)."""
    failed: Callable[[AlgorithmFailure], None]

    def take(self, turn: Turn, algorithm: Algorithm, problem: Problem) -> TurnReport:
        """Let the algorithm search, complete what it submitted, and say what it came to."""
        stop = StopSignal(self.stop)
        calls = self.open_calls(turn.choice.name, stop, turn.allowance_calls)
        search = Search(self.context, algorithm.name, calls, stop)
        self._tell(EventType.ALGORITHM_STARTED, turn, {"allowance_calls": turn.allowance_calls, "reason": turn.reason})
        failure = self._search(algorithm, problem, search, stop)
        outcome = TurnOutcome.OUT_OF_CALLS if isinstance(stop.reason, TurnOver) else TurnOutcome.FINISHED
        self._complete(search, problem)
        best = self.context.scoreboard.best(algorithm.name)
        score = self.context.scoreboard.score(best) if best is not None else None
        self._tell(
            EventType.ALGORITHM_ENDED,
            turn,
            {
                "outcome": "failed" if failure is not None else outcome.value,
                "best_score": score,
                "iterations": search.iterations,
                "error": failure,
            },
        )
        return TurnReport(
            outcome=outcome, asked_calls=calls.asked_calls, iterations=search.iterations, best_score=score
        )

    def _search(self, algorithm: Algorithm, problem: Problem, search: Search, stop: StopSignal) -> str | None:
        """Search; return what broke the algorithm, None when nothing did. Only `TurnOver` does not pass."""
        run = GuardedRun(search, problem)
        attempt = _Attempt(algorithm, problem, run)
        left_behind = not attempt.ended_within(stop, GRACE_SECONDS)
        run.close()
        if run.interrupted is not None:
            raise run.interrupted
        failure: str | None = None
        if left_behind:
            failure = (
                f"wanted: a search that ends when it is told to; found: {algorithm.name} went on for "
                f"{GRACE_SECONDS:g} s and was left behind; possible: let StopSearch pass through, and see "
                "docs/algorithms.md for what an algorithm has to keep"
            )
        elif attempt.error is not None and stop.reason is None and not isinstance(attempt.error, TurnOver):
            failure = f"{type(attempt.error).__name__}: {attempt.error}"
        elif run.refusals and stop.reason is None:
            failure = f"AlgorithmError: {run.refusals[0].sentence}"
        if failure is not None:
            self.failed(AlgorithmFailure(algorithm=algorithm.name, error=failure))
        if stop.reason is not None and not isinstance(stop.reason, TurnOver):
            raise stop.reason
        return failure

    def _complete(self, search: Search, problem: Problem) -> None:
        """Measure submitted candidates on what is missing of val; the allowance of the turn does not count here."""
        stop = StopSignal(self.stop)
        calls = self.open_calls(search.algorithm, stop, None)
        finisher = Search(self.context, search.algorithm, calls, stop)
        for candidate in search.submitted:
            if self.context.scoreboard.on_val(candidate) is None:
                results = finisher.evaluate(candidate, problem.val)
                finisher.record(candidate, Split.VAL, results, search.iterations)

    def _tell(self, event: EventType, turn: Turn, data: dict[str, Json]) -> None:
        self.context.emit(
            Event(
                type=event,
                optimization_id=self.context.optimization_id,
                at=self.context.now(),
                data={"algorithm": turn.choice.name, "turn": turn.number, **data},
                key=f"{event.value}/{turn.choice.name}/{turn.number}",
            )
        )


@dataclass(slots=True)
class _Attempt:
    """One search in a thread of its own, so that one that never ends holds nobody but itself."""

    algorithm: Algorithm
    problem: Problem
    run: GuardedRun
    error: BaseException | None = None
    """What it raised; a stop is one too."""
    _ended: threading.Event = field(default_factory=threading.Event)

    def ended_within(self, stop: StopSignal, grace_seconds: float) -> bool:
        """Search and return True when it has ended; False when it was to end and did nothing but go on."""
        context = contextvars.copy_context()
        name = f"search-{self.algorithm.name}"
        threading.Thread(target=context.run, args=[self._search], name=name, daemon=True).start()
        waited = 0.0
        while not self._ended.wait(_LOOK_SECONDS):
            if stop.reason is None:
                continue
            self.run.end(stop.reason)
            waited = 0.0 if self.run.busy else waited + _LOOK_SECONDS
            if waited >= grace_seconds:
                return False
        return True

    def _search(self) -> None:
        try:
            self.algorithm.search(self.problem, self.run)
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()
