"""What an engine wrote before there were policies and fronts still reads."""

from datetime import UTC, datetime
from uuid import UUID

from contender_samples import QUALITY, candidate

from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationRequest, Target
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.web.asking_again import body_of

ID = OptimizationId(UUID(int=7))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_an_older_request_is_of_the_best_weighted_utility() -> None:
    """And asking for it again names no policy."""
    request = OptimizationRequest(
        id=ID,
        target=Target(id="a", version=Fingerprint("b" * 64)),
        dataset=DatasetVersion("d" * 64),
        objectives=(QUALITY,),
        algorithms=(AlgorithmChoice(name="gepa"),),
        constraints=Constraints(),
        created_at=NOON,
    )
    document = write(request)
    noun = document["noun"]
    assert isinstance(noun, dict)
    shown = {name: value for name, value in noun.items() if name != "policy"}

    assert request == read(OptimizationRequest, {**document, "noun": shown})
    assert {"type": "weights"} == dict(request.policy)
    assert body_of(shown) == body_of(noun)
    assert "policy" not in body_of(noun)
    assert {"type": "knee"} == body_of({**noun, "policy": {"type": "knee"}})["policy"]


def test_an_older_result_has_no_front() -> None:
    """It says so with nothing."""
    result = OptimizationResult(
        optimization_id=ID,
        baseline=candidate("a"),
        optimized=candidate("b"),
        validated=None,
        algorithm_used="gepa",
        bill=Bill(by_role={}, by_label={}),
        artifact=Artifact(agent_version=Fingerprint("c" * 64), checksum="c"),
        ended_because="finished",
        completed_at=NOON,
    )
    document = write(result)
    noun = document["noun"]
    assert isinstance(noun, dict)
    older = {name: value for name, value in noun.items() if name not in {"front", "pick"}}

    found = read(OptimizationResult, {**document, "noun": older})

    assert (result, None, None) == (found, found.front, found.pick)
