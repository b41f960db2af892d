"""What schemathesis is told of the service: ids that exist, so that it gets past 404, and no GPU."""

import itertools
import os
from typing import Any

import schemathesis

KNOWN = {
    "optimization_id": os.environ.get("CONTRACT_OPTIMIZATION", ""),
    "fingerprint": os.environ.get("CONTRACT_CANDIDATE", ""),
    "dataset_id": os.environ.get("CONTRACT_DATASET", ""),
    "schedule_id": os.environ.get("CONTRACT_SCHEDULE", ""),
    "experiment_id": os.environ.get("CONTRACT_EXPERIMENT", ""),
    "name": "capitals",
    "version": "latest",
}

LOOKS = itertools.count()


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Use what exists in every other case; what is removed is gone for everybody after it."""
    if not isinstance(path_parameters, dict) or context.operation.method.upper() == "DELETE":
        return path_parameters
    return {
        name: KNOWN[name] if KNOWN.get(name) and sum(map(ord, str(value))) % 2 else value
        for name, value in path_parameters.items()
    }


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Ask for no GPU: 507 is a promise, and counts as a server error here. Every third look knows the answer (304)."""
    if case.method.upper() == "GET" and next(LOOKS) % 3 == 0:
        case.headers = {**(case.headers or {}), "If-None-Match": "*"}
    for body in (case.body, case.body.get("request") if isinstance(case.body, dict) else None):
        constraints = body.get("constraints") if isinstance(body, dict) else None
        if isinstance(constraints, dict) and constraints.get("requires_gpu") is True:
            body["constraints"] = {**constraints, "requires_gpu": False}
