"""What is told of the time that is left is what was estimated, and no more once that has turned out wrong."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from dspy_optimization.adapters.postgres.overview_store import Moment, Overview
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.objective import Objective
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Target,
)
from dspy_optimization.web import views

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def left(status: str, progress: float, elapsed: float, estimated: float | None) -> float | None:
    """Return what is told; the moment of completion has to say the same."""
    request = OptimizationRequest(
        id=OptimizationId(uuid4()),
        target=Target(type="module", id="agent", version="v"),
        dataset=DatasetVersion("d"),
        objectives=(Objective(metric="exact_match"),),
        algorithms=(AlgorithmChoice(name="gepa"),),
        constraints=Constraints(),
        created_at=NOW,
    )
    optimization = Optimization(
        request=request,
        status=OptimizationStatus(status),
        progress=progress,
        elapsed_seconds=elapsed,
        updated_at=NOW,
    )
    overview = Overview(
        optimization=optimization, baseline_score=None, best_score=None, trials=0, spend=[], result=None
    )
    accepted = {} if estimated is None else {"estimated_seconds": estimated}
    told = views.status(Moment(overview=overview, latest={}, accepted=accepted, result=None), NOW)
    seconds = told.metrics.eta_seconds
    assert told.estimated_completion == (None if seconds is None else views.completion(NOW, seconds))
    return seconds


@pytest.mark.parametrize(
    ("status", "progress", "elapsed", "estimated", "seconds"),
    [
        ("queued", 0.0, 0.0, 600.0, 600.0),
        ("running", 0.1, 60.0, 600.0, 540.0),
        # It has taken longer than estimated: a tenth is done, so nine times as long is left.
        ("running", 0.1, 1000.0, 600.0, 9000.0),
        ("running", 1.0, 1000.0, 600.0, 0.0),
        ("running", 0.0, 1000.0, 600.0, None),
        ("paused", 0.5, 100.0, 600.0, None),
        ("completed", 1.0, 100.0, 600.0, None),
        ("failed", 0.5, 100.0, 600.0, None),
        ("cancelled", 0.5, 100.0, 600.0, None),
        ("running", 0.5, 100.0, None, None),
    ],
)
def test_the_time_left(
    status: str, progress: float, elapsed: float, estimated: float | None, seconds: float | None
) -> None:
    assert seconds == left(status, progress, elapsed, estimated)
