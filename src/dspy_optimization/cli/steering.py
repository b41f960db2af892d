"""Asking an optimization to pause or to end, from another process than its own."""

from dataclasses import replace
from datetime import UTC, datetime

from dspy_optimization.errors import ConflictError
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.optimizer import Stores
from dspy_optimization.optimization.request import Optimization, OptimizationStatus, Wish

_STEPS = {
    Wish.PAUSE: (OptimizationStatus.PAUSED, EventType.OPTIMIZATION_PAUSED),
    Wish.CANCEL: (OptimizationStatus.CANCELLED, EventType.OPTIMIZATION_CANCELLED),
}


def ask(stores: Stores, optimization: Optimization, wish: Wish) -> str:
    """Make the wish known to the process that works on it, or take the step here when no process does.

    Returns:
        What was done, in a sentence.
    Raises:
        ConflictError: it does not run, so there is nothing to pause; or it has ended.
    """
    optimization_id = optimization.request.id
    if wish is Wish.PAUSE and optimization.status is not OptimizationStatus.RUNNING:
        raise ConflictError(
            f"wanted: a running optimization to pause; found: {optimization_id} is {optimization.status.value}; "
            "possible: dspy-opt runs ls shows which ones run"
        )
    if optimization.status in {OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED}:
        raise ConflictError(
            f"wanted: an optimization to cancel; found: {optimization_id} is {optimization.status.value}, that is "
            "final; possible: dspy-opt runs ls shows which ones go on"
        )
    try:
        with stores.optimizations.owning(optimization_id):
            status, kind = _STEPS[wish]
            event = Event(type=kind, optimization_id=optimization_id, at=datetime.now(UTC), data={})
            stores.optimizations.update(optimization_id, lambda now: replace(now, status=status, wish=None), [event])
            return f"{optimization_id} is {status.value}; no process was working on it."
    except ConflictError:
        standing = stores.optimizations.get(optimization_id)
        if standing.status is not OptimizationStatus.RUNNING:
            raise
    stores.optimizations.update(optimization_id, lambda now: replace(now, wish=wish))
    return f"Asked {optimization_id} to {wish.value}; it does so after the calls in flight."
