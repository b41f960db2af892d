"""GEPA: reflects on what went wrong and evolves instructions, keeping whatever is best on some example."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import gepa
from dspy.teleprompt.gepa import InstructionProposer
from gepa.strategies.proposal_sampling import IndependentSampling

from dspy_optimization.adapters.dspy.gepa_adapter import SearchAdapter, Texts
from dspy_optimization.adapters.dspy.gepa_blocks import ValBlocks
from dspy_optimization.adapters.dspy.search import DspySearch, dspy_search
from dspy_optimization.agents.objective import Direction, Objectives
from dspy_optimization.algorithms.option_checks import above, at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.algorithms.racing import RacePlan, race_on_val
from dspy_optimization.errors import InvalidRequestError, StopSearch
from dspy_optimization.events import Json

MERGE_EXAMPLES = 5
"""Val examples gepa tries a merged candidate on first."""
FINALISTS = 12
"""Candidates that are raced at the end, with `evaluation: racing`."""
COMPLETED = 4
"""The race may take as many runs as completing so many of them on val does."""
RACE_SHARE = 0.2
"""Share of all runs that is kept for that, if so many are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GEPAOptions:
    """How far and how wide to evolve."""

    iterations: int = 30
    """Iterations at most; each makes `proposals_per_iteration` proposals. At least 1."""
    max_metric_calls: int | None = None
    """Runs of the agent at most, repeats counted; an iteration that might exceed it is not begun. Null: no cap."""
    reflection_minibatch_size: int = 3
    """Train examples a proposal is made from and tried on first, at least 1."""
    proposals_per_iteration: int = 1
    """Proposals made at once, each from a parent and a minibatch of its own. At least 1."""
    candidate_selection: Literal["pareto", "current_best"] = "pareto"
    """Parents: whatever is best on some val example, or always the best so far."""
    component_selection: Literal["round_robin", "all"] = "round_robin"
    """Which components a proposal changes."""
    frontier: Literal["instance", "objective", "hybrid", "cartesian"] = "instance"
    """Best on what: an example, an objective, either, or an objective on an example."""
    evaluation: Literal["full", "racing"] = "full"
    """full: accepted children are run on all of val. racing: on `val_block` examples of it, of which half are the same
    for all; a response model expects the rest, as far as it can be believed. The best dozen are raced on the rest of
    val at the end, or with the last fifth of the calls. Goes with `frontier: instance`."""
    val_block: int = 20
    """With `evaluation: racing`, val examples an accepted child is run on; at least 2."""
    skip_perfect_minibatches: bool = True
    """Propose nothing where the parent has full marks already."""
    merge: bool = True
    """Try to merge two good candidates component by component; does nothing with a single component."""
    max_merges: int = 5
    """Merges at most, at least 0."""
    reflection_temperature: float = 1.0
    """Of the model that proposes, above 0: the same minibatch is to give other proposals."""
    max_instruction_characters: int | None = None
    """A longer proposal is shortened by the model once, then dropped. Null: any length."""

    def __post_init__(self) -> None:
        at_least("iterations", self.iterations, 1)
        at_least("reflection_minibatch_size", self.reflection_minibatch_size, 1)
        at_least("proposals_per_iteration", self.proposals_per_iteration, 1)
        at_least("max_merges", self.max_merges, 0)
        at_least("val_block", self.val_block, 2)
        above("reflection_temperature", self.reflection_temperature, 0)
        if self.evaluation == "racing" and self.frontier != "instance":
            raise InvalidRequestError(
                f"frontier: wanted: instance, for children that are run on a part of val; found: {self.frontier} with "
                "evaluation: racing; possible: frontier: instance, or evaluation: full"
            )
        if self.max_instruction_characters is not None:
            at_least("max_instruction_characters", self.max_instruction_characters, 1)


