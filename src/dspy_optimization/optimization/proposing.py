"""From what somebody says, in a file or a request, to a checked proposal and what it will take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.metrics import METRIC_TYPES
from dspy_optimization.agents.objective_loading import ALIASES, objectives_from_json
from dspy_optimization.agents.operational_metrics import Quantity
from dspy_optimization.agents.untrusted import closest, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.judge import Judge
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.choosing import AUTO
from dspy_optimization.optimization.collaborators import Models
from dspy_optimization.optimization.estimate import CostEstimate, estimate
from dspy_optimization.optimization.intake import Checked, Intake, Proposal
from dspy_optimization.optimization.policy_reading import policy_from_json
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, TargetType

LOCAL_SECONDS_A_CALL = 0.5
"""Of the embedded model with short answers on two cores: our own measurement, 0.3 to 0.6."""
REMOTE_SECONDS_A_CALL = 2.0
"""Our own assumption; `--seconds-a-call` replaces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants optimized, as they said it."""

    agent: AgentConfig
    dataset: Dataset
    sealed: bool = False
    """Whether the dataset was kept before: then nothing that an example in test holds is quoted."""
    objectives: Sequence[Mapping[str, Json]]
    metrics: Sequence[Mapping[str, Json]] = ()
    algorithms: Sequence[AlgorithmChoice] = (AlgorithmChoice(name=AUTO),)
    constraints: Constraints = field(default_factory=Constraints)
    target: TargetType = TargetType.AGENT
    policy: Json = None
    """Which candidate goes to the gate: `{type: …}` or a name; None: the best weighted utility."""


def checked(wanted: Wanted, intake: Intake) -> Checked:
    """Return it as a proposal that can be carried out. Nothing is kept or spent.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    specifications = with_implied(wanted.metrics, wanted.objectives)
    objectives = objectives_from_json([dict(one) for one in wanted.objectives], intake.metrics(specifications))
    called = {
        str(one["metric"]): objective.metric for one, objective in zip(wanted.objectives, objectives, strict=True)
    }
    for choice in wanted.algorithms:
        if choice.name != AUTO:
            intake.algorithms.options(choice.name, choice.options)
    return intake.check(
        Proposal(
            agent=wanted.agent,
            dataset=wanted.dataset,
            sealed=wanted.sealed,
            objectives=objectives,
            metrics=specifications,
            algorithms=tuple(wanted.algorithms),
            constraints=wanted.constraints,
            target=wanted.target,
            policy=policy_from_json(wanted.policy, objectives, called).to_json(),
        )
    )


def with_implied(
    metrics: Sequence[Mapping[str, Json]], objectives: Sequence[Mapping[str, Json]]
) -> tuple[Mapping[str, Json], ...]:
    """Return the metrics, and the metric types that objectives name without anybody having specified them.

    Where objectives only name what a metric is for (success_rate, quality_score), exact_match stands for it.
    """
    named = {str(one.get("name", one.get("type"))) for one in metrics}
    plain = [str(one["metric"]) for one in objectives]
    known = (*named, *(name for name in METRIC_TYPES if name not in named), *ALIASES)
    for number, name in enumerate(plain):
        if name not in known:
            raise InvalidRequestError(
                f"objectives[{number}]: a metric that is specified is wanted, found {name}{closest(name, known)}; "
                f"possible: {', '.join(known)}"
            )
    implied = [name for name in dict.fromkeys(plain) if name in METRIC_TYPES and name not in named | set(Quantity)]
    correctness = [name for name in (*named, *implied) if name not in set(Quantity)]
    if not correctness and {"success_rate", "quality_score"} & set(plain):
        implied.append("exact_match")
    return (*metrics, *({"type": name} for name in implied))


def algorithm_choices(values: Sequence[Json], where: str) -> tuple[AlgorithmChoice, ...]:
    """Return the choices that names and `{name: {option: value}}` make; nothing is `auto`."""
    choices: list[AlgorithmChoice] = []
    for number, value in enumerate(values):
        place = f"{where}[{number}]"
        if isinstance(value, str):
            choices.append(AlgorithmChoice(name=value))
            continue
        options = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(value, dict) or not isinstance(options, dict):
            raise InvalidRequestError(
                f"{place}: an algorithm is wanted, found {type(value).__name__} {shown(value)}; possible: auto, a name "
                "(dspy-opt algorithms lists them), or {name: {option: value}}"
            )
        choices.append(AlgorithmChoice(name=next(iter(value)), options=options))
    return tuple(choices) or (AlgorithmChoice(name=AUTO),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """What a proposal will take, and by which models."""

    cost: CostEstimate
    models: dict[Role, str]
    """Role → identity."""


def estimated(proposal: Checked, intake: Intake, models: Models, *, seconds_a_call: float | None) -> Estimated:
    """Return what carrying the proposal out takes at most; nothing is sent.

    Args:
        proposal: checked.
        intake: for its metrics and algorithms.
        models: for prices and names.
        seconds_a_call: how long one call takes; None: by the kind of the task model.
    """
    wanted = proposal.proposal
    metrics = intake.metrics(wanted.metrics)
    asked = [metrics[objective.metric] for objective in wanted.objectives]
    judge_calls = sum(metric.samples for metric in asked if isinstance(metric, Judge))
    opened = models.open(wanted.agent, StopSignal(), _tell_nobody)
    local = opened[Role.TASK].identity.startswith("embedded:")
    seconds = LOCAL_SECONDS_A_CALL if local else REMOTE_SECONDS_A_CALL
    if seconds_a_call is not None:
        seconds = seconds_a_call
    cost = estimate(
        proposal,
        intake.builder.build(wanted.agent),
        intake.algorithms,
        opened,
        named=models.named(StopSignal(), _tell_nobody),
        judge_calls=judge_calls,
        seconds_a_call=seconds,
    )
    if local:
        # It computes one answer at a time, however many are wanted at once.
        cost = replace(cost, minutes=cost.calls * seconds / 60.0)
    return Estimated(cost=cost, models={role: model.identity for role, model in opened.items()})


def _tell_nobody(_role: Role, _wanted: str, _used: str, _reason: str) -> None:
    """Nothing is asked, so nothing can fall back."""
