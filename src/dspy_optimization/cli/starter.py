"""`init`: two files to begin with."""

from importlib.resources import files
from pathlib import Path

from dspy_optimization.errors import ConflictError, InvalidRequestError

AGENT_FILE, EXAMPLES_FILE = "agent.yaml", "examples.jsonl"


def write_starter(folder: Path) -> list[str]:
    """Write both files or none, and return what to say.

    Raises:
        ConflictError: one of them is there already; nothing is touched.
        InvalidRequestError: the folder cannot be written.
    """
    ours = files("dspy_optimization.cli")
    contents = {
        AGENT_FILE: ours.joinpath("init_files", AGENT_FILE).read_text(encoding="utf-8"),
        EXAMPLES_FILE: ours.joinpath("demo", "orders.jsonl").read_text(encoding="utf-8"),
    }
    there = [name for name in contents if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise ConflictError(
            f"wanted: a folder without {' and '.join(contents)}; found: {folder / there[0]}; possible: another folder "
            "(dspy-opt init other-folder), or move the file away"
        )
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                written.append(folder / name)
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise InvalidRequestError(
            f"wanted: a folder that can be written; found: {folder}: {error.strerror or error}; possible: another one"
        ) from error
    steps = {
        "dspy-opt doctor": "does everything work here?",
        f"dspy-opt datasets check {folder / AGENT_FILE}": "what can these examples prove?",
        f"dspy-opt estimate {folder / AGENT_FILE}": "what will it take?",
        f"dspy-opt optimize {folder / AGENT_FILE}": "do it",
    }
    width = max(map(len, steps))
    return [
        f"Written: {', '.join(str(folder / name) for name in contents)}",
        "",
        "Next:",
        *(f"  {command:<{width}}   {what}" for command, what in steps.items()),
    ]
