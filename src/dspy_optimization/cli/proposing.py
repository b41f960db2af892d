"""From a job to a checked proposal."""

from dataclasses import dataclass, replace

from dspy_optimization.agents.objective_loading import objectives_from_json
from dspy_optimization.cli.job_file import Job
from dspy_optimization.engine import Engine
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.judge import Judge
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.estimate import CostEstimate, estimate
from dspy_optimization.optimization.intake import Checked, Proposal

LOCAL_SECONDS_A_CALL = 0.5
"""Of the embedded model with short answers on two cores: our own measurement, 0.3 to 0.6."""
REMOTE_SECONDS_A_CALL = 2.0
"""Our own assumption; `--seconds-a-call` replaces it."""


def checked(job: Job, engine: Engine) -> Checked:
    """Return the job as a proposal that can be carried out. Nothing is kept or spent.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    source = job.needed_data
    if not job.objectives:
        raise InvalidRequestError(
            "objectives: at least one is wanted, found none; possible: --objective exact_match, or objectives: "
            "[exact_match] in the file (dspy-opt metrics lists them)"
        )
    metrics = engine.intake.metrics(job.specifications)
    objectives = objectives_from_json([dict(one) for one in job.objectives], metrics)
    for choice in job.algorithms:
        if choice.name != "auto":
            engine.algorithms.options(choice.name, choice.options)
    return engine.intake.check(
        Proposal(
            agent=job.agent,
            dataset=source.read(job.agent),
            objectives=objectives,
            metrics=job.specifications,
            algorithms=job.algorithms,
            constraints=job.constraints,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """What a proposal will take, and by which models."""

    cost: CostEstimate
    models: dict[Role, str]
    """Role → identity."""


def estimated(proposal: Checked, engine: Engine, *, seconds_a_call: float | None) -> Estimated:
    """Return what carrying the proposal out takes at most; nothing is sent.

    Args:
        proposal: checked.
        engine: for its models and algorithms.
        seconds_a_call: how long one call takes; None: by the kind of the task model.
    """
    wanted = proposal.proposal
    metrics = engine.intake.metrics(wanted.metrics)
    asked = [metrics[objective.metric] for objective in wanted.objectives]
    judge_calls = sum(metric.samples for metric in asked if isinstance(metric, Judge))
    models = engine.models.open(wanted.agent, StopSignal(), _tell_nobody)
    local = models[Role.TASK].identity.startswith("embedded:")
    seconds = LOCAL_SECONDS_A_CALL if local else REMOTE_SECONDS_A_CALL
    if seconds_a_call is not None:
        seconds = seconds_a_call
    cost = estimate(
        proposal,
        engine.builder.build(wanted.agent),
        engine.algorithms,
        models,
        judge_calls=judge_calls,
        seconds_a_call=seconds,
    )
    if local:
        # It computes one answer at a time, however many are wanted at once.
        cost = replace(cost, minutes=cost.calls * seconds / 60.0)
    return Estimated(cost=cost, models={role: model.identity for role, model in models.items()})


def _tell_nobody(_role: Role, _wanted: str, _used: str, _reason: str) -> None:
    """Nothing is asked, so nothing can fall back."""
