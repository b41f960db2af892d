"""Runs of the agent on train examples with everything that can be learned from them: steps and feedback."""

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.errors import InfrastructureError, InfrastructureFailed, ModelRequestError, ProgramError
from dspy_optimization.evaluation.trial import ExampleResult

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One run of the agent."""

    example: Example
    prediction: Prediction
    result: ExampleResult

    @property
    def feedback(self) -> str:
        """What the metrics said; empty: nothing."""
        return "\n".join(said(name, score) for name, score in sorted(self.result.scores.items()) if score.feedback)


def said(metric: str, score: Score) -> str:
    """Return one metric's words."""
    return f"{metric}: {score.feedback}"


def watch(problem: Problem, run: SearchRun, candidate: Candidate, examples: Sequence[Example]) -> tuple[Watched, ...]:
    """Run the candidate on the examples, concurrently, and return the runs in their order.

    Raises:
        StopSearch: the search has to end.
    """
    calls = [partial(_watched, problem, run, candidate, example) for example in examples]
    return at_once(calls, problem.concurrency, "watching")


def at_once(calls: Sequence[Callable[[], Done]], width: int, name: str) -> tuple[Done, ...]:
    """Return what all calls came to, in order; when one fails no other is begun, and what it raised is raised.

    Args:
        calls: any number.
        width: so many at once; 1 or less: one after the other, in this thread.
        name: of the threads.
    """
    if min(width, len(calls)) <= 1:
        return tuple(call() for call in calls)
    failed = threading.Event()

    def called(call: Callable[[], Done]) -> Done:
        if failed.is_set():
            raise CancelledError
        try:
            return call()
        except BaseException:
            # Before the thread takes the next one: whoever waits for it would be too late.
            failed.set()
            raise

    with ThreadPoolExecutor(min(width, len(calls)), thread_name_prefix=name) as pool:
        tasks = [pool.submit(contextvars.copy_context().run, called, call) for call in calls]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            failed.set()
            wait(tasks)
    errors = [error for task in tasks if (error := task.exception()) is not None]
    for error in errors:
        if not isinstance(error, CancelledError):
            raise error
    return tuple(task.result() for task in tasks)


def _watched(problem: Problem, run: SearchRun, candidate: Candidate, example: Example) -> Watched:
    try:
        prediction = problem.runnable.run(candidate, example.inputs, run)
    except (ProgramError, ModelRequestError) as error:
        prediction = Prediction(outputs={}, failure=str(error))
    except InfrastructureError as error:
        raise InfrastructureFailed(error) from error
    scores = run.score(example, prediction)
    result = ExampleResult(
        example_id=example.id,
        scores=scores,
        outputs=prediction.outputs,
        failure=prediction.failure,
        usage=prediction.usage,
    )
    return Watched(example=example, prediction=prediction, result=result)
