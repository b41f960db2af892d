"""MIPROv2: proposes instructions and demo sets, then searches their combinations.

Neighbours' habits that this module answers to (dspy 3.4.1):

- `compile(seed=0)` silently becomes seed 9 (dspy#10321); the constructor's seed is the one that holds.
- A small space, each combination of which has been fully evaluated, ends in a ValueError that loses the whole search
  (dspy#10219); here the study then stops with the best there is.
- `auto` refuses any other number; without `auto` all are wanted. Here what is not given is worked out.
- Bootstrapping draws sizes from 1 to `max_bootstrapped_demos`: 0 fails unless no labelled demos are shown either.
- 80 % of the train split become val unless a val split is given; ours always is.

With `search: racing` DSPy proposes and bootstraps, and its trials do not take place: combinations are drawn, and
`algorithms.racing` finds the best of them.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import dspy.teleprompt.mipro_optimizer_v2 as dspy_miprov2

from dspy_optimization.adapters.dspy.combinations import Combinations, drawn_combinations
from dspy_optimization.adapters.dspy.proposing import ParallelProposer
from dspy_optimization.adapters.dspy.search import NEVER, DspySearch, dspy_search
from dspy_optimization.algorithms.option_checks import above, at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.algorithms.racing import RacePlan, race_on_val
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

EXAMPLES_FOR_PROPOSALS = 3
"""Demos a proposal sees, as many as DSPy shows."""


_AUTO_CANDIDATES = {"light": 6, "medium": 12, "heavy": 18}
_AUTO_VAL = {"light": 100, "medium": 300, "heavy": 1_000}
"""DSPy 3.4.1, `AUTO_RUN_SETTINGS`."""
_AUTO_MINIBATCHES_ABOVE = 50
"""DSPy 3.4.1, `MIN_MINIBATCH_SIZE`."""
RUNS_EACH = 10
"""As many combinations race as leaves so many runs on val for each, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MIPROv2Options:
    """How many instructions and demo sets, how many trials."""

    auto: Literal["light", "medium", "heavy"] | None = None
    """DSPy's own sizes: 6, 12 or 18 candidates and up to 100, 300 or 1000 val examples. Null: light, unless
    `candidates` or `trials` are given."""
    candidates: int | None = None
    """Instructions a component, and demo sets; not together with `auto`. At least 2; null: 6."""
    trials: int | None = None
    """Combinations to try; not together with `auto`. At least 1; null: as DSPy works it out from the candidates."""
    search: Literal["tpe", "racing"] = "tpe"
    """tpe: DSPy's own, trial after trial on random minibatches. racing: all combinations, or as many as leave
    ten runs for each, meet the same val examples, losers drop out, and a response model says who stays; it may take
    as many runs on val as the trials of tpe would, minibatches and full evaluations together."""
    max_bootstrapped_demos: int = 4
    """Demos made of the agent's own successful runs; 0 only together with `max_labeled_demos` 0: instructions alone."""
    max_labeled_demos: int = 4
    """Labelled examples among the demos, at least 0."""
    minibatch_size: int = 35
    """Val examples of a trial, where val is larger than 50 (with `auto`) or than this. At least 1."""
    full_evaluation_steps: int = 5
    """Trials on minibatches between two full evaluations, at least 1."""
    success_score: float | None = None
    """The utility a run needs to serve as a demo. Null: full marks, every metric to maximize at its best value."""
    proposal_temperature: float = 1.0
    """Of the model that proposes, above 0."""
    prefetch: bool = True
    """Run the teacher on coming examples at once; never pays for a call that one by one would not have made."""
    prefetch_extra: int = 0
    """Examples to run ahead beyond those surely needed; each that is not needed has cost one run of the agent."""
    program_aware: bool = True
    """Show the program's source or outline to the model that proposes."""
    data_aware: bool = True
    """Let it summarize the train split first."""
    tip_aware: bool = True
    """Give it a tip drawn at random: be creative, be simple, …"""
    fewshot_aware: bool = True
    """Show it bootstrapped demos."""

    def __post_init__(self) -> None:
        if self.auto is not None and (self.candidates is not None or self.trials is not None):
            given = "candidates" if self.candidates is not None else "trials"
            raise InvalidRequestError(
                f"auto: wanted alone, for it sets candidates and trials; found auto = {self.auto} with {given}; "
                "possible: drop auto, or drop the numbers"
            )
        if self.candidates is not None:
            at_least("candidates", self.candidates, 2)
        if self.trials is not None:
            at_least("trials", self.trials, 1)
        at_least("max_bootstrapped_demos", self.max_bootstrapped_demos, 0)
        at_least("max_labeled_demos", self.max_labeled_demos, 0)
        if self.max_bootstrapped_demos == 0 and self.max_labeled_demos > 0:
            raise InvalidRequestError(
                f"max_bootstrapped_demos: wanted 1 or more while labelled demos are shown; found 0 with "
                f"max_labeled_demos = {self.max_labeled_demos}; possible: both 0 (no demos), or labeled_fewshot"
            )
        at_least("minibatch_size", self.minibatch_size, 1)
        at_least("full_evaluation_steps", self.full_evaluation_steps, 1)
        at_least("prefetch_extra", self.prefetch_extra, 0)
        above("proposal_temperature", self.proposal_temperature, 0)