class GEPA:
    """Evolves instructions by reflection (Agrawal et al. 2025, arXiv 2507.19457), through gepa 0.1.4."""

    name: ClassVar[str] = "gepa"
    description: ClassVar[str] = "reflects on failures and evolves instructions; demos stay as they are"
    options: ClassVar[type] = GEPAOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("GEPAOptions", options)
        tries = chosen.iterations * chosen.proposals_per_iteration
        batch = chosen.reflection_minibatch_size
        block = shape.n_val if chosen.evaluation == "full" else min(chosen.val_block, shape.n_val)
        runs = shape.n_val + tries * (2 * batch + block) + chosen.max_merges * (2 * shape.n_val)
        runs += COMPLETED * (shape.n_val - block)
        asked = tries * (shape.n_components if chosen.component_selection == "all" else 1)
        if chosen.max_metric_calls is not None:
            runs = min(runs, chosen.max_metric_calls)
        return Forecast(runs=runs, proposals=asked)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a candidate, minibatches on train too, and submit the best on val."""
        options = cast("GEPAOptions", problem.options)
        if options.evaluation == "full":
            with _searching(problem, run, options) as (search, adapter):
                best = _evolve(search, adapter, options, _Stop(options, problem), None)
                search.submit(adapter.build_program(best))
            return
        stop = _RacingStop(options, problem, run)
        greedy = options.candidate_selection == "current_best"
        perfect = perfect_utility(problem.objectives) if options.skip_perfect_minibatches else None
        blocks = ValBlocks(problem, run, block=options.val_block, greedy=greedy, perfect=perfect)
        try:
            with _searching(problem, run, options) as (search, adapter):
                blocks.serve(adapter)
                _evolve(search, adapter, options, stop, blocks)
                trials = search.book.written
        except StopSearch:
            for best_so_far in blocks.best(1):
                run.submit(best_so_far)
            raise
        _race(problem, run, blocks, stop.runs_for_race, trials + 1)


@contextmanager
def _searching(problem: Problem, run: SearchRun, options: GEPAOptions) -> Iterator[tuple[DspySearch, SearchAdapter]]:
    reflection = {"temperature": options.reflection_temperature}
    with dspy_search(problem, run, GEPA.name, reflection_parameters=reflection) as search:
        search.book.begin("evolution")
        width = min(options.proposals_per_iteration, problem.concurrency)
        with ThreadPoolExecutor(width) if width > 1 else nullcontext() as pool:
            proposer = InstructionProposer(max_chars=options.max_instruction_characters)
            yield search, SearchAdapter(search, proposer, pool)


def _race(problem: Problem, run: SearchRun, blocks: ValBlocks, evaluations: int, iteration: int) -> None:
    """Race the best on what they have not met of val, and submit the winner."""
    finalists = blocks.best(FINALISTS)
    if len(finalists) < 2 or evaluations < 1:
        run.submit(finalists[0])
        return
    plan = RacePlan(evaluations=evaluations, known=blocks.results, iteration=iteration)
    found = race_on_val(problem, run, finalists, plan)
    run.report(
        Progress(
            phase="raced",
            iteration=iteration,
            candidate=found.best,
            data={
                "candidates": len(found.table),
                "evaluations": found.table.cells,
                "still_in": int(found.standing.alive.sum()),
                "surrogate_doubt": found.standing.model,
            },
        )
    )


def _evolve(
    search: DspySearch, adapter: SearchAdapter, options: GEPAOptions, stop: "_Stop", blocks: ValBlocks | None
) -> Texts:
    perfect = perfect_utility(search.problem.objectives)
    listener = _Listener(search, adapter, stop, blocks)
    result = gepa.optimize(
        seed_candidate=adapter.seed_candidate,
        trainset=search.trainset,
        valset=search.valset,
        adapter=adapter,
        candidate_selection_strategy=options.candidate_selection if blocks is None else blocks,
        val_evaluation_policy=blocks,
        selection_strategy=blocks,
        frontier_type=options.frontier,
        skip_perfect_score=options.skip_perfect_minibatches and perfect is not None,
        perfect_score=perfect,
        reflection_minibatch_size=options.reflection_minibatch_size,
        module_selector=options.component_selection,
        use_merge=options.merge and len(adapter.seed_candidate) > 1 and options.max_merges > 0,
        max_merge_invocations=options.max_merges,
        stop_callbacks=[stop],
        sampling_strategy=(
            IndependentSampling(options.proposals_per_iteration) if options.proposals_per_iteration > 1 else None
        ),
        logger=_NoLog(),
        run_dir=None,
        callbacks=[listener] if blocks is None else [listener, blocks],
        track_best_outputs=False,
        display_progress_bar=False,
        # 0.1.4 keys its cache by positions that train and val share (gepa#424); the ledger does that work.
        cache_evaluation=False,
        seed=search.problem.seed,
        raise_on_exception=True,
    )
    return cast("Texts", result.best_candidate)


def perfect_utility(objectives: Objectives) -> float | None:
    """Return the utility of full marks; None where a metric to minimize has no best value."""
    goals = [item for item in objectives.items if not item.guardrail]
    if any(item.direction is Direction.MINIMIZE for item in goals):
        return None
    total = sum(item.weight for item in goals)
    return sum(item.weight * objectives.ceilings.get(item.metric, 1.0) for item in goals) / total - 1e-9


class _Stop:
    """Says before each iteration whether it may begin."""

    def __init__(self, options: GEPAOptions, problem: Problem, *, child: int | None = None) -> None:
        """Take what an iteration runs at most; `child` is on how many val examples an accepted one is, None: on all."""
        val, minibatch = len(problem.val), min(options.reflection_minibatch_size, len(problem.train))
        block = val if child is None else child
        reflective = options.proposals_per_iteration * (2 * minibatch + block)
        merging = MERGE_EXAMPLES + block if options.merge else 0
        self._most = max(reflective, merging)
        self.iterations = options.iterations
        self.budget = math.inf if options.max_metric_calls is None else options.max_metric_calls
        if self.budget < val + self._most:
            raise InvalidRequestError(
                f"gepa: max_metric_calls: wanted {val + self._most} or more, for {val} val examples and one iteration "
                f"of {self._most} runs at most; found {self.budget:g}; possible: a higher cap, a smaller val split, "
                "fewer proposals_per_iteration"
            )

    def __call__(self, state: Any) -> bool:
        """Return whether to stop: an iteration more might exceed the cap, or all are done."""
        return bool(state.i + 1 >= self.iterations or state.total_num_evals + self._most > self.budget)


class _RacingStop(_Stop):
    """The same, and leaves the race its share of the runs."""

    def __init__(self, options: GEPAOptions, problem: Problem, run: SearchRun) -> None:
        block = min(options.val_block, len(problem.val))
        super().__init__(options, problem, child=block)
        self._run = run
        self._calls = run.calls_left
        self._asked = options.proposals_per_iteration * (
            len(problem.baseline.components) if options.component_selection == "all" else 1
        )
        self._wanted = COMPLETED * (len(problem.val) - block)
        self._calls_a_run: float | None = None
        self._evaluated = 0

    def __call__(self, state: Any) -> bool:
        """Return whether to stop: all iterations are done, or one more might take what the race needs."""
        self._evaluated = state.total_num_evals
        if self._calls_a_run is None:
            # Only the first candidate was run until now.
            taken = 0 if self._calls is None or self._run.calls_left is None else self._calls - self._run.calls_left
            self._calls_a_run = max(taken / self._evaluated, 1.0)
        bound = self.budget if self._calls is None else min(self.budget, self._calls / self._calls_a_run)
        kept = min(self._wanted, RACE_SHARE * bound)
        most = self._most + self._asked / self._calls_a_run
        return bool(state.i + 1 >= self.iterations or self._left < most + kept)

    @property
    def runs_for_race(self) -> int:
        """How many runs the race may take."""
        return int(min(self._left, self._wanted))

    @property
    def _left(self) -> float:
        """How many runs there may still be; infinite without a cap."""
        calls = self._run.calls_left
        left = self.budget - self._evaluated
        return left if calls is None else min(left, calls / (self._calls_a_run or 1.0))


class _Listener:
    """Follows gepa's events; gepa logs and drops what it raises, but stops pass."""

    def __init__(
        self, search: DspySearch, adapter: SearchAdapter, stop: _Stop, blocks: ValBlocks | None = None
    ) -> None:
        self._search = search
        self._adapter = adapter
        self._stop = stop
        self._blocks = blocks
        self._pool: dict[int, Texts] = {}

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        """Remember who has which number."""
        self._pool[event["candidate_idx"]] = event["candidate"]

    def on_proposal_start(self, event: Mapping[str, Any]) -> None:
        """Begin the proposal: gepa says what it will ask for before it asks for any."""
        self._adapter.propose_ahead(event["parent_candidate"], event["reflective_dataset"], event["components"])

    def on_merge_attempted(self, event: Mapping[str, Any]) -> None:
        """Note the parents of a merged candidate."""
        self._adapter.descend(event["merged_candidate"], [self._pool[index] for index in event["parent_ids"]])

    def on_iteration_end(self, event: Mapping[str, Any]) -> None:
        """Report the iteration."""
        state = event["state"]
        if self._blocks is None:
            score, more = max(state.program_full_scores_val_set), dict[str, Json]()
        else:
            score, examples = self._blocks.measured(state)
            more = {"examples": examples, "surrogate_doubt": self._blocks.doubt}
        self._search.run.report(
            Progress(
                phase="iteration",
                iteration=event["iteration"],
                iterations=self._stop.iterations,
                score=score,
                data={
                    "accepted": event["proposal_accepted"],
                    "candidates": len(state.program_candidates),
                    "metric_calls": state.total_num_evals,
                    "proposals": self._adapter.proposals,
                    "failed_proposals": self._adapter.failed_proposals,
                    "last_failure": self._adapter.last_failure,
                    **more,
                },
            )
        )


class _NoLog:
    def log(self, message: str) -> None:
        """Drop it: everything worth telling is reported."""
