"""Agent configurations: JSON there and back, and the short forms people write."""

from pathlib import Path

import pytest
from agent_samples import ALLOWED, MINIMAL, minimal
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings, ModuleKind
from dspy_optimization.agents.config import (
    AgentConfig,
    AgentKind,
    Component,
    Field,
    HttpEndpoint,
    ModelChoice,
    PipelineStep,
    Signature,
)
from dspy_optimization.agents.loading import agent_from_json, agent_to_json, load_agent_file
from dspy_optimization.errors import InvalidRequestError

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9_]{0,5}x", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
fields = st.builds(Field, name=names, type=st.sampled_from(["str", "int | None", "list[str]"]), description=texts)


@st.composite
def signatures(draw) -> Signature:
    some = draw(st.lists(fields, min_size=2, max_size=4, unique_by=lambda one: one.name))
    cut = draw(st.integers(1, len(some) - 1))
    instructions = draw(texts.filter(bool))
    return Signature(instructions=instructions, inputs=tuple(some[:cut]), outputs=tuple(some[cut:]))


demos = st.lists(st.dictionaries(names, json_values, min_size=1, max_size=2), max_size=2).map(tuple)
settings = st.builds(
    ComponentSettings,
    model=st.none() | st.sampled_from(["house", "openai/gpt-4o-mini"]),
    parameters=st.fixed_dictionaries(
        {}, optional={"temperature": st.floats(0, 2), "top_k": st.integers(1, 99), "top_p": st.floats(0.1, 1)}
    ),
    kind=st.sampled_from([None, *ModuleKind]),
    tools=st.none() | st.lists(names, unique=True, max_size=3).map(tuple),
)
values = st.builds(ComponentValue, instructions=texts, demos=demos, settings=settings)
components = st.dictionaries(
    st.sampled_from(["predict", "extract.predict", "steps[0].predict"]).map(ComponentName),
    st.builds(Component, value=st.none() | values, frozen=st.booleans())
    | st.builds(Component, how=settings.filter(lambda one: not one.empty), frozen=st.booleans()),
    max_size=2,
)
models = st.builds(
    ModelChoice,
    role=st.sampled_from(["task", "reflection", "judge"]),
    name=st.none() | st.just("openai/gpt-4o-mini"),
    parameters=st.fixed_dictionaries(
        {}, optional={"temperature": st.floats(0, 2), "max_tokens": st.integers(1, 4096), "seed": st.integers(0, 9)}
    ),
)


@st.composite
def agents(draw, depth: int = 0) -> AgentConfig:
    kinds = [AgentKind.REACT, AgentKind.PREDICT, AgentKind.ENTRYPOINT, AgentKind.HTTP, AgentKind.BEST_OF_N]
    kind = draw(st.sampled_from([*kinds, *([AgentKind.PIPELINE] if depth < 2 else [])]))
    parts: dict[str, object] = {}
    if kind is AgentKind.PIPELINE:
        inner = draw(st.lists(agents(depth + 1), min_size=1, max_size=2))
        parts["steps"] = tuple(PipelineStep(name=f"s{number}", agent=one) for number, one in enumerate(inner))
    elif kind is AgentKind.ENTRYPOINT:
        parts["entrypoint"] = "sample.programs:triage"
    elif kind is AgentKind.HTTP:
        parts["http"] = HttpEndpoint(url="https://agents.example.com/run", timeout_seconds=draw(st.floats(0.1, 3600.0)))
        parts["signature"] = draw(st.none() | signatures())
    else:
        parts["signature"] = draw(signatures())
    if kind is AgentKind.REACT:
        parts |= {"tools": ("json:loads",), "options": {"max_iters": draw(st.integers(1, 100))}, "demos": draw(demos)}
    if kind is AgentKind.BEST_OF_N:
        parts |= {"options": {"reward": "sample.rewards:short", "n": 2, "threshold": 1.0, "module": "predict"}}
    return AgentConfig(
        name=draw(st.sampled_from(["support-triage", "a.b_c", "7"])),
        kind=kind,
        components=draw(components),
        model=draw(models),
        adapter=draw(st.sampled_from(["chat", "json", "xml"])),
        **parts,
    )


