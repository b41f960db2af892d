"""What wrong input gets: a message that says what was wanted, found and possible; no traceback, nothing half-written.

`UPDATE_BAD_INPUT_DOC=1 pytest tests/acceptance/test_bad_input.py` (in one process) writes docs/bad-input.md anew.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from bad_inputs import BAD_INPUTS, BadInput

from cli_world import NO_TRACKING, CliWorld, config_file, said, spelling
from dspy_optimization.testing.model_server import ModelServer

DOC = Path(__file__).parent.parent.parent / "docs" / "bad-input.md"
BEGINNING = """\
# What wrong input gets

Every message says what was wanted, what was found and what is possible. There is no traceback, and nothing is
half-written: files and database are as they were before. The messages below are what the command line printed; this
page is made and checked by `tests/acceptance/test_bad_input.py`.
"""
KINDS = ("files", "configuration", "dataset", "metrics", "options", "settings", "models", "keys", "runs")
_SECRET = "hunter2"


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    with ModelServer(spelling) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, database_url: str, model_server: ModelServer) -> CliWorld:
    """A folder, a fresh database, settings that work."""
    (tmp_path / "config.yaml").write_text(config_file(model_server), encoding="utf-8")
    (tmp_path / "here").mkdir()
    return CliWorld(
        folder=tmp_path / "here",
        environment={
            "DATABASE_URL": database_url,
            "DSPY_OPT_DATA_DIR": str(tmp_path / "data"),
            "DSPY_CONFIG_PATH": str(tmp_path / "config.yaml"),
            "MLFLOW_TRACKING_URI": NO_TRACKING,
            "STATISTICAL_SIGNIFICANCE_THRESHOLD": None,
            "NO_SUCH_KEY": None,
            "COLUMNS": "400",
            "TERMINAL_WIDTH": "400",
        },
    )


def kept_rows(url: str) -> dict[str, int]:
    """Return table → number of rows, of everything a command may write."""
    with psycopg.connect(url) as connection:
        tables = [
            str(name)
            for (name,) in connection.execute(
                "SELECT table_name FROM information_schema.tables"
                " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            )
        ]
        counts = {}
        for table in tables:
            row = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            counts[table] = 0 if row is None else int(row[0])
    return counts


def documented() -> dict[str, str]:
    """Return input → message, as the page says."""
    if not DOC.exists():
        return {}
    found = re.findall(r"^### (.+?)\n\n.*?```text\n(.*?)\n```", DOC.read_text(encoding="utf-8"), re.M | re.S)
    return dict(found)


def told(case: BadInput, world: CliWorld) -> str:
    """Run it and return the message, without the places of this one test."""
    if case.config is not None:
        (world.folder.parent / "config.yaml").write_text(case.config, encoding="utf-8")
    case.prepare(world)
    here = world.with_environment(**case.environment)
    url = str(world.environment["DATABASE_URL"])
    rows, files = kept_rows(url), world.files()

    result = here.run(*case.words)

    message = said(result)
    assert case.code == result.exit_code, message
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for part in case.says:
        assert part in message, message
    assert _SECRET not in result.output
    assert rows == kept_rows(url)
    assert files == world.files()
    return (
        message.replace(f"{world.folder}/", "").replace(str(world.folder), ".").replace(str(world.folder.parent), "…")
    )


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: f"{case.kind}: {case.name}")
def test_wrong_input_gets_a_message_and_changes_nothing(case: BadInput, world: CliWorld) -> None:
    """Exit code, message, files, rows; and the page in docs says the same."""
    message = told(case, world)

    if os.environ.get("UPDATE_BAD_INPUT_DOC"):
        _write(case, message)
    assert message == documented().get(case.name), "docs/bad-input.md is old; UPDATE_BAD_INPUT_DOC=1 writes it anew"


def test_the_page_lists_every_case_once() -> None:
    """At least 40, of every kind, none that is gone."""
    names = [case.name for case in BAD_INPUTS]

    assert (len(names), set(KINDS)) == (len(set(names)), {case.kind for case in BAD_INPUTS})
    assert len(names) >= 40
    assert names == list(documented())


def _write(case: BadInput, message: str) -> None:
    """Write the page anew with this message in it; the others keep theirs."""
    messages = {**documented(), case.name: message}
    text = BEGINNING
    for kind in KINDS:
        text += f"\n## {kind.capitalize()}\n"
        for one in (one for one in BAD_INPUTS if one.kind == kind and one.name in messages):
            code = f", exit code {one.code}" if one.code != 2 else ""
            text += (
                f"\n### {one.name}\n\n`dspy-opt {' '.join(one.words)}`{code}\n\n```text\n{messages[one.name]}\n```\n"
            )
    DOC.write_text(text, encoding="utf-8")