class MIPROv2:
    """Searches instructions and demos together (Opsahl-Ong et al. 2024, arXiv 2406.11695)."""

    name: ClassVar[str] = "miprov2"
    description: ClassVar[str] = "proposes instructions and demo sets and searches their combinations (TPE)"
    options: ClassVar[type] = MIPROv2Options

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("MIPROv2Options", options)
        candidates, trials = size_of(chosen, shape.n_components)
        bootstraps = candidates * (shape.n_train + chosen.prefetch_extra)
        if chosen.search == "racing":
            # The winner is completed on val.
            on_val = _racing_runs(chosen, trials, shape.n_val) + shape.n_val
        else:
            on_val = (trials + trials // chosen.full_evaluation_steps + 2) * shape.n_val
        summaries = 2 + math.ceil(shape.n_train / 10)
        proposals = candidates * shape.n_components * 3 + (summaries if chosen.data_aware else 0)
        return Forecast(runs=bootstraps + on_val, proposals=proposals)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a combination, minibatches of val too, and submit the best fully evaluated one."""
        options = cast("MIPROv2Options", problem.options)
        with dspy_search(
            problem,
            run,
            self.name,
            success_score=options.success_score,
            prefetch=options.prefetch,
            prefetch_extra=options.prefetch_extra,
        ) as search:
            optimizer, best = _compile(search, options)
            if options.search == "tpe":
                search.submit(best)
        if options.search == "racing":
            _race(problem, run, optimizer)


def _race(problem: Problem, run: SearchRun, optimizer: "_Optimizer") -> None:
    """Race what was proposed, with as many runs on val as trials would have taken, and submit the winner."""
    drawn, evaluations = optimizer.combinations, optimizer.evaluations
    run.report(
        Progress(
            phase="combinations",
            iteration=0,
            data={"combinations": drawn.possible, "drawn": len(drawn.candidates), "evaluations": evaluations},
        )
    )
    if len(drawn.candidates) == 1:
        run.submit(problem.baseline)
        return
    plan = RacePlan(evaluations=evaluations, runs_each=RUNS_EACH)
    found = race_on_val(problem, run, drawn.candidates, plan, features=drawn.features(problem))
    run.report(
        Progress(
            phase="raced",
            iteration=1,
            candidate=found.best,
            data={
                "candidates": len(found.table),
                "evaluations": found.table.cells,
                "still_in": int(found.standing.alive.sum()),
                "surrogate_doubt": found.standing.model,
            },
        )
    )


def runs_of_trials(trials: int, n_val: int, *, minibatch: int | None, full_evaluation_steps: int) -> int:
    """Return how many runs on val DSPy's trials take, with the full evaluations of the default program and between.

    Args:
        trials: to try.
        n_val: val examples.
        minibatch: of a trial; None: all of val, and no full evaluations between.
        full_evaluation_steps: trials between two full evaluations; there is one at the end in any case.
    """
    if minibatch is None:
        return (1 + trials) * n_val
    return trials * minibatch + (1 + math.ceil(trials / full_evaluation_steps)) * n_val


def _racing_runs(options: MIPROv2Options, trials: int, n_val: int) -> int:
    by_hand = options.candidates is not None or options.trials is not None
    seen = n_val if by_hand else min(n_val, _AUTO_VAL[options.auto or "light"])
    minibatches = seen > (options.minibatch_size if by_hand else _AUTO_MINIBATCHES_ABOVE)
    return runs_of_trials(
        trials,
        seen,
        minibatch=min(options.minibatch_size, seen) if minibatches else None,
        full_evaluation_steps=options.full_evaluation_steps,
    )


def size_of(options: MIPROv2Options, n_components: int) -> tuple[int, int]:
    """Return how many candidates a component, and how many trials, by DSPy's own formula where none are given."""
    by_hand = options.candidates is not None or options.trials is not None
    given = 6 if options.candidates is None else options.candidates
    candidates = given if by_hand else _AUTO_CANDIDATES[options.auto or "light"]
    if options.trials is not None:
        return candidates, options.trials
    variables = n_components * (2 if options.max_labeled_demos or options.max_bootstrapped_demos else 1)
    return candidates, int(max(2 * variables * math.log2(candidates), 1.5 * candidates))


def _compile(search: DspySearch, options: MIPROv2Options) -> tuple["_Optimizer", Any]:
    by_hand = options.candidates is not None or options.trials is not None
    candidates = 6 if options.candidates is None else options.candidates
    optimizer = _Optimizer(
        search,
        races=options.search == "racing",
        metric=search.metric,
        prompt_model=search.reflection,
        task_model=dspy_miprov2.dspy.settings.lm,
        max_bootstrapped_demos=options.max_bootstrapped_demos,
        max_labeled_demos=options.max_labeled_demos,
        auto=None if by_hand else options.auto or "light",
        num_candidates=candidates if by_hand else None,
        num_threads=search.threads,
        max_errors=NEVER,
        seed=search.problem.seed,
        init_temperature=options.proposal_temperature,
        track_stats=False,
    )
    trials = options.trials
    if by_hand and trials is None:
        variables = len(search.student.predictors()) * (2 if options.max_labeled_demos else 1)
        trials = int(max(2 * variables * math.log2(candidates), 1.5 * candidates))
    best = optimizer.compile(
        search.student,
        trainset=search.trainset,
        valset=search.valset,
        num_trials=trials if by_hand else None,
        minibatch=len(search.valset) > options.minibatch_size,
        minibatch_size=min(options.minibatch_size, len(search.valset)),
        minibatch_full_eval_steps=options.full_evaluation_steps,
        program_aware_proposer=options.program_aware,
        data_aware_proposer=options.data_aware,
        tip_aware_proposer=options.tip_aware,
        fewshot_aware_proposer=options.fewshot_aware,
    )
    return optimizer, best


class _Optimizer(dspy_miprov2.MIPROv2):
    """DSPy's own, with its proposals asked at once and an end that loses nothing."""

    def __init__(self, search: DspySearch, *, races: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._search = search
        self._races = races
        self.combinations = Combinations(candidates=(search.problem.baseline,), possible=1)
        """With `races`: who may race."""
        self.evaluations = 0
        """With `races`: runs on val that trials would have taken."""

    def _propose_instructions(
        self,
        program: Any,
        trainset: list[Any],
        demo_candidates: Any,
        view_data_batch_size: int,
        program_aware_proposer: bool,
        data_aware_proposer: bool,
        tip_aware_proposer: bool,
        fewshot_aware_proposer: bool,
        num_instruct_candidates: int,
    ) -> dict[int, list[str]]:
        book = self._search.book
        book.begin("instruction proposals")
        proposer = ParallelProposer(
            threads=self._search.threads,
            program=program,
            trainset=trainset,
            prompt_model=self.prompt_model,
            view_data_batch_size=view_data_batch_size,
            program_aware=program_aware_proposer,
            use_dataset_summary=data_aware_proposer,
            use_task_demos=fewshot_aware_proposer,
            num_demos_in_context=EXAMPLES_FOR_PROPOSALS,
            use_tip=tip_aware_proposer,
            set_tip_randomly=tip_aware_proposer,
            use_instruct_history=False,
            set_history_randomly=False,
            rng=self.rng,
            init_temperature=self.init_temperature,
        )
        found = proposer.propose_instructions_for_program(
            trainset=trainset,
            program=program,
            demo_candidates=demo_candidates,
            N=num_instruct_candidates,
            trial_logs={},
        )
        for index, predictor in enumerate(program.predictors()):
            found[index][0] = predictor.signature.instructions
        book.begin(
            "instructions proposed",
            data={"unreadable": len(proposer.failures), "failures": list[Json](proposer.failures[:3])},
        )
        return found

    def _optimize_prompt_parameters(self, program: Any, *args: Any, **kwargs: Any) -> Any:
        instructions, demo_sets, _, valset, trials, minibatch, minibatch_size, steps, _ = args
        if self._races:
            self.evaluations = runs_of_trials(
                trials, len(valset), minibatch=minibatch_size if minibatch else None, full_evaluation_steps=steps
            )
            self.combinations = drawn_combinations(
                program,
                instructions,
                demo_sets,
                self._search.book,
                most=max(2, self.evaluations // RUNS_EACH),
                rng=self._search.problem.rng("miprov2/combinations"),
            )
            return program
        self._search.book.begin("combinations", trials + 1)
        return super()._optimize_prompt_parameters(program, *args, **kwargs)

    def _perform_full_evaluation(
        self,
        trial_num: int,
        adjusted_num_trials: int,
        param_score_dict: dict[str, Any],
        fully_evaled_param_combos: dict[str, Any],
        *others: Any,
    ) -> Any:
        _, _, _, total_calls, _, best_score, best_program, study, instructions, demos = others
        combinations = math.prod(len(one) for one in instructions.values()) * (
            math.prod(len(one) for one in demos.values()) if demos else 1
        )
        if len(fully_evaled_param_combos) >= combinations:
            study.stop()
        if set(param_score_dict) <= set(fully_evaled_param_combos):
            return best_score, best_program, total_calls
        return super()._perform_full_evaluation(
            trial_num, adjusted_num_trials, param_score_dict, fully_evaled_param_combos, *others
        )
