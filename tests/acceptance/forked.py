"""Processes of the service that begin at once: forked from one that has imported everything and done nothing yet.

Importing takes a process six seconds of processor time, and tests that kill processes start dozens of them. Each is
a process of its own all the same, with its own id, environment, threads and connections; only its imports are shared.
"""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

WARM = "warm_service"
"""The module that imports everything; what can be begun are its functions."""
SERVES = "serves as"
"""What a worker says once it does, before its id."""


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that was begun, as far as tests use a `subprocess.Popen`. Thread-safe."""

    process: ForkServerProcess
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        found = self.process.pid
        assert found is not None
        return found

    def poll(self) -> int | None:
        """Return its exit status; below 0: the signal that ended it; None: it lives."""
        with self._turn:
            return self.process.exitcode

    def wait(self, seconds: float) -> int:
        with self._turn:
            self.process.join(seconds)
            status = self.process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired(self.process.name, seconds)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begin(
    function: str, *words: object, environment: Mapping[str, str], log: Path, leads_group: bool = False
) -> Forked:
    """Return a process that calls a function of `warm_service`.

    Args:
        function: its name.
        words: what it is called with.
        environment: all of it.
        log: takes what it writes, standard output and standard error alike; made anew.
        leads_group: whether signals to its group, and to ours, are apart.
    """
    _warm_up()
    log.write_bytes(b"")
    process = multiprocessing.get_context("forkserver").Process(
        target=_be, args=(function, words, dict(environment), log, leads_group), name=log.stem, daemon=True
    )
    process.start()
    return Forked(process)


def _warm_up() -> None:
    """Have the process that others are forked from; it ends with this one."""
    forkserver.set_forkserver_preload([WARM])
    # It looks for modules where this variable says, not where we do.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _be(function: str, words: tuple[object, ...], environment: Mapping[str, str], log: Path, leads_group: bool) -> None:
    if leads_group:
        os.setsid()
    with log.open("ab") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    assert WARM in sys.modules, "wanted: forked from a process that has imported everything; found: imports anew"
    getattr(importlib.import_module(WARM), function)(*words)
