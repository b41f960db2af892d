"""Worlds for the acceptance tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from crash_world import Trap, World

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.testing.model_server import ModelServer


@pytest.fixture
def world_of(postgres: EmbeddedPostgres, template: str, tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Make worlds, each with a database of its own."""
    worlds: dict[str, World] = {}

    def build(name: str) -> World:
        database = f"{name}_{uuid4().hex}"
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
        trap = Trap()
        folder = tmp_path / name
        folder.mkdir()
        world = World(url=postgres.url_of(database), server=ModelServer(trap), trap=trap, folder=folder)
        worlds[database] = world
        return world

    yield build
    for database, world in worlds.items():
        world.server.close()
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
