"""What every search with one of DSPy's optimizers shares: the student, the examples, the models, the quiet."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_optimization.adapters.dspy.components import freeze
from dspy_optimization.adapters.dspy.engine import LedgerModel
from dspy_optimization.adapters.dspy.latch import LatchedRun
from dspy_optimization.adapters.dspy.observing import SearchObserver
from dspy_optimization.adapters.dspy.prefetching import BootstrapAhead
from dspy_optimization.adapters.dspy.proposal_adapter import ProposalAdapter
from dspy_optimization.adapters.dspy.quiet import quiet
from dspy_optimization.adapters.dspy.run_record import failure_in_words
from dspy_optimization.adapters.dspy.runnable import DspyAgent
from dspy_optimization.adapters.dspy.scoring import BootstrapMetric, dspy_example
from dspy_optimization.adapters.dspy.student import student_of
from dspy_optimization.adapters.dspy.trial_book import TrialBook
from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.problem import Problem, SearchRun
from dspy_optimization.errors import AlgorithmError, InvalidRequestError
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Json

NEVER = 10**9
"""As many errors DSPy may count: what must end a search ends it as a stop, everything else is a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DspySearch:
    """One search under way."""

    problem: Problem
    run: LatchedRun
    student: Any
    trainset: list[Any]
    valset: list[Any]
    metric: BootstrapMetric
    book: TrialBook
    reflection: LedgerModel

    @property
    def threads(self) -> int:
        """How many examples are in flight at once."""
        return self.problem.concurrency

    def submit(self, program: Any) -> None:
        """Name what the program says as a result of the search."""
        self.run.submit(self.book.candidate(program))


@contextmanager
def dspy_search(
    problem: Problem,
    run: SearchRun,
    algorithm: str,
    *,
    success_score: float | None = None,
    prefetch: bool = False,
    prefetch_extra: int = 0,
    reflection_parameters: Mapping[str, Json] | None = None,
) -> Iterator[DspySearch]:
    """Hold a search open: inside, DSPy's calls go through the run, and its noise goes nowhere.

    Args:
        problem: what is to be improved.
        run: where calls, scores and trials go.
        algorithm: whose candidates they are.
        success_score: the utility an answer needs to serve as a demo; None: full marks.
        prefetch: whether bootstrapping is taken ahead in threads (`prefetching`).
        prefetch_extra: examples taken ahead beyond those that are surely needed.
        reflection_parameters: sampling parameters of the model that proposes.
    Raises:
        InvalidRequestError: the agent is no DSPy program, everything is frozen, or there is nothing to learn from.
    """
    agent = _agent(problem)
    program = _program(problem, agent)
    latched = LatchedRun(run)
    book = TrialBook(latched, problem.objectives, algorithm, problem.baseline)
    pool = ThreadPoolExecutor(problem.concurrency) if prefetch and problem.concurrency > 1 else None
    observer = SearchObserver(book, BootstrapAhead(latched, pool, extra=prefetch_extra))
    settings: dict[str, Any] = {
        "trace": None,
        "num_threads": problem.concurrency,
        "max_errors": NEVER,
        "provide_traceback": False,
    }
    try:
        with latched.closing(), quiet(), agent.context(latched, callbacks=[observer], **settings):
            reflection = agent.language_model(latched, Role.REFLECTION)
            student = student_of(
                program,
                latched,
                prices=agent.prices,
                named_prices=agent.named_prices,
                adapter=dspy.settings.adapter,
            )
            with _proposing(algorithm):
                yield DspySearch(
                    problem=problem,
                    run=latched,
                    student=student,
                    trainset=[dspy_example(example, Split.TRAIN) for example in problem.train],
                    valset=[dspy_example(example, Split.VAL) for example in problem.val],
                    metric=BootstrapMetric(latched, problem.objectives, success_score),
                    book=book,
                    reflection=reflection.copy(**reflection_parameters) if reflection_parameters else reflection,
                )
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _proposing(algorithm: str) -> Iterator[None]:
    """Let proposals be read leniently; students bring the agent's own adapter along."""
    try:
        with dspy.context(adapter=ProposalAdapter()):
            yield
    except dspy.AdapterParseError as error:
        raise AlgorithmError(
            f"{algorithm} wanted a proposal of the reflection model and cannot read it: {failure_in_words(error)}; "
            "possible: a stronger model for the role reflection, or an algorithm that asks for none"
        ) from error


def _agent(problem: Problem) -> DspyAgent:
    if not isinstance(problem.runnable, DspyAgent):
        raise InvalidRequestError(
            f"an agent is wanted that runs as a DSPy program, found {problem.agent.name} of kind "
            f"{problem.agent.kind.value}; possible: an algorithm that only needs to run the agent"
        )
    return problem.runnable


def _program(problem: Problem, agent: DspyAgent) -> Any:
    """Return the baseline as a program of its own, frozen parts hidden."""
    program = agent.student(problem.baseline)
    program = freeze(program, problem.frozen - agent.frozen)
    if not program.predictors():
        raise InvalidRequestError(
            f"a component is wanted that may be changed, found that all of {problem.agent.name} are frozen: "
            f"{', '.join(sorted(problem.frozen)) or 'it has none'}; possible: unfreeze one"
        )
    for split, examples in ((Split.TRAIN, problem.train), (Split.VAL, problem.val)):
        if not examples:
            raise InvalidRequestError(
                f"examples are wanted in the {split.value} split, found none; possible: more data, other shares"
            )
    return program
