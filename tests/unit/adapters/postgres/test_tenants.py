"""Two tenants in one database: nothing of one is seen or touched by the other."""

from collections.abc import Callable, Sequence
from datetime import datetime

import psycopg
import pytest
import sqlalchemy as sa
from experiment_rows_world import exposure_row, outcome_row, running_in

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
from dspy_optimization.adapters.postgres.algorithm_store import PostgresAlgorithms
from dspy_optimization.adapters.postgres.analysis_store import PostgresAnalyses
from dspy_optimization.adapters.postgres.experience_store import PostgresExperience
from dspy_optimization.adapters.postgres.experiment_row_store import PostgresExperimentRows
from dspy_optimization.adapters.postgres.tables import APPLICATION_ROLE, METADATA, idempotent_request, schedule
from dspy_optimization.adapters.postgres.webhook_store import OutwardType, PostgresWebhooks
from dspy_optimization.adapters.sealing import SecretBox
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.custom import CustomAlgorithm
from dspy_optimization.errors import NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import Bill, Charge, LedgerBatch, OptimizationId
from dspy_optimization.evaluation.model import CallKey, ModelResponse
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import Event, EventType
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.tenancy import TenantId

# Workers serve and deliver for every tenant, whoever takes requests in fires and looks at experiments for every tenant;
# a key is looked up before anybody knows whose it is.
SHARED = {"worker_lease", "api_key", "webhook_delivery", "schedule_due", "gpu_use", "experiment_holder"}
WITHOUT_TENANT = {"schema_version", *SHARED}
OF_TENANTS = [table for table in METADATA.sorted_tables if table.name not in SHARED]
"""Reviewed: holds the number of the newest migration."""
# A worker takes its own lease away when it ends; a tenant its webhooks, whose secrets go with them, and its schedules.
REMOVED = {"worker_lease", "webhook", "schedule", "custom_algorithm"}


@pytest.fixture
def full(
    database: Database,
    tenant: TenantId,
    dataset: Dataset,
    optimization_id: OptimizationId,
    charge_of: Callable[..., Charge],
    answer_of: Callable[[str], ModelResponse],
    trial_of: Callable[..., Trial],
    result_of: Callable[..., OptimizationResult],
    noon: datetime,
) -> OptimizationId:
    """The first tenant has a row in every table."""
    PostgresLedger(database, tenant).commit(
        LedgerBatch(started=[charge_of(optimization_id)], answers={CallKey("k"): answer_of("secret")})
    )
    with database.transaction(tenant) as connection:
        row = {"key": "k", "digest": "d", "optimization_id": optimization_id}
        connection.execute(sa.insert(idempotent_request).values(row))
        recurs = {"name": "n", "cron": "0 3 * * *", "timezone": "UTC", "request": {}, "created_at": noon}
        connection.execute(sa.insert(schedule).values({"schedule_id": optimization_id, **recurs}))
    webhooks = PostgresWebhooks(database, tenant, SecretBox(bytes(32)))
    webhooks.add("https://receiver.example.org", "whsec_", list(OutwardType))
    mine = CustomAlgorithm(name="mine", entrypoint="m:Mine", version="1", findings=(), registered_at=noon)
    PostgresAlgorithms(database, tenant).keep(mine)
    PostgresTrials(database, tenant).record(optimization_id, trial_of())
    PostgresEvents(database, tenant).emit(
        Event(type=EventType.PROGRESS, optimization_id=optimization_id, at=noon, key="k")
    )
    results = PostgresResults(database, tenant)
    results.open_test_split(dataset.version, optimization_id)
    results.save(result_of(optimization_id), OptimizationStatus.CANCELLED, [])
    PostgresExperience(database, tenant).lessons()
    experiment = running_in(database, tenant, optimization_id=optimization_id)
    rows = PostgresExperimentRows(database, tenant, lambda: noon)
    rows.add_exposures([exposure_row(experiment.plan, "unit", 0)])
    rows.add_outcomes([outcome_row(experiment.plan, "unit", "event", 1)])
    rows.settled_until()
    analysis = Analysis.start(experiment.plan)
    assert PostgresAnalyses(database, tenant).save(experiment.plan.experiment_id, None, analysis)
    return optimization_id


def rows(connection: sa.Connection) -> dict[str, int]:
    return {
        table.name: connection.execute(sa.text(f"SELECT count(*) FROM {table.name}")).scalar_one()
        for table in OF_TENANTS
    }


def test_raw_sql_sees_one_tenant(
    database: Database, tenant: TenantId, other_tenant: TenantId, full: OptimizationId
) -> None:
    """Row-level security holds below every store."""
    with database.transaction(tenant) as connection:
        assert all(count > 0 for count in rows(connection).values())
    with database.transaction(other_tenant) as connection:
        assert dict.fromkeys([table.name for table in OF_TENANTS], 0) | {"tenant": 1} == rows(connection)


def test_no_tenant_sees_nothing(database: Database, full: OptimizationId) -> None:
    """A transaction that forgot its tenant finds empty tables, also after one that had it."""
    with database._engine.connect() as connection:
        assert dict.fromkeys([table.name for table in OF_TENANTS], 0) == rows(connection)


