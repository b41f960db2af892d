"""The contract of algorithms: who keeps it passes, and each way of breaking it is found and named."""

from collections.abc import Mapping

import pytest

import bad_algorithms as bad
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.algorithms.rules import Outcome
from dspy_optimization.events import Json
from dspy_optimization.testing.algorithm_bench import Bench
from dspy_optimization.testing.algorithm_contract import RULES, AlgorithmContract, check_algorithm

SMALL: Mapping[str, Mapping[str, Json]] = {
    "bootstrap_random_search": {"candidates": 2},
    "copro": {"breadth": 3, "depth": 2},
    "simba": {"steps": 1, "candidates": 2},
    "given": {"candidates": [{"components": {"answer": {"instructions": "SHOUT it."}}}]},
    "genetic": {"population": 8, "generations": 2, "evaluations": 60, "initial": 6},
    "racing": {"evaluations": 120, "pool": 10, "bootstrap_examples": 6},
}
"""Options with which a search is short; the others are short by themselves."""


class TestTrying(AlgorithmContract):
    """The suite, as authors of plug-ins use it."""

    algorithm = bad.Trying()


@pytest.mark.parametrize("name", AlgorithmRegistry.of_environment().names)
def test_what_is_installed_keeps_the_contract(name: str) -> None:
    """Every built-in algorithm, and whatever else is installed here."""
    algorithm = AlgorithmRegistry.of_environment().get(name)

    broken = [one.sentence for one in check_algorithm(algorithm, SMALL.get(name)) if one.outcome is not Outcome.KEPT]

    assert [] == broken


@pytest.mark.parametrize(
    ("algorithm", "rule", "found"),
    [
        (bad.Hanging(), "searches to its end", "it goes on"),
        (bad.Leaving(), "searches to its end", "SystemExit: I have had enough"),
        (bad.Breaking(), "searches to its end", "ZeroDivisionError: division by zero"),
        (bad.Pretending(), "searches to its end", "CancelRequested: a person, surely"),
        (bad.Swallowing(), "ends when it is told to", "more: evaluate"),
        (bad.Stubborn(), "ends when it is told to", "it goes on"),
        (bad.Stubborn(), "ends when it is cancelled", "it goes on"),
        (bad.Swallowing(), "ends with its turn", "more: evaluate"),
        (bad.Seeding(), "leaves the process as it is", "the global generator of random (seeded), that of numpy"),
        (bad.Gambling(), "is the same again", "that differ"),
        (bad.Printing(), "leaves the process as it is", "standard output, by printing"),
        (bad.Setting(), "leaves the process as it is", "os.environ"),
        (bad.Racing(), "does not depend on the order of answers", "that differ"),
        (bad.Littering(), "leaves no thread", "left behind"),
        (bad.Cheating(), "records what was measured", "that it did not, e.g. on example"),
        (bad.Lending(), "records what was measured", "8 that it did not"),
        (bad.Forging(), "records what was measured", "other content under its id"),
        (bad.Peeking(), "sees no test data", "test"),
        (bad.Thawing(), "keeps what is frozen", "another value for draft"),
        (bad.Adding(), "keeps what is frozen", "one for answer, draft, mine"),
        (bad.Modest(), "keeps its forecast", "with what measuring the submitted candidates on val takes"),
        (bad.Silent(), "reports progress", "none"),
        (bad.Idle(), "comes to something", "neither"),
        (bad.Scribbling(), "leaves the problem as it is", "were changed"),
        (bad.Forgetting(), "goes on where it stopped", "that differ"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, bad.Trying) else None,
)
def test_what_breaks_a_rule_is_found(algorithm: Algorithm, rule: str, found: str) -> None:
    """By name, with what was found and what to do."""
    (checked,) = [one for one in RULES if one.name == rule]

    finding = checked.finding(Bench(algorithm, {}, limit_seconds=3.0))

    assert Outcome.BROKEN is finding.outcome
    assert found in finding.found
    assert finding.wanted
    assert finding.possible


def test_nothing_else_is_found_of_one_that_breaks_one_rule() -> None:
    """A finding is about its rule: a plug-in that only prints keeps all others."""
    broken = [one.rule for one in check_algorithm(bad.Printing()) if one.outcome is not Outcome.KEPT]

    assert ["leaves the process as it is"] == broken


def test_what_cannot_be_checked_says_so() -> None:
    """Rules behind one that ends the check are not kept and not broken."""
    findings = check_algorithm(bad.Breaking())

    assert len(RULES) == len(findings)
    assert "searches to its end" == next(one.rule for one in findings if one.outcome is Outcome.BROKEN)
    assert {Outcome.UNCHECKED} == {one.outcome for one in findings[7:]}


def test_every_rule_is_a_test_of_the_suite() -> None:
    """A rule added to the function is one of the class too."""
    tests = [name for name in dir(AlgorithmContract) if name.startswith("test_")]

    assert len(RULES) == len(tests)
