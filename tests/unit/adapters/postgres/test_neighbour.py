"""A database of another program on the same server."""

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.adapters.postgres.neighbour import alone, database_beside
from dspy_optimization.errors import InvalidRequestError, StoreError


@pytest.fixture
def name(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A name no database has; what a test makes of it is dropped."""
    name = f'beside "{uuid4().hex}'
    yield name
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _exists(postgres: EmbeddedPostgres, name: str) -> bool:
    with psycopg.connect(postgres.url_of("postgres")) as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def test_it_is_made_once_and_found_afterwards(database_url: str, postgres: EmbeddedPostgres, name: str) -> None:
    """By any number of processes at once; names are quoted."""
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(database_beside(database_url, name))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert _exists(postgres, name)
    assert 4 == len(urls)
    assert 1 == len({*urls, database_beside(database_url, name)})
    assert urls[0].startswith("postgresql+psycopg://")


def test_who_may_not_make_it_is_told_what_to_ask_for(database_url: str, postgres: EmbeddedPostgres, name: str) -> None:
    """A production user often lacks CREATEDB."""
    user = f"plain_{uuid4().hex[:8]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(user)))
    url = database_url.replace("postgres@", f"{user}@")

    with pytest.raises(InvalidRequestError, match=r"this user may not make one; possible: .* CREATE DATABASE"):
        database_beside(url, name)

    assert not _exists(postgres, name)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))


def test_a_server_that_is_away_is_no_missing_database(tmp_path: Path) -> None:
    """It is told as what it is."""
    with pytest.raises(StoreError, match="is away"):
        database_beside(f"postgresql://me@/x?host={tmp_path}", "mlflow")


def test_one_at_a_time_is_inside(database_url: str) -> None:
    """The second waits until the first has left."""
    inside: list[str] = []

    def enter() -> None:
        with alone(database_url, 7):
            inside.append("second")

    with alone(database_url, 7):
        second = threading.Thread(target=enter)
        second.start()
        second.join(0.2)
        inside.append("first")
    second.join()

    assert ["first", "second"] == inside
