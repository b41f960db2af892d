"""Runs an agent on examples, concurrently, and scores what it answers.

What happens to one example:

    raised while the agent ran                       → what it is
    ProgramError, ModelRequestError                  a program failure: a prediction with the reason, which the
                                                     metrics score; one that ignores the reason gives its floor
    while a metric scored
    InvalidRequestError, a score that is no number   the metric is wrong: raised, naming metric and example
    ModelRequestError of a judge                     "cannot tell" is no score: an infrastructure failure
    anywhere
    InfrastructureError                              InfrastructureFailed, set on the stop signal
    StopSearch and everything else                   raised as it is

The first of the raised ones ends the evaluation: what was not begun is not begun, what runs ends at its next
call, and when `evaluate` has returned or raised nothing of it runs any more.
"""

import contextvars
import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Metric, Score
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.errors import (
    CancelRequested,
    InfrastructureError,
    InfrastructureFailed,
    InvalidRequestError,
    ModelRequestError,
    ProgramError,
)
from dspy_optimization.evaluation.agent import Calls, RunnableAgent
from dspy_optimization.evaluation.judge import ModelMetric
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult

_SPARE_SHARE = 0.5
_SPARE_WORKERS = 2


class Evaluator:
    """Runs one agent for one optimization. Thread-safe; owns one thread pool, for all its evaluations."""

    def __init__(
        self,
        agent: RunnableAgent,
        metrics: Sequence[Metric | ModelMetric],
        objectives: Objectives,
        *,
        concurrency: int,
    ) -> None:
        """Prepare; threads begin with the first evaluation.

        Args:
            agent: what is run.
            metrics: what is scored; at least those the objectives name.
            objectives: the goals.
            concurrency: calls that may be in flight at once, from 1; the models keep it.

        Raises:
            InvalidRequestError: an objective names a metric that is not there, two metrics have one name, or
                the concurrency is below 1.
        """
        if concurrency < 1:
            raise InvalidRequestError(
                f"wanted: concurrency from 1 up; found: {concurrency}; possible: 1 runs one by one"
            )
        self._agent = agent
        self._metrics = _named(metrics, objectives)
        self._workers = concurrency + max(_SPARE_WORKERS, math.ceil(concurrency * _SPARE_SHARE))
        self._pool = ThreadPoolExecutor(max_workers=self._workers, thread_name_prefix="evaluator")

    @property
    def workers(self) -> int:
        """Examples worked on at once: the concurrency, and half of it (at least 2) that prepare or wait for the ledger.

        How many calls reach a model at once is up to the session and the model.
        """
        return self._workers

    def evaluate(
        self, candidate: Candidate, examples: Sequence[Example], calls: Calls, stop: StopSignal
    ) -> tuple[ExampleResult, ...]:
        """Return one result an example, in the order of the examples.

        Args:
            candidate: what the agent says and shows.
            examples: may hold one twice: the ledger answers the second.
            calls: where the calls of agent and judges go.
            stop: ends the evaluation within one call; set when the infrastructure fails.

        Raises:
            StopSearch: the reason on the signal or of a call.
            InvalidRequestError: a metric is wrong; names the metric and the example.
        """
        stop.check()
        course = _Course(calls)
        tasks: list[Future[ExampleResult]] = []
        try:
            for example in examples:
                # a context each: one context cannot be entered by two threads
                context = contextvars.copy_context()
                tasks.append(self._pool.submit(context.run, self._result, candidate, example, course, stop))
            wait(tasks, return_when=FIRST_EXCEPTION)
            course.check()
            return tuple(task.result() for task in tasks)
        finally:
            course.end(CancelRequested("the evaluation has ended"))
            wait(tasks)

    def score(self, example: Example, prediction: Prediction, calls: Calls) -> Mapping[str, Score]:
        """Return metric → score. A prediction with a failure is scored too: what it took is not free.

        Raises:
            InfrastructureError: a metric cannot tell.
            InvalidRequestError: a metric is wrong; names the metric and the example.
        """
        return {name: _scored(metric, example, prediction, calls) for name, metric in self._metrics.items()}

    def close(self) -> None:
        """End the threads; evaluations that run are waited for."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(self, candidate: Candidate, example: Example, course: "_Course", stop: StopSignal) -> ExampleResult:
        """Return the result of one example; whatever it raises ends the course."""
        reason: BaseException | None = None
        try:
            course.check()
            stop.check()
            prediction = self._run(candidate, example, course)
            scores = self.score(example, prediction, course)
        except InfrastructureError as error:
            reason = InfrastructureFailed(error)
            stop.stop(reason)
            raise reason from error
        except BaseException as error:
            reason = error
            raise
        finally:
            if reason is not None:
                course.end(reason)
        return ExampleResult(
            example_id=example.id,
            scores=scores,
            outputs=prediction.outputs,
            failure=prediction.failure,
            usage=prediction.usage,
        )

    def _run(self, candidate: Candidate, example: Example, calls: Calls) -> Prediction:
        try:
            return self._agent.run(candidate, example.inputs, calls)
        except (ProgramError, ModelRequestError) as error:
            return Prediction(outputs={}, failure=str(error))


class _Course:
    """One evaluation: the calls of its examples, and what ended it first. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._reason: BaseException | None = None

    def end(self, reason: BaseException) -> None:
        with self._lock:
            if self._reason is None:
                self._reason = reason

    def check(self) -> None:
        if self._reason is not None:
            raise self._reason

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        if self._reason is not None:
            raise CancelRequested("another example ended this evaluation") from self._reason
        return self._calls.call(role, request)


def _named(metrics: Sequence[Metric | ModelMetric], objectives: Objectives) -> dict[str, Metric | ModelMetric]:
    named = {metric.name: metric for metric in metrics}
    if len(named) < len(metrics):
        names = sorted(metric.name for metric in metrics)
        raise InvalidRequestError(
            f"wanted: metrics with different names; found: {', '.join(names)}; possible: rename one"
        )
    missing = sorted({item.metric for item in objectives.items} - set(named))
    if missing:
        raise InvalidRequestError(
            f"wanted: a metric for every objective; found: no metric named {', '.join(missing)}; possible: "
            f"{', '.join(sorted(named)) or 'no metric is given'}"
        )
    return named


def _scored(metric: Metric | ModelMetric, example: Example, prediction: Prediction, calls: Calls) -> Score:
    try:
        if isinstance(metric, ModelMetric):
            score = metric.score_with(example, prediction, calls)
        else:
            score = metric.score(example, prediction)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"metric {metric.name}, example {example.id}: {error}") from error
    if not math.isfinite(score.value):
        raise InvalidRequestError(
            f"metric {metric.name}, example {example.id}: wanted: a finite number; found: {score.value}; possible: "
            f"return the floor {metric.floor:g} with a reason, or raise InfrastructureError when nobody can tell"
        )
    if prediction.failure is not None and score.failure is None:
        return Score(value=metric.floor, feedback=prediction.failure, failure=prediction.failure)
    return score
