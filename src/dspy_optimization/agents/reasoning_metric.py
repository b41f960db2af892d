"""The score that a reasoning-gym task gives itself."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field

from dspy_optimization.agents.example import Example, Prediction
from dspy_optimization.agents.field_metric import as_text, brief, failed
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.reasoning_tasks import TaskScorer
from dspy_optimization.agents.untrusted import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningMetric:
    """Asks the task's own scorer, which knows every right answer and gives some credit for near ones."""

    name: str
    field: str = "answer"
    scorer: TaskScorer = dataclass_field(default_factory=TaskScorer)
    floor: float = 0.0
    ceiling: float | None = 1.0

    def score(self, example: Example, prediction: Prediction) -> Score:
        """Return what the answer is worth, 0 to 1.

        Raises:
            InvalidRequestError: the example does not come from a reasoning-gym task.
        """
        expected = dict(example.expected)
        if prediction.failure is not None:
            return failed(prediction, self.floor, expected)
        found = prediction.outputs.get(self.field)
        if found is None:
            reason = f"the answer has no {self.field}; it has: {listed(prediction.outputs)}"
            return Score(value=self.floor, feedback=f"{reason}.", failure=reason)
        value = self.scorer.score(example, as_text(found))
        if value >= 1.0:
            return Score(value=1.0, feedback=f"Correct: {brief(found)}.")
        wanted = f"Expected {brief(expected[self.field])}; got" if self.field in expected else "Not right:"
        return Score(value=max(value, 0.0), feedback=f"{wanted} {brief(found)}. Task score {value:.2f}.")
