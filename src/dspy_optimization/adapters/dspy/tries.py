"""Agents that try several times: the best of n, and n tries that each learn from the last.

DSPy has both (`dspy.BestOfN`, `dspy.Refine`). Its versions count failures down on the module itself, so that after
enough examples every failure is fatal, deep-copy the program a try, leave frozen parts out of the drawing, print to
stdout and return None when every try failed. These keep their structure (`module.*`, so states load in either) and
mend that.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_optimization.adapters.dspy.json_values import json_object
from dspy_optimization.errors import ProgramError
from dspy_optimization.events import Json

Reward = Callable[[Mapping[str, Json], Mapping[str, Json]], float]
"""(inputs, outputs) → how good, higher is better."""

FAILED_TRY = (dspy.AdapterParseError, dspy.LMInvalidRequestError, ProgramError)
"""What makes one try fail and leaves the others their chance: an answer nobody can read, a refused request."""

HINT = "hint_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """How often to try, and what is good enough."""

    n: int = 3
    threshold: float | None = None
    """A reward that ends the tries; None: always n tries."""
    fail_count: int | None = None
    """How many tries may fail; one more fails the example. None: all but one."""
    temperature: float = 1.0
    """Tries differ only above 0."""


class Advice(dspy.Signature):
    """Say what went wrong in this attempt and what to do differently next time, as concrete advice.

    The next attempt sees the same inputs and your advice, nothing else of this attempt.
    """

    task: str = dspy.InputField(desc="what the attempt was asked to do")
    inputs: dict[str, Any] = dspy.InputField(desc="what the attempt was given")
    outputs: dict[str, Any] = dspy.InputField(desc="what the attempt answered")
    reward: float = dspy.InputField(desc="how good the answer was, higher is better")
    wanted: str = dspy.InputField(desc="how good it has to be")
    advice: str = dspy.OutputField()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    prediction: Any
    reward: float
    trace: list[Any]


class BestOfN(dspy.Module):
    """Tries up to n times, with different draws, and keeps the answer with the highest reward."""

    def __init__(self, module: Any, reward: Reward, trying: Trying) -> None:
        super().__init__()
        self.module = module
        self.reward = reward
        self.trying = trying

    def forward(self, **inputs: Any) -> Any:
        """Return the best answer.

        Raises:
            ProgramError: every try failed, or the reward is no finite number.
        """
        best: _Try | None = None
        failures: list[Exception] = []
        allowed = self.trying.n - 1 if self.trying.fail_count is None else self.trying.fail_count
        last: _Try | None = None
        for number in range(self.trying.n):
            with drawn(self.module, number, self.trying.temperature) as module, self._informed(last, inputs):
                try:
                    last = self._try(module, inputs)
                except FAILED_TRY as error:
                    failures.append(error)
                    if len(failures) > allowed:
                        raise
                    continue
            if best is None or last.reward > best.reward:
                best = last
            if self.trying.threshold is not None and last.reward >= self.trying.threshold:
                break
        if best is None:
            raise ProgramError(f"none of {self.trying.n} tries gave an answer; the last: {failures[-1]}")
        if dspy.settings.trace is not None:
            dspy.settings.trace.extend(best.trace)
        return best.prediction

    def _try(self, module: Any, inputs: Mapping[str, Any]) -> _Try:
        with dspy.context(trace=[]):
            prediction = module(**inputs)
            trace = list(dspy.settings.trace)
        reward = float(self.reward(json_object(inputs), json_object(prediction)))
        if not math.isfinite(reward):
            raise ProgramError(f"the reward of a try is to be a finite number, found {reward}")
        return _Try(prediction=prediction, reward=reward, trace=trace)

    @contextmanager
    def _informed(self, last: _Try | None, inputs: Mapping[str, Any]) -> Iterator[None]:  # noqa: ARG002 - Refine's
        """Enter what a try is told about the last one: nothing."""
        yield


class Refine(BestOfN):
    """Tries up to n times; each try after the first is given advice on the last one's answer."""

    @contextmanager
    def _informed(self, last: _Try | None, inputs: Mapping[str, Any]) -> Iterator[None]:
        advice = None if last is None else self._advice(last, inputs)
        if advice is None:
            yield
            return
        with dspy.context(adapter=hinted(dspy.settings.adapter or dspy.ChatAdapter(), advice)):
            yield

    def _advice(self, last: _Try, inputs: Mapping[str, Any]) -> str | None:
        """Return advice; None when the model gave none that can be read, which costs this try only its hint."""
        threshold = self.trying.threshold
        tasks = [str(predictor.signature.instructions) for predictor, _, _ in last.trace]
        try:
            answer = dspy.Predict(Advice)(
                task="\n\n".join(dict.fromkeys(tasks)),
                inputs=json_object(inputs),
                outputs=json_object(last.prediction),
                reward=last.reward,
                wanted="as high as possible" if threshold is None else f"at least {threshold:g}",
            )
        except FAILED_TRY:
            return None
        return str(answer.advice)


@contextmanager
def drawn(module: Any, number: int, temperature: float) -> Iterator[Any]:
    """Enter a context whose answers are the draw of this number; yield the module to ask in it.

    Predictors that carry an LM of their own (a caller's `set_lm`) do not look at the context: for them the module
    is copied and their LMs are.
    """
    lm = dspy.settings.lm
    own = [predictor.lm for _, predictor in module.named_sub_modules(dspy.Predict) if predictor.lm is not None]
    if own:
        module = module.deepcopy()
        for _, predictor in module.named_sub_modules(dspy.Predict):
            predictor.lm = _draw_of(predictor.lm, number, temperature)
    with dspy.context(lm=_draw_of(lm, number, temperature)):
        yield module


def _draw_of(lm: Any, number: int, temperature: float) -> Any:
    if lm is None:
        return None
    outer = lm.kwargs.get("rollout_id")
    # At most 100 tries: draws inside a draw never meet those of another.
    draw = number if outer is None else (outer + 1) * 1000 + number
    return lm.copy(rollout_id=draw, temperature=temperature)


def hinted(adapter: Any, hint: str) -> Any:
    """Return the adapter that also shows a hint with every prompt; parsing and everything else stay the adapter's."""

    def ask(_: Any, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        told = signature.append(HINT, dspy.InputField(desc="advice from an earlier attempt"))
        # A demo without the field would count as incomplete and be shown with an excuse.
        shown = [{**dict(demo.items()), HINT: "none"} for demo in demos]
        return adapter(lm, lm_kwargs, told, shown, {**inputs, HINT: hint})

    result = copy.copy(adapter)
    result.__class__ = type("Hinted", (type(adapter),), {"__call__": ask})
    return result
