"""Optimized agents on disk: JSON and nothing else, checked before anything of it is believed.

    <directory>/manifest.json   format, versions, SHA-256 and size of the other files
    <directory>/agent.json      the configuration, saying what the optimized components say
    <directory>/program.json    the same as DSPy's own state: `program.load("program.json")` in bare DSPy takes it

DSPy's state has no place for a component's model, parameters, kind and tools: `agent.json` alone says them, and
`load_agent` builds the program with them. Who loads `program.json` in bare DSPy builds a program that has them
(`how_to_use` writes down how).
No LM block is written or read, no class path, no pickle. Reading goes through the configuration's own reader and the
allow-list; `program.json` is compared with it and never handed to DSPy's loader, which sets any attribute a file names.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import dspy

from dspy_optimization.adapters.dspy.asking import instructions_of, settings_of
from dspy_optimization.adapters.dspy.components import components, demo_to_json, read_candidate
from dspy_optimization.adapters.dspy.runnable import DspyAgent, DspyAgents
from dspy_optimization.agents.candidate import Candidate, ComponentValue, Fingerprint
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_from_json, agent_to_json
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.events import Json

FORMAT = 1
MANIFEST, AGENT, PROGRAM = "manifest.json", "agent.json", "program.json"
MAX_FILE_BYTES = 16 << 20
MAX_INSTRUCTIONS_BYTES = 64 << 10
MAX_DEMOS = 64

_STATE_KEYS = frozenset({"traces", "train", "demos", "signature", "lm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAgent:
    """An agent read back: what is optimized, and to what."""

    config: AgentConfig
    """Its components say what the candidate says."""
    candidate: Candidate
    version: Fingerprint
    """The configuration's content hash, as the manifest states it."""


def save_agent(directory: Path, agent: DspyAgent, candidate: Candidate) -> Path:
    """Write the agent with a candidate into a directory that does not exist yet, all or nothing; return it.

    Raises:
        ConflictError: the directory exists and holds something.
        InvalidRequestError: the candidate names components the agent lacks, or the place cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConflictError(f"a new or empty directory is wanted for the agent, found {directory}; possible: another")
    program = agent.module(candidate).program
    said = read_candidate(program)  # as DSPy holds it, so that it reads back equal
    config = agent.config.with_candidate(said)
    files = {AGENT: _encoded(agent_to_json(config)), PROGRAM: _encoded(program_state(program))}
    manifest: dict[str, Json] = {
        "format": FORMAT,
        "name": config.name,
        "agent_version": config.version,
        "candidate": said.fingerprint,
        "dspy": version("dspy"),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
    }
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            for name, content in {**files, MANIFEST: _encoded(manifest)}.items():
                (partial / name).write_bytes(content)
            partial.chmod(0o755)
            os.replace(partial, directory)  # noqa: PTH105 - replaces an empty directory too
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InvalidRequestError(f"{directory}: the agent cannot be written there: {error}") from error
    return directory


def load_agent(directory: Path, agents: DspyAgents) -> SavedAgent:
    """Return the agent a directory holds, after checking every byte and every name in it.

    Raises:
        NotFoundError: a file is missing.
        InvalidRequestError: a file was changed, is too large, says more than an agent says, or names what is not
            allowed here.
    """
    manifest = _object(_decoded(directory / MANIFEST, _read(directory / MANIFEST)), MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InvalidRequestError(
            f"{directory / MANIFEST}: format {FORMAT} is wanted, found {manifest.get('format')!r}; "
            "possible: a newer version of this engine"
        )
    entries = _object(manifest.get("files"), f"{MANIFEST}.files")
    if set(entries) != {AGENT, PROGRAM}:
        raise InvalidRequestError(f"{MANIFEST}.files: {AGENT} and {PROGRAM} are wanted, found {', '.join(entries)}")
    parts = {name: _checked(directory / name, _object(entries[name], name)) for name in (AGENT, PROGRAM)}
    live = frozenset(agents.parts.programs)
    allowed = replace(agents.parts.allowed, entrypoints=agents.parts.allowed.entrypoints | live)
    config = agent_from_json(parts[AGENT], allowed=allowed, where=AGENT)
    agent = agents.build(config)
    stated = candidate_from_state(parts[PROGRAM], agent.module().program)
    if stated != agent.baseline:
        raise InvalidRequestError(f"{directory}: {AGENT} and {PROGRAM} are to say the same, found two candidates")
    if manifest.get("agent_version") != config.version or manifest.get("candidate") != stated.fingerprint:
        raise InvalidRequestError(f"{directory}: {MANIFEST} speaks of another agent than {AGENT}")
    return SavedAgent(config=config, candidate=stated, version=config.version)


def program_state(program: Any) -> dict[str, Json]:
    """Return the program's state in the shape `dspy.Module.load` reads, without LM, traces and training data."""
    parts: dict[str, Json] = {name: _predictor_state(predictor) for name, predictor in components(program).items()}
    # A program that is one predictor is saved flat; every other one names its predictors.
    state = cast("dict[str, Json]", parts["self"]) if isinstance(program, dspy.Predict) else parts
    return {**state, "metadata": {"dependency_versions": {"dspy": version("dspy")}}}


