"""DSPy's metrics, made of the engine's: every score that DSPy sees carries the result it came from."""

import dspy

from dspy_optimization.adapters.dspy.latch import LatchedRun
from dspy_optimization.adapters.dspy.student import run_behind
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.evaluation.trial import ExampleResult

_EXAMPLE, _SPLIT = "_engine_example", "_engine_split"
"""Attributes of DSPy's examples that are no fields: no prompt and no `repr` shows them."""


class Scored(float):
    """A utility, higher is better, with the result behind it."""

    result: ExampleResult

    def __new__(cls, value: float, result: ExampleResult) -> "Scored":
        """Return the number with its result."""
        made = super().__new__(cls, value)
        made.result = result
        return made

    def __deepcopy__(self, memo: dict[int, object]) -> "Scored":
        return self


def dspy_example(example: Example, split: Split) -> dspy.Example:
    """Return the example as DSPy knows it; metadata stays out, for it is for metrics alone."""
    made = dspy.Example(**{**example.inputs, **example.expected}).with_inputs(*example.inputs)
    setattr(made, _EXAMPLE, example)
    setattr(made, _SPLIT, split)
    return made


def engine_example(example: dspy.Example) -> Example:
    """Return the example that `dspy_example` was given."""
    found: Example = getattr(example, _EXAMPLE)
    return found


def split_of(example: dspy.Example) -> Split:
    """Return the split the example came from."""
    found: Split = getattr(example, _SPLIT)
    return found


class ProgramMetric:
    """What an answer is worth. Thread-safe; each run of a program is scored once, however often DSPy asks."""

    def __init__(self, run: LatchedRun, objectives: Objectives) -> None:
        self._run = run
        self._objectives = objectives

    def __call__(
        self,
        example: dspy.Example,
        prediction: dspy.Prediction | None,
        trace: object = None,  # noqa: ARG002
    ) -> Scored | bool:
        """Return the utility of one answer."""
        return self.scored(example, prediction)

    def scored(self, example: dspy.Example, prediction: dspy.Prediction | None) -> Scored:
        """Return the utility with its result."""
        run = run_behind(prediction)
        if run is None:
            # No student made it: DSPy put it there itself, in place of a program that could not even be called.
            return self._fresh(example, Prediction(outputs={}, failure="the program gave no prediction"))
        if run.result is None:
            run.result = self._fresh(example, run.prediction).result
        return Scored(self._objectives.scalar(run.result.scores), run.result)

    def full_marks(self, result: ExampleResult) -> bool:
        """Say whether the answer could not be better."""
        return result.failure is None and self._objectives.full_marks(result.scores)

    def _fresh(self, example: dspy.Example, prediction: Prediction) -> Scored:
        asked = engine_example(example)
        scores = self._run.score(asked, prediction)
        result = ExampleResult(
            example_id=asked.id,
            scores=scores,
            outputs=prediction.outputs,
            failure=prediction.failure,
            usage=prediction.usage,
        )
        return Scored(self._objectives.scalar(scores), result)


class BootstrapMetric(ProgramMetric):
    """The same; while DSPy bootstraps (it then passes a trace) it says whether the answer may serve as a demo.

    DSPy takes any truthy value for a success, `dspy.Prediction(score=0.0)` among them, and ignores a threshold of 0.
    So here a success is a plain yes or no.
    """

    def __init__(self, run: LatchedRun, objectives: Objectives, success_score: float | None) -> None:
        super().__init__(run, objectives)
        self._success_score = success_score

    def __call__(
        self, example: dspy.Example, prediction: dspy.Prediction | None, trace: object = None
    ) -> Scored | bool:
        """Return the utility of one answer, or whether it is good enough to be a demo."""
        scored = self.scored(example, prediction)
        if trace is None:
            return scored
        if self._success_score is None:
            return self.full_marks(scored.result)
        return scored.result.failure is None and float(scored) >= self._success_score
