"""A place to run the real command line in: a scripted model server, a database, files."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from typer.testing import CliRunner, Result

from dspy_optimization.cli.command_line import build_app
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer

NO_TRACKING = "http://127.0.0.1:9"
"""Nobody listens there: MLflow is away, and an optimization must not mind."""
WITHOUT_DEMOS, WITH_DEMOS = 40, 95
"""Of the words in a hundred that the scripted model gets right."""

AGENT = {
    "name": "capitals",
    "kind": "predict",
    "signature": {
        "instructions": "Say the word in capitals.",
        "inputs": [{"name": "word"}],
        "outputs": [{"name": "answer"}],
    },
}


def spelling(request: Received) -> Reply:
    """Spell the word in DSPy's chat format; demos make it right more often."""
    messages = request.body["messages"]
    assert isinstance(messages, list)
    last = messages[-1]
    assert isinstance(last, dict)
    asked = str(last["content"])
    if "[[ ## word ## ]]" not in asked:
        return answer("yes")
    word = asked.split("[[ ## word ## ]]")[1].split("\n")[1].strip()
    share = WITH_DEMOS if len(messages) > 2 else WITHOUT_DEMOS
    said = word.upper() if int(word[-3:]) * 37 % 100 < share else word
    return answer(f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]")


def records(count: int = 120) -> list[dict[str, str]]:
    """Words whose last three digits say how hard they are, a third of them in each split."""
    splits = ("train", "val", "test", "test")
    words = [
        f"{chr(97 + n % 26)}{chr(97 + n * 7 % 26)}{chr(97 + n * 3 % 26)}{chr(97 + n * 11 % 26)}{n:03}"
        for n in range(count)
    ]
    return [{"word": word, "answer": word.upper(), "split": splits[n % 4]} for n, word in enumerate(words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CliWorld:
    """Where commands run."""

    folder: Path
    environment: Mapping[str, str | None]

    def run(self, *words: str) -> Result:
        """Run a command in this process, in the world's folder."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return CliRunner(env={**self.environment}).invoke(build_app(), list(words), prog_name="dspy-opt")
        finally:
            os.chdir(before)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command as a process of its own."""
        environment = {**os.environ, **{key: value for key, value in self.environment.items() if value is not None}}
        return subprocess.Popen(
            [sys.executable, "-c", "from dspy_optimization.cli import main; main()", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, name: str, content: str | bytes | object) -> Path:
        """Write a file; what is no text is written as JSON, which is YAML too."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def write_lines(self, name: str, rows: Sequence[object]) -> Path:
        """Write JSON lines."""
        return self.write(name, "".join(f"{json.dumps(row)}\n" for row in rows))

    def write_job(self, name: str = "agent.yaml", **changes: object) -> Path:
        """Write an agent file with its data that work."""
        if not (self.folder / "words.jsonl").exists():
            self.write_lines("words.jsonl", records())
        job: dict[str, object] = {
            "agent": AGENT,
            "data": "words.jsonl",
            "objectives": ["exact_match"],
            "algorithms": [{"labeled_fewshot": {}}],
            "constraints": {"concurrency": 8},
        }
        return self.write(name, {key: value for key, value in (job | changes).items() if value is not None})

    def with_environment(self, **changes: str | None) -> "CliWorld":
        """Return the same place with other variables."""
        return replace(self, environment={**self.environment, **changes})

    def files(self) -> dict[str, bytes]:
        """Return every file of the folder with its content."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()
        }


def config_file(server: ModelServer) -> str:
    """Return the configuration file that names the server for every role."""
    return json.dumps(
        {
            "models": {
                "task": {
                    "model": {"base_url": server.base_url, "model": "fake"},
                    "price": {"prompt_usd_per_million": 1, "completion_usd_per_million": 2},
                    "max_attempts": 2,
                }
            }
        }
    )


def said(result: Result) -> str:
    """Return all a person saw, on one line, without the frames that rich draws."""
    text = "".join(" " if letter in "│╭╮╰╯─" else letter for letter in result.output)
    return " ".join(text.split())
