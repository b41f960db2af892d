"""What an algorithm may do, until the search has to end: then nothing gets through any more.

DSPy swallows every `Exception` and its thread pools go on after one: of 100 queued calls 99 were still made when
a stop was raised once. So the first ending is kept, and every later call meets it again. What is no stop and still
must not become a score of 0 (a broken metric, a wrong option) is carried past DSPy's `except Exception` the same
way and comes out of `LatchedRun.closing` as the error it was.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar, cast

import dspy

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.problem import Progress, SearchRun
from dspy_optimization.errors import InfrastructureError, InfrastructureFailed, ModelRequestError, StopSearch
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.trial import ExampleResult

Answer = TypeVar("Answer")

_COUNTING = "dspy_optimization_counted_calls"


class SearchBroken(BaseException):
    """Carries `error` out of DSPy."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class SearchOver(BaseException):
    """The search has returned; whoever still works for it has to stop."""


class LatchedRun:
    """What a search of DSPy's does with its run, until it has ended; then it stays ended. Thread-safe."""

    def __init__(self, run: SearchRun) -> None:
        self._run = run
        self._changed = threading.Condition()
        self._ending: BaseException | None = None
        self._inside = 0

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Run a search inside: when it leaves, nothing of it touches the run any more.

        Waits for calls that are under way. Raises the error that broke the search as itself.
        """
        try:
            yield
        except SearchBroken as broken:
            raise broken.error from None
        finally:
            self._close()

    @property
    def direct(self) -> Calls:
        """The calls of the search, counted by nobody."""
        return _Direct(self)

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Ask a model through the ledger; a refused request passes as the error it is."""
        counted = cast("Calls | None", dspy.settings.get(_COUNTING))
        return (counted if counted is not None else self.direct).call(role, request)

    def call_direct(self, role: Role, request: ModelRequest) -> ModelResponse:
        """The same, counted by nobody."""
        return self._pass(lambda: self._run.call(role, request), passing=ModelRequestError)

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        """Return metric → score; whatever the metric raises ends the search."""
        return self._pass(lambda: self._run.score(example, prediction))

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        """Keep a trial."""
        self._pass(lambda: self._run.record(candidate, split, results, iteration))

    def submit(self, candidate: Candidate) -> None:
        """Name a candidate as a result of the search."""
        self._pass(lambda: self._run.submit(candidate))

    def report(self, progress: Progress) -> None:
        """Tell where the search is."""
        self._pass(lambda: self._run.report(progress))

    def end(self, error: BaseException) -> NoReturn:
        """End the search with this error, carried past everything DSPy catches."""
        ending = _carrier(error)
        self._end(ending)
        if ending is error:
            raise ending
        raise ending from error

    def _pass(self, work: Callable[[], Answer], passing: type[Exception] | tuple[()] = ()) -> Answer:
        with self._changed:
            if self._ending is not None:
                raise self._ending
            self._inside += 1
        try:
            return work()
        except StopSearch as stop:
            self._end(stop)
            raise
        except BaseException as error:
            if isinstance(error, passing):
                raise
            ending = _carrier(error)
            self._end(ending)
            if ending is error:
                raise
            raise ending from error
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _end(self, ending: BaseException) -> None:
        with self._changed:
            if self._ending is None:
                self._ending = ending

    def _close(self) -> None:
        with self._changed:
            if self._ending is None:
                self._ending = SearchOver("the search is over")
            self._changed.wait_for(lambda: self._inside == 0)


class _Direct:
    def __init__(self, run: LatchedRun) -> None:
        self._run = run

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return the answer."""
        return self._run.call_direct(role, request)


@contextmanager
def counting(calls: Calls) -> Iterator[None]:
    """Let every call made inside pass through these, in whichever thread DSPy makes it.

    It travels in DSPy's settings: they are the one thing DSPy hands on to the threads it starts.
    """
    with dspy.context(**{_COUNTING: calls}):
        yield


def _carrier(error: BaseException) -> BaseException:
    if isinstance(error, InfrastructureError):
        return InfrastructureFailed(error)
    return SearchBroken(error) if isinstance(error, Exception) else error
