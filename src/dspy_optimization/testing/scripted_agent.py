"""An agent of one component that makes one call: instruction and inputs in, the text of the answer out."""

from collections.abc import Callable, Mapping

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, canonical_json
from dspy_optimization.agents.component_settings import Choices
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Usage
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json

COMPONENT = ComponentName("answer")


def said(response: ModelResponse) -> str:
    """Return the text of an answer; empty when there is none."""
    match response.body:
        case {"choices": [{"message": {"content": str(text)}}]}:
            return text
        case _:
            return ""


class ScriptedAgent:
    """A `RunnableAgent` without DSPy: asks the task model once and answers what it says. Thread-safe.

    An answer that begins with "!" cannot be used: it becomes the failure of the prediction.
    """

    def __init__(
        self, *, instructions: str = "Answer.", before: Callable[[Mapping[str, Json]], None] | None = None
    ) -> None:
        """Prepare an agent.

        Args:
            instructions: of the baseline.
            before: told the inputs before every run; what it raises is what the agent raises.
        """
        self._before = before
        self.baseline = candidate_of(instructions)
        self.frozen: frozenset[ComponentName] = frozenset()
        self.choices: Mapping[ComponentName, Choices] = {COMPONENT: Choices()}
        self.config = AgentConfig(
            name="scripted",
            kind=AgentKind.PREDICT,
            signature=Signature(
                instructions=instructions, inputs=(Field(name="question"),), outputs=(Field(name="answer"),)
            ),
        )

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        """Ask once."""
        if self._before is not None:
            self._before(inputs)
        instructions = candidate.components[COMPONENT].instructions
        messages: list[Json] = [
            {"role": "system", "content": instructions},
            {"role": "user", "content": canonical_json(dict(inputs))},
        ]
        response = calls.call(Role.TASK, ModelRequest(body={"messages": messages, "max_tokens": 16}))
        text = said(response)
        usage = Usage(
            latency_seconds=response.latency_seconds,
            prompt_tokens=response.prompt_tokens,
            completion_tokens=response.completion_tokens,
            lm_calls=1,
        )
        if text.startswith("!"):
            return Prediction(outputs={}, failure=text[1:], usage=usage)
        return Prediction(outputs={"answer": text}, usage=usage)


def candidate_of(instructions: str) -> Candidate:
    """Return a candidate of the agent that says this."""
    return Candidate(components={COMPONENT: ComponentValue(instructions=instructions)}, origin="scripted")


def question(text: str, *, expected: str = "") -> Example:
    """Return an example of the agent; its id is the question."""
    return Example(id=ExampleId(text), inputs={"question": text}, expected={"answer": expected})
