"""One turn of one algorithm: it searches, and every candidate it names gets a complete trial on val."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.problem import Algorithm, Problem
from dspy_optimization.errors import TurnOver
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.portfolio import Turn, TurnOutcome, TurnReport
from dspy_optimization.optimization.search import Search, SearchContext


class CountedCalls(Calls, Protocol):
    """Calls that know how many distinct ones were asked."""

    @property
    def asked_calls(self) -> int:
        """Distinct calls asked so far, paid or not."""
        ...


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
        try:
            algorithm.search(problem, search)
        except TurnOver:
            return None
        except Exception as error:
            if stop.reason is None:
                failure = f"{type(error).__name__}: {error}"
                self.failed(AlgorithmFailure(algorithm=algorithm.name, error=failure))
                return failure
        if stop.reason is not None and not isinstance(stop.reason, TurnOver):
            raise stop.reason
        return None

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
