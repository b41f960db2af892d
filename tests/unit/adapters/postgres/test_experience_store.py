"""What is learned from kept optimizations, on the real database."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

import psycopg
import pytest

from dspy_optimization.adapters.postgres import (
    Database,
    PostgresEvents,
    PostgresOptimizations,
    PostgresResults,
    PostgresTrials,
    experience_store,
)
from dspy_optimization.adapters.postgres.agent_store import PostgresAgents
from dspy_optimization.adapters.postgres.dataset_store import PostgresDatasets
from dspy_optimization.adapters.postgres.documents import write
from dspy_optimization.adapters.postgres.experience_store import NEWEST, PostgresExperience
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.gate import Estimate, ValidatedResult
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.choosing import choose
from dspy_optimization.optimization.lesson import Gained, Lesson, Point
from dspy_optimization.optimization.request import AlgorithmChoice, OptimizationRequest, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.situation import Situation
from dspy_optimization.tenancy import TenantId

SITUATION = Situation(
    kind=AgentKind.PREDICT,
    n_train=2,
    n_val=2,
    n_test=2,
    optimizable_components=1,
    can_propose=True,
    max_lm_calls=1000,
    metric="exact_match",
    goals=1,
    input_length=40,
)
HALF = Estimate(value=0.5, low=0.4, high=0.6, n=20)
TRIALS = (
    ("baseline", 0.25, 2, 2),
    (None, 0.5, 2, 10),
    (None, 1.0, 1, 20),
    (None, 0.75, 2, 30),
    (None, 0.5, 1, 40),
)
"""By whom (None: the algorithm), score, examples of val, calls paid."""
LEARNED = (
    Gained(
        algorithm="gepa",
        points=(Point(8, 0.25), Point(28, 0.5)),
        gain=0.5,
        calls=38,
        is_finished=False,
        sealed=0.25,
    ),
)


@pytest.fixture
def ended_in(
    database: Database,
    agent: AgentConfig,
    dataset: Dataset,
    candidate: Candidate,
    validated: ValidatedResult,
    request_of: Callable[..., OptimizationRequest],
    result_of: Callable[..., OptimizationResult],
    noon: datetime,
) -> Callable[..., OptimizationId]:
    """Keep an optimization of gepa that ended, and its trials; return its id."""

    def keep(
        tenant: TenantId,
        status: OptimizationStatus = OptimizationStatus.COMPLETED,
        *,
        minutes: int = 0,
        situation: Situation | None = SITUATION,
        algorithms: Iterable[AlgorithmChoice] = (AlgorithmChoice(name="gepa"),),
        turns: int = 2,
    ) -> OptimizationId:
        PostgresAgents(database, tenant, AllowList()).add(agent)
        PostgresDatasets(database, tenant).add(dataset)
        request = replace(request_of(minutes), algorithms=tuple(algorithms), situation=situation)
        optimizations, trials = PostgresOptimizations(database, tenant), PostgresTrials(database, tenant)
        optimizations.add(request)
        val = dataset[Split.VAL]
        for number, (by, score, n, paid) in enumerate(TRIALS):
            text = {name: replace(one, instructions=f"{number}") for name, one in candidate.components.items()}
            trial = Trial(
                algorithm=by or request.algorithms[0].name,
                candidate=replace(candidate, components=text, parents=()),
                split=Split.VAL,
                results=tuple(
                    ExampleResult(example_id=one.id, scores={"exact_match": Score(value=score)}, outputs={})
                    for one in val[:n]
                ),
                score=score,
                iteration=number,
                paid_calls=paid,
                recorded_at=noon,
            )
            trials.record(request.id, trial)
        for turn in range(turns):
            data = {"algorithm": "gepa", "turn": turn, "outcome": "out_of_calls", "best_score": 0.5 + 0.25 * turn}
            PostgresEvents(database, tenant).emit(
                Event(
                    type=EventType.ALGORITHM_ENDED,
                    optimization_id=request.id,
                    at=noon,
                    data=data,
                    key=f"algorithm.ended/gepa/{turn}",
                )
            )
        optimizations.update(request.id, lambda now: replace(now, status=OptimizationStatus.RUNNING))
        if status in {OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED}:
            better = replace(
                validated,
                baseline_performance={"quality_score": HALF},
                optimized_performance={"quality_score": replace(HALF, value=0.75)},
            )
            PostgresResults(database, tenant).save(result_of(request.id, validated=better), status, [])
        else:
            optimizations.update(request.id, lambda now: replace(now, status=status))
        return request.id

    return keep


@pytest.fixture
def experience(database: Database, tenant: TenantId) -> PostgresExperience:
    return PostgresExperience(database, tenant)


def test_what_is_kept_teaches(
    experience: PostgresExperience, ended_in: Callable[..., OptimizationId], tenant: TenantId
) -> None:
    """Whole trials of val with their calls, the sealed utility of the chosen one; the same when read again."""
    one = ended_in(tenant)

    (learned,) = experience.lessons()
    assert Lesson(optimization_id=one, target=learned.target, situation=SITUATION, gained=LEARNED) == learned
    assert [learned] == experience.lessons()


def test_the_same_target_on_the_same_data_is_known_again(
    experience: PostgresExperience, ended_in: Callable[..., OptimizationId], tenant: TenantId
) -> None:
    """By what it is, not by what it says."""
    ended_in(tenant)
    ended_in(tenant, minutes=1)

    first, again = experience.lessons()

    assert first.target == again.target
    assert "router" not in first.target


def test_the_past_of_others_teaches_nothing(
    database: Database, ended_in: Callable[..., OptimizationId], tenant: TenantId, other_tenant: TenantId
) -> None:
    """A tenant learns from its own past, before and after that of another one was worked out."""
    mine, theirs = ended_in(tenant), ended_in(other_tenant)

    for _ in range(2):
        assert [mine] == [one.optimization_id for one in PostgresExperience(database, tenant).lessons()]
        assert [theirs] == [one.optimization_id for one in PostgresExperience(database, other_tenant).lessons()]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": OptimizationStatus.RUNNING},
        {"status": OptimizationStatus.PAUSED},
        {"situation": None},
        {"algorithms": (AlgorithmChoice(name="given"),)},
        {"algorithms": (AlgorithmChoice(name="gepa", options={"depth": 2}),)},
        {"status": OptimizationStatus.FAILED, "turns": 0},
    ],
    ids=["runs", "paused", "older engine", "picked by a person", "options of its own", "interrupted by an error"],
)
def test_some_teach_nothing(
    experience: PostgresExperience,
    ended_in: Callable[..., OptimizationId],
    tenant: TenantId,
    changes: dict[str, object],
) -> None:
    """Nor the second time, when it is known that they do not."""
    ended_in(tenant, **changes)

    assert [] == experience.lessons()
    assert [] == experience.lessons()


@pytest.mark.parametrize("status", [OptimizationStatus.FAILED, OptimizationStatus.CANCELLED])
def test_what_did_not_come_to_its_end_counts_as_it_stood(
    experience: PostgresExperience,
    ended_in: Callable[..., OptimizationId],
    tenant: TenantId,
    status: OptimizationStatus,
) -> None:
    """The turns before it are what they are."""
    ended_in(tenant, status)

    ((one,),) = (lesson.gained for lesson in experience.lessons())

    assert ("gepa", 0.5) == (one.algorithm, one.gain)


def test_one_that_went_on_is_worked_out_again(
    experience: PostgresExperience,
    ended_in: Callable[..., OptimizationId],
    tenant: TenantId,
    database: Database,
    result_of: Callable[..., OptimizationResult],
) -> None:
    """Failed, looked at, resumed and completed: what it teaches then is what counts."""
    one = ended_in(tenant, OptimizationStatus.FAILED, turns=0)
    assert [] == experience.lessons()

    optimizations = PostgresOptimizations(database, tenant)
    optimizations.update(one, lambda now: replace(now, status=OptimizationStatus.RUNNING))
    assert [] == experience.lessons()
    result = result_of(one)
    PostgresResults(database, tenant).save(
        replace(result, completed_at=result.completed_at.replace(hour=20)), OptimizationStatus.COMPLETED, []
    )

    assert [one] == [lesson.optimization_id for lesson in experience.lessons()]


def test_another_form_is_worked_out_again(
    experience: PostgresExperience,
    ended_in: Callable[..., OptimizationId],
    tenant: TenantId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an engine of another form wrote is not read."""
    ended_in(tenant)
    before = experience.lessons()
    monkeypatch.setattr(experience_store, "_FORM", 2)
    monkeypatch.setattr(experience_store, "_read", lambda *_: pytest.fail("read"))

    assert before == experience.lessons()


