"""What an answer was worth, in words a reflecting model can work with."""

from dspy_optimization.adapters.dspy.student import StudentRun
from dspy_optimization.agents.candidate import ComponentName, canonical_json
from dspy_optimization.agents.example import Example


def feedback_on(run: StudentRun, example: Example, component: ComponentName) -> str:
    """Return what came, what was expected and what went wrong, for one component of the program.

    The run has been scored. Says when the program broke in another component than this one.
    """
    result = run.result
    lines = []
    if result is not None:
        for metric, score in result.scores.items():
            reason = f": {score.feedback}" if score.feedback and score.feedback != run.prediction.failure else ""
            lines.append(f"{metric} = {score.value:g}{reason}")
    broken = [step.component for step in run.prediction.steps if step.failure is not None]
    if run.prediction.failure is not None:
        lines.append(f"The program failed: {run.prediction.failure}")
        if broken and broken[-1] != component:
            lines.append(f"It broke in {broken[-1]}, after {component} had answered.")
    else:
        lines.append(f"The program answered: {canonical_json(dict(run.prediction.outputs))}")
    lines.append(f"Expected: {canonical_json(dict(example.expected))}")
    return "\n".join(lines)
