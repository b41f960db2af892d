"""Live traffic: which version answers a unit, and what became of it."""

from fastapi import APIRouter, Depends

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.untrusted import checked_json
from dspy_optimization.engine import Engine
from dspy_optimization.web.access import Running
from dspy_optimization.web.bodies import LARGE_BYTES, KeyFirst, Most
from dspy_optimization.web.handing_in import kept_agent
from dspy_optimization.web.routes.parameters import Name, refusals
from dspy_optimization.web.traffic_schemas import (
    AssignIn,
    AssignOut,
    OutcomeIn,
    OutcomesIn,
    OutcomesOut,
    RefusedOut,
    assign_out,
    read_outcome,
    refused_out,
    told,
)

router = APIRouter(prefix="/api/v1", tags=["traffic"], route_class=KeyFirst)
TakesBatch = Depends(Most(LARGE_BYTES))


@router.post("/agents/{name}/assign", response_model=AssignOut, responses=refusals(404))
def assign(engine: Running, name: Name, body: AssignIn) -> AssignOut:
    """Say which version a unit gets, and record that it was served; without an experiment the live one, unrecorded."""
    checked_json(body.attributes, "attributes")
    served = engine.conductor.assign(
        name, body.unit_id, attributes=body.attributes, live=lambda agent: _live(engine, agent)
    )
    return assign_out(name, served)


@router.post("/outcomes", dependencies=[TakesBatch], response_model=OutcomesOut, responses=refusals(404, 413))
def outcomes(engine: Running, body: OutcomesIn) -> OutcomesOut:
    """Tell what became of units, once or again. Of a batch all that can be is taken in, and the rest is named."""
    if body.event_id is not None and body.exposure_id is not None:
        for refusal in engine.conductor.report([told(body, body.event_id, body.exposure_id)]):
            raise refusal.error
        return OutcomesOut(accepted=1, refused=[])
    given = body.outcomes or []
    read = [read_outcome(position, one) for position, one in enumerate(given)]
    refused = [one for one in read if isinstance(one, RefusedOut)]
    good = [(position, one) for position, one in enumerate(read) if isinstance(one, OutcomeIn)]
    refused += [
        refused_out(good[refusal.position][0], refusal)
        for refusal in engine.conductor.report([told(one, one.event_id, one.exposure_id) for _, one in good])
    ]
    return OutcomesOut(accepted=len(given) - len(refused), refused=sorted(refused, key=lambda one: one.position))


def _live(engine: Engine, agent: str) -> Fingerprint:
    """Return the version that was registered first: what an optimization ended with is not live for being kept."""
    versions = engine.stores.agents.versions(agent)
    return versions[-1][1] if versions else kept_agent(engine, agent, None).version
