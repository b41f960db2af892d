"""Few-shot algorithms: labelled examples as demos, bootstrapped demos, and random search over sets of them."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import dspy
from dspy.teleprompt import BootstrapFewShotWithRandomSearch
from dspy.teleprompt.bootstrap import BootstrapFewShot as DspyBootstrapFewShot
from dspy.teleprompt.vanilla import LabeledFewShot as DspyLabeledFewShot

from dspy_optimization.adapters.dspy.search import NEVER, DspySearch, dspy_search
from dspy_optimization.algorithms.option_checks import at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, SearchRun, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFewShotOptions:
    """What labelled examples to show."""

    demos: int = 4
    """Labelled examples of the train split shown to every component, at least 1."""
    sets: int = 1
    """How many different draws of them to try, at least 1."""

    def __post_init__(self) -> None:
        at_least("demos", self.demos, 1)
        at_least("sets", self.sets, 1)


class LabeledFewShot:
    """Shows labelled examples as they are."""

    name: ClassVar[str] = "labeled_fewshot"
    description: ClassVar[str] = "shows labelled train examples as demos; asks no model to find them"
    options: ClassVar[type] = LabeledFewShotOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("LabeledFewShotOptions", options)
        return Forecast(runs=chosen.sets * shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Submit one candidate a draw; DSPy draws with a fixed seed, so the examples are shuffled by ours."""
        options = cast("LabeledFewShotOptions", problem.options)
        with dspy_search(problem, run, self.name) as search:
            search.book.begin("labelled demos", options.sets)
            for draw in range(options.sets):
                trainset = list(search.trainset)
                problem.rng(f"{self.name}/{draw}").shuffle(trainset)
                program = DspyLabeledFewShot(k=options.demos).compile(search.student, trainset=trainset)
                _measure(search, program)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapOptions:
    """How demos are made."""

    max_bootstrapped_demos: int = 4
    """Demos made of the agent's own successful runs, each component, at least 1."""
    max_labeled_demos: int = 4
    """Demos in all, filled up with labelled examples, at least 0."""
    max_rounds: int = 1
    """Tries an example has; from the second on with a fresh draw at temperature 1. At least 1."""
    success_score: float | None = None
    """The utility a run needs to serve as a demo. Null: full marks, every metric to maximize at its best value."""
    prefetch: bool = True
    """Run the teacher on coming examples at once; never pays for a call that one by one would not have made."""
    prefetch_extra: int = 0
    """Examples to run ahead beyond those surely needed; each that is not needed has cost one run of the agent."""

    def __post_init__(self) -> None:
        at_least("max_bootstrapped_demos", self.max_bootstrapped_demos, 1)
        at_least("max_labeled_demos", self.max_labeled_demos, 0)
        at_least("max_rounds", self.max_rounds, 1)
        at_least("prefetch_extra", self.prefetch_extra, 0)


def bootstrap_runs(options: BootstrapOptions, shape: Shape) -> int:
    """Return how many runs bootstrapping one demo set takes at most."""
    return options.max_rounds * shape.n_train + options.prefetch_extra


class BootstrapFewShot:
    """Shows the agent its own successful runs."""

    name: ClassVar[str] = "bootstrap_fewshot"
    description: ClassVar[str] = "runs the agent on train examples and shows its successful runs as demos"
    options: ClassVar[type] = BootstrapOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("BootstrapOptions", options)
        return Forecast(runs=bootstrap_runs(chosen, shape) + shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Submit the one candidate there is."""
        options = cast("BootstrapOptions", problem.options)
        with _bootstrap_search(problem, run, self.name, options) as search:
            trainset = list(search.trainset)
            problem.rng(self.name).shuffle(trainset)
            optimizer = DspyBootstrapFewShot(
                metric=search.metric,
                max_bootstrapped_demos=options.max_bootstrapped_demos,
                max_labeled_demos=options.max_labeled_demos,
                max_rounds=options.max_rounds,
                max_errors=NEVER,
            )
            program = optimizer.compile(search.student, trainset=trainset)
            search.book.begin("demos", 1)
            _measure(search, program)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSearchOptions(BootstrapOptions):
    """How many sets of demos are tried."""

    candidates: int = 8
    """Random sets; beside them no demos, labelled ones and the unshuffled set are tried. At least 1."""

    def __post_init__(self) -> None:
        BootstrapOptions.__post_init__(self)
        at_least("candidates", self.candidates, 1)


class BootstrapRandomSearch:
    """Tries many sets of bootstrapped demos."""

    name: ClassVar[str] = "bootstrap_random_search"
    description: ClassVar[str] = "bootstraps many random sets of demos and compares them on val"
    options: ClassVar[type] = RandomSearchOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("RandomSearchOptions", options)
        sets = chosen.candidates + 1
        return Forecast(runs=sets * bootstrap_runs(chosen, shape) + (chosen.candidates + 3) * shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a set and submit the best."""
        options = cast("RandomSearchOptions", problem.options)
        with _bootstrap_search(problem, run, self.name, options) as search:
            # DSPy seeds each set with its own number; the order of the examples is where our seed comes in.
            trainset = list(search.trainset)
            problem.rng(self.name).shuffle(trainset)
            search.book.begin("random search", options.candidates + 3)
            optimizer = BootstrapFewShotWithRandomSearch(
                metric=search.metric,
                max_bootstrapped_demos=options.max_bootstrapped_demos,
                max_labeled_demos=options.max_labeled_demos,
                max_rounds=options.max_rounds,
                num_candidate_programs=options.candidates,
                num_threads=search.threads,
                max_errors=NEVER,
            )
            search.submit(optimizer.compile(search.student, trainset=trainset, valset=search.valset))


def _bootstrap_search(
    problem: Problem, run: SearchRun, name: str, options: BootstrapOptions
) -> AbstractContextManager[DspySearch]:
    return dspy_search(
        problem,
        run,
        name,
        success_score=options.success_score,
        prefetch=options.prefetch,
        prefetch_extra=options.prefetch_extra,
    )


def _measure(search: DspySearch, program: Any) -> None:
    """Evaluate a program on val (that records its trial) and submit it."""
    dspy.Evaluate(devset=search.valset, metric=search.metric, num_threads=search.threads, max_errors=NEVER)(program)
    search.submit(program)