@given(agents())
def test_json_there_and_back_is_identity(config: AgentConfig) -> None:
    """What agent_to_json writes, agent_from_json reads back equal, with the same version."""
    back = agent_from_json(agent_to_json(config), allowed=ALLOWED)

    assert (config, config.version) == (back, back.version)


@pytest.mark.parametrize("kind", list(AgentKind))
def test_every_kind_has_a_shortest_form(kind: AgentKind) -> None:
    """Every kind loads and comes back equal."""
    config = agent_from_json(minimal(kind), allowed=ALLOWED)

    assert config == agent_from_json(config.to_json(), allowed=ALLOWED)
    assert set(MINIMAL) == set(AgentKind)


@pytest.mark.parametrize(
    "signature",
    [
        {"inputs": ["question"], "outputs": ["answer: int"]},
        {"inputs": {"question": "str"}, "outputs": {"answer": "int"}},
        {"inputs": {"question": None}, "outputs": {"answer": {"type": "int"}}},
        {"inputs": [{"name": "question"}], "outputs": [{"name": "answer", "type": "int"}]},
        "question -> answer: int",
        "question: str -> answer:int",
    ],
)
def test_short_forms_mean_the_same(signature: object) -> None:
    """A name, a mapping or a list of mappings; without instructions the usual ones."""
    config = agent_from_json({"name": "a", "kind": "predict", "signature": signature}, allowed=ALLOWED)
    expected = Signature(
        instructions="Given the fields `question`, produce the fields `answer`.",
        inputs=(Field(name="question"),),
        outputs=(Field(name="answer", type="int"),),
    )

    assert expected == config.signature


def test_commas_of_a_type_do_not_end_a_field() -> None:
    """The short form knows brackets and quotes."""
    config = agent_from_json(
        {"name": "a", "kind": "predict", "signature": r"a: dict[str, int], b -> c: Literal['x, y', 'it\'s', ']']"},
        allowed=ALLOWED,
    )

    assert config.signature is not None
    assert ["a", "b", "c"] == [one.name for one in config.signature.inputs + config.signature.outputs]
    assert config.signature.outputs[0].type == r"Literal['x, y', 'it\'s', ']']"


def test_a_file_without_a_name_is_called_as_the_file(tmp_path: Path) -> None:
    """YAML as people write it."""
    path = tmp_path / "letter-counter.yaml"
    path.write_text(
        """
kind: chain_of_thought
signature:
  instructions: Count.
  inputs: [question]
  outputs: {answer: int}
model: {role: task, temperature: 0.5, max_tokens: 200, top_p: 1}
demos:
  - {question: "How many e in tree?", reasoning: t-r-e-e, answer: 2}
components:
  predict: {instructions: Count carefully., frozen: true}
  other: {frozen: true}
""",
        encoding="utf-8",
    )
    config = load_agent_file(path, ALLOWED)

    assert config.name == "letter-counter"
    assert config.model.parameters == {"temperature": 0.5, "top_p": 1, "max_tokens": 200}
    assert config.components == {
        "predict": Component(value=ComponentValue(instructions="Count carefully."), frozen=True),
        "other": Component(value=None, frozen=True),
    }


@pytest.mark.parametrize(("short", "long"), [("judge", ModelChoice(role="judge")), ("gpt", ModelChoice(name="gpt"))])
def test_a_model_by_role_or_name(short: str, long: ModelChoice) -> None:
    """One word is a role where there is such a role, else a name of the settings."""
    config = agent_from_json(minimal(AgentKind.PREDICT, model=short), allowed=ALLOWED)

    assert long == config.model


