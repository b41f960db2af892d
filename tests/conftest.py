"""Databases for tests: one real server a run, one migrated template a worker, one fresh copy a test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres

MEMORY = Path("/dev/shm")
"""Where Linux lends memory as a folder."""
ROOM_BYTES = 2 * 1024**3


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server; all workers of a run share it, the last one to go stops it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid4().hex)
    data_dir = _roomy_folder() / f"dspy-opt-tests-{run}"
    server = EmbeddedPostgres.open(data_dir)
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET max_wal_size = '128MB'")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    if server.close():
        shutil.rmtree(data_dir, ignore_errors=True)


def _roomy_folder() -> Path:
    """Where the data go: into memory where there is room, for every test makes a database of 300 files there.

    Not into pytest's own temporary folder: that one is closed to the system user PostgreSQL runs as under root.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        return MEMORY
    return Path(tempfile.gettempdir())


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    name = f"template_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    Database.open(postgres.url_of(name)).close()
    yield name
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The URL of a fresh, migrated database; superuser, as the embedded engine has it."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield postgres.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database."""
    with Database.open(database_url) as opened:
        yield opened