def test_a_row_that_cannot_be_read_is_named(
    experience: PostgresExperience, ended_in: Callable[..., OptimizationId], tenant: TenantId, database_url: str
) -> None:
    """With what was wanted of which optimization."""
    one = ended_in(tenant)
    experience.lessons()
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE lesson SET document = '{\"situation\": {}}'")

    with pytest.raises(StoreError, match=f"wanted: what optimization {one} teaches, of form 1"):
        experience.lessons()


def test_a_long_past_is_read_in_no_time(
    database: Database, database_url: str, experience: PostgresExperience, ended_in: Callable[..., OptimizationId],
    tenant: TenantId
) -> None:  # fmt: skip
    """10,000 ended optimizations, the newest 500 count; below 50 ms of our processor time, the best of five."""
    ended_in(tenant, minutes=-1)
    document = json.dumps(write(SITUATION)["noun"])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """
            INSERT INTO optimization_request (tenant_id, optimization_id, target_type, target_id, target_version,
                dataset_version, objectives, algorithms, constraints, document, status, created_at, updated_at)
            SELECT tenant_id, gen_random_uuid(), target_type, target_id, target_version, dataset_version, objectives,
                algorithms, constraints, document, status, created_at + number * interval '1 second', updated_at
            FROM optimization_request, generate_series(1, 9999) AS number
            """
        )
        gained = [
            {"algorithm": name, "points": [[100 * n, 0.02 * n] for n in range(5)], "gain": 0.1, "calls": 500,
             "is_finished": False, "sealed": None}
            for name in ("gepa", "miprov2")
        ]  # fmt: skip
        connection.execute(
            """
            INSERT INTO lesson (tenant_id, optimization_id, form, learned_from, document)
            SELECT tenant_id, optimization_id, 1, updated_at, %s FROM optimization_request
            """,
            [json.dumps({"target": "t" * 64, "situation": json.loads(document), "gained": gained})],
        )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE")

    took = []
    for _ in range(5):
        began = time.process_time()
        lessons = experience.lessons()
        choose(SITUATION, lessons, can_run=lambda name: True, seed=0)
        took.append(time.process_time() - began)

    assert NEWEST == len(lessons)
    assert min(took) < 0.05
