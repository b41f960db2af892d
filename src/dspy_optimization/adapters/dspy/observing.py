"""Listens to DSPy: evaluations become trials, bootstrapping is taken ahead.

DSPy logs and drops what a callback raises, unless it is no `Exception`: stops pass.
"""

import threading
from typing import Any

from dspy.teleprompt.bootstrap import BootstrapFewShot
from dspy.utils.callback import BaseCallback

from dspy_optimization.adapters.dspy.prefetching import BootstrapAhead
from dspy_optimization.adapters.dspy.scoring import Scored, split_of
from dspy_optimization.adapters.dspy.trial_book import TrialBook
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Split


class SearchObserver(BaseCallback):
    """The one callback of a search. Thread-safe."""

    def __init__(self, book: TrialBook, ahead: BootstrapAhead) -> None:
        self._book = book
        self._ahead = ahead
        self._lock = threading.Lock()
        self._evaluations: dict[str, tuple[Candidate, Split]] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note whose evaluation begins: optimizers may change the program afterwards."""
        devset = inputs.get("devset") or instance.devset
        with self._lock:
            self._evaluations[call_id] = (self._book.candidate(inputs["program"]), split_of(devset[0]))

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Keep the trial of a finished evaluation."""
        with self._lock:
            candidate, split = self._evaluations.pop(call_id)
        if exception is None and outputs is not None:
            results = [score.result for _, _, score in outputs.results if isinstance(score, Scored)]
            self._book.write(candidate, split, results)

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002
        """Take the bootstrapping of an optimizer ahead, the nested ones of other optimizers too."""
        if isinstance(instance, BootstrapFewShot):
            self._ahead.install(instance)
