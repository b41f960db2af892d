"""GEPA: reflects on what went wrong and evolves instructions, keeping whatever is best on some example."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import gepa
from dspy.teleprompt.gepa import InstructionProposer
from gepa.strategies.proposal_sampling import IndependentSampling

from dspy_optimization.adapters.dspy.gepa_adapter import SearchAdapter, Texts
from dspy_optimization.adapters.dspy.option_checks import above, at_least
from dspy_optimization.adapters.dspy.search import DspySearch, dspy_search
from dspy_optimization.agents.objective import Direction, Objectives
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.errors import InvalidRequestError

MERGE_EXAMPLES = 5
"""Val examples gepa tries a merged candidate on first."""


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
        above("reflection_temperature", self.reflection_temperature, 0)
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
        runs = shape.n_val + tries * (2 * batch + shape.n_val) + chosen.max_merges * (2 * shape.n_val)
        asked = tries * (shape.n_components if chosen.component_selection == "all" else 1)
        if chosen.max_metric_calls is not None:
            runs = min(runs, chosen.max_metric_calls)
        return Forecast(runs=runs, proposals=asked)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record a trial a candidate, minibatches on train too, and submit the best on val."""
        options = cast("GEPAOptions", problem.options)
        stop = _Stop(options, problem)
        reflection = {"temperature": options.reflection_temperature}
        with dspy_search(problem, run, self.name, reflection_parameters=reflection) as search:
            search.book.begin("evolution")
            width = min(options.proposals_per_iteration, problem.concurrency)
            with ThreadPoolExecutor(width) if width > 1 else nullcontext() as pool:
                proposer = InstructionProposer(max_chars=options.max_instruction_characters)
                adapter = SearchAdapter(search, proposer, pool)
                best = _evolve(search, adapter, options, stop)
            search.submit(adapter.build_program(best))


def _evolve(search: DspySearch, adapter: SearchAdapter, options: GEPAOptions, stop: "_Stop") -> Texts:
    perfect = perfect_utility(search.problem.objectives)
    result = gepa.optimize(
        seed_candidate=adapter.seed_candidate,
        trainset=search.trainset,
        valset=search.valset,
        adapter=adapter,
        candidate_selection_strategy=options.candidate_selection,
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
        callbacks=[_Listener(search, adapter, stop)],
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

    def __init__(self, options: GEPAOptions, problem: Problem) -> None:
        val, minibatch = len(problem.val), min(options.reflection_minibatch_size, len(problem.train))
        reflective = options.proposals_per_iteration * (2 * minibatch + val)
        merging = MERGE_EXAMPLES + val if options.merge else 0
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


class _Listener:
    """Follows gepa's events; gepa logs and drops what it raises, but stops pass."""

    def __init__(self, search: DspySearch, adapter: SearchAdapter, stop: _Stop) -> None:
        self._search = search
        self._adapter = adapter
        self._stop = stop
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
        self._search.run.report(
            Progress(
                phase="iteration",
                iteration=event["iteration"],
                iterations=self._stop.iterations,
                score=max(state.program_full_scores_val_set),
                data={
                    "accepted": event["proposal_accepted"],
                    "candidates": len(state.program_candidates),
                    "metric_calls": state.total_num_evals,
                    "proposals": self._adapter.proposals,
                    "failed_proposals": self._adapter.failed_proposals,
                    "last_failure": self._adapter.last_failure,
                },
            )
        )


class _NoLog:
    def log(self, message: str) -> None:
        """Drop it: everything worth telling is reported."""
