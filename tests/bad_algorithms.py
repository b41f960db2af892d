"""Plug-ins as people write them: one that is right, and one for each thing that goes wrong."""

import ctypes
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.errors import CancelRequested
from dspy_optimization.evaluation.trial import ExampleResult

TEXTS = ("Whisper the word.", "SHOUT the word.", "Say the word twice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TryingOptions:
    """Nothing much."""

    texts: int = 3
    """How many texts are tried, 1 to 3."""


class Trying:
    """Tries a few instructions on val: right in all it does."""

    name: ClassVar[str] = "trying"
    description: ClassVar[str] = "tries a few instructions on val"
    options: ClassVar[type] = TryingOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        return Forecast(runs=cast("TryingOptions", options).texts * shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        found: list[tuple[float, Candidate]] = []
        for number, candidate in enumerate(self.candidates(problem), start=1):
            results = self.measure(problem, run, candidate)
            run.record(candidate, Split.VAL, results, number)
            value = sum(problem.objectives.scalar(one.scores) for one in results)
            found.append((value, candidate))
            run.report(Progress(phase="texts", iteration=number, iterations=self.count(problem)))
        if found:
            run.submit(max(found, key=lambda one: one[0])[1])

    def count(self, problem: Problem) -> int:
        return cast("TryingOptions", problem.options).texts

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        texts = list(TEXTS[: self.count(problem)])
        problem.rng("order").shuffle(texts)
        return [self.saying(problem, text) for text in texts]

    def saying(self, problem: Problem, text: str) -> Candidate:
        parts = {
            name: value if name in problem.frozen else replace(value, instructions=text)
            for name, value in problem.baseline.components.items()
        }
        return Candidate(components=parts, origin=self.name, parents=(problem.baseline.fingerprint,))

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        return run.evaluate(candidate, problem.val)


class Hanging(Trying):
    """Never ends, and asks nothing."""

    def __init__(self, began: Callable[[], None] = lambda: None) -> None:
        self._began = began

    def search(self, problem: Problem, run: SearchRun) -> None:
        self._began()
        while True:
            time.sleep(0.01)


class Exiting(Trying):
    """Ends the process."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        print("goodbye", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(3)


class Leaving(Trying):
    """Ends the program, it thinks."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        sys.exit("I have had enough")


class Crashing(Trying):
    """Crashes in native code."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        ctypes.string_at(0)


class Eating(Trying):
    """Takes all the memory it can get."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        eaten = []
        while True:
            eaten.append(bytearray(64 * 1024 * 1024))


class Swallowing(Trying):
    """Goes on whatever it is told."""

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        try:
            return run.evaluate(candidate, problem.val)
        except:  # noqa: E722
            return ()

    def search(self, problem: Problem, run: SearchRun) -> None:
        for number, candidate in enumerate(self.candidates(problem), start=1):
            results = self.measure(problem, run, candidate)
            if results:
                run.record(candidate, Split.VAL, results, number)
                run.report(Progress(phase="texts", iteration=number))
        run.submit(self.saying(problem, TEXTS[0]))


class Stubborn(Trying):
    """Asks again for ever when it is told to stop."""

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        while True:
            try:
                return run.evaluate(candidate, problem.val)
            except BaseException:  # noqa: BLE001
                time.sleep(0.001)


class Pretending(Trying):
    """Ends the search as if a person had cancelled it."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        raise CancelRequested("a person, surely")


class Seeding(Trying):
    """Makes itself reproducible at the cost of everybody else."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        random.seed(problem.seed)
        np.random.seed(problem.seed)
        return super().candidates(problem)


class Gambling(Trying):
    """Draws from the global generator."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        return [self.saying(problem, f"SHOUT {random.random()}") for _ in range(3)]


class Printing(Trying):
    """Tells it to the terminal."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        print("working")  # noqa: T201
        return super().candidates(problem)


class Setting(Trying):
    """Leaves a mark in the environment."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        os.environ["TRYING"] = str(time.monotonic_ns())
        return super().candidates(problem)


class Hashing(Trying):
    """Takes a set for a list."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        return [self.saying(problem, text) for text in list({f"Say it, way {number}." for number in range(40)})[:3]]


class Racing(Trying):
    """Decides by how many it may ask at once."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        candidates = list(self.candidates(problem))

        def measured(candidate: Candidate) -> None:
            run.record(candidate, Split.VAL, run.evaluate(candidate, problem.val), 1)

        with ThreadPoolExecutor(problem.concurrency) as pool:
            list(pool.map(measured, candidates))
        run.report(Progress(phase="race", iteration=1))
        for candidate in candidates if problem.concurrency == 1 else reversed(candidates):
            run.submit(candidate)


class Littering(Trying):
    """Leaves a thread."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        threading.Thread(target=time.sleep, args=[5], name="left behind", daemon=True).start()
        return super().candidates(problem)


class Cheating(Trying):
    """Records marks that nobody gave."""

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        return tuple(
            replace(one, scores={name: replace(score, value=1.0) for name, score in one.scores.items()})
            for one in run.evaluate(candidate, problem.val)
        )


class Lending(Trying):
    """Records one candidate's results as another's."""

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        return run.evaluate(problem.baseline, problem.val)


class Forging(Trying):
    """Runs on easy examples under the ids of val."""

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        easy: list[Example] = [replace(one, expected={"answer": one.inputs["word"]}) for one in problem.val]
        return run.evaluate(candidate, easy)


class Peeking(Trying):
    """Records on the test split."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        results = run.evaluate(problem.baseline, problem.val)
        run.record(problem.baseline, Split.TEST, results, 1)


class Thawing(Trying):
    """Changes what is frozen."""

    def saying(self, problem: Problem, text: str) -> Candidate:
        parts = {name: replace(value, instructions=text) for name, value in problem.baseline.components.items()}
        return Candidate(components=parts, origin=self.name)


class Adding(Trying):
    """Invents a component."""

    def saying(self, problem: Problem, text: str) -> Candidate:
        made = super().saying(problem, text)
        value = next(iter(made.components.values()))
        return replace(made, components={**made.components, "mine": value})


class Modest(Trying):
    """Forecasts less than it takes."""

    def forecast(self, options: object, shape: Shape) -> Forecast:
        return Forecast(runs=1, proposals=0)


class Silent(Trying):
    """Reports nothing."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        candidate = self.saying(problem, TEXTS[0])
        run.record(candidate, Split.VAL, run.evaluate(candidate, problem.val), 1)


class Idle(Trying):
    """Comes to nothing."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        run.report(Progress(phase="idle", iteration=1))


class Scribbling(Trying):
    """Writes into the problem."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        problem.val[0].inputs["word"] = "mine"  # type: ignore[index]
        return super().candidates(problem)


class Forgetting(Trying):
    """Asks something else when it is begun again."""

    def candidates(self, problem: Problem) -> Sequence[Candidate]:
        return [self.saying(problem, f"SHOUT at {time.monotonic_ns()}")]


class Breaking(Trying):
    """Raises."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        raise ZeroDivisionError("division by zero")


class Spawning(Trying):
    """Leaves a process of its own and hangs."""

    def search(self, problem: Problem, run: SearchRun) -> None:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)


class Guessing(Trying):
    """Scores an answer it made up: the one thing no run can see through; the gate does."""

    def measure(self, problem: Problem, run: SearchRun, candidate: Candidate) -> tuple[ExampleResult, ...]:
        run.evaluate(candidate, problem.val)
        return tuple(
            ExampleResult(
                example_id=one.id, scores=run.score(one, Prediction(outputs=one.expected)), outputs=one.expected
            )
            for one in problem.val
        )
