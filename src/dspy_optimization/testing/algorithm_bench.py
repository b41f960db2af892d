"""An algorithm on trial: searches it makes in a small world, and what is seen of each.

A search runs in a thread with a limit. The process is looked at before and after: generators of chance, environment,
folder, standard output, threads.
"""

import contextlib
import functools
import io
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from dspy_optimization.agents.candidate import Candidate, canonical_json, content_hash
from dspy_optimization.algorithms.option_fields import options_from_json
from dspy_optimization.algorithms.problem import Algorithm, Problem
from dspy_optimization.errors import StopSearch
from dspy_optimization.evaluation.model import CallKey, Role
from dspy_optimization.events import Json
from dspy_optimization.optimization.guarded_run import GuardedRun, Refusal
from dspy_optimization.testing.algorithm_world import (
    Models,
    Recorded,
    Trouble,
    World,
    WorldRun,
    build_world,
    world_run,
)
from dspy_optimization.testing.memory_ledger import MemoryLedger

LIMIT_SECONDS = 30.0
"""How long one search in the world may take: it asks models that answer at once."""
END_SECONDS = 5.0
"""How long a search may go on when it has to end."""
_THREAD_SECONDS = 2.0
_OF_LIBRARIES = frozenset({"tqdm_monitor"})
"""Threads that a library begins once a process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One search in the world, from its beginning to its end."""

    error: BaseException | None
    """What it raised, a stop among it; None when it returned."""
    is_over: bool
    """False: it was still going on when its time was up."""
    seconds: float
    asked: Mapping[CallKey, Role]
    """Distinct calls."""
    bodies: str
    """All questions as one text."""
    calls: int
    paid: int
    recorded: tuple[Recorded, ...]
    submitted: tuple[Candidate, ...]
    reports: tuple[tuple[str, int, int | None], ...]
    """Phase, iteration, iterations."""
    told: StopSearch | None
    """The end it was told; None when it never asked for what was to end it."""
    after_end: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    changes: tuple[str, ...]
    """What of the process was different afterwards."""
    generators: tuple[str, ...]
    """States of the global generators of chance at its end; they were others at the beginning of every search."""
    threads: tuple[str, ...]
    """Names of the threads it left."""
    problem_changed: bool
    asked_with_results: Mapping[CallKey, Role]
    """Those, and what measuring the submitted candidates takes."""

    @property
    def content(self) -> tuple[object, ...]:
        """What came of it, whatever the order in which answers came: calls, trials, results."""
        return (
            frozenset(self.asked),
            tuple(sorted(one.content for one in self.recorded)),
            tuple(one.fingerprint for one in self.submitted),
        )

    @property
    def digest(self) -> str:
        """The content as a hash, to be compared with that of another process."""
        calls, trials, results = self.content
        return content_hash([sorted(map(str, calls)) if isinstance(calls, frozenset) else [], repr(trials), results])


class RuleBroken(Exception):  # noqa: N818 - what a rule says, not a defect
    """A rule that is not kept."""

    def __init__(self, wanted: str, found: str, possible: str) -> None:
        super().__init__(f"wanted: {wanted}; found: {found}; possible: {possible}")
        self.wanted, self.found, self.possible = wanted, found, possible


@dataclass(slots=True)
class Bench:
    """One algorithm on trial, with the searches it has made so far."""

    algorithm: Algorithm
    given: Mapping[str, Json]
    """Its options, as in a request."""
    limit_seconds: float = LIMIT_SECONDS
    _world: World | None = None
    _straight: Course | None = None
    _again: Course | None = None
    _searches: int = 0

    @property
    def world(self) -> World:
        """Where it searches."""
        if self._world is None:
            self._world = build_world()
        return self._world

    @property
    def options(self) -> object:
        """Its options."""
        return options_from_json(self.algorithm.name, self.algorithm.options, self.given)

    @property
    def first(self) -> Course:
        """The search without trouble, however it ended."""
        if self._straight is None:
            self._straight = self.search()
        return self._straight

    @property
    def straight(self) -> Course:
        """The search without trouble. Raises `RuleBroken` when it does not end by itself."""
        check_ended(self.first, self.limit_seconds)
        return self.first

    @property
    def again(self) -> Course:
        """The same once more, when everything it needs is imported: libraries change things when they are."""
        if self._again is None:
            _ = self.straight
            self._again = self.search()
        check_ended(self._again, self.limit_seconds)
        return self._again

    def search(
        self,
        trouble: Trouble | None = None,
        *,
        ledger: MemoryLedger | None = None,
        concurrency: int = 4,
        limit_seconds: float | None = None,
    ) -> Course:
        """Search once."""
        trouble = Trouble() if trouble is None else trouble
        world, models = self.world, Models()
        problem = world.problem(self.options, concurrency=concurrency)
        before = _problem_in_json(problem)
        threads = set(threading.enumerate())
        opened = world_run(
            world, ledger if ledger is not None else MemoryLedger(), models, trouble, concurrency=concurrency
        )
        limit = self.limit_seconds if limit_seconds is None else limit_seconds
        with opened as run:
            guard = GuardedRun(run, problem)
            search = _Search(self.algorithm, problem, guard)
            began = time.monotonic()
            self._searches += 1
            with _watching_process(self._searches) as process:
                is_over = search.ended_within(limit, run, guard)
            seconds = time.monotonic() - began
            guard.close()
            asked = {key: role for key, (role, _) in run.asked.items()}
            bodies = "\n".join(canonical_json(dict(request.body)) for _, request in run.asked.values())
            calls, paid = run.calls, models.paid
            if is_over and search.error is None and trouble == Trouble():
                run.complete()
            with_results = {key: role for key, (role, _) in run.asked.items()}
        return Course(
            error=search.error,
            is_over=is_over,
            seconds=seconds,
            asked=asked,
            bodies=bodies,
            calls=calls,
            paid=paid,
            recorded=tuple(run.recorded),
            submitted=tuple(run.submitted),
            reports=tuple((one.phase, one.iteration, one.iterations) for one in run.reports),
            told=run.stop.reason,
            after_end=tuple(run.after_end),
            refusals=tuple(guard.refusals),
            changes=tuple(process.changes),
            generators=process.generators,
            threads=_left_behind(threads) if is_over else (),
            problem_changed=_problem_in_json(problem) != before,
            asked_with_results=with_results,
        )


