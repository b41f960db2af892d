"""Candidates that are given instead of searched for."""

from dataclasses import dataclass, field

import pytest

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.algorithms.given import (
    Given,
    GivenOptions,
    candidate_from_json,
    candidate_to_json,
)
from dspy_optimization.algorithms.option_fields import option_fields
from dspy_optimization.algorithms.problem import Shape
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.errors import InvalidRequestError

BASELINE = Candidate(
    components={
        ComponentName("read"): ComponentValue(
            instructions="Read it.", demos=({"q": "1"},), settings=ComponentSettings(parameters={"temperature": 0.5})
        ),
        ComponentName("write"): ComponentValue(instructions="Write it."),
    }
)
SHAPE = Shape(n_train=3, n_val=7, n_components=2)


def test_what_is_written_reads_back() -> None:
    """Texts, demos and settings; also where the candidate has no settings and the baseline has some."""
    candidate = Candidate(
        components={
            ComponentName("read"): ComponentValue(instructions="Look.", demos=({"q": "2", "a": ["x"]},)),
            ComponentName("write"): ComponentValue(
                instructions="", settings=ComponentSettings(model="m", kind="predict", tools=("t",))
            ),
        }
    )

    found = candidate_from_json(candidate_to_json(candidate, "picked from 7"), BASELINE, frozenset())

    assert candidate == found
    assert ("picked from 7", (BASELINE.fingerprint,)) == (found.origin, found.parents)


def test_what_is_left_out_is_as_in_the_baseline() -> None:
    """Components, and parts of them."""
    found = candidate_from_json(
        {"components": {"read": {"instructions": "Look."}}}, BASELINE, frozenset({ComponentName("write")})
    )

    read = found.components[ComponentName("read")]
    assert ("Look.", ({"q": "1"},), {"temperature": 0.5}) == (
        read.instructions,
        read.demos,
        dict(read.settings.parameters),
    )
    assert BASELINE.components[ComponentName("write")] == found.components[ComponentName("write")]
    assert "given" == found.origin


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "components is missing"),
        ({"components": {}}, "components is missing"),
        ({"components": {"reed": {}}}, "wanted: a component of the agent; found: reed; possible: read, write"),
        ({"components": {"write": {"instructions": "x"}}}, "the frozen component write"),
        ({"components": {"read": {"instructions": 3}}}, "instructions: text is wanted"),
        ({"components": {"read": {"demos": ["x"]}}}, "demos: a list of mappings"),
        ({"components": {"read": {"settings": {"parameters": {"temperature": "hot"}}}}}, "parameters: numbers"),
        ({"components": {"read": {"settings": {"parameters": {"temperature": 9}}}}}, "temperature from 0 to 2"),
        ({"components": {"read": {"settings": {"tools": [1]}}}}, "tools: a list of names of tools"),
        ({"components": {"read": {"texts": ""}}}, "'texts' is no known key"),
        ({"components": {"read": {}}, "parents": [1]}, "parents: a list of fingerprints"),
    ],
)
def test_what_is_no_candidate_is_refused(data: dict[str, object], said: str) -> None:
    """With its place; what needs no agent to be seen, already when the request is made."""
    with pytest.raises(InvalidRequestError, match=said):
        candidate_from_json(data, BASELINE, frozenset({ComponentName("write")}))


@dataclass
class Told:
    """Notes what it is told."""

    submitted: list[Candidate] = field(default_factory=list)
    reports: int = 0

    def submit(self, candidate: Candidate) -> None:
        self.submitted.append(candidate)

    def report(self, _progress: object) -> None:
        self.reports += 1


@dataclass(frozen=True)
class Asked:
    """As much of a problem as it looks at."""

    options: GivenOptions
    baseline: Candidate = BASELINE
    frozen: frozenset[ComponentName] = frozenset()


def test_they_are_submitted_and_nothing_is_searched() -> None:
    """In their order; its forecast is their runs on val."""
    registry = AlgorithmRegistry.of_environment()
    some = [{"components": {"read": {"instructions": text}}} for text in ("A", "B")]
    options = registry.options("given", {"candidates": some})
    told = Told()

    registry.get("given").search(Asked(options), told)  # type: ignore[arg-type]

    assert ["A", "B"] == [one.components[ComponentName("read")].instructions for one in told.submitted]
    assert (2, 14, 0) == (
        told.reports,
        Given().forecast(options, SHAPE).runs,
        Given().forecast(options, SHAPE).proposals,
    )


def test_options_are_checked_when_the_request_is_made() -> None:
    """No list, no mapping, none at all, too many."""
    registry = AlgorithmRegistry.of_environment()

    with pytest.raises(InvalidRequestError, match="wanted list of mapping; found str 'a'"):
        registry.options("given", {"candidates": "a"})
    with pytest.raises(InvalidRequestError, match=r"options of given: candidates\[0\].components is missing"):
        registry.options("given", {"candidates": [{}]})
    with pytest.raises(InvalidRequestError, match="at most 256; found: 257"):
        GivenOptions(candidates=({"components": {"read": {}}},) * 257)
    with pytest.raises(InvalidRequestError, match="wanted: at least one candidate; found: none"):
        Given().forecast(GivenOptions(), SHAPE)
    assert "list of mapping" == option_fields(GivenOptions)[0].type
