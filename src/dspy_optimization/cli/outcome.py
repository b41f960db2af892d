"""What an optimization came to: the exit code, and what is said at the end."""

from dspy_optimization.agents.objective import Direction
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.store import Stores
from dspy_optimization.statistics import Verdict

CAPS = ("max_cost_usd", "max_lm_calls", "max_tokens", "max_seconds")


def exit_code(
    stores: Stores, optimization: Optimization, result: OptimizationResult | None, fail_under: float | None
) -> ExitCode:
    """Return the exit code of an optimization that ended or paused.

    Args:
        stores: where its events are: they tell a refused key from other failures.
        optimization: as it stands.
        result: of it; None while there is none.
        fail_under: see `gate_met`; None: every honest verdict is a success.
    """
    match optimization.status:
        case OptimizationStatus.COMPLETED if result is not None:
            if result.validated is None:
                return ExitCode.BUDGET_EXHAUSTED if result.ended_because in CAPS else ExitCode.ERROR
            return (
                ExitCode.OK
                if fail_under is None or gate_met(result, optimization, fail_under)
                else (ExitCode.GATE_NOT_MET)
            )
        case OptimizationStatus.CANCELLED:
            return ExitCode.INTERRUPTED
        case OptimizationStatus.PAUSED if optimization.error is None:
            return ExitCode.INTERRUPTED
        case OptimizationStatus.FAILED | OptimizationStatus.PAUSED:
            refused = _failure_kind(stores, optimization.request.id) == "ModelAuthError"
            return ExitCode.REFUSED_KEY if refused else ExitCode.ERROR
        case _:
            return ExitCode.ERROR


def gate_met(result: OptimizationResult, optimization: Optimization, fail_under: float) -> bool:
    """Say whether it is improved, and the gain in the primary objective is proven to be at least `fail_under`.

    Proven: the lower end of the interval from the sealed split, turned so that more is better.
    """
    validated = result.validated
    if validated is None or validated.verdict is not Verdict.IMPROVED:
        return False
    primary = next(item for item in optimization.request.objectives if item.metric == validated.primary)
    difference = validated.objectives[validated.primary].difference
    bound = difference.low if primary.direction is Direction.MAXIMIZE else difference.high
    return bound is not None and primary.oriented(bound) >= fail_under


def _failure_kind(stores: Stores, optimization_id: OptimizationId) -> str | None:
    """Return the class of the error that ended it last."""
    ends = {EventType.OPTIMIZATION_FAILED, EventType.OPTIMIZATION_PAUSED}
    for recorded in reversed(stores.events.events(optimization_id)):
        if recorded.event.type in ends:
            kind = recorded.event.data.get("error_type")
            return kind if isinstance(kind, str) else None
    return None
