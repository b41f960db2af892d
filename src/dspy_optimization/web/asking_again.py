"""From a request as it is shown to the body that asks for the same again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from dspy_optimization.events import Json
from dspy_optimization.jobs.job import Lane
from dspy_optimization.optimization.policy_reading import WEIGHTS

_CAPS = {"max_seconds": "max_optimization_time"}
"""What a cap is called in a body, where that is not what it is called here."""


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Algorithm(_Shown):
    name: str
    options: dict[str, Any]


class _Constraints(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    limits: dict[str, Any]
    lane: Lane


class _Request(_Shown):
    id: UUID
    target: dict[str, Any]
    dataset: str
    objectives: list[dict[str, Any]]
    algorithms: list[_Algorithm]
    constraints: _Constraints
    metrics: list[dict[str, Any]] = []
    policy: dict[str, Any] | None = None
    situation: dict[str, Any] | None = None
    created_at: datetime


def is_shown(data: object) -> bool:
    """Say whether this is meant as a request that an answer showed; nobody writes one with a time it was made at."""
    return isinstance(data, Mapping) and "created_at" in data and isinstance(data.get("dataset"), str)


def body_of(shown: object) -> dict[str, Json]:
    """Return the body of POST /api/v1/optimize; what was not given is left out.

    Args:
        shown: the `request` of an optimization's detail.

    Raises:
        ValueError: it is none; says what does not fit.
    """
    request = _Request.model_validate(shown)
    constraints = request.constraints
    given: dict[str, Json] = {
        **{_CAPS.get(name, name): cap for name, cap in constraints.limits.items()},
        **(constraints.model_extra or {}),
        "requires_gpu": True if constraints.lane is Lane.GPU else None,
    }
    return {
        "target": request.target,
        "dataset": {"id": request.dataset},
        "objectives": [{name: value for name, value in one.items() if value is not None} for one in request.objectives],
        **({"metrics": list(request.metrics)} if request.metrics else {}),
        "algorithms": [{one.name: one.options} if one.options else one.name for one in request.algorithms],
        **({"policy": request.policy} if request.policy not in (None, dict(WEIGHTS)) else {}),
        "constraints": {name: value for name, value in given.items() if value is not None},
    }
