"""The house rules a machine can check (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "dspy_optimization"
MODULES = sorted(SOURCE.rglob("*.py"))

# Each of these is a place whose whole work is to turn whatever foreign code raises into a fact.
CATCHES_EVERYTHING = {
    "adapters/dspy/runnable.py": "a program is user code: whatever it raises on an example is that example's score",
    "adapters/deliverer.py": "a defect of ours that one delivery brings to light must not keep others from going out",
    "adapters/lookups.py": "whatever a lookup raises in its thread is raised where the name was asked for",
    "experiments/looker.py": "a defect of ours that one experiment brings to light must not leave others unwatched",
    "web/firing.py": "a defect of ours that one schedule brings to light must not keep all others from firing",
    "jobs/worker.py": "a defect of ours in one job must not take the other jobs of its process with it",
    "optimization/turns.py": "an algorithm is foreign code: what it raises ends its turn, not the portfolio",
    "testing/algorithm_bench.py": "whatever an algorithm on trial raises is how its search ended",
    "testing/algorithm_contract.py": "whatever an algorithm on trial raises is what is found of it",
}


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_only_named_places_catch_everything(path: Path) -> None:
    """`except Exception` hides what nobody thought of."""
    wide = [
        node.lineno
        for node in _nodes(path)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
        and not any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
    ]

    assert bool(wide) is False or _name(path) in CATCHES_EVERYTHING


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_type_is_waved_through(path: Path) -> None:
    """`# type: ignore` says the types are wrong; mend the types."""
    assert "type: ignore" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_is_pickled(path: Path) -> None:
    """Unpickling runs code; artifacts are data."""
    imported = {
        alias.name.partition(".")[0] for node in _nodes(path) if isinstance(node, ast.Import) for alias in node.names
    } | {(node.module or "").partition(".")[0] for node in _nodes(path) if isinstance(node, ast.ImportFrom)}

    assert imported & {"pickle", "cloudpickle", "dill", "shelve", "marshal"} == set()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_keep_no_state(path: Path) -> None:
    """A registry, cache, client or lock at module level is shared by tenants and tests; hand it in."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    stateful = [
        node.lineno
        for node in body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in {"Lock", "RLock", "Client", "Session", "local", "Queue"}
    ]

    assert stateful == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_names_say_what_a_thing_is(path: Path) -> None:
    """No drawer for what nobody could name."""
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


def test_packages_hold_imports_or_nothing() -> None:
    """An `__init__` that does things is done by everybody who imports it; the root one imports when asked."""
    allowed = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign)
    busy = [
        _name(path)
        for path in MODULES
        if path.name == "__init__.py"
        and path.parent != SOURCE
        and any(not isinstance(node, allowed) for node in ast.parse(path.read_text(encoding="utf-8")).body)
    ]

    assert busy == []
