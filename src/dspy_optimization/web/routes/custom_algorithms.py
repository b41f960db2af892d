"""Algorithms a tenant registers: installed code that the owner of the engine allows, checked before it is kept."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from dspy_optimization.algorithms.registry import BrokenAlgorithm
from dspy_optimization.bootstrap import now
from dspy_optimization.web.access import Administering, Reading, serving_of
from dspy_optimization.web.algorithm_schemas import CustomAlgorithmIn, CustomAlgorithmOut, algorithm_out
from dspy_optimization.web.answers import Page
from dspy_optimization.web.bodies import KeyFirst
from dspy_optimization.web.paging import page_of
from dspy_optimization.web.routes.parameters import Cursor, Limit, refusals

router = APIRouter(prefix="/api/v1/algorithms/custom", tags=["catalog"], route_class=KeyFirst)


@router.post("", status_code=201, response_model=CustomAlgorithmOut, responses=refusals(409, 413))
def register(request: Request, engine: Administering, body: CustomAlgorithmIn) -> CustomAlgorithmOut:
    """Check an algorithm in a process of its own and register it. Takes from seconds to three minutes.

    One that breaks a rule is not registered; the answer says which, and how to mend it. The same name again takes the
    place of what it was.
    """
    registrar = serving_of(request).foundation.registrar(engine.steering.tenant)
    return algorithm_out(registrar.register(body.entrypoint, body.name, now()), None)


@router.get("", response_model=Page[CustomAlgorithmOut], responses=refusals())
def registered(request: Request, engine: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[CustomAlgorithmOut]:
    """List the registered algorithms with what their check found, also those that cannot be used now."""
    algorithms = serving_of(request).foundation.algorithms_of(engine.steering.tenant)
    found = []
    for one in algorithms.registered:
        loaded = algorithms.load(one)
        found.append(algorithm_out(one, loaded.reason if isinstance(loaded, BrokenAlgorithm) else None))
    return page_of(found, limit, cursor)


@router.delete("/{name}", status_code=204, responses=refusals(404))
def remove(
    request: Request, engine: Administering, name: Annotated[str, Path(description="Of a registered algorithm.")]
) -> None:
    """Forget a registered algorithm. Optimizations that have begun with it end with a sentence when they go on."""
    serving_of(request).foundation.registrar(engine.steering.tenant).remove(name)
