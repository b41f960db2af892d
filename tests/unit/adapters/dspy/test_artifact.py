"""Optimized agents on disk."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from dspy.primitives.local_interpreter import LocalInterpreter
from dspy_agents import KINDS, TwoSteps, config, parts, scripted
from dspy_fakes import FakeCalls

from dspy_optimization.adapters.dspy import artifact
from dspy_optimization.adapters.dspy.artifact import load_agent, save_agent
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.agents.config import Component
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError

AGENTS = DspyAgents(parts(interpreter=LocalInterpreter, programs={"live:two": TwoSteps()}))
DEMO = {"question": "2+2", "answer": "4"}


def better(agent):
    """Return a candidate that says something new everywhere."""
    return Candidate(
        components={
            name: ComponentValue(instructions=f"Do {name} better — ünïcode.", demos=(DEMO,) if name == "self" else ())
            for name in agent.baseline.components
        }
    )


@pytest.fixture
def saved(tmp_path):
    agent = AGENTS.build(KINDS["predict"])
    return save_agent(tmp_path / "best", agent, better(agent))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_back_equal(kind, tmp_path):
    """What was saved is what is loaded, candidate, version and all."""
    agent = AGENTS.build(KINDS[kind])
    candidate = better(agent)
    read = load_agent(save_agent(tmp_path / "new" / "best", agent, candidate), AGENTS)

    assert candidate == read.candidate
    assert candidate == AGENTS.build(read.config).baseline
    assert agent.config.with_candidate(candidate).version == read.version == read.config.version


def test_live_programs_are_read_where_they_live(tmp_path):
    """A program handed in is known by its name to whoever hands it in again, and to nobody else."""
    agent = AGENTS.build(config("entrypoint", signature=None, entrypoint="live:two"))
    place = save_agent(tmp_path / "best", agent, better(agent))

    assert better(agent) == load_agent(place, AGENTS).candidate
    with pytest.raises(InvalidRequestError, match="live:two"):
        load_agent(place, DspyAgents(parts()))


def test_frozen_marks_are_kept(tmp_path):
    """What was frozen stays frozen."""
    agent = AGENTS.build(replace(KINDS["entrypoint"], components={"draft": Component(frozen=True)}))
    read = load_agent(save_agent(tmp_path / "best", agent, agent.baseline), AGENTS)

    assert {"draft"} == AGENTS.build(read.config).frozen


def test_bare_dspy_loads_the_program(saved):
    """Without this engine, `program.load` takes the file, refuses nothing and asks the optimized prompt."""
    code = (
        "import sys, dspy\n"
        "sys.modules['dspy_optimization'] = None\n"
        "program = dspy.Predict('question -> answer')\n"
        "program.load(sys.argv[1])\n"
        "messages = dspy.ChatAdapter().format(program.signature, program.demos, {'question': 'why?'})\n"
        "print(program.signature.instructions, program.demos, program.lm, messages[1]['content'])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(saved / "program.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin", "PYTHONIOENCODING": "utf-8", "HOME": str(saved)},
    )

    assert (0, True) == (told.returncode, "Do self better — ünïcode." in told.stdout), told.stderr
    assert "[{'answer': '4', 'question': '2+2'}] None" in told.stdout
    assert "[[ ## question ## ]]\n2+2" in told.stdout


def test_files_hold_no_model_and_no_code(saved):
    """Three JSON files; the state's LM is null, and no class path stands anywhere."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in saved.iterdir()}

    assert {"manifest.json", "agent.json", "program.json"} == set(texts)
    assert json.loads(texts["program.json"])["lm"] is None
    assert not any(word in text for text in texts.values() for word in ("api_key", "_dspy_lm_class", "pickle"))


def test_nothing_is_overwritten(saved):
    """A directory that holds something is left alone; an empty one is used."""
    agent = AGENTS.build(KINDS["predict"])
    with pytest.raises(ConflictError, match="a new or empty directory"):
        save_agent(saved, agent, agent.baseline)
    empty = saved.parent / "empty"
    empty.mkdir()

    assert empty == save_agent(empty, agent, agent.baseline)
    assert ["best", "empty"] == sorted(path.name for path in saved.parent.iterdir())


