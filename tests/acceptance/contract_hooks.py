"""What schemathesis is told of the service: ids that exist, so that it gets past 404, and no GPU."""

import os
from typing import Any

import schemathesis

KNOWN = {
    "optimization_id": os.environ.get("CONTRACT_OPTIMIZATION", ""),
    "fingerprint": os.environ.get("CONTRACT_CANDIDATE", ""),
    "dataset_id": os.environ.get("CONTRACT_DATASET", ""),
    "name": "capitals",
    "version": "latest",
}


@schemathesis.hook
def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Use what exists in every other case."""
    if not isinstance(path_parameters, dict):
        return path_parameters
    return {
        name: KNOWN[name] if KNOWN.get(name) and len(str(value)) % 2 else value
        for name, value in path_parameters.items()
    }


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Ask for no GPU: 507 is a promise, and counts as a server error here."""
    constraints = case.body.get("constraints") if isinstance(case.body, dict) else None
    if isinstance(constraints, dict) and constraints.get("requires_gpu") is True:
        case.body = {**case.body, "constraints": {**constraints, "requires_gpu": False}}
