"""Parameters that many routes share."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query
from starlette.requests import HTTPConnection

from dspy_optimization.engine import Engine
from dspy_optimization.errors import ExpiredError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.steering import FINAL
from dspy_optimization.serving import Serving
from dspy_optimization.web.access import serving_of
from dspy_optimization.web.answers import Problem
from dspy_optimization.web.problems import MEDIA_TYPE, TITLES

Id = Annotated[UUID, Path(description="The id of an optimization.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many on one page.")]
Cursor = Annotated[str | None, Query(max_length=500, description="The `next_cursor` of the page before.")]
Name = Annotated[str, Path(min_length=1, max_length=200)]
GREATEST_ID = (1 << 63) - 1
"""Of an event."""
_ENDED = FINAL | {OptimizationStatus.FAILED}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the documentation says of answers that are problems; 401, 403, 421 and 503 are always possible."""
    return {
        status: {
            "description": TITLES[status],
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({400, 401, 403, 421, 422, 503, *statuses})
    }


def found(request: HTTPConnection, engine: Engine, optimization_id: UUID) -> Optimization:
    """Return the optimization. Raises `NotFoundError`, or `ExpiredError` when it ended too long ago."""
    optimization = engine.stores.optimizations.get(OptimizationId(optimization_id))
    check_kept(serving_of(request), optimization)
    return optimization


def check_kept(serving: Serving, optimization: Optimization) -> None:
    """Raise `ExpiredError` when it ended longer ago than results are shown."""
    if not is_kept(serving, optimization):
        raise ExpiredError(
            f"wanted: optimization {optimization.request.id}; found: it ended on {optimization.updated_at:%Y-%m-%d}, "
            f"and results are shown for {serving.settings.service.retention_days:g} days; possible: a newer one"
        )


def is_kept(serving: Serving, optimization: Optimization) -> bool:
    """Say whether it is shown: it goes on, stands still, or ended within the time that results are shown."""
    days = serving.settings.service.retention_days
    if days is None or optimization.status not in _ENDED:
        return True
    return optimization.updated_at + timedelta(days=days) >= datetime.now(UTC)
