"""Registering algorithms: what is refused before any of its code runs, what after, and what at use."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.algorithms.custom import (
    Checked,
    CustomAlgorithm,
    RefusedAlgorithmError,
    RegisteredCode,
    Registrar,
    TenantAlgorithms,
    code_version,
)
from dspy_optimization.algorithms.registry import GROUP, AlgorithmRegistry, BrokenAlgorithm
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOURCE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    rounds: int = 3

class Mine:
    name = "mine"
    description = "does what I want"
    options = Options
    def forecast(self, options, shape):
        raise NotImplementedError
    def search(self, problem, run):
        raise NotImplementedError
"""


@dataclass(slots=True)
class Shelf:
    """A store on a dictionary."""

    kept: dict[str, CustomAlgorithm] = field(default_factory=dict)

    def get(self, name: str) -> CustomAlgorithm:
        return self.kept[name]

    def registered(self) -> Sequence[CustomAlgorithm]:
        return [self.kept[name] for name in sorted(self.kept)]

    def keep(self, algorithm: CustomAlgorithm) -> None:
        self.kept[algorithm.name] = algorithm

    def remove(self, name: str) -> None:
        del self.kept[name]


@dataclass(slots=True)
class Checks:
    """Says what it is told to, and remembers who asked."""

    findings: tuple[RuleFinding, ...] = (RuleFinding(rule="loads", outcome=Outcome.KEPT),)
    asked: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None

    def check(self, entrypoint: str) -> Checked:
        self.asked.append(entrypoint)
        self.during()
        return Checked(name="mine", findings=self.findings)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module of a plug-in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "a_plugin_of_mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    yield path
    sys.modules.pop("a_plugin_of_mine", None)


MINE = "a_plugin_of_mine:Mine"


def _algorithms(shelf: Shelf, allowed: str = MINE) -> TenantAlgorithms:
    gepa = EntryPoint(name="gepa", value="dspy_optimization.adapters.dspy.gepa:GEPA", group=GROUP)
    code = RegisteredCode(AllowList(algorithms=frozenset({allowed})))
    return TenantAlgorithms(AlgorithmRegistry([gepa]), shelf, code)


def test_what_is_registered_stands_beside_what_is_installed(source: Path) -> None:
    """Under its own name or another, with its options."""
    shelf = Shelf()
    algorithms = _algorithms(shelf)
    registrar = Registrar(algorithms=algorithms, checker=Checks())
    registrar.register(MINE, None, NOON)
    registrar.register(MINE, "renamed", NOON)

    assert ("gepa", "mine", "renamed") == algorithms.names
    assert ("mine", "renamed") == (algorithms.get("mine").name, algorithms.get("renamed").name)
    assert "does what I want" == algorithms.get("renamed").description
    assert 5 == getattr(algorithms.options("renamed", {"rounds": 5}), "rounds", None)
    assert shelf.kept["mine"].version.startswith("sha256:")
    with pytest.raises(NotFoundError, match=r"'mina'; did you mean mine\? possible: gepa, mine, renamed"):
        algorithms.get("mina")
    registrar.remove("mine")
    assert ("gepa", "renamed") == algorithms.names


@pytest.mark.parametrize(
    ("entrypoint", "name", "refusal"),
    [
        ("os:system", None, r"os:system is not on the allow-list.*possible: a_plugin_of_mine:Mine"),
        ("a_plugin_of_mine", None, "the name of installed code is wanted"),
        (MINE, "gepa", "gepa is installed; possible: another name; taken: gepa"),
        (MINE, "auto", "none of auto, baseline; found: 'auto'"),
        (MINE, "Mine!", "small letters"),
    ],
)
def test_what_is_refused_before_its_code_runs(source: Path, entrypoint: str, name: str | None, refusal: str) -> None:
    """Nothing is checked, nothing is imported."""
    checks = Checks()

    with pytest.raises(InvalidRequestError, match=refusal):
        Registrar(algorithms=_algorithms(Shelf()), checker=checks).register(entrypoint, name, NOON)

    assert ([], False) == (checks.asked, "a_plugin_of_mine" in sys.modules)


