"""A model that answers what it is told, in the format it is asked for, and remembers what it was asked."""

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence

from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role

Answers = Callable[[str, Sequence[str]], Mapping[str, object] | str]
"""(prompt, wanted fields) → their values, or a raw answer."""


class FakeCalls:
    """Calls without a ledger: deterministic answers, in whichever of DSPy's formats the prompt asks for."""

    def __init__(self, answers: Answers | None = None) -> None:
        self._answers = answers if answers is not None else echo
        self._lock = threading.Lock()
        self.asked: list[tuple[Role, ModelRequest]] = []

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        with self._lock:
            self.asked.append((role, request))
        prompt = "\n".join(str(message["content"]) for message in request.body["messages"])
        wanted, layout = wanted_fields(prompt)
        values = self._answers(prompt, wanted)
        text = values if isinstance(values, str) else laid_out(values, layout)
        return chat_response(text)

    @property
    def samples(self) -> list[str]:
        return [request.sample for _, request in self.asked]


def chat_response(text: str) -> ModelResponse:
    body = {
        "model": "fake",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return ModelResponse(body=body, prompt_tokens=10, completion_tokens=5, latency_seconds=0.25)


def wanted_fields(prompt: str) -> tuple[list[str], str]:
    """Return the output fields that the end of a prompt asks for, and the layout."""
    tail = prompt[prompt.rindex("Respond with") :]
    if "[[ ##" in tail:
        return [name for name in re.findall(r"`\[\[ ## (\w+) ## \]\]`", tail) if name != "completed"], "chat"
    if "JSON object" in tail:
        return re.findall(r"`(\w+)`", tail), "json"
    return re.findall(r"`<(\w+)>`", tail), "xml"


def laid_out(values: Mapping[str, object], layout: str) -> str:
    if layout == "json":
        return json.dumps(values)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    if layout == "xml":
        return "\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in texts.items())
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in texts.items()) + "\n\n[[ ## completed ## ]]"


def echo(prompt: str, wanted: Sequence[str]) -> Mapping[str, object]:
    """Answer every field with its own name."""
    return {name: f"some {name}" for name in wanted}
