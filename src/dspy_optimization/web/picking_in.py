"""From a candidate that a person picked to an optimization that takes it to the gate."""

import hashlib
import json
from collections.abc import Sequence

from dspy_optimization.adapters.postgres.evidence_store import PostgresEvidence
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.engine import Engine
from dspy_optimization.events import Json
from dspy_optimization.optimization.picking import PickedCandidate, pick_candidate
from dspy_optimization.optimization.request import Optimization
from dspy_optimization.serving import Serving
from dspy_optimization.web import answers
from dspy_optimization.web.handing_in import Cause, Making, check_lane, keep_once, with_estimate


def hand_in_pick(
    serving: Serving, engine: Engine, picked_from: Optimization, candidate: str, key: str | None
) -> Optimization:
    """Keep and queue what takes another candidate to the gate; otherwise as `hand_in`.

    Args:
        serving: what this process serves with.
        engine: of the tenant that picks.
        picked_from: the optimization that measured the candidate.
        candidate: its fingerprint, or the beginning of it.
        key: as of `hand_in`.
    Raises:
        NotFoundError: there is no such candidate.
        ConflictError: also when the optimization has not ended, or the candidate was at the gate already.
    """
    origin = picked_from.request.id

    def make() -> Making:
        picked = _picked(serving, engine, picked_from, candidate)
        check_lane(serving, picked.checked.proposal.constraints.lane)
        told: dict[str, Json] = {
            "picked_from": str(origin),
            "candidate": picked.candidate.fingerprint,
            "test_split_use": picked.test_split_use,
            "alpha": picked.alpha,
            "sentence": picked.sentence,
        }
        return Making(prepared=with_estimate(serving, engine, picked.checked), cause=Cause(told=told))

    digest = hashlib.sha256(json.dumps(["pick", str(origin), candidate]).encode()).hexdigest()
    return keep_once(serving, engine, make, key, digest)


def looked_at(serving: Serving, engine: Engine, picked_from: Optimization, candidate: str) -> answers.PickPreview:
    """Return what `hand_in_pick` would hand in, and what it takes; raises as that does, and keeps nothing."""
    picked = _picked(serving, engine, picked_from, candidate)
    check_lane(serving, picked.checked.proposal.constraints.lane)
    cost = with_estimate(serving, engine, picked.checked).estimate.cost
    return answers.PickPreview(
        picked_from=picked_from.request.id,
        candidate=picked.candidate.fingerprint,
        test_split_use=picked.test_split_use,
        alpha=picked.alpha,
        sentence=picked.sentence,
        calls=cost.calls,
        cost_usd=cost.cost_usd,
    )


def _picked(serving: Serving, engine: Engine, picked_from: Optimization, candidate: str) -> PickedCandidate:
    origin = picked_from.request.id
    evidence = PostgresEvidence(serving.foundation.database, engine.steering.tenant)

    def known(beginning: str) -> Sequence[Candidate]:
        trials = [trial for _, trial in evidence.beginning_with(origin, beginning, 2)]
        return list(evidence.candidates(trials).values())

    return pick_candidate(engine.intake, picked_from, candidate, known)
