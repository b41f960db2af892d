"""An optimization of any size with everything it measured, kept through the stores."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from dspy_optimization.adapters.postgres import (
    Database,
    PostgresAgents,
    PostgresDatasets,
    PostgresEvents,
    PostgresLedger,
    PostgresOptimizations,
    PostgresResults,
    PostgresTrials,
)
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Split, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationRequest, Target
from dspy_optimization.optimization.request import OptimizationStatus as Status
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.optimization.store import Stores
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACCURACY = Objective(metric="exact_match")
COST = Objective(metric="cost_usd", direction=Direction.MINIMIZE, guardrail=True, margin=0.5)
AGENT = AgentConfig(
    name="triage",
    kind=AgentKind.PREDICT,
    signature=Signature(
        instructions="Which team?", inputs=(Field(name="message"),), outputs=(Field(name="team"),)
    ),
)  # fmt: skip


def stores_of(database: Database, tenant: TenantId = LOCAL_TENANT) -> Stores:
    """Return the stores of a tenant."""
    return Stores(
        optimizations=PostgresOptimizations(database, tenant),
        trials=PostgresTrials(database, tenant),
        results=PostgresResults(database, tenant),
        events=PostgresEvents(database, tenant),
        agents=PostgresAgents(database, tenant, AllowList()),
        datasets=PostgresDatasets(database, tenant),
        ledger=PostgresLedger(database, tenant),
    )


def dataset_of(n_val: int, salt: str = "") -> Dataset:
    """Return a dataset with so many val examples."""

    def examples(split: Split, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(
                id=ExampleId(f"{split.value}-{salt}-{number:04}"),
                inputs={"message": f"Message {number} about an order that did not come, please help me soon."},
                expected={"team": f"team {number % 5}"},
            )
            for number in range(count)
        )

    return Dataset(
        name="messages",
        version=DatasetVersion(uuid4().hex * 2),
        splits={
            Split.TRAIN: examples(Split.TRAIN, 12),
            Split.VAL: examples(Split.VAL, n_val),
            Split.TEST: examples(Split.TEST, 15),
        },
        seed=7,
    )


def results_of(examples: Sequence[Example], share: float, cost: float, chance: random.Random) -> list[ExampleResult]:
    """Return results of which about this share is right."""
    return [
        ExampleResult(
            example_id=one.id,
            scores={
                "exact_match": Score(value=float(chance.random() < share), feedback="expected another team, came 'x'"),
                "cost_usd": Score(value=cost),
            },
            outputs={"team": "team 1", "reasoning": "The message names an order, so that the first team is to look."},
            usage=Usage(cost_usd=cost, latency_seconds=0.5, prompt_tokens=180, completion_tokens=40, lm_calls=1),
        )
        for one in examples
    ]


def candidate_of(number: int, parents: Sequence[Fingerprint] = (), words: str = "") -> Candidate:
    """Return the candidate of that number; 0 is the baseline."""
    text = f"Which team? {words} Variant {number}." if number else "Which team?"
    return Candidate(
        components={ComponentName("self"): ComponentValue(instructions=text)},
        origin="gepa" if number else "baseline",
        parents=tuple(parents),
    )


def trials_of(
    dataset: Dataset, count: int, *, objectives: Sequence[Objective] = (ACCURACY,), parts: float = 0.2, seed: int = 3
) -> list[Trial]:
    """Return the baseline and so many trials more, scored as a search scores them.

    Args:
        dataset: its val split is measured, now and then its train split.
        count: trials after the baseline.
        objectives: what the score is of.
        parts: share of trials on a part of val; some of their candidates come again, and some become whole so.
        seed: of chance.
    """
    chance = random.Random(seed)
    val = dataset[Split.VAL]
    measured = results_of(val, 0.4, 0.01, chance)
    goals = Objectives(items=tuple(objectives)).with_scales(
        {one.metric: sum(result.scores[one.metric].value for result in measured) / len(measured) for one in objectives}
    )

    def trial(one: Candidate, results: Sequence[ExampleResult], algorithm: str, number: int, split: Split) -> Trial:
        return Trial(
            algorithm=algorithm,
            candidate=one,
            split=split,
            results=tuple(results),
            score=sum(goals.scalar(result.scores) for result in results) / len(results),
            iteration=number,
            paid_calls=len(val) + 7 * number,
            recorded_at=NOON + timedelta(seconds=number),
        )

    found = [trial(candidate_of(0), measured, "baseline", 0, Split.VAL)]
    known = [candidate_of(0)]
    for number in range(1, count + 1):
        again = number % 7 == 0 and len(known) > 2
        one = chance.choice(known[1:]) if again else candidate_of(number, [chance.choice(known).fingerprint])
        known.append(one)
        split = Split.TRAIN if number % 11 == 0 else Split.VAL
        examples: Sequence[Example] = dataset[split]
        if chance.random() < parts:
            begin = chance.choice((0, len(examples) // 2))
            examples = examples[begin : begin + (len(examples) + 1) // 2]
        cost = chance.choice((0.008, 0.012, 0.02))
        results = results_of(examples, min(0.35 + 0.4 * number / count, 0.8), cost, chance)
        found.append(trial(one, results, chance.choice(("gepa", "miprov2")), number, split))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was kept."""

    id: OptimizationId
    dataset: Dataset
    trials: Sequence[Trial]


