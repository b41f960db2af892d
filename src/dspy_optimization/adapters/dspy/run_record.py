"""What one run of a program did: its steps, its calls, its failure in words."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspy_optimization.adapters.dspy.http_agent import MeasuredPrediction
from dspy_optimization.adapters.dspy.json_values import json_object
from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.example import Step, Usage
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Price, Role
from dspy_optimization.events import Json

LONGEST_FAILURE = 2000
"""Characters of a failure that are kept: prompts quote it to reflecting models."""
LONGEST_ANSWER = 500
"""Characters of an unreadable answer that a failure quotes."""

COMPONENT = "component_name"
"""The attribute that tells which component a predictor is; programs deep-copy their predictors, it goes with them."""

_NAMED_FIELD = re.compile(r"Failed to parse field (\w+)(?: with value .*?)?(?: from the LM response)?[.:]? ?", re.S)
_DETAIL = re.compile(r"(?:Error message: |Failed to parse field \w+: )(.+?)(?:\n\n|$)", re.S)


class CountedCalls:
    """Passes calls on and adds up what they took, whether the ledger had the answers already or not."""

    def __init__(
        self, calls: Calls, prices: Mapping[Role, Price], named_prices: Mapping[str, Price] | None = None
    ) -> None:
        self._calls = calls
        self._prices = prices
        self._named_prices = {} if named_prices is None else named_prices
        self._lock = threading.Lock()
        self._usage = Usage()
        self.cut_off = False
        """Whether an answer ended because max_tokens was reached."""

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return the answer, as the wrapped calls do."""
        answer = self._calls.call(role, request)
        if _finish_reason(answer) == "length":
            self.cut_off = True
        price = self._prices.get(role) if request.model is None else self._named_prices.get(request.model)
        self.add(
            Usage(
                cost_usd=0.0 if price is None else price.cost_usd(answer.prompt_tokens, answer.completion_tokens),
                # Of the call that was paid: replayed runs take as long as the first.
                latency_seconds=answer.latency_seconds,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                lm_calls=1,
            )
        )
        return answer

    def add(self, usage: Usage) -> None:
        """Count something that was paid elsewhere."""
        with self._lock:
            have = self._usage
            self._usage = Usage(
                cost_usd=have.cost_usd + usage.cost_usd,
                latency_seconds=have.latency_seconds + usage.latency_seconds,
                prompt_tokens=have.prompt_tokens + usage.prompt_tokens,
                completion_tokens=have.completion_tokens + usage.completion_tokens,
                lm_calls=have.lm_calls + usage.lm_calls,
            )

    @property
    def usage(self) -> Usage:
        """What all calls so far took; seconds of parallel calls add up."""
        with self._lock:
            return self._usage


def _finish_reason(answer: ModelResponse) -> Json:
    choices = answer.body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("finish_reason") if isinstance(first, dict) else None


@dataclass(slots=True)
class _OpenStep:
    component: ComponentName
    inputs: dict[str, Json]
    outputs: dict[str, Json] = field(default_factory=dict)
    error: BaseException | None = None


class RunRecord(BaseCallback):
    """Listens to one run. Thread-safe: programs ask from threads of their own."""

    def __init__(self, calls: CountedCalls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._steps: dict[str, _OpenStep] = {}

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Open a step when a predictor is asked."""
        component = getattr(instance, COMPONENT, None)
        if not isinstance(instance, dspy.Predict) or component is None:
            return
        given = inputs.get("kwargs", {})
        known = {name: given[name] for name in instance.signature.input_fields if name in given}
        with self._lock:
            self._steps[call_id] = _OpenStep(component=component, inputs=json_object(known))

    def on_module_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Close it with what came of it."""
        if isinstance(outputs, MeasuredPrediction):
            self._calls.add(outputs.usage)
        with self._lock:
            step = self._steps.get(call_id)
            if step is not None:
                step.outputs = json_object(outputs) if isinstance(outputs, dspy.Example) else {}
                step.error = exception

    def steps(self) -> tuple[Step, ...]:
        """Return the steps in the order they began."""
        with self._lock:
            return tuple(
                Step(
                    component=step.component,
                    inputs=step.inputs,
                    outputs=step.outputs,
                    failure=None if step.error is None else failure_in_words(step.error),
                )
                for step in self._steps.values()
            )

    def failure(self, error: BaseException) -> str:
        """Return in words why the run failed, beginning with the component that it failed in."""
        with self._lock:
            places = [step.component for step in self._steps.values() if step.error is error]
        text = failure_in_words(error)
        if isinstance(error, dspy.AdapterParseError) and self._calls.cut_off:
            text = f"an answer was cut off at max_tokens; {text}"
        return f"{places[-1]}: {text}"[:LONGEST_FAILURE] if places else text


def failure_in_words(error: BaseException) -> str:
    """Return why a program failed: which field of which answer, what was wanted and what came."""
    if not isinstance(error, dspy.AdapterParseError):
        return f"{type(error).__name__}: {error}"[:LONGEST_FAILURE]
    wanted = list(error.signature.output_fields)
    answer = " ".join(str(error.lm_response).split())
    quoted = answer if len(answer) <= LONGEST_ANSWER else answer[:LONGEST_ANSWER] + " …"
    return f"{_field_failure(error, wanted)}; wanted the fields {', '.join(wanted)}; the model wrote: {quoted}"[
        :LONGEST_FAILURE
    ]


def _field_failure(error: Any, wanted: list[str]) -> str:
    text = str(error.message)
    named = _NAMED_FIELD.match(text)
    if named is not None and named.group(1) in wanted:
        detail = _DETAIL.search(text)
        reason = " ".join(detail.group(1).split())[:LONGEST_ANSWER] if detail is not None else "it has another type"
        return f"the field {named.group(1)} could not be read: {reason}"
    parsed = error.parsed_result or {}
    missing = [name for name in wanted if name not in parsed]
    if parsed and missing:
        return f"the answer lacks the field{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    return f"the answer is not in the format that {error.adapter_name} reads"
