"""How a component is asked: what may be said of it, and what an agent allows."""

import copy

import pytest

from dspy_optimization.agents.component_settings import PARAMETERS, Choices, ComponentSettings, ModuleKind
from dspy_optimization.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"parameters": {"tempreature": 1.0}}, "found: tempreature; possible: temperature, top_p"),
        ({"parameters": {"temperature": 2.5}}, "wanted: temperature from 0 to 2; found: 2.5"),
        ({"parameters": {"temperature": float("nan")}}, "found: nan"),
        ({"parameters": {"temperature": True}}, "found: True"),
        ({"parameters": {"top_p": 0.0}}, "wanted: top_p above 0 to 1; found: 0.0"),
        ({"parameters": {"max_tokens": 1.5}}, "wanted: max_tokens from 1 to 1e[+]06, whole; found: 1.5"),
        ({"kind": "react"}, "found: react; possible: predict, chain_of_thought"),
        ({"tools": ("a", "b", "a")}, "wanted: every tool once; found: a, b, a"),
    ],
)
def test_what_cannot_be_is_not_built(said: dict, message: str) -> None:
    """Algorithms propose settings: what no agent could ever run is refused where it is made."""
    with pytest.raises(InvalidRequestError, match=message):
        ComponentSettings(**said)


def test_one_way_to_write_every_number() -> None:
    """Whole ones whole, others not, zero without a sign, in one order."""
    said = ComponentSettings(parameters={"top_p": 1, "max_tokens": 7.0, "temperature": -0.0})

    assert '{"max_tokens": 7, "temperature": 0.0, "top_p": 1.0}'.replace('"', "'") == str(dict(said.parameters))
    assert said == ComponentSettings(parameters={"temperature": 0, "max_tokens": 7, "top_p": 1.0})
    assert hash(said) == hash(copy.deepcopy(said))


def test_only_what_is_said_is_written() -> None:
    """No tools are something else than nothing said of tools."""
    assert ({}, True) == (ComponentSettings().to_json(), ComponentSettings().empty)
    assert ({"tools": []}, False) == (ComponentSettings(tools=()).to_json(), ComponentSettings(tools=()).empty)
    assert {"model": "large", "parameters": {"temperature": 0.5}, "kind": "predict", "tools": ["a"]} == (
        ComponentSettings(
            model="large", parameters={"temperature": 0.5}, kind=ModuleKind.PREDICT, tools=("a",)
        ).to_json()
    )


def test_choices_allow_what_they_list() -> None:
    """Whatever is drawn from them is accepted; nothing else is."""
    choices = Choices(
        kinds=(ModuleKind.PREDICT, ModuleKind.CHAIN_OF_THOUGHT), tools=("a", "b"), models=("m",), parameters=PARAMETERS
    )
    for allowed in (
        {},
        {"kind": "chain_of_thought"},
        {"tools": ("b",)},
        {"tools": ()},
        {"model": "m", "parameters": {name: span.typed(span.high) for name, span in PARAMETERS.items()}},
    ):
        choices.check(ComponentSettings(**allowed), "it")
    with pytest.raises(InvalidRequestError, match=r"it: tools: wanted: .*; found: c; possible: a, b"):
        choices.check(ComponentSettings(tools=("a", "c")), "it")
    with pytest.raises(InvalidRequestError, match=r"it: model: .*found: n; possible: m"):
        choices.check(ComponentSettings(model="n"), "it")


@pytest.mark.parametrize("said", [{"kind": "predict"}, {"tools": ()}, {"model": "m"}, {"parameters": {"seed": 1}}])
def test_no_choices_allow_nothing(said: dict) -> None:
    """And nothing said is always right."""
    Choices().check(ComponentSettings(), "it")
    with pytest.raises(InvalidRequestError, match="possible: leave it out"):
        Choices().check(ComponentSettings(**said), "it")
