"""InferRules: bootstraps demos, then writes rules drawn from the examples into the instructions.

Neighbours' habits that this module answers to (dspy 3.4.1):

- It writes instructions into the signature class, which every copy of a program shares: the best candidate ends with
  the rules of the last one, and the program it was given is changed too. Here each candidate has signatures of its own.
- It asks for the rules of one candidate after the other; here all are asked for at once.
- It asks for rules with the bootstrapping teacher's model, an `assert` ends the search when it cannot read them, and it
  keeps no scores. Here the model that proposes is asked, what cannot be read is left out, and every trial is recorded.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import dspy
from dspy.teleprompt import InferRules as DspyInferRules

from dspy_optimization.adapters.dspy.bootstrap import BootstrapOptions, bootstrap_runs
from dspy_optimization.adapters.dspy.search import NEVER, DspySearch, dspy_search
from dspy_optimization.algorithms.option_checks import at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, SearchRun, Shape

_ASKED_TOO_MUCH = (dspy.LMInvalidRequestError,)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRulesOptions(BootstrapOptions):
    """How many sets of rules, how long."""

    candidates: int = 6
    """Sets of rules to try, at least 1."""
    rules: int = 10
    """Rules a set should hold, at least 1."""
    examples_shown: int = 30
    """Train examples the rules are drawn from, at most; fewer where they do not fit the model. At least 1."""

    def __post_init__(self) -> None:
        BootstrapOptions.__post_init__(self)
        at_least("candidates", self.candidates, 1)
        at_least("rules", self.rules, 1)
        at_least("examples_shown", self.examples_shown, 1)


class InferRules:
    """Turns examples into rules."""

    name: ClassVar[str] = "infer_rules"
    description: ClassVar[str] = "bootstraps demos and writes rules induced from train examples into the instructions"
    options: ClassVar[type] = InferRulesOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("InferRulesOptions", options)
        runs = bootstrap_runs(chosen, shape) + (chosen.candidates + 1) * shape.n_val
        return Forecast(runs=runs, proposals=chosen.candidates * shape.n_components)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a set of rules and submit the best."""
        options = cast("InferRulesOptions", problem.options)
        with (
            dspy_search(
                problem,
                run,
                self.name,
                success_score=options.success_score,
                prefetch=options.prefetch,
                prefetch_extra=options.prefetch_extra,
            ) as search,
            ThreadPoolExecutor(problem.concurrency) as pool,
        ):
            trainset = list(search.trainset)
            problem.rng(self.name).shuffle(trainset)
            search.book.begin("rules", options.candidates)
            optimizer = _Optimizer(search, options, pool)
            search.submit(optimizer.compile(search.student, trainset=trainset, valset=search.valset))


class _Optimizer(DspyInferRules):
    """DSPy's own, with rules asked for at once and instructions that stay with their candidate."""

    def __init__(self, search: DspySearch, options: InferRulesOptions, pool: ThreadPoolExecutor) -> None:
        super().__init__(
            num_candidates=options.candidates,
            num_rules=options.rules,
            num_threads=search.threads,
            metric=search.metric,
            max_bootstrapped_demos=options.max_bootstrapped_demos,
            max_labeled_demos=options.max_labeled_demos,
            max_rounds=options.max_rounds,
            max_errors=NEVER,
        )
        self._pool = pool
        self._reflection = search.reflection
        self._rng = search.problem.rng("infer_rules/rollouts")
        self._shown = options.examples_shown
        self._asked: dict[tuple[str, ...], list[Future[str]]] = {}

    def induce_natural_language_rules(self, predictor: Any, trainset: list[Any]) -> str:
        """Return the next set of rules for this predictor; empty where none could be had."""
        fields = tuple(predictor.signature.fields)
        if fields not in self._asked:
            demos = self.get_predictor_demos(trainset, predictor)[: self._shown]
            self._asked[fields] = [
                self._pool.submit(copy_context().run, self._induce, demos, predictor.signature, rollout)
                for rollout in [self._rng.randint(0, 10**9) for _ in range(self.num_candidates)]
            ]
        waiting = self._asked[fields]
        rules = waiting.pop(0).result()
        if not waiting:
            del self._asked[fields]
        return rules

    def update_program_instructions(self, predictor: Any, natural_language_rules: str) -> None:
        """Give the predictor a signature of its own that says the rules."""
        text = str(predictor.signature.instructions)
        if natural_language_rules:
            text += f"\n\nPlease adhere to the following rules when making your prediction:\n{natural_language_rules}"
        predictor.signature = predictor.signature.with_instructions(text)

    def _induce(self, demos: list[dict[str, Any]], signature: Any, rollout: int) -> str:
        lm = self._reflection.copy(rollout_id=rollout, temperature=1.0)
        while demos:
            try:
                with dspy.context(lm=lm):
                    asked = self.rules_induction_program.rules_induction
                    rules = asked(examples_text=self.format_examples(demos, signature)).natural_language_rules
            except _ASKED_TOO_MUCH:
                demos = demos[: len(demos) // 2]
            except dspy.AdapterParseError:
                break
            else:
                return str(rules).strip()
        return ""