def test_headers_are_a_word_of_the_domain_in_fields_and_demos() -> None:
    """What is refused as a setting may be data."""
    config = agent_from_json(
        {
            "name": "mail", "kind": "predict", "signature": "headers -> spam: bool",
            "demos": [{"headers": "From: x", "spam": True}],
        },
        allowed=ALLOWED,
    )  # fmt: skip

    assert config.demos == ({"headers": "From: x", "spam": True},)


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(InvalidRequestError, match=r"a.json: a mapping is wanted, found list \[1\]"):
        load_agent_file(path, ALLOWED)


def test_a_candidate_goes_in_and_frozen_marks_stay() -> None:
    """An optimized agent is stored and read back as any other."""
    config = agent_from_json(minimal(AgentKind.PREDICT, components={"predict": {"frozen": True}}), allowed=ALLOWED)
    value = ComponentValue(instructions="Better.", demos=({"question": "q", "augmented": True},))
    better = config.with_candidate(Candidate(components={ComponentName("predict"): value}))

    assert better.components == {"predict": Component(value=value, frozen=True)}
    assert better == agent_from_json(better.to_json(), allowed=ALLOWED)
    assert config.version != better.version


def test_a_component_says_how_it_is_asked_with_and_without_texts(tmp_path: Path) -> None:
    """In a file, beside instructions or alone; a candidate then says it in their place, for its own."""
    (tmp_path / "agent.yaml").write_text(
        """
kind: react
signature: {instructions: Answer., inputs: [question], outputs: [answer]}
tools: [tools_here:search]
components:
  react:
    settings: {model: large, parameters: {temperature: 1, max_tokens: 64}, tools: [search]}
  extract.predict:
    instructions: Extract it.
    settings: {parameters: {temperature: 0.5}}
    frozen: true
""",
        encoding="utf-8",
    )
    allowed = AllowList(tools=frozenset({"tools_here:search"}))
    react, extract = ComponentName("react"), ComponentName("extract.predict")

    config = load_agent_file(tmp_path / "agent.yaml", allowed)

    told = ComponentSettings(model="large", parameters={"temperature": 1.0, "max_tokens": 64}, tools=("search",))
    assert (None, told) == (config.components[react].value, config.components[react].settings)
    assert {"temperature": 0.5} == config.components[extract].settings.parameters
    assert {"large"} == config.named_models
    other = Candidate(components={react: ComponentValue(instructions="Look it up.")})
    changed = config.with_candidate(other)
    assert (ComponentSettings(), frozenset()) == (changed.components[react].settings, changed.named_models)
    assert changed == agent_from_json(agent_to_json(changed), allowed=allowed)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"temperature": 0.5}, "'temperature' is no known key; possible keys: model, parameters, kind, tools"),
        ({"parameters": {"temperature": 3}}, "parameters.temperature: a number from 0 to 2 is wanted, found int 3"),
        ({"parameters": {"api_base": "x"}}, "api_base is refused"),
        ({"model": {"name": "x"}}, "settings.model: text is wanted, found dict"),
        ({"model": "no name"}, "the name of a model is wanted"),
        ({"kind": "react"}, "settings.kind: .*react.* is not known.*possible: predict, chain_of_thought"),
        ({"tools": "search"}, "settings.tools: a list is wanted"),
        ({"tools": [1]}, r"settings.tools\[0\]: the name of one of the agent's tools is wanted"),
        ({"tools": ["a", "a"]}, r"settings.tools\[1\]: every tool stands once, found a twice"),
    ],
)
def test_settings_that_no_component_could_have_are_refused(said: dict, message: str) -> None:
    """Naming the place, what stands there and what is possible."""
    data = {**minimal(AgentKind.PREDICT), "components": {"self": {"settings": said}}}

    with pytest.raises(InvalidRequestError, match=message):
        agent_from_json(data, allowed=ALLOWED)


def test_settings_stand_at_one_place() -> None:
    """Those of a value are the value's own."""
    value = ComponentValue(instructions="x")

    with pytest.raises(InvalidRequestError, match="found: settings at two places"):
        Component(value=value, how=ComponentSettings(model="large"))