def test_what_is_not_installed_is_said(source: Path) -> None:
    """The list may name what is not there yet."""
    with pytest.raises(InvalidRequestError, match="no source of not_here_yet here"):
        Registrar(algorithms=_algorithms(Shelf(), "not_here_yet:Mine"), checker=Checks()).register(
            "not_here_yet:Mine", None, NOON
        )


def test_one_that_breaks_a_rule_is_not_kept(source: Path) -> None:
    """The sentence names every broken rule; the findings come along."""
    broken = RuleFinding(rule="leaves no thread", outcome=Outcome.BROKEN, wanted="a", found="b", possible="c")
    shelf = Shelf()

    with pytest.raises(
        RefusedAlgorithmError, match=r"breaks 1 of 1 rules .*leaves no thread: wanted: a; found: b"
    ) as caught:
        Registrar(algorithms=_algorithms(shelf), checker=Checks((broken,))).register(MINE, None, NOON)

    assert ((broken,), {}) == (caught.value.findings, shelf.kept)


def test_code_that_changes_while_it_is_checked(source: Path) -> None:
    """What was checked would not be what runs."""
    checks = Checks(during=lambda: source.write_text(SOURCE + "\n# changed", encoding="utf-8") and None)

    with pytest.raises(ConflictError, match="changed meanwhile; possible: try again"):
        Registrar(algorithms=_algorithms(Shelf()), checker=checks).register(MINE, None, NOON)


def test_other_code_than_was_checked_is_refused_at_use(source: Path) -> None:
    """Until it is registered again; a process that has loaded the old code has to begin anew."""
    shelf = Shelf()
    algorithms = _algorithms(shelf)
    registrar = Registrar(algorithms=algorithms, checker=Checks())
    registrar.register(MINE, None, NOON)
    algorithms.get("mine")
    source.write_text(SOURCE + "\n# changed", encoding="utf-8")

    with pytest.raises(InvalidRequestError, match=r"wanted: the code that was checked, sha256:.*possible: register"):
        algorithms.get("mine")
    assert ("gepa",) == algorithms.names
    loaded = algorithms.load(shelf.kept["mine"])
    assert isinstance(loaded, BrokenAlgorithm)
    registrar.register(MINE, None, NOON)
    with pytest.raises(InvalidRequestError, match=r"this process has loaded sha256:.* before; possible: restart it"):
        algorithms.get("mine")
    assert "mine" == _algorithms(shelf).get("mine").name


def test_what_the_owner_takes_off_the_list_is_refused_at_use(source: Path) -> None:
    """A registration is no licence."""
    shelf = Shelf()
    Registrar(algorithms=_algorithms(shelf), checker=Checks()).register(MINE, None, NOON)

    with pytest.raises(InvalidRequestError, match="is not on the allow-list"):
        _algorithms(shelf, "another:One").get("mine")


def test_code_that_does_not_load_is_no_algorithm(source: Path) -> None:
    """Whatever it raises, it is a sentence."""
    shelf = Shelf()
    algorithms = _algorithms(shelf)
    Registrar(algorithms=algorithms, checker=Checks()).register(MINE, None, NOON)
    for text in ("raise SystemExit(3)", "Mine = 7", "class Mine:\n    def __init__(self, x): ..."):
        source.write_text(text, encoding="utf-8")
        sys.modules.pop("a_plugin_of_mine", None)
        Registrar(algorithms=algorithms, checker=Checks()).register(MINE, None, NOON)

        with pytest.raises(InvalidRequestError):
            algorithms.get("mine")


def test_the_version_of_installed_code_names_its_package() -> None:
    """And the file's content, so that an editable installation is told apart as well."""
    assert code_version("numpy.linalg:norm").startswith("numpy==")
    assert " sha256:" in code_version("numpy.linalg:norm")