class _Search:
    """A search in a thread of its own."""

    def __init__(self, algorithm: Algorithm, problem: Problem, run: GuardedRun) -> None:
        self.error: BaseException | None = None
        self._ended = threading.Event()
        self._work = functools.partial(algorithm.search, problem, run)

    def ended_within(self, seconds: float, run: WorldRun, guard: GuardedRun) -> bool:
        """Return whether it ended, in so many seconds or soon after it was told to."""
        thread = threading.Thread(target=self._search, name="search", daemon=True)
        thread.start()
        until = time.monotonic() + seconds
        told = False
        while not self._ended.wait(0.02):
            if run.stop.reason is not None and not told:
                told, until = True, min(until, time.monotonic() + END_SECONDS)
            if time.monotonic() > until:
                guard.close()
                return False
        thread.join()
        return True

    def _search(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()


def check_ended(course: Course, limit_seconds: float) -> None:
    """Raise `RuleBroken` when a search did not return by itself."""
    if not course.is_over:
        raise RuleBroken(
            f"a search of this small task that ends within {limit_seconds:g} s",
            "it goes on",
            "bound every loop by what was asked, or state smaller options for the check in check_options",
        )
    if course.error is not None:
        raise RuleBroken(
            "a search that returns when it is done",
            f"{type(course.error).__name__}: {course.error}",
            "mend what it raises",
        )


def _problem_in_json(problem: Problem) -> str:
    return canonical_json(
        {
            "baseline": problem.baseline.to_json(),
            "train": [one.to_json() for one in problem.train],
            "val": [one.to_json() for one in problem.val],
            "frozen": sorted(problem.frozen),
            "options": repr(problem.options),
            "seed": problem.seed,
        }
    )


def _left_behind(before: set[threading.Thread]) -> tuple[str, ...]:
    until = time.monotonic() + _THREAD_SECONDS
    while True:
        left = [one for one in threading.enumerate() if one not in before and one.name not in _OF_LIBRARIES]
        if not left or time.monotonic() > until:
            return tuple(sorted(one.name for one in left))
        time.sleep(0.02)


@dataclass(slots=True)
class _Process:
    """What a search did to the process it ran in."""

    changes: list[str] = field(default_factory=list)
    generators: tuple[str, ...] = ()
    """States of the global generators at its end."""


@contextlib.contextmanager
def _watching_process(salt: int) -> Iterator[_Process]:
    """Yield what holds what is different about the process when the block has ended.

    The global generators begin from another state each time and are put back: drawing from them is what libraries do,
    to depend on them or to seed them is not for an algorithm.
    """
    watched = _Process()
    silent = io.StringIO()
    errors = sys.stderr
    drawn, numbers = random.getstate(), np.random.get_state(legacy=False)
    random.seed(salt)
    np.random.seed(salt)
    environment, folder = dict(os.environ), os.getcwd()  # noqa: PTH109 - as the process has it
    try:
        with contextlib.redirect_stdout(silent):
            replaced = sys.stdout
            yield watched
            if sys.stdout is not replaced or sys.stderr is not errors:
                watched.changes.append("sys.stdout or sys.stderr")
        if dict(os.environ) != environment:
            watched.changes.append("os.environ")
        if os.getcwd() != folder:  # noqa: PTH109
            watched.changes.append("the working directory")
        if silent.getvalue():
            watched.changes.append("standard output, by printing")
        watched.generators = repr(random.getstate()), repr(np.random.get_state(legacy=False))
    finally:
        random.setstate(drawn)
        np.random.set_state(numbers)
        os.chdir(folder)
        sys.stderr = errors
