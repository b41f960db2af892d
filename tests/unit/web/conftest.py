"""A service that asks for keys, for the tests of routes."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.serving import ServiceRole
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole
from service_world import running, service_settings
from web_world import OTHER, RETENTION_DAYS, Keyed


@pytest.fixture(scope="module")
def keyed(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """Takes requests in and works on none; shows what ended for a month."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = postgres.url_of(name)
    folder: Path = tmp_path_factory.mktemp("data")
    settings = service_settings(url, "http://127.0.0.1:9/v1", folder, require_keys=True, retention_days=RETENTION_DAYS)
    with Database.open(url) as database, running(settings, ServiceRole.API) as service:
        keys = PostgresKeys(database)
        keys.add_tenant(OTHER, "other")
        yield Keyed(
            service=service,
            database=database,
            url=url,
            keys={
                **{role.value: keys.create(LOCAL_TENANT, role, role.value) for role in AccessRole},
                "other": keys.create(OTHER, AccessRole.ADMINISTRATOR, "other"),
            },
        )