def test_nothing_is_half_written(tmp_path, monkeypatch):
    """A disk that is full leaves no trace."""

    def full(*_):
        raise OSError("no space left")

    agent = AGENTS.build(KINDS["predict"])
    monkeypatch.setattr(artifact.os, "replace", full)
    with pytest.raises(InvalidRequestError, match="cannot be written there: no space left"):
        save_agent(tmp_path / "best", agent, agent.baseline)

    assert [] == list(tmp_path.iterdir())


def change(directory, name, edit, *, sign=True):
    """Change a file, and its checksum as an attacker would."""
    path = directory / name
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    if sign and name != "manifest.json":
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        change(directory, "manifest.json", lambda data: data["files"][name].update(sha256=digest))


MALICE = {
    "unsigned change": ("program.json", lambda d: d.update(demos=[]), False, "it was changed after"),
    "an LM": ("program.json", lambda d: d.update(lm={"model": "evil", "api_base": "x"}), True, "no lm"),
    "traces": ("program.json", lambda d: d.update(traces=[1]), True, "no lm, traces and train"),
    "an attribute": ("program.json", lambda d: d.update(forward="x"), True, "differs in ['forward']"),
    "a missing key": ("program.json", lambda d: d.pop("train"), True, "differs in ['train']"),
    "no object": ("program.json", lambda d: d.update(signature=[]), True, "an object is wanted, found list"),
    "instructions that are none": (
        "program.json",
        lambda d: d["signature"].update(instructions=3),
        True,
        "instructions of at most",
    ),
    "huge instructions": (
        "program.json",
        lambda d: d["signature"].update(instructions="x" * 70_000),
        True,
        "instructions of at most 65536 bytes",
    ),
    "many demos": ("program.json", lambda d: d.update(demos=[DEMO] * 65), True, "at most 64 demos"),
    "demos that are none": ("program.json", lambda d: d.update(demos="x"), True, "at most 64 demos"),
    "demo of other fields": (
        "program.json",
        lambda d: d.update(demos=[{"module_src": "x"}]),
        True,
        "fields among answer, question are wanted, found module_src",
    ),
    "two tellings": (
        "program.json",
        lambda d: d["signature"].update(instructions="Other."),
        True,
        "found two candidates",
    ),
    "a forbidden key in the agent": (
        "agent.json",
        lambda d: d.update(model={"role": "task", "api_base": "http://evil"}),
        True,
        "api_base",
    ),
    "a tool": ("agent.json", lambda d: d.update(kind="react", tools=["os:system"]), True, "os:system"),
    "another agent": ("manifest.json", lambda d: d.update(agent_version="0" * 64), True, "speaks of another agent"),
    "another format": ("manifest.json", lambda d: d.update(format=2), True, "format 1 is wanted, found 2"),
    "another file": (
        "manifest.json",
        lambda d: d["files"].update({"../x": {}}),
        True,
        "found agent.json, program.json, ../x",
    ),
    "no files": ("manifest.json", lambda d: d.update(files=None), True, "found NoneType"),
}


@pytest.mark.parametrize("case", MALICE)
def test_malice_is_refused(saved, case):
    """Every file is untrusted: what an agent does not say is not read."""
    name, edit, sign, said = MALICE[case]
    change(saved, name, edit, sign=sign)
    with pytest.raises(InvalidRequestError) as caught:
        load_agent(saved, AGENTS)

    assert said in str(caught.value)


def test_states_of_other_programs_are_refused(tmp_path):
    """The state's components are the program's own, no more and no fewer."""
    agent = AGENTS.build(KINDS["entrypoint"])
    place = save_agent(tmp_path / "best", agent, agent.baseline)
    change(place, "program.json", lambda data: data.update(other=data.pop("draft")))
    with pytest.raises(InvalidRequestError, match=r"answer.predict, draft is wanted, found answer.predict, other"):
        load_agent(place, AGENTS)


def test_what_is_no_json_is_refused(saved):
    """Neither a pickle nor a bottomless list is parsed further."""
    for content in (b"\x80\x04K\x01.", b"[" * 100_000):
        (saved / "manifest.json").write_bytes(content)
        with pytest.raises(InvalidRequestError, match="JSON is wanted"):
            load_agent(saved, AGENTS)


