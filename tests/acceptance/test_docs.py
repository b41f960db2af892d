"""What the documentation tells people to type is typed here."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents, Surroundings
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.settings.config_file import ConfigFile
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer

DOCS = Path(__file__).parent.parent.parent
QUICKSTART = (DOCS / "docs" / "quickstart.md").read_text(encoding="utf-8")
README = (DOCS / "README.md").read_text(encoding="utf-8")


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def _reader(received: Received) -> Reply:
    """Find the order number, in whatever format is asked for; more surely with demos in the prompt."""
    messages = received.body["messages"]
    assert isinstance(messages, list)
    last = messages[-1]
    assert isinstance(last, dict)
    asked = str(last["content"])
    numbers = re.findall(r"\b\d{5}\b", asked.split("Respond with")[0])
    order = numbers[-1] if numbers and (len(messages) > 2 or int(numbers[-1]) % 3 == 0) else "unknown"
    fields = re.findall(r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`", asked.split("Respond with")[-1])
    name = fields[0] if fields else "order"
    if "response_format" in received.body:
        return answer(f'{{"{name}": "{order}"}}')
    return answer(f"[[ ## {name} ## ]]\n{order}\n\n[[ ## completed ## ]]")


@pytest.fixture
def environment(tmp_path: Path, database_url: str) -> Iterator[dict[str, str]]:
    """The environment of somebody with a model server of their own."""
    with ModelServer(_reader) as server:
        config = tmp_path / "models.yaml"
        config.write_text(f"models: {{task: {{model: {{base_url: '{server.base_url}', model: fake}}}}}}\n")
        yield {
            **os.environ,
            "DATABASE_URL": database_url,
            "DSPY_CONFIG_PATH": str(config),
            "DSPY_OPT_DATA_DIR": str(tmp_path / "data"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "120",
        }


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)

    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stdout + done.stderr)
    return done.stdout


def test_the_quickstart_in_python_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    """All Python blocks, one after the other, as one program."""
    program = tmp_path / "quickstart.py"
    program.write_text("\n".join(_blocks(QUICKSTART, "python")), encoding="utf-8")

    said = _run([sys.executable, str(program)], tmp_path, environment)

    assert said.startswith("improved\n")
    assert "Spend(calls=" in said


def test_the_readme_in_python_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    """The four lines, on the demo's own examples."""
    demo = DOCS / "src" / "dspy_optimization" / "cli" / "demo" / "orders.jsonl"
    (tmp_path / "orders.jsonl").write_text(demo.read_text(encoding="utf-8"), encoding="utf-8")
    (program,) = _blocks(README, "python")

    said = _run([sys.executable, "-c", program], tmp_path, environment)

    assert "improved" in said


def test_the_quickstart_on_the_command_line_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    """Every shell line, in order, in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()

    for line in "".join(_blocks(QUICKSTART, "sh")).splitlines():
        _run(line.split(), folder, environment)

    assert {"agent.yaml", "examples.jsonl"} <= {path.name for path in folder.iterdir()}


def test_the_algorithm_of_the_guide_keeps_the_contract(tmp_path: Path, environment: dict[str, str]) -> None:
    """All Python blocks, as one module: it checks itself, and so does the command line."""
    guide = (DOCS / "docs" / "algorithms.md").read_text(encoding="utf-8")
    program = tmp_path / "my_search.py"
    program.write_text("\n".join(_blocks(guide, "python")), encoding="utf-8")

    said = _run([sys.executable, str(program)], tmp_path, environment)

    assert {"kept"} == {line.rsplit(" ", 1)[1] for line in said.splitlines()}


def test_the_example_keeps_the_contract(tmp_path: Path, environment: dict[str, str]) -> None:
    """Its own tests, as its author runs them, and the check in a process of its own."""
    example = DOCS / "examples" / "demo_order"
    paths = {**environment, "PYTHONPATH": str(example / "src")}

    _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(example / "tests")], tmp_path, paths)
    said = _run(["dspy-opt", "algorithms", "check", "demo_order:DemoOrder"], tmp_path, paths)

    assert {"kept"} == {line.rsplit(" ", 1)[1] for line in said.splitlines()}


@pytest.mark.parametrize("block", _blocks(QUICKSTART, "yaml"))
def test_the_configuration_shown_is_one(block: str) -> None:
    """The YAML on the page is what the engine reads."""
    assert ConfigFile.model_validate(yaml.safe_load(block)).models.task is not None


def test_the_agent_that_says_how_its_components_are_asked_is_one() -> None:
    """The document is read, built, and says what it says."""
    (block,) = _blocks((DOCS / "docs" / "using.md").read_text(encoding="utf-8"), "yaml")
    config = agent_from_json({"name": "replies", **yaml.safe_load(block)}, allowed=AllowList())

    agent = DspyAgents(Parts(), Surroundings(models=frozenset({"large"}))).build(config)

    said = {name: value.settings.to_json() for name, value in agent.baseline.components.items()}
    assert {"model": "large"} == said["answer.predict"]
    assert {"kind": "chain_of_thought", "parameters": {"temperature": 0.0}} == said["sort"]


def test_every_link_leads_somewhere() -> None:
    """No dead link inside the repository."""
    pages = [DOCS / "README.md", DOCS / "CONTRIBUTING.md", *sorted((DOCS / "docs").glob("*.md"))]
    dead = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert dead == []
