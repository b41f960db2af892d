"""What the page beside an exported agent tells people to type is typed here."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dspy
import pytest

from dspy_optimization import load
from dspy_optimization.adapters.dspy.artifact import save_agent
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgent, DspyAgents
from dspy_optimization.adapters.how_to_use import how_to_use
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.agents.config import (
    AgentConfig,
    AgentKind,
    Component,
    Field,
    HttpEndpoint,
    ModelChoice,
    Signature,
)
from dspy_optimization.errors import InvalidRequestError, NotFoundError, StopSearch
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer

AGENT = AgentConfig(
    name="orders",
    kind=AgentKind.PREDICT,
    signature=Signature(
        instructions="Which order?",
        inputs=(Field(name="message", description="what the customer wrote"),),
        outputs=(Field(name="order", type="int"), Field(name="tone", type="Literal['calm', 'angry']")),
    ),
    adapter="json",
    model=ModelChoice(parameters={"temperature": 0, "max_tokens": 32}),
)
THOUGHTFUL = replace(AGENT, kind=AgentKind.CHAIN_OF_THOUGHT, adapter="chat")


def _reply(received: Received) -> Reply:
    if "response_format" in received.body:
        return answer('{"order": 12345, "tone": "angry"}')
    fields = {"reasoning": "It says so.", "order": "12345", "tone": "angry"}
    return answer("\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()))


def _optimized(config: AgentConfig, component: str) -> Candidate:
    demo = {"reasoning": "r", "message": "Order 54321 broke!", "order": 54321, "tone": "calm"}
    if config.kind is AgentKind.PREDICT:
        del demo["reasoning"]
    value = ComponentValue(instructions="Which order? Five digits.", demos=(demo,))
    return Candidate(components={ComponentName(component): value})


def _exported(folder: Path, config: AgentConfig, component: str) -> str:
    agent = DspyAgents(Parts()).build(config)
    candidate = _optimized(config, component)
    save_agent(folder / "agent", agent, candidate)
    return how_to_use(config.with_candidate(candidate), None)


@pytest.mark.parametrize(("config", "component"), [(AGENT, "self"), (THOUGHTFUL, "predict")])
@pytest.mark.parametrize("block", [0, 1], ids=["with the engine", "with DSPy alone"])
def test_what_the_page_says_runs(config: AgentConfig, component: str, block: int, tmp_path: Path) -> None:
    """The found texts, demos, layout, schema and sampling arrive at the server; DSPy alone needs no engine."""
    page = _exported(tmp_path, config, component)
    program = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[block]
    if block == 1:
        program = "import sys\n" + program + "assert not any(name.startswith('dspy_opt') for name in sys.modules)\n"

    with ModelServer(_reply) as server:
        program = program.replace("http://127.0.0.1:8000/v1", server.base_url).replace('"..."', '"It broke!"')
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "DSPY_CACHEDIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        requests = server.requests

    assert (0, True) == (done.returncode, "order=12345" in done.stdout), done.stdout + done.stderr
    (asked,) = [one.body for one in requests]
    assert "Order 54321 broke!" in str(asked["messages"])
    assert "Which order? Five digits." in str(asked["messages"])
    assert (0, 32) == (asked["temperature"], asked.get("max_tokens", asked.get("max_completion_tokens")))
    layout = asked.get("response_format")
    assert ("json_schema" if config.adapter == "json" else None) == (layout and layout["type"])


def test_other_kinds_are_told_what_to_build() -> None:
    """A program of several parts, a live program and a service of theirs."""
    chain = how_to_use(replace(AGENT, kind=AgentKind.MULTI_CHAIN), None)
    live = how_to_use(AgentConfig(name="mine", kind=AgentKind.ENTRYPOINT, entrypoint="live:mine"), None)
    http = how_to_use(AgentConfig(name="away", kind=AgentKind.HTTP, http=HttpEndpoint(url="https://example.org")), None)

    assert "kind `multi_chain`" in chain
    assert ('load("agent")' in chain, 'load("agent")' in live) == (True, False)
    assert 'program.load("agent/program.json")' in live
    assert ("```" in http, "components" in http) == (False, True)


def test_only_what_was_exported_is_loaded(tmp_path: Path) -> None:
    """The folder or the agent in it; nothing that was changed, nothing that is not there."""
    _exported(tmp_path / "out", AGENT, "self")
    whole, part = load(tmp_path / "out"), load(tmp_path / "out" / "agent")

    assert 1 == len(whole.program.demos) == len(part.program.demos)

    with pytest.raises(NotFoundError, match=re.escape("manifest.json: a file of a saved agent is wanted")):
        load(tmp_path / "nowhere")
    place = tmp_path / "out" / "agent" / "agent.json"
    place.write_text(place.read_text(encoding="utf-8").replace("Five", "Six"), encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="it was changed after it was saved"):
        load(tmp_path / "out")


SETTLED = [
    (AGENT, "self", ComponentSettings(kind="chain_of_thought", parameters={"temperature": 0.25}, model="large")),
    (THOUGHTFUL, "predict", ComponentSettings(kind="predict", parameters={"top_p": 0.5}, model="large")),
]


@pytest.mark.parametrize(("config", "component", "settings"), SETTLED)
@pytest.mark.parametrize("block", [0, 1], ids=["with the engine", "with DSPy alone"])
def test_what_the_page_says_asks_as_the_candidate_did(
    config: AgentConfig, component: str, settings: ComponentSettings, block: int, tmp_path: Path
) -> None:
    """Kind, model and parameters of a component reach the server, although DSPy's state has no place for them."""
    agents = DspyAgents(Parts()).elsewhere()
    value = _optimized(config, component).components[ComponentName(component)]
    candidate = Candidate(components={ComponentName(component): replace(value, settings=settings)})
    optimized = config.with_candidate(candidate)
    agent = agents.build(optimized)
    save_agent(tmp_path / "agent", agent, candidate)
    page = how_to_use(optimized, None)
    program = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[block]
    thought = settings.kind == "chain_of_thought"

    def reply(received: Received) -> Reply:
        if "response_format" in received.body:
            reasoning = '"reasoning": "r", ' if thought else ""
            return answer(f'{{{reasoning}"order": 12345, "tone": "angry"}}')
        return _reply(received)

    with ModelServer(reply) as server:
        program = program.replace('called-large"', f'called-large", api_base="{server.base_url}", api_key="none"')
        program = program.replace("http://127.0.0.1:8000/v1", "http://127.0.0.1:9/v1").replace('"..."', '"It broke!"')
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "DSPY_CACHEDIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        requests = server.requests

    assert (0, True) == (done.returncode, "order=12345" in done.stdout), done.stdout + done.stderr
    (asked,) = [one.body for one in requests]
    measured = _asked_by_the_engine(agent, candidate)
    assert "the-model-called-large" == asked["model"]
    assert measured["messages"] == asked["messages"]
    for name, value in {**config.model.parameters, **settings.parameters}.items():
        told = asked.get(name, asked.get("max_completion_tokens"))
        assert (name, value) == (name, told)


