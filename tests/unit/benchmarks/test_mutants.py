"""The breaks that mutation testing makes: small, real, and of everything that decides."""

import ast

import pytest
from benchmarks.mutants import mutants_of
from benchmarks.mutation import EQUIVALENTS, MODULES, PACKAGE, cases, equivalents


def _broken(source: str) -> set[str]:
    return {mutant.applied(source) for mutant in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b < c", {"a = (b <= c)", "a = (b >= c)"}),
        ("a = b is None", {"a = (b is not None)"}),
        ("a = b and c", {"a = (b or c)"}),
        ("a = not b", {"a = (b)"}),
        ("a = b + c", {"a = (b - c)"}),
        ("a += b", {"a -= b"}),
        ("a = True", {"a = False"}),
        ("a = 3", {"a = 4"}),
        ("call(b)", {"pass"}),
        ("if a:\n    b = c", {"if (not (a)):\n    b = c"}),
        ("def a():\n    return b", {"def a():\n    return None"}),
        ("for a in b:\n    break", {"for a in b:\n    continue"}),
    ],
)
def test_each_kind_of_break(source: str, expected: set[str]) -> None:
    """One place at a time, everything else as it was."""
    assert expected == _broken(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A text of 3 words."""',
        "from a import b",
        '__all__ = ["a" + "b"]',
        "a: int | None",
        'raise Error(f"found {b + 1}")',
        '@property(1 + 1)\nclass A(B + C):\n    b: "int"',
    ],
)
def test_what_decides_nothing_is_left_alone(source: str) -> None:
    """Texts, names and types: other tools look after them."""
    assert set() == _broken(source)


def test_places_are_found_behind_letters_of_several_bytes() -> None:
    """Positions in Python's syntax tree are bytes, not letters."""
    assert {'a = "größer"; b = (c <= d)', 'a = "größer"; b = (c >= d)'} == _broken('a = "größer"; b = c < d')


@pytest.mark.parametrize("module", ["statistics/verdict", "evaluation/budget", "evaluation/cashier"])
def test_every_mutant_of_a_module_parses_and_differs(module: str) -> None:
    """What does not parse would count as killed without any test."""
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    found = {mutant.applied(source) for mutant in mutants_of(source)}

    assert source not in found
    assert all(ast.parse(broken) for broken in found)
    assert len(found) > 0


def test_listed_equivalents_are_still_mutants() -> None:
    """An entry for a line that has changed excuses nothing and has to go."""
    known = {(case.module, case.diff()) for case in cases(list(MODULES))}

    assert set() == set(equivalents()) - known, f"drop these from {EQUIVALENTS.name}"