def test_no_store_shows_another_tenant(
    database: Database,
    other_tenant: TenantId,
    full: OptimizationId,
    agent: AgentConfig,
    dataset: Dataset,
) -> None:
    """Every reading method of every store."""
    agents = PostgresAgents(database, other_tenant, AllowList())
    datasets = PostgresDatasets(database, other_tenant)
    optimizations = PostgresOptimizations(database, other_tenant)
    ledger = PostgresLedger(database, other_tenant)
    results = PostgresResults(database, other_tenant)

    missing: Sequence[Callable[[], object]] = [
        lambda: agents.get(agent.version),
        lambda: datasets.get(dataset.version),
        lambda: optimizations.get(full),
        lambda: optimizations.update(full, lambda one: one),
    ]
    for look in missing:
        with pytest.raises(NotFoundError, match="none yet"):
            look()
    assert ([], [], []) == (agents.versions(), datasets.versions(), optimizations.newest(9))
    assert ({}, Bill(), []) == (ledger.answers([CallKey("k")]), ledger.bill(full), ledger.close_lost(full))
    assert [] == PostgresTrials(database, other_tenant).trials(full)
    assert [] == PostgresEvents(database, other_tenant).events(full)
    assert [] == PostgresAlgorithms(database, other_tenant).registered()
    assert [] == PostgresExperience(database, other_tenant).lessons()
    assert (None, 0) == (results.result(full), results.test_split_uses([one.id for one in dataset[Split.TEST]]))


def test_one_tenant_cannot_write_for_another(
    database: Database, tenant: TenantId, other_tenant: TenantId, full: OptimizationId, charge_of: Callable[..., Charge]
) -> None:
    """Neither by naming the other tenant, nor by pointing at its rows, nor by moving a row."""
    insert = "INSERT INTO lm_answer (tenant_id, key, document) VALUES (:tenant, 'mine', '{}')"
    with pytest.raises(StoreError, match="row-level security"), database.transaction(other_tenant) as connection:
        connection.execute(sa.text(insert), {"tenant": tenant})
    with pytest.raises(StoreError, match="foreign key"):
        PostgresLedger(database, other_tenant).commit(LedgerBatch(started=[charge_of(full)]))
    move = "UPDATE lm_charge SET tenant_id = :tenant"
    with pytest.raises(StoreError, match="permission denied"), database.transaction(tenant) as connection:
        connection.execute(sa.text(move), {"tenant": other_tenant})
    with database.transaction(other_tenant) as connection:
        assert 0 == connection.execute(sa.text("UPDATE lm_charge SET cost_usd = 9")).rowcount


@pytest.mark.parametrize(
    "statement", ["DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY"]
)
def test_the_application_removes_nothing(database: Database, tenant: TenantId, statement: str) -> None:
    """The role has no right to remove rows or tables, or to switch the policy off."""
    for table in METADATA.tables:
        if table in REMOVED and statement.startswith("DELETE"):
            continue
        with (
            pytest.raises(StoreError, match=r"permission denied|must be owner"),
            database.transaction(tenant) as connection,
        ):
            connection.execute(sa.text(statement.format(table)))


def test_the_same_content_belongs_to_each_tenant_alone(
    database: Database, other_tenant: TenantId, optimization_in: Callable[..., OptimizationId], agent: AgentConfig
) -> None:
    """Equal versions of two tenants are two rows."""
    optimization_in()
    mine = optimization_in(other_tenant)

    assert [mine] == [one.request.id for one in PostgresOptimizations(database, other_tenant).newest(9)]
    assert [(agent.name, agent.version)] == PostgresAgents(database, other_tenant, AllowList()).versions()


def test_every_table_of_tenants_is_guarded(database: Database, database_url: str) -> None:
    """By introspection, so that a table of tomorrow cannot forget it."""
    guarded = """
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,
               (SELECT count(*) FROM pg_policies p WHERE p.tablename = c.relname AND p.cmd = 'ALL'
                   AND p.permissive = 'PERMISSIVE' AND p.qual ~ 'app.tenant_id' AND p.with_check ~ 'app.tenant_id'),
               (SELECT count(*) FROM pg_policies p WHERE p.tablename = c.relname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
        WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"""
    # Every primary key begins with the tenant, every foreign key at both of its ends.
    keys = """
        SELECT conrelid::regclass::text, contype::text,
               (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1]),
               (SELECT attname FROM pg_attribute WHERE attrelid = confrelid AND attnum = confkey[1])
        FROM pg_constraint WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace"""
    with psycopg.connect(database_url) as connection:
        found = {row[0]: row[1:] for row in connection.execute(guarded)}
        tables = {row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        constraints = connection.execute(keys).fetchall()

    assert tables - WITHOUT_TENANT == set(found)
    assert dict.fromkeys(found, (True, 1, 1)) == found
    assert [] == [row for row in constraints if row[0] not in WITHOUT_TENANT and row[2] != "tenant_id"]
    assert [] == [row for row in constraints if row[1] == "f" and row[3] != "tenant_id"]


def test_the_application_role_is_bound(database: Database, tenant: TenantId) -> None:
    """Every connection works as a role without SUPERUSER, BYPASSRLS, LOGIN or a table of its own."""
    rights = sa.text(
        "SELECT current_user::text, rolsuper, rolbypassrls, rolcanlogin, rolcreaterole,"
        " (SELECT count(*) FROM pg_tables WHERE tableowner = current_user) FROM pg_roles WHERE rolname = current_user"
    )
    with database.transaction(tenant) as connection:
        found = connection.execute(rights).one()

    assert (APPLICATION_ROLE, False, False, False, False, 0) == tuple(found)
