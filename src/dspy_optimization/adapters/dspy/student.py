"""The program DSPy's optimizers work on: the agent's own, with failures as data.

Neighbours' habits that this module answers to (dspy 3.4.1):

- A program that raises is worth a bare 0.0 to `Evaluate`, and after ten of them the evaluation ends. Here a program
  never raises: what it did stands in a `StudentRun` on its prediction, and the metric says what that is worth.
- What is nobody's score (a model that is away, a bug) must not become one: it ends the search.
- SIMBA and MIPROv2 read the source of the student's class: the class made here goes by the name and module of the
  program's own, so that they find it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

import dspy

from dspy_optimization.adapters.dspy.json_values import json_object
from dspy_optimization.adapters.dspy.latch import LatchedRun, counting
from dspy_optimization.adapters.dspy.run_record import CountedCalls, RunRecord
from dspy_optimization.agents.example import Prediction
from dspy_optimization.errors import InfrastructureError, InfrastructureFailed, ModelError
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.evaluation.trial import ExampleResult

# What the program did to the model, or the model to the request; other LM errors are failures of the world.
_PROGRAMS_OWN = (dspy.LMInvalidRequestError, dspy.LMUnsupportedFeatureError)

_RUN = "_student_run"
"""The attribute of a prediction that holds its run; DSPy copies fields, never attributes that begin like this."""

TraceStep = tuple[Any, Mapping[str, Any], Any]
"""(predictor, inputs, prediction) as DSPy writes them down."""


class StudentRun:
    """What one run of a student did."""

    def __init__(self, program: Any, prediction: Prediction, trace: list[TraceStep], unreadable: str | None) -> None:
        self.program = program
        self.prediction = prediction
        self.trace = trace
        """Every step that answered, in order."""
        self.unreadable = unreadable
        """What the model wrote where an answer was wanted and could not be read."""
        self.result: ExampleResult | None = None
        """What it was worth, once it was scored: a second look costs nothing."""


def student_of(
    program: Any,
    run: LatchedRun,
    *,
    prices: Mapping[Role, Price],
    named_prices: Mapping[str, Price] | None = None,
    adapter: Any,
) -> Any:
    """Return the program, made to report what it does to this search; copies of it do the same.

    Args:
        program: changed in place.
        run: the search.
        prices: what a token costs, for `Usage.cost_usd`.
        named_prices: the same, of models that components choose by name.
        adapter: how the agent asks, whatever proposals are asked with.
    """
    count = partial(CountedCalls, run.direct, prices, named_prices)
    program.__class__ = _student_class(type(program), run, count, adapter)
    return program


def run_behind(prediction: object) -> StudentRun | None:
    """Return the run that ended with this prediction; None when no student made it."""
    found = getattr(prediction, _RUN, None)
    return found if isinstance(found, StudentRun) else None


def _student_class(kind: Any, run: LatchedRun, count: Callable[[], CountedCalls], adapter: Any) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        counted = count()
        record = RunRecord(counted)
        outer = dspy.settings.trace
        trace: list[TraceStep] = []
        listeners = [*dspy.settings.callbacks, record]
        answer: Any = None
        with counting(counted), dspy.context(trace=trace, callbacks=listeners, adapter=adapter), _Failure() as failure:
            answer = _prediction(kind.__call__(self, *args, **kwargs))
        if outer is not None:
            outer.extend(trace)
        if answer is None:
            answer = dspy.Prediction()
        setattr(answer, _RUN, _student_run(self, answer, trace, record, counted, failure.error, run))
        return answer

    namespace = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__call__": call,
    }
    return type(kind)(kind.__name__, (kind,), namespace)


def _prediction(answer: object) -> Any:
    if isinstance(answer, dspy.Prediction):
        return answer
    if isinstance(answer, dspy.Example | Mapping):
        return dspy.Prediction(**dict(answer.items()))
    raise TypeError(f"the program is to return a dspy.Prediction, found {type(answer).__name__}")


class _Failure:
    """Keeps what a program raised. Stops are no `Exception` and pass."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> "_Failure":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        return False


def _student_run(
    program: Any,
    answer: Any,
    trace: list[TraceStep],
    record: RunRecord,
    counted: CountedCalls,
    error: Exception | None,
    run: LatchedRun,
) -> StudentRun:
    failure = None
    if error is not None:
        if not _is_the_programs(error):
            _end_search(error, run)
        failure = record.failure(error)
    prediction = Prediction(
        outputs={} if error is not None else json_object(answer),
        steps=record.steps(),
        usage=counted.usage,
        failure=failure,
    )
    unreadable = str(error.lm_response) if isinstance(error, dspy.AdapterParseError) else None
    return StudentRun(program, prediction, trace, unreadable)


def _is_the_programs(error: Exception) -> bool:
    if isinstance(error, dspy.LMError):
        return isinstance(error, _PROGRAMS_OWN)
    return not isinstance(error, InfrastructureError)


def _end_search(error: Exception, run: LatchedRun) -> NoReturn:
    if isinstance(error, dspy.LMError) and not isinstance(error, dspy.LMUnexpectedError):
        run.end(InfrastructureFailed(ModelError(str(error))))
    run.end(error)
