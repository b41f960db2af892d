"""Runs tests again and again without paying for the imports: loads libraries once, then forks for every request.

A line of JSON on standard input (arguments of pytest) is a request; a line on standard output is its exit status, or
`null` when it took too long. The package under test is imported in the fork, so each request sees it as it is then.
"""

import importlib
import json
import os
import signal
import sys
import time

# Before numpy: a fork of a process with BLAS threads may hang.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

LIBRARIES = ("pytest", "numpy", "scipy.stats", "scipy.optimize", "statsmodels.api", "httpx")
_LOOK_SECONDS = 0.02


def main(longest_seconds: float) -> None:
    """Answer requests until the input ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(_run(json.loads(line), longest_seconds))}\n")
        sys.stdout.flush()


def _run(arguments: list[str], longest_seconds: float) -> int | None:
    child = os.fork()
    if child == 0:
        os.setsid()  # children of tests end with it
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        import pytest

        status = 1
        try:
            status = int(pytest.main(arguments))
        finally:
            os._exit(status)
    deadline = time.monotonic() + longest_seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_LOOK_SECONDS)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main(float(sys.argv[1]))