def _asked_by_the_engine(agent: DspyAgent, candidate: Candidate) -> Mapping[str, Json]:
    """Return the request that the optimization measured."""
    seen: list[ModelRequest] = []

    class Seen(StopSearch):
        """Nothing is sent."""

    class Listening:
        def call(self, role: Role, request: ModelRequest) -> ModelResponse:
            seen.append(request)
            raise Seen("seen")

    with pytest.raises(Seen):
        agent.run(candidate, {"message": "It broke!"}, Listening())
    return seen[0].body


def test_what_no_state_carries_is_said(tmp_path: Path) -> None:
    """For programs of several parts the page lists what has to be built in; where nothing is said it is silent."""
    steps = replace(
        AGENT,
        kind=AgentKind.MULTI_CHAIN,
        components={
            ComponentName("chain.predict"): Component(how=ComponentSettings(model="large", parameters={"top_p": 0.5})),
            ComponentName("compare.predict"): Component(how=ComponentSettings(kind="predict")),
            ComponentName("react"): Component(how=ComponentSettings(tools=("search", "add"))),
        },
    )

    page = how_to_use(steps, None)

    assert "DSPy's state does not say how these components are asked" in page
    for line in (
        "- `chain.predict`: `.update_config(top_p=0.5)` on it; its `.lm`, set after loading",
        "- `compare.predict`: no chain of thought: its signature has no `reasoning`.",
        "- `react`: its module is given these tools alone, in this order: search, add.",
        '    "large": SchemaLM("openai/the-model-called-large"),',
    ):
        assert line in page
    assert "does not say" not in how_to_use(replace(AGENT, kind=AgentKind.MULTI_CHAIN), None)


def test_models_that_components_name_are_given_when_it_is_loaded(tmp_path: Path) -> None:
    """All of them and no others: a name that nobody asks is a slip."""
    config = replace(AGENT, components={ComponentName("self"): Component(how=ComponentSettings(model="large"))})
    agent = DspyAgents(Parts()).elsewhere().build(config)
    save_agent(tmp_path / "agent", agent, agent.baseline)
    lm = dspy.LM("openai/anything")

    assert {"large": lm} == load(tmp_path, models={"large": lm}).models
    for given in (None, {}, {"lagre": lm}, {"large": lm, "small": lm}):
        with pytest.raises(InvalidRequestError, match=r"models: wanted: an LM for each .*orders names \(large\)"):
            load(tmp_path, models=given)
