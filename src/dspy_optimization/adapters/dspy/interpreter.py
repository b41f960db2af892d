"""Where code that an agent writes is run."""

import importlib
import importlib.util
import re
import shutil
import subprocess

WANTED = "Deno 2 (pip install 'dspy[deno]', or deno on PATH)"
PROBE_SECONDS = 10.0


def missing_sandbox() -> str | None:
    """Return what DSPy's sandbox lacks on this machine, with what to do; None when it can run.

    `program_of_thought` and `code_act` run what a model writes in WebAssembly under Deno 2 (dspy 3.4: >=2,<3).
    DSPy itself finds out in the middle of the first example.
    """
    command = _deno()
    if command is None:
        return f"it needs {WANTED}, found none"
    try:
        told = subprocess.run(  # noqa: S603 - the program is deno itself, without a shell
            [command, "--version"], capture_output=True, text=True, check=False, timeout=PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it needs {WANTED}, found {command}, which does not start: {error}"
    version = re.match(r"deno (\d+)\.\S+", told.stdout)
    if version is None or version.group(1) != "2":
        return f"it needs {WANTED}, found {told.stdout.partition(chr(10))[0].strip() or command}"
    return None


def _deno() -> str | None:
    if importlib.util.find_spec("deno") is None:
        return shutil.which("deno")
    try:
        return str(importlib.import_module("deno").find_deno_bin())
    except FileNotFoundError:
        return shutil.which("deno")
