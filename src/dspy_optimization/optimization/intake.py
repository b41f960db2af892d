"""What is checked before anything is accepted, let alone spent."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from dspy_optimization.agents.checking import DatasetReport, check_dataset
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import InvalidRequestError, NotFoundError
from dspy_optimization.evaluation.agent import AgentBuilder
from dspy_optimization.evaluation.judge import ModelMetric
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.jobs.job import JobId
from dspy_optimization.optimization.choosing import AUTO, Choice, choose
from dspy_optimization.optimization.collaborators import AlgorithmRegistry
from dspy_optimization.optimization.held_back import check_reach
from dspy_optimization.optimization.lesson import Lesson
from dspy_optimization.optimization.policy_reading import WEIGHTS, policy_from_json
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Optimization,
    OptimizationRequest,
    Target,
    TargetType,
)
from dspy_optimization.optimization.situation import Situation, input_length, metric_type
from dspy_optimization.optimization.store import Hook, Stores
from dspy_optimization.statistics import check_reuse, reuse_level


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What somebody wants, before it is checked."""

    agent: AgentConfig
    dataset: Dataset
    sealed: bool = False
    """Whether the dataset was kept before: then nothing that an example in test holds is quoted."""
    objectives: tuple[Objective, ...]
    metrics: tuple[Mapping[str, Json], ...] = ()
    """Specifications of the metrics that the objectives name."""
    algorithms: tuple[AlgorithmChoice, ...] = (AlgorithmChoice(name=AUTO),)
    constraints: Constraints = field(default_factory=Constraints)
    target: TargetType = TargetType.AGENT
    policy: Mapping[str, Json] = field(default_factory=lambda: WEIGHTS)
    """Which candidate goes to the gate; the metrics in it by their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A proposal that can be carried out, and what was found on the way."""

    proposal: Proposal
    algorithms: tuple[AlgorithmChoice, ...]
    """With `auto` settled."""
    reason: str | None
    """Why `auto` stands for these; None when they were named."""
    report: DatasetReport
    situation: Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What happens together with keeping a request."""

    job: JobId | None = None
    also: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Checks proposals and accepts them."""

    stores: Stores
    builder: AgentBuilder
    algorithms: AlgorithmRegistry
    metrics: Callable[[Sequence[Mapping[str, Json]]], Mapping[str, Metric | ModelMetric]]
    check_prices: Callable[[AgentConfig, Constraints], None]
    """Raises `BudgetUnknownError` when a dollar cap is set and a price is not known."""
    can_propose: Callable[[], bool]
    """Whether the reflection model can be trusted to write instructions."""
    lessons: Callable[[], Sequence[Lesson]]
    """What the tenant's newest ended optimizations showed; asked when `auto` has to choose."""
    alpha: float
    """Two-sided level of every claim, in (0, 1)."""
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]

    def check(self, proposal: Proposal) -> Checked:
        """Return the proposal with everything settled that can be settled beforehand.

        Raises:
            InvalidRequestError: the first thing that is wrong, with what is possible.
        """
        agent = self.builder.build(proposal.agent)
        metrics = self.metrics(proposal.metrics)
        _check_objectives(proposal.objectives, metrics)
        policy_from_json(proposal.policy, proposal.objectives)
        report = self.report(proposal.dataset, proposal.agent, proposal.objectives, sealed=proposal.sealed)
        if not report.usable:
            raise InvalidRequestError(report.sentence)
        dataset = proposal.dataset
        check_reach(proposal.constraints.limits, n_val=len(dataset[Split.VAL]), n_test=len(dataset[Split.TEST]))
        self.check_prices(proposal.agent, proposal.constraints)
        optimizable = set(agent.baseline.components) - agent.frozen
        if not optimizable:
            raise InvalidRequestError(
                f"wanted: a component to optimize; found: every component of {proposal.agent.name} is frozen "
                f"({', '.join(sorted(agent.frozen))}); possible: unfreeze one"
            )
        situation = self._situation(proposal, len(optimizable))
        settled = self._settle(proposal, situation)
        algorithms = settled.algorithms if settled is not None else proposal.algorithms
        _check_distinct(algorithms)
        for choice in algorithms:
            self.algorithms.options(choice.name, choice.options)
        return Checked(
            proposal=proposal,
            algorithms=algorithms,
            reason=settled.reason if settled is not None else None,
            report=report,
            situation=situation,
        )

    def report(
        self, dataset: Dataset, agent: AgentConfig, objectives: Sequence[Objective], *, sealed: bool = False
    ) -> DatasetReport:
        """Return what the dataset can prove at the level its test split has left for the next use.

        Args:
            dataset: kept or not.
            agent: it is for.
            objectives: of whoever wants to optimize.
            sealed: as of `check_dataset`.

        Raises:
            InvalidRequestError: the test split was used too often to prove anything.
        """
        use = self.stores.results.test_split_uses([example.id for example in dataset[Split.TEST]]) + 1
        check_reuse(self.alpha, use)
        return check_dataset(dataset, agent, objectives, alpha=reuse_level(self.alpha, use), sealed=sealed)

    def accept(
        self, checked: Checked, submit: Callable[[OptimizationRequest], Submission] | None = None
    ) -> Optimization:
        """Keep agent, dataset and request, and return the queued optimization.

        Args:
            checked: the proposal.
            submit: returns what else has to happen in the same transaction; what that raises undoes the request.
        """
        proposal = checked.proposal
        version = self.stores.agents.add(proposal.agent)
        dataset = self.stores.datasets.add(proposal.dataset)
        request = OptimizationRequest(
            id=OptimizationId(self.new_id()),
            target=Target(type=proposal.target, id=proposal.agent.name, version=version),
            dataset=dataset,
            objectives=proposal.objectives,
            algorithms=checked.algorithms,
            constraints=proposal.constraints,
            metrics=proposal.metrics,
            policy=policy_from_json(proposal.policy, proposal.objectives).to_json(),
            situation=checked.situation,
            created_at=self.now(),
        )
        submission = submit(request) if submit is not None else Submission()
        return self.stores.optimizations.add(request, job=submission.job, also=submission.also)

    def _situation(self, proposal: Proposal, components: int) -> Situation:
        dataset = proposal.dataset
        return Situation(
            kind=proposal.agent.kind,
            n_train=len(dataset[Split.TRAIN]),
            n_val=len(dataset[Split.VAL]),
            n_test=len(dataset[Split.TEST]),
            optimizable_components=components,
            can_propose=self.can_propose(),
            max_lm_calls=proposal.constraints.limits.max_lm_calls,
            metric=metric_type(proposal.objectives, proposal.metrics),
            goals=sum(not objective.guardrail for objective in proposal.objectives),
            input_length=input_length(dataset),
        )

    def _settle(self, proposal: Proposal, situation: Situation) -> Choice | None:
        names = [choice.name for choice in proposal.algorithms]
        if AUTO not in names:
            return None
        if names != [AUTO]:
            raise InvalidRequestError(
                f"algorithms: wanted: auto alone, or names; found: {', '.join(names)}; possible: leave auto out"
            )
        if proposal.algorithms[0].options:
            raise InvalidRequestError(
                f"algorithms: auto takes no options; found: {', '.join(proposal.algorithms[0].options)}; possible: "
                "name the algorithm they are for"
            )
        return choose(situation, self.lessons(), can_run=self._can_run, seed=proposal.constraints.seed)

    def _can_run(self, algorithm: str) -> bool:
        try:
            self.algorithms.options(algorithm, {})
        except (InvalidRequestError, NotFoundError):
            return False
        return True


