"""Runs ahead of DSPy's bootstrapping, which asks the teacher one example at a time, and tells how far it is.

The teacher is run on the next examples at once, in threads, for the ledger's sake alone: when DSPy comes to an
example, the ledger knows the answers or waits for the call that is under way. What DSPy does stays as it is.

How far ahead: while n demos are still missing, the next n examples are needed whatever comes, for each gives one demo
at most. Running those ahead never pays for a call that DSPy would not have made. `extra` goes further than that; each
example of it that DSPy does not come to has cost the calls of one run of the teacher.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import dspy
from dspy.teleprompt.bootstrap import BootstrapFewShot

from dspy_optimization.adapters.dspy.latch import LatchedRun
from dspy_optimization.algorithms.problem import Progress


class BootstrapAhead:
    """Takes every bootstrapping of one search ahead; the optimizers that bootstrap may be nested in others."""

    def __init__(self, run: LatchedRun, pool: ThreadPoolExecutor | None, *, extra: int = 0) -> None:
        self._run = run
        self._pool = pool
        self._extra = extra
        self._sets = 0

    def install(self, optimizer: BootstrapFewShot) -> None:
        """Stand in front of the one method with which this optimizer asks its teacher."""
        self._sets += 1
        step = _Bootstrapping(
            optimizer,
            optimizer._bootstrap_one_example,  # noqa: SLF001 - DSPy has no other seam here
            name=f"bootstrap set {self._sets}",
            report=self._run.report,
            pool=self._pool,
            extra=self._extra,
        )
        optimizer._bootstrap_one_example = step  # noqa: SLF001


class _Bootstrapping:
    """One bootstrapping: called by DSPy with each example in turn."""

    def __init__(
        self,
        optimizer: BootstrapFewShot,
        one_example: Callable[[dspy.Example, int], object],
        *,
        name: str,
        report: Callable[[Progress], None],
        pool: ThreadPoolExecutor | None,
        extra: int,
    ) -> None:
        self._optimizer = optimizer
        self._one_example = one_example
        self._name = name
        self._report = report
        self._pool = pool
        self._extra = extra
        self._met = 0
        self._taken = 0
        self._demos = 0

    def __call__(self, example: dspy.Example, round_idx: int = 0) -> bool:
        """Return whether the example gave a demo."""
        if round_idx == 0:
            self._met += 1
            self._take_ahead()
        success = bool(self._one_example(example, round_idx))
        self._demos += success
        self._report(
            Progress(
                phase=self._name,
                iteration=self._met,
                iterations=len(self._optimizer.trainset),
                data={"demos": self._demos, "wanted": self._optimizer.max_bootstrapped_demos, "round": round_idx + 1},
            )
        )
        return success

    def _take_ahead(self) -> None:
        if self._pool is None:
            return
        trainset = self._optimizer.trainset
        missing = self._optimizer.max_bootstrapped_demos - self._demos
        until = min(len(trainset), self._met - 1 + missing + self._extra)
        self._taken = max(self._taken, self._met)
        for example in trainset[self._taken : until]:
            self._taken += 1
            self._pool.submit(copy_context().run, _ask, self._teacher_for(example), example, self._optimizer)

    def _teacher_for(self, example: dspy.Example) -> dspy.Module:
        """Return a copy of the teacher as DSPy will ask it: without this very example among its demos."""
        teacher = self._optimizer.teacher.deepcopy()
        for _, predictor in teacher.named_predictors():
            predictor.demos = [demo for demo in predictor.demos if demo != example]
        return teacher


def _ask(teacher: dspy.Module, example: dspy.Example, optimizer: BootstrapFewShot) -> None:
    with dspy.context(trace=[], **optimizer.teacher_settings):
        teacher(**example.inputs())
