"""What keeps secrets, by the settings."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from dspy_optimization.adapters.sealing import KEY_FILE, SecretBox, key_in
from dspy_optimization.serving import _sealing
from dspy_optimization.settings import ServiceSettings, Settings, read_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("DATABASE_URL", "DSPY_CONFIG_PATH", "DSPY_OPT_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DSPY_OPT_DATA_DIR", str(tmp_path / "data"))
    return read_settings()


def test_a_person_alone_needs_to_set_nothing(settings: Settings) -> None:
    """With the embedded database the key lies beside it, and is the same the next time."""
    first, second = _sealing(settings), _sealing(settings)
    assert first is not None
    assert second is not None

    assert "x" == second.open(first.seal("x", b""), b"")
    assert (settings.data_directory / KEY_FILE).is_file()


def test_a_key_that_is_set_is_used(settings: Settings) -> None:
    """And no file is made."""
    key = bytes(range(32))
    stated = replace(settings, service=ServiceSettings(secret_key=base64.b64encode(key).decode()))
    made = _sealing(stated)
    assert made is not None

    assert "x" == SecretBox(key).open(made.seal("x", b""), b"")
    assert not (settings.data_directory / KEY_FILE).exists()


def test_several_processes_need_one_key_that_is_set(settings: Settings) -> None:
    """A file of this machine would be another one on the next: with a database of one's own there is none."""
    key_in(settings.data_directory)

    assert _sealing(replace(settings, database_url="postgresql://h/d")) is None