def _check_objectives(objectives: Sequence[Objective], metrics: Mapping[str, Metric | ModelMetric]) -> None:
    if not any(not objective.guardrail for objective in objectives):
        raise InvalidRequestError(
            f"objectives: wanted: at least one that is no guardrail; found: {len(objectives)} guardrails; possible: "
            "guardrail: false on the one to improve"
        )
    names = [objective.metric for objective in objectives]
    for name in names:
        if name not in metrics:
            raise InvalidRequestError(
                f"objectives: wanted: a metric that exists; found: {name}; possible: {', '.join(sorted(metrics))}"
            )
        if names.count(name) > 1:
            raise InvalidRequestError(
                f"objectives: wanted: each metric once; found: {name} twice; possible: one of them"
            )
    for objective in objectives:
        _check_numbers(objective, metrics[objective.metric])


def _check_numbers(objective: Objective, metric: Metric | ModelMetric) -> None:
    """Refuse what no candidate could mean or reach. Raises `InvalidRequestError`."""
    name, target = objective.metric, objective.target_value
    if not (math.isfinite(objective.weight) and objective.weight > 0.0):
        raise InvalidRequestError(
            f"objectives: wanted: a weight above 0 for {name}; found: {objective.weight}; possible: 1, or guardrail: "
            "true on what is only not to be hurt"
        )
    if not (math.isfinite(objective.margin) and objective.margin >= 0.0):
        raise InvalidRequestError(
            f"objectives: wanted: a margin from 0 on for {name}; found: {objective.margin}; possible: 0.1"
        )
    if target is None:
        return
    high = math.inf if metric.ceiling is None else metric.ceiling
    low, high = min(metric.floor, high), max(metric.floor, high)
    if not (math.isfinite(target) and low <= target <= high):
        within = f"from {low:g} on" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InvalidRequestError(
            f"objectives: wanted: a target_value that {name} can have, {within}; found: {target:g}; possible: a number "
            f"{within}, in the unit of the metric"
        )
    if objective.guardrail:
        raise InvalidRequestError(
            f"objectives: wanted: a target_value on an objective to be improved; found: one on the guardrail {name}; "
            "possible: remove it, margin says how much a guardrail may be hurt"
        )


def _check_distinct(algorithms: Sequence[AlgorithmChoice]) -> None:
    names = [choice.name for choice in algorithms]
    if not names or len(set(names)) < len(names):
        raise InvalidRequestError(
            f"algorithms: wanted: at least one, each once; found: {', '.join(names) or 'none'}; possible: auto"
        )
