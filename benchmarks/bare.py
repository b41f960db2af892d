"""The alternative: DSPy's optimizers as anybody would call them, with a count of what they paid."""

import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from benchmarks.speller import INSTRUCTIONS


def exact(example: Any, prediction: Any, *_: object) -> float:
    """Return 1.0 for the right word; takes DSPy's 2-, 3- and 5-argument forms."""
    return float(example.answer == getattr(prediction, "answer", None))


def explained(gold: Any, prediction: Any, *_others: object, **_more: object) -> Any:
    """Return score and feedback, as GEPA wants them."""
    score = exact(gold, prediction)
    said = getattr(prediction, "answer", None)
    return dspy.Prediction(score=score, feedback="Right." if score else f"Expected {gold.answer}, found {said}.")


def _five(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    return explained(gold, pred, trace, pred_name, pred_trace)


ROUNDED = 1e-3
"""DSPy rounds scores to a hundredth of a per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Examples as DSPy takes them."""

    train: list[Any]
    val: list[Any]


@dataclass(slots=True)
class Curve:
    """(calls paid so far, val score) of every candidate that was measured on all of val."""

    points: list[tuple[int, float]] = field(default_factory=list)

    def first_at(self, score: float) -> int | None:
        """Return the calls paid when a candidate first reached the score; None: none did."""
        return next((calls for calls, found in self.points if found >= score - ROUNDED), None)

    def best_at(self, calls: int) -> float | None:
        """Return the best score measured until so many calls were paid; None: none was."""
        return max((found for paid, found in self.points if paid <= calls), default=None)


class _Watch(BaseCallback):  # type: ignore[misc]  # DSPy ships no types
    """Notes evaluations of the whole val split."""

    def __init__(self, val: Sequence[Any], paid: Callable[[], int], curve: Curve) -> None:
        self._val = list(val)
        self._paid = paid
        self._curve = curve
        self._open: set[str] = set()

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        devset = inputs.get("devset") or instance.devset
        if len(devset) == len(self._val) and devset[0] is self._val[0]:
            self._open.add(call_id)

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if call_id in self._open and exception is None:
            self._curve.points.append((self._paid(), float(getattr(outputs, "score", outputs)) / 100))

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        """Note gepa's own evaluations, which are no `dspy.Evaluate`."""
        self._curve.points.append((self._paid(), float(event["average_score"])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """One run of one optimizer of DSPy."""

    program: Any
    curve: Curve
    calls: int


def student() -> Any:
    """Return the program that everybody starts from."""
    return dspy.Predict(dspy.Signature("word -> answer", INSTRUCTIONS))


def run_bare(
    name: str, split: Split, base_url: str, seed: int, *, cache: bool, threads: int, paid: Callable[[], int]
) -> Bare:
    """Run a named optimizer with the options of `repeats.OPTIONS`.

    Args:
        name: as the engine calls it.
        split: train and val.
        base_url: of the model server.
        seed: of the search.
        cache: DSPy's own, in memory and empty at the start.
        threads: examples in flight.
        paid: how many calls the server answered so far.
    """
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=cache)
    task = dspy.LM("openai/fake", api_base=base_url, api_key="none", cache=cache, temperature=0.0)
    prompt = dspy.LM("openai/fake", api_base=base_url, api_key="none", cache=cache, temperature=1.0)
    before = paid()
    curve = Curve()
    watch = _Watch(split.val, lambda: paid() - before, curve)
    with hushed(), dspy.context(lm=task, callbacks=[watch]):
        program = _OPTIMIZERS[name](split, prompt, task, seed, threads, watch)
    return Bare(program=program, curve=curve, calls=paid() - before)


def score_on(program: Any, examples: Sequence[Any], base_url: str, threads: int) -> float:
    """Return the mean score of a program, in [0, 1]; these calls belong to nobody."""
    task = dspy.LM("openai/fake", api_base=base_url, api_key="none", cache=False, temperature=0.0)
    with hushed(), dspy.context(lm=task):
        found = dspy.Evaluate(devset=list(examples), metric=exact, num_threads=threads)(program)
    return float(found.score) / 100


def _random_search(split: Split, _prompt: Any, _task: Any, seed: int, threads: int, _watch: Any) -> Any:
    trainset = list(split.train)
    random.Random(seed).shuffle(trainset)  # it takes no seed: the order of the examples is where chance comes in
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=exact, max_bootstrapped_demos=4, max_labeled_demos=4, num_candidate_programs=8, num_threads=threads
    )
    return optimizer.compile(student(), trainset=trainset, valset=split.val)


def _miprov2(split: Split, prompt: Any, task: Any, seed: int, threads: int, _watch: Any) -> Any:
    optimizer = dspy.MIPROv2(
        metric=exact, prompt_model=prompt, task_model=task, auto="light", num_threads=threads, seed=seed
    )
    return optimizer.compile(student(), trainset=split.train, valset=split.val)


def _gepa(split: Split, prompt: Any, _task: Any, seed: int, threads: int, watch: Any) -> Any:
    optimizer = dspy.GEPA(
        metric=_five,
        max_metric_calls=600,
        reflection_lm=prompt,
        num_threads=threads,
        seed=seed,
        gepa_kwargs={"callbacks": [watch]},
    )
    return optimizer.compile(student(), trainset=split.train, valset=split.val)


def _simba(split: Split, prompt: Any, _task: Any, seed: int, threads: int, _watch: Any) -> Any:
    optimizer = dspy.SIMBA(
        metric=exact, bsize=16, num_candidates=4, max_steps=4, prompt_model=prompt, num_threads=threads
    )
    return optimizer.compile(student(), trainset=split.train, seed=seed)


def _copro(split: Split, prompt: Any, _task: Any, seed: int, threads: int, _watch: Any) -> Any:
    trainset = list(split.train)
    random.Random(seed).shuffle(trainset)
    optimizer = dspy.COPRO(prompt_model=prompt, metric=exact, breadth=6, depth=3)
    settings = {"num_threads": threads, "display_progress": False, "display_table": 0}
    return optimizer.compile(student(), trainset=trainset, eval_kwargs=settings)


_OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    "bootstrap_random_search": _random_search,
    "miprov2": _miprov2,
    "gepa": _gepa,
    "simba": _simba,
    "copro": _copro,
}


@contextmanager
def hushed() -> Iterator[None]:
    """Keep DSPy's prints, bars and log lines away from the tables."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
