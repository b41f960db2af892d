"""The schema, from nothing to head."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres
from dspy_optimization.adapters.postgres.database import VERSION_TABLE
from dspy_optimization.adapters.postgres.tables import METADATA
from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId


@pytest.fixture
def empty_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    name = f"empty_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_models_are_migrations(database_url: str, database: Database) -> None:
    """Tables, columns, types, defaults, keys and indexes of the code are those of the database."""
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        # Alembic compares defaults by what they return: without a tenant both are null and null equals nothing.
        connection.execute(sa.text("SELECT set_config('app.tenant_id', :tenant, true)"), {"tenant": str(LOCAL_TENANT)})
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
    engine.dispose()

    assert [] == differences


def test_an_empty_database_is_brought_to_head(empty_url: str, tenant: TenantId) -> None:
    """The first start makes everything and the local tenant; the second finds it."""
    for _ in range(2):
        with Database.open(empty_url) as database, database.transaction(tenant) as connection:
            found = connection.execute(sa.text("SELECT name FROM tenant")).scalars().all()

        assert ["local"] == found


def test_a_database_of_a_newer_engine_is_refused(database_url: str) -> None:
    """Writing into a schema one does not know would break it."""
    with psycopg.connect(database_url) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")

    with pytest.raises(InvalidRequestError, match=r"found: schema 9999 .* made by a newer engine"):
        Database.open(database_url)


def test_a_failed_migration_leaves_nothing(empty_url: str) -> None:
    """All or nothing: a table in the way undoes the tables before it."""
    with psycopg.connect(empty_url) as connection:
        connection.execute("CREATE TABLE trial (mine int)")

    with pytest.raises(StoreError, match='"trial" already exists'):
        Database.open(empty_url)

    with psycopg.connect(empty_url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert [("trial",)] == found
