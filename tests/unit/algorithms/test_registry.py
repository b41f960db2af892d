"""Which algorithms there are, and what happens to broken ones."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from dspy_optimization.algorithms.problem import Forecast, Problem, SearchRun, Shape
from dspy_optimization.algorithms.registry import GROUP, AlgorithmRegistry
from dspy_optimization.errors import InvalidRequestError, NotFoundError


@dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclass(frozen=True)
class NeedyOptions:
    """Something without a default."""

    wanted: int


class Plugin:
    """Works."""

    name: ClassVar[str] = "plugin"
    description: ClassVar[str] = "a plug-in"
    options: ClassVar[type] = NoOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Nothing is run."""
        return Forecast(runs=0, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Search nothing."""


class Renamed(Plugin):
    """Calls itself something else."""

    name: ClassVar[str] = "another"


class Undescribed(Plugin):
    """Says nothing of itself."""

    description: ClassVar[str] = None


class Optionless(Plugin):
    """Has options that are no dataclass."""

    options: ClassVar[type] = dict


class Needy(Plugin):
    """Has options that cannot be left out."""

    options: ClassVar[type] = NeedyOptions


class Idle(Plugin):
    """Does not search."""

    search = None


class Blind(Plugin):
    """Cannot say what it takes."""

    forecast = None


class Demanding(Plugin):
    """Cannot be made without arguments."""

    def __init__(self, argument: int) -> None:
        """Want one."""


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    """An installed module with plug-ins, good and bad."""
    made = ModuleType("plugins_of_a_test")
    for one in (Plugin, Renamed, Undescribed, Optionless, Needy, Idle, Blind, Demanding):
        setattr(made, one.__name__, one)
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def point(target: str, name: str = "plugin", package: str | None = None, folder: Path | None = None) -> EntryPoint:
    """Return an entry point of a package."""
    made = EntryPoint(name=name, value=f"plugins_of_a_test:{target}", group=GROUP)
    if package is not None and folder is not None:
        info = folder / f"{package}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Name: {package}\nVersion: 1\n")
        made = made._for(PathDistribution(info))
    return made


def test_the_built_ins_are_all_there() -> None:
    """Every entry point of pyproject.toml loads."""
    registry = AlgorithmRegistry.of_environment()

    assert {
        "bootstrap_fewshot",
        "bootstrap_random_search",
        "copro",
        "gepa",
        "infer_rules",
        "labeled_fewshot",
        "miprov2",
        "simba",
    } <= set(registry.names)
    assert [] == [one for one in registry.broken if "dspy_optimization" in one.source]


def test_a_plugin_is_found_beside_them() -> None:
    """One group for all."""
    registry = AlgorithmRegistry([point("Plugin")])

    assert ("plugin",) == registry.names
    assert isinstance(registry.get("plugin"), Plugin)
    assert NoOptions() == registry.options("plugin", {})


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    """And with all there are."""
    registry = AlgorithmRegistry([point("Plugin")])

    with pytest.raises(NotFoundError, match=r"no algorithm is called 'plugim'; did you mean plugin\? possible: plugin"):
        registry.get("plugim")
    with pytest.raises(NotFoundError, match=r"no algorithm is called 'x'; possible: nothing"):
        AlgorithmRegistry([]).get("x")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("Missing", "it does not load: AttributeError"),
        ("Demanding", "it does not load: TypeError"),
        ("Renamed", "wanted: the attribute name = 'plugin', as its entry point; found: 'another'"),
        ("Undescribed", "wanted: a text in the attribute description"),
        ("Optionless", "wanted: a frozen dataclass in the attribute options"),
        ("Needy", "wanted: options that all have a default; found none for wanted"),
        ("Idle", "wanted: a method search"),
        ("Blind", "wanted: a method forecast"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_nobody(target: str, reason: str, tmp_path: Path) -> None:
    """The others go on working."""
    good = EntryPoint(name="gepa", value="dspy_optimization.adapters.dspy.gepa:GEPA", group=GROUP)
    registry = AlgorithmRegistry([point(target, package="bad-package", folder=tmp_path), good])
    (broken,) = registry.broken

    assert ("gepa",) == registry.names
    assert f"bad-package (plugins_of_a_test:{target})" == broken.source
    assert reason in broken.reason
    with pytest.raises(InvalidRequestError, match=r"of bad-package .* cannot be used: .*; possible: mend or remove"):
        registry.get("plugin")


def test_a_plugin_cannot_take_the_place_of_ours(tmp_path: Path) -> None:
    """Whatever order they are installed in."""
    ours = point("Plugin", package="dspy-optimization", folder=tmp_path)
    theirs = point("Plugin", package="aaa", folder=tmp_path)
    for installed in ([ours, theirs], [theirs, ours]):
        (broken,) = AlgorithmRegistry(installed).broken

        assert broken.source.startswith("aaa ")
        assert "the name is taken by dspy-optimization" in broken.reason
