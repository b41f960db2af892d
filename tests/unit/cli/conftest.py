"""What the tests of the command line share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_world import NO_TRACKING, CliWorld, config_file, spelling
from dspy_optimization.testing.model_server import ModelServer


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    with ModelServer(spelling) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, database_url: str, model_server: ModelServer) -> CliWorld:
    """A folder, a fresh database, a scripted model."""
    (tmp_path / "config.yaml").write_text(config_file(model_server), encoding="utf-8")
    folder = tmp_path / "here"
    folder.mkdir()
    return CliWorld(
        folder=folder,
        environment={
            "DATABASE_URL": database_url,
            "DSPY_OPT_DATA_DIR": str(tmp_path / "data"),
            "DSPY_CONFIG_PATH": str(tmp_path / "config.yaml"),
            "MLFLOW_TRACKING_URI": NO_TRACKING,
            "STATISTICAL_SIGNIFICANCE_THRESHOLD": None,
            "COLUMNS": "200",
            "TERMINAL_WIDTH": "200",
        },
    )