def _predictor_state(predictor: Any) -> dict[str, Json]:
    return {
        "traces": [],
        "train": [],
        "demos": [demo_to_json(predictor, demo) for demo in predictor.demos],
        "signature": predictor.signature.dump_state(),
        "lm": None,
    }


def candidate_from_state(state: object, program: Any) -> Candidate:
    """Return what a DSPy state says of a program's components; untrusted, so only instructions and demos are taken.

    How they are asked no state says: it is what the program was built with.

    Raises:
        InvalidRequestError: other components, other keys, an LM, decision fields, or sizes beyond the caps.
    """
    parts = components(program)
    found = {name: value for name, value in _object(state, PROGRAM).items() if name != "metadata"}
    if isinstance(program, dspy.Predict):
        found = {"self": found}
    names = set(found)
    if names != set(parts):
        raise InvalidRequestError(
            f"{PROGRAM}: the state of {', '.join(sorted(parts))} is wanted, found {', '.join(sorted(names))}"
        )
    return Candidate(
        components={name: _component(_object(found[name], name), f"{PROGRAM}.{name}", parts[name]) for name in parts}
    )


def _component(state: Mapping[str, Json], where: str, predictor: Any) -> ComponentValue:
    if set(state) != _STATE_KEYS:
        odd = sorted(set(state) ^ _STATE_KEYS)
        raise InvalidRequestError(f"{where}: exactly {', '.join(sorted(_STATE_KEYS))} are wanted, differs in {odd}")
    if state["lm"] is not None or state["traces"] or state["train"]:
        raise InvalidRequestError(f"{where}: no lm, traces and train are wanted, found some; possible: remove them")
    instructions: object = _object(state["signature"], f"{where}.signature").get("instructions")
    if instructions == str(predictor.signature.instructions):
        instructions = instructions_of(predictor)  # with the tools that it may not call, as a candidate says them
    if not isinstance(instructions, str) or len(instructions.encode()) > MAX_INSTRUCTIONS_BYTES:
        raise InvalidRequestError(f"{where}: instructions of at most {MAX_INSTRUCTIONS_BYTES} bytes are wanted")
    demos = state["demos"]
    if not isinstance(demos, list) or len(demos) > MAX_DEMOS:
        raise InvalidRequestError(f"{where}: at most {MAX_DEMOS} demos are wanted")
    fields = set(predictor.signature.fields)
    for number, demo in enumerate(demos):
        unknown = set(_object(demo, f"{where}.demos[{number}]")) - fields
        if unknown:
            raise InvalidRequestError(
                f"{where}.demos[{number}]: fields among {', '.join(sorted(fields))} are wanted, "
                f"found {', '.join(sorted(unknown))}"
            )
    return ComponentValue(
        instructions=instructions,
        demos=tuple(cast("list[dict[str, Json]]", demos)),
        settings=settings_of(predictor),
    )


def _encoded(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _read(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise NotFoundError(f"{path}: a file of a saved agent is wanted, found none; possible: {_holds(path.parent)}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidRequestError(f"{path}: at most {MAX_FILE_BYTES} bytes are wanted, found {path.stat().st_size}")
    return path.read_bytes()


def _holds(directory: Path) -> str:
    names = sorted(one.name for one in directory.iterdir()) if directory.is_dir() else []
    return f"{directory} holds {', '.join(names[:20]) or 'nothing'}"


def _checked(path: Path, entry: Mapping[str, Json]) -> Json:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != entry.get("sha256"):
        raise InvalidRequestError(
            f"{path}: the content that the manifest states is wanted, found another; it was changed after it was saved"
        )
    return _decoded(path, content)


def _decoded(path: Path, content: bytes) -> Json:
    try:
        return cast("Json", json.loads(content))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path}: JSON is wanted, found something else: {error}") from error


def _object(value: object, where: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{where}: an object is wanted, found {type(value).__name__}")
    return cast("Mapping[str, Json]", value)
