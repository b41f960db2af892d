"""What the page beside an exported agent tells people to type is typed here."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dspy_optimization import load
from dspy_optimization.adapters.dspy.artifact import save_agent
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.how_to_use import how_to_use
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, HttpEndpoint, ModelChoice, Signature
from dspy_optimization.errors import InvalidRequestError, NotFoundError
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
