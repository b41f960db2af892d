"""Two tenants in a fresh database, and the nouns their stores keep."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, PostgresAgents, PostgresDatasets, PostgresOptimizations
from dspy_optimization.adapters.postgres.outbox_store import PostgresOutbox
from dspy_optimization.adapters.postgres.webhook_store import PostgresWebhooks
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Split, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective
from dspy_optimization.evaluation.gate import Estimate, ObjectiveResult, ValidatedResult, restored
from dspy_optimization.evaluation.ledger import Bill, Charge, ChargeId, ChargeStatus, OptimizationId, Spend
from dspy_optimization.evaluation.model import CallKey, ModelResponse, Role
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationRequest, Target
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from webhook_world import BOX, add_optimization

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OTHER_TENANT = TenantId(UUID("00000000-0000-7000-8000-000000000002"))


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def tenant() -> TenantId:
    return LOCAL_TENANT


@pytest.fixture
def other_tenant(database: Database, database_url: str) -> TenantId:
    """A second tenant of the same database; only the owner of the tables can make one."""
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO tenant (tenant_id, name) VALUES (%s, 'other')", [OTHER_TENANT])
    return OTHER_TENANT


@pytest.fixture
def agent() -> AgentConfig:
    fields = {"inputs": (Field(name="question"),), "outputs": (Field(name="answer"),)}
    return AgentConfig(name="router", kind=AgentKind.PREDICT, signature=Signature(instructions="Answer.", **fields))


@pytest.fixture
def dataset() -> Dataset:
    def example(number: int) -> Example:
        inputs = {"question": f"{number}?", "context": {"b": 1, "a": [number, 1e22, -0.0]}}
        return Example(id=ExampleId(f"example-{number}"), inputs=inputs, expected={"answer": str(number)})

    splits = {split: (example(2 * n), example(2 * n + 1)) for n, split in enumerate(Split)}
    return Dataset(name="numbers", version=DatasetVersion("d" * 64), splits=splits, seed=7)


@pytest.fixture
def request_of(agent: AgentConfig, dataset: Dataset) -> Callable[..., OptimizationRequest]:
    def make(minutes: int = 0) -> OptimizationRequest:
        return OptimizationRequest(
            id=OptimizationId(uuid4()),
            target=Target(id=agent.name, version=agent.version),
            dataset=dataset.version,
            objectives=(Objective(metric="exact_match"),),
            algorithms=(AlgorithmChoice(name="gepa", options={"depth": 2}), AlgorithmChoice(name="simba")),
            constraints=Constraints(seed=3),
            metrics=({"name": "exact_match"},),
            created_at=NOON + timedelta(minutes=minutes),
        )

    return make


@pytest.fixture
def optimization_in(
    database: Database, agent: AgentConfig, dataset: Dataset, request_of: Callable[..., OptimizationRequest]
) -> Callable[..., OptimizationId]:
    """Add an optimization, with its agent and dataset, to a tenant; return its id."""

    def add(tenant: TenantId = LOCAL_TENANT, minutes: int = 0) -> OptimizationId:
        PostgresAgents(database, tenant, AllowList()).add(agent)
        PostgresDatasets(database, tenant).add(dataset)
        return PostgresOptimizations(database, tenant).add(request_of(minutes)).request.id

    return add


@pytest.fixture
def optimization_id(optimization_in: Callable[..., OptimizationId]) -> OptimizationId:
    return optimization_in()


@pytest.fixture
def charge_of() -> Callable[..., Charge]:
    def make(optimization_id: OptimizationId, number: int = 0, **changes: object) -> Charge:
        values: Mapping[str, object] = {
            "id": ChargeId(uuid4()),
            "optimization_id": optimization_id,
            "key": CallKey(f"{number:064x}"),
            "role": Role.TASK,
            "label": "gepa",
            "model": "model@place",
            "status": ChargeStatus.STARTED,
            "reserved_usd": 0.5,
            "started_at": NOON + timedelta(seconds=number),
        }
        return Charge(**{**values, **changes})

    return make


@pytest.fixture
def answer_of() -> Callable[[str], ModelResponse]:
    def make(text: str) -> ModelResponse:
        body = {
            "id": "x",
            "choices": [{"message": {"role": "assistant", "content": text}}],
            "usage": {"b": 1, "a": 2.0},
        }
        return ModelResponse(body=body, prompt_tokens=3, completion_tokens=4, latency_seconds=0.25)

    return make


@pytest.fixture
def candidate() -> Candidate:
    value = ComponentValue(instructions="Answer \x00 briefly.", demos=({"question": "1?", "answer": "1"},))
    return Candidate(components={ComponentName("predict"): value}, origin="gepa", parents=(Fingerprint("a" * 64),))


@pytest.fixture
def trial_of(candidate: Candidate) -> Callable[..., Trial]:
    def make(number: int = 0, algorithm: str = "gepa") -> Trial:
        result = ExampleResult(
            example_id=ExampleId(f"example-{number}"),
            scores={"exact_match": Score(value=0.5, feedback="close")},
            outputs={"z": 1, "answer": "2"},
            usage=Usage(lm_calls=1),
        )
        return Trial(
            algorithm=algorithm,
            candidate=candidate,
            split=Split.VAL,
            results=(result,),
            score=0.5,
            iteration=number,
            paid_calls=number,
            recorded_at=NOON,
        )

    return make


@pytest.fixture
def validated(candidate: Candidate, dataset: Dataset) -> ValidatedResult:
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=20)
    objective = ObjectiveResult(
        metric="exact_match",
        baseline=estimate,
        optimized=Estimate(value=0.75, low=None, high=None, n=20),
        difference=estimate,
        improvement_percentage=50.0,
        improvement_interval=(10.0, 90.0),
        p_value=0.01,
        test="mcnemar",
        mde=0.2,
        discordant=7,
        verdict=Verdict.IMPROVED,
        reason="better",
    )
    return restored(
        dataset=dataset.version,
        baseline=Fingerprint("a" * 64),
        optimized=candidate.fingerprint,
        n_examples=20,
        alpha=0.05,
        test_split_use=1,
        objectives={"exact_match": objective},
        primary="exact_match",
        verdict=Verdict.IMPROVED,
        reason="better",
    )


@pytest.fixture
def result_of(candidate: Candidate, validated: ValidatedResult) -> Callable[..., OptimizationResult]:
    def make(optimization_id: OptimizationId, **changes: object) -> OptimizationResult:
        spend = Spend(calls=3, cost_usd=0.25)
        values: Mapping[str, object] = {
            "optimization_id": optimization_id,
            "baseline": candidate,
            "optimized": candidate,
            "validated": validated,
            "algorithm_used": "gepa",
            "bill": Bill(by_role={Role.TASK: spend}, by_label={"gepa": spend}),
            "artifact": Artifact(agent_version=Fingerprint("b" * 64), checksum="c"),
            "ended_because": "finished",
            "completed_at": NOON,
        }
        return OptimizationResult(**{**values, **changes})

    return make


@pytest.fixture
def webhooks(database: Database, tenant: TenantId) -> PostgresWebhooks:
    return PostgresWebhooks(database, tenant, BOX)


@pytest.fixture
def outbox(database: Database) -> PostgresOutbox:
    return PostgresOutbox(database, BOX)


@pytest.fixture
def told(database: Database, tenant: TenantId) -> OptimizationId:
    return add_optimization(database, tenant)