def test_missing_files_are_named(saved, tmp_path):
    """What was looked for and what there is; links are not followed."""
    (saved / "program.json").rename(saved / "other.json")
    with pytest.raises(NotFoundError, match=r"program.json: .* holds agent.json, manifest.json, other.json"):
        load_agent(saved, AGENTS)
    (saved / "program.json").symlink_to(saved / "other.json")
    with pytest.raises(NotFoundError):
        load_agent(saved, AGENTS)
    with pytest.raises(NotFoundError, match="holds nothing"):
        load_agent(tmp_path / "nowhere", AGENTS)


def test_huge_files_are_not_read(saved, monkeypatch):
    """A file beyond the cap is refused by its size."""
    monkeypatch.setattr(artifact, "MAX_FILE_BYTES", 10)
    with pytest.raises(InvalidRequestError, match="at most 10 bytes"):
        load_agent(saved, AGENTS)


def test_a_loaded_agent_runs(saved):
    """The last step of the way: read, build, answer."""
    read = load_agent(saved, AGENTS)
    calls = FakeCalls()
    answer = AGENTS.build(read.config).run(read.candidate, {"question": "why?"}, calls)

    assert "some answer" == answer.outputs["answer"]
    assert "Do self better" in str(calls.asked[0][1].body["messages"])


SETTLED = {
    "predict": {"self": ComponentSettings(kind="chain_of_thought", model="large", parameters={"temperature": 0.25})},
    "chain_of_thought": {"predict": ComponentSettings(kind="predict", parameters={"top_p": 0.5, "max_tokens": 9})},
    "react": {"react": ComponentSettings(tools=()), "extract.predict": ComponentSettings(model="small")},
    "code_act": {"codeact": ComponentSettings(tools=(), parameters={"seed": 3})},
    "pipeline": {"first": ComponentSettings(model="large"), "second.predict": ComponentSettings(kind="predict")},
    "refine": {"module": ComponentSettings(kind="chain_of_thought")},
}


@pytest.mark.parametrize("kind", SETTLED)
@pytest.mark.parametrize("texts", ["new", "as they were"])
def test_how_components_are_asked_is_saved_and_asked_again(kind, texts, tmp_path):
    """The loaded agent sends the very requests of the candidate; what is loaded is what was saved."""
    agents = AGENTS.elsewhere()
    agent = agents.build(replace(KINDS[kind], components={n: Component(how=s) for n, s in SETTLED[kind].items()}))
    said = better(agent) if texts == "new" else agent.baseline
    candidate = Candidate(
        components={
            name: replace(value, settings=SETTLED[kind].get(name, ComponentSettings()))
            for name, value in said.components.items()
        }
    )
    inputs = {"question": "why?"} | ({"limit": 3} if kind == "pipeline" else {})

    read = load_agent(save_agent(tmp_path / "best", agent, candidate), AGENTS.elsewhere())

    def requests(one):
        calls = FakeCalls(scripted)
        one.run(candidate, inputs, calls)
        return calls.asked

    assert candidate == read.candidate
    assert read.config.named_models == {one.model for one in SETTLED[kind].values()} - {None}
    assert requests(agent) == requests(AGENTS.elsewhere().build(read.config))


def test_a_saved_program_does_not_load_what_its_configuration_does_not_say(tmp_path):
    """The state holds the instructions with the tools that may be called; others are another candidate."""
    agent = AGENTS.build(replace(KINDS["react"], components={"react": Component(how=ComponentSettings(tools=()))}))
    place = save_agent(tmp_path / "best", agent, agent.baseline)
    state = json.loads((place / "program.json").read_text(encoding="utf-8"))

    assert "look_up" not in state["react"]["signature"]["instructions"]
    state["react"]["signature"]["instructions"] = agent.baseline.components["react"].instructions + " And more."
    rewrite(place, "program.json", state)
    with pytest.raises(InvalidRequestError, match="found two candidates"):
        load_agent(place, AGENTS)


def rewrite(place, name, content):
    """Change a file and its line in the manifest."""
    raw = json.dumps(content).encode()
    (place / name).write_bytes(raw)
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
