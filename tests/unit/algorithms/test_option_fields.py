"""Options from JSON, and options as a schema."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.algorithms.option_fields import OptionField, option_fields, options_from_json
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.errors import InvalidRequestError


@dataclass(frozen=True)
class Base:
    """What all have."""

    seeds: tuple[int, ...] = ()
    """Which seeds."""


@dataclass(frozen=True, kw_only=True)
class Options(Base):
    """One of each kind."""

    trials: int = 3
    """How many,
    at least 1."""
    share: float = 0.5
    mode: Literal["fast", "slow"] | None = None
    """How thoroughly."""
    name: str = "x"
    loud: bool = False
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InvalidRequestError(f"trials: wanted 1 or more; found {self.trials}")


def test_what_is_given_is_taken() -> None:
    """Whole numbers may stand for others, lists become tuples."""
    options = options_from_json(
        "a", Options, {"trials": 5, "share": 1, "mode": "slow", "seeds": [1, 2], "loud": True, "name": "y"}
    )

    assert Options(trials=5, share=1.0, mode="slow", seeds=(1, 2), loud=True, name="y") == options
    assert isinstance(options.share, float)
    assert Options() == options_from_json("a", Options, {})
    assert Options() == options_from_json("a", Options, {"mode": None})


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"trails": 3}, "a has no option 'trails'; did you mean trials\\? possible: seeds, trials, share, mode"),
        ({"zzz": 3}, "a has no option 'zzz'; possible: seeds"),
        ({"trials": "3"}, "the option trials of a: wanted int; found str '3'"),
        ({"trials": True}, "wanted int; found true"),
        ({"trials": 2.5}, "wanted int; found float 2.5"),
        ({"trials": None}, "wanted int; found null"),
        ({"share": True}, "wanted float; found true"),
        ({"loud": 1}, "wanted bool; found int 1"),
        ({"mode": "medium"}, "wanted one of 'fast', 'slow' or null; found str 'medium'"),
        ({"seeds": [1, "2"]}, "wanted list of int; found a list"),
        ({"seeds": {"a": 1}}, "wanted list of int; found a mapping"),
        ({"trials": 0}, "options of a: trials: wanted 1 or more; found 0"),
    ],
)
def test_what_does_not_fit_is_refused(given_options: dict[str, object], message: str) -> None:
    """The message says which option, what was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        options_from_json("a", Options, given_options)


def test_a_class_without_options_says_so() -> None:
    """There is nothing to list."""

    @dataclass(frozen=True)
    class Nothing:
        """No options."""

    with pytest.raises(InvalidRequestError, match="possible: no options"):
        options_from_json("a", Nothing, {"x": 1})


def test_fields_tell_what_may_be_chosen() -> None:
    """The text below a field is its description, inherited ones too."""
    fields = {one.name: one for one in option_fields(Options)}

    assert OptionField(name="seeds", type="list of int", default=[], description="Which seeds.") == fields["seeds"]
    assert "How many,\nat least 1." == fields["trials"].description
    assert ("fast", "slow") == fields["mode"].choices
    assert "one of 'fast', 'slow' or null" == fields["mode"].type
    assert "" == fields["share"].description
    assert [] == fields["notes"].default


def test_a_class_without_source_has_options_without_texts() -> None:
    """A plug-in may be made at run time."""
    namespace: dict[str, type] = {"dataclass": dataclass}
    exec("@dataclass(frozen=True)\nclass Made:\n    a: int = 1", namespace)

    assert ["a"] == [one.name for one in option_fields(namespace["Made"])]


def test_every_option_of_every_algorithm_is_described_and_has_a_default_that_fits() -> None:
    """The defaults, sent back as JSON, are the defaults."""
    registry = AlgorithmRegistry.of_environment()
    for name in registry.names:
        fields = option_fields(registry.get(name).options)

        assert all(one.description for one in fields), name
        assert registry.options(name, {}) == registry.options(name, {one.name: one.default for one in fields})


@given(
    st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
    )
)
def test_whatever_is_given_ends_in_options_or_in_a_message(given_options: dict[str, object]) -> None:
    """Never in a traceback."""
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(options_from_json("a", Options, given_options), Options)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithMappings:
    """Options that hold mappings."""

    one: dict[str, int] | None = None
    many: tuple[Mapping[str, int], ...] = ()


def test_an_option_may_hold_mappings() -> None:
    """What is in them the class checks itself."""
    fields = {one.name: one.type for one in option_fields(WithMappings)}

    made = options_from_json("a", WithMappings, {"one": {"a": 1}, "many": [{"b": 2}, {}]})

    assert {"one": "mapping or null", "many": "list of mapping"} == fields
    assert WithMappings(one={"a": 1}, many=({"b": 2}, {})) == made
    for wrong in ({"one": [1]}, {"one": "x"}, {"many": {"b": 2}}, {"many": [{"b": 2}, 3]}):
        with pytest.raises(InvalidRequestError, match=r"wanted (mapping or null|list of mapping)"):
            options_from_json("a", WithMappings, wrong)
