"""Nouns as documents."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import NewType, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspy_optimization.adapters.postgres.documents import VERSION, read, write
from dspy_optimization.adapters.postgres.escaping import from_text, to_text
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.component_settings import PARAMETERS, ComponentSettings
from dspy_optimization.agents.example import Example, Split, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.evaluation.gate import ValidatedResult, restored
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.model import ModelResponse
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import Event
from dspy_optimization.optimization.request import OptimizationRequest
from dspy_optimization.optimization.result import OptimizationResult

JSON = get_args(get_type_hints(Event)["data"])[1]
floats = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
scalars = {
    str: st.text(max_size=6),
    int: st.integers(),
    float: floats,
    bool: st.booleans(),
    UUID: st.uuids(),
    datetime: st.datetimes(timezones=st.just(UTC)),
}


def of_type(hint: object) -> st.SearchStrategy[object]:
    """Values of an annotation, found without the code under test."""
    if isinstance(hint, NewType):
        return of_type(hint.__supertype__)
    if hint == JSON:
        return plain
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return st.one_of(*(st.none() if one is NoneType else of_type(one) for one in arguments))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*map(of_type, arguments))
    if origin is tuple:
        return st.lists(of_type(arguments[0]), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=2)
    assert isinstance(hint, type)
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    return scalars[hint] if hint in scalars else nouns(hint)


def nouns(kind: type) -> st.SearchStrategy[object]:
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    if kind is ComponentSettings:
        ranges = {
            name: (st.integers if span.whole else st.floats)(span.low, span.high)
            for name, span in PARAMETERS.items()
            if not span.open_low
        }
        return st.builds(
            ComponentSettings,
            model=of_type(hints["model"]),
            kind=of_type(hints["kind"]),
            parameters=st.fixed_dictionaries({}, optional=ranges),
            tools=st.none() | st.lists(st.text(max_size=6), max_size=2, unique=True).map(tuple),
        )
    parts = {field.name: of_type(hints[field.name]) for field in fields(kind) if field.name != "seal"}
    return st.builds(restored if kind is ValidatedResult else kind, **parts)


@pytest.mark.parametrize(
    "kind", [Example, ModelResponse, Trial, OptimizationRequest, OptimizationResult, ValidatedResult, Spend]
)
def test_every_noun_comes_back(kind: type) -> None:
    """What is read equals what was written, and so does its text."""

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
    @given(nouns(kind))
    def law(noun: object) -> None:
        text = to_text(write(noun))
        found = read(kind, from_text(text))

        assert noun == found
        assert text == to_text(write(found))

    law()


def test_only_the_gate_and_the_store_make_a_validated_result() -> None:
    """The seal is not in the document, so nobody can write one by hand."""
    with pytest.raises(TypeError, match="result of the gate"):
        ValidatedResult(
            dataset="d", baseline="a", optimized="b", n_examples=1, alpha=0.05, test_split_use=1, objectives={},
            primary="m", verdict="improved", reason="", seal=None,
        )  # fmt: skip


def test_a_missing_field_takes_its_default() -> None:
    """A noun that grew a field with a default still reads its old documents."""
    document = write(Score(value=1.0))
    del document["noun"]["feedback"]

    assert Score(value=1.0) == read(Score, document)


def test_candidates_of_before_components_had_settings_are_read() -> None:
    """They say nothing of how they are asked, and are who they were."""
    kept = {
        "version": 1,
        "noun": {
            "components": {"classify": {"instructions": "Sort it.", "demos": [{"text": "a"}]}},
            "origin": "gepa",
            "parents": ["f0"],
        },
    }

    found = read(Candidate, kept)

    assert ComponentSettings() == found.components["classify"].settings
    assert "settings" not in str(found.to_json())
    assert found == read(Candidate, write(found))


@dataclass(frozen=True, kw_only=True)
class Pair:
    both: tuple[int, float]


@pytest.mark.parametrize(
    ("kind", "noun", "message"),
    [
        (Score, {"value": 1.0, "colour": "red"}, r"\['colour'\] too many, \[\] missing"),
        (Score, {}, r"\[\] too many, \['value'\] missing"),
        (Score, {"value": "1"}, "wanted: float at Score.value.*found: str"),
        (Score, {"value": True}, "wanted: float at Score.value.*found: bool"),
        (Score, [], "wanted: Score at Score.*found: list"),
        (Usage, {"lm_calls": 1.5}, "wanted: int at Usage.lm_calls.*found: float"),
        (Pair, {"both": [1]}, "wanted: tuple.* at Pair.both.*found: list"),
        (Pair, {"both": 1}, "wanted: tuple.* at Pair.both.*found: int"),
        (Example, {"id": "1", "inputs": 1, "expected": {}}, "at Example.inputs"),
        (Trial, {**write(Score(value=1.0)), "split": "all"}, "too many"),
    ],
)
def test_a_document_of_another_form_is_named(kind: type, noun: object, message: str) -> None:
    """The message says where, what was wanted and what stands there."""
    with pytest.raises(StoreError, match=message):
        read(kind, {"version": VERSION, "noun": noun})


@dataclass(frozen=True, kw_only=True)
class Moment:
    split: Split = Split.VAL
    at: datetime | None = None
    id: UUID | None = None


@pytest.mark.parametrize("noun", [{"split": "all"}, {"at": "noon"}, {"id": "1"}])
def test_text_that_is_no_such_thing_is_named(noun: object) -> None:
    """A word that is no member, moment or id."""
    with pytest.raises(StoreError, match=r"wanted: (Split|datetime|UUID) at Moment"):
        read(Moment, {"version": VERSION, "noun": noun})


@pytest.mark.parametrize("document", [None, [], {}, {"version": VERSION + 1, "noun": {}}])
def test_a_document_of_another_version_is_refused(document: object) -> None:
    """The engine that wrote it can read it; this one does not guess."""
    with pytest.raises(StoreError, match=f"of form {VERSION}; found"):
        read(Score, document)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_with_its_place(value: float) -> None:
    """The message leads to the field."""
    with pytest.raises(InvalidRequestError, match=r"finite number at Score\.value"):
        write(Score(value=value))


def test_what_is_no_noun_is_refused() -> None:
    """Objects of other kinds have no document."""
    with pytest.raises(TypeError, match="found: object"):
        write(Score(value=1.0, feedback=object()))


def test_a_document_is_plain_json() -> None:
    """Other programs can read it."""
    assert {"version": 1, "noun": {"value": 0.5, "feedback": "", "failure": None}} == json.loads(
        to_text(write(Score(value=0.5)))
    )