def keep(
    database: Database,
    count: int = 40,
    n_val: int = 12,
    *,
    objectives: Sequence[Objective] = (ACCURACY,),
    status: Status = Status.COMPLETED,
    chosen: int | None = None,
    tenant: TenantId = LOCAL_TENANT,
    ended: datetime = NOON,
    parts: float = 0.2,
    seed: int = 3,
) -> Kept:
    """Keep one with its trials and events.

    Args:
        database: where.
        count: trials after the baseline.
        n_val: examples of val.
        objectives: of the request.
        status: where it stands; completed and cancelled ones have a result.
        chosen: which trial's candidate the result names; None: the last one.
        tenant: whose it is; kept already.
        ended: when it changed last.
        parts: as for `trials_of`.
        seed: as for `trials_of`.
    """
    stores, dataset = stores_of(database, tenant), dataset_of(n_val, uuid4().hex[:6])
    trials = trials_of(dataset, count, objectives=objectives, parts=parts, seed=seed)
    version = stores.agents.add(AGENT)
    stores.datasets.add(dataset)
    request = OptimizationRequest(
        id=OptimizationId(UUID(int=uuid4().int)),
        target=Target(id=AGENT.name, version=version),
        dataset=dataset.version,
        objectives=tuple(objectives),
        algorithms=(AlgorithmChoice(name="gepa"),),
        constraints=Constraints(),
        created_at=NOON,
    )
    stores.optimizations.add(request)
    # What chance measured twice is kept once.
    trials = [one for one in trials if stores.trials.record(request.id, one)]
    for number in range(5):
        stores.events.emit(
            Event(type=EventType.PROGRESS, optimization_id=request.id, at=NOON, data={"iteration": number})
        )
    if status is not Status.QUEUED:
        stores.optimizations.update(request.id, lambda now: replace(now, status=Status.RUNNING))
    if status in {Status.COMPLETED, Status.CANCELLED}:
        best = trials[-1 if chosen is None else chosen].candidate
        stores.results.save(
            OptimizationResult(
                optimization_id=request.id,
                baseline=candidate_of(0),
                optimized=best,
                validated=None,
                algorithm_used="gepa",
                bill=Bill(by_role={}, by_label={}),
                artifact=Artifact(agent_version=version, checksum=best.fingerprint),
                ended_because="finished",
                completed_at=ended,
            ),
            status,
            [],
        )
    elif status in {Status.FAILED, Status.PAUSED}:
        stores.optimizations.update(request.id, lambda now: replace(now, status=status, updated_at=ended))
    return Kept(id=request.id, dataset=dataset, trials=trials)
