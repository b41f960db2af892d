"""Algorithms on trial in a process of their own: whatever they do there, this process gets findings."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dspy_optimization.adapters.algorithm_checks import SAME_ELSEWHERE, AlgorithmChecks
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.errors import CapacityError

PLUGINS = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PLUGINS))
    yield
    sys.modules.pop("bad_algorithms", None)


def _broken(entrypoint: str, **bounds: object) -> RuleFinding:
    findings = AlgorithmChecks(**bounds).check(entrypoint).findings
    broken = [one for one in findings if one.outcome is Outcome.BROKEN]
    assert 1 == len(broken), [one.sentence for one in broken]
    return broken[0]


def test_one_that_keeps_the_contract() -> None:
    """Every rule is kept, also the one that takes two processes; it says its name."""
    checked = AlgorithmChecks().check("bad_algorithms:Trying")

    assert "trying" == checked.name
    assert [] == [one.sentence for one in checked.findings if one.outcome is not Outcome.KEPT]
    assert {"loads", SAME_ELSEWHERE} <= {one.rule for one in checked.findings}


@pytest.mark.parametrize(
    ("plugin", "rule", "found"),
    [
        ("Exiting", "leaves its process alive", "it ended its process itself, with exit status 3; its last words: "),
        ("Crashing", "leaves its process alive", "its process was killed by signal SIGSEGV"),
        ("Eating", "searches to its end", "MemoryError"),
        ("Hashing", SAME_ELSEWHERE, "others in a second process"),
        ("Nobody", "loads", "has no function Nobody"),
        ("TEXTS", "loads", "has no function TEXTS"),
    ],
)
def test_what_would_take_this_process_with_it(plugin: str, rule: str, found: str) -> None:
    """It ends its own process, and the finding says how."""
    broken = _broken(f"bad_algorithms:{plugin}", memory_bytes=1 << 30)

    assert (rule, True) == (broken.rule, found in broken.found), broken.sentence
    assert broken.possible


def test_one_that_never_ends_is_ended_with_all_it_has_started() -> None:
    """Its time is bounded from outside, whatever it does inside; so is that of its children."""
    before = {one.pid for one in psutil.process_iter()}
    began = time.monotonic()

    broken = _broken("bad_algorithms:Spawning", seconds=12.0, search_seconds=600.0)

    assert "it went on for more than 12 s and its process was ended" in broken.found
    assert time.monotonic() - began < 40.0
    sleepers = [one for one in psutil.process_iter(["cmdline"]) if "time.sleep(600)" in str(one.info["cmdline"])]
    assert [] == [one.pid for one in sleepers if one.pid not in before]


def test_what_it_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no address, no folder of this process reaches it."""
    (tmp_path / "looking_around.py").write_text(
        "import os, sys\nraise RuntimeError(repr((sorted(os.environ), os.getcwd())))\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    broken = _broken("looking_around:Mine")

    assert "RuntimeError" in broken.found
    assert "PATH" in broken.found
    assert not any(one in broken.found for one in ("DATABASE_URL", "OPENAI_API_KEY", str(Path.cwd())))


def test_one_check_at_a_time() -> None:
    """A second one is told to come again."""
    checks = AlgorithmChecks()
    with checks._turn, pytest.raises(CapacityError, match="another one is being checked"):
        checks.check("bad_algorithms:Trying")
