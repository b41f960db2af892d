"""Algorithms on trial in processes of their own: one that hangs, crashes or eats memory ends its process alone.

The child is `testing.algorithm_check`. It gets no setting, no key and no address of this process: the environment is
bare, and its folder is an empty one.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from dspy_optimization.adapters.models.failures import scrub
from dspy_optimization.algorithms.custom import Checked
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.errors import CapacityError, InfrastructureError
from dspy_optimization.events import Json

logger = logging.getLogger(__name__)

MODULE = "dspy_optimization.testing.algorithm_check"
SAME_ELSEWHERE = "is the same in another process"
_PASSED_ON = frozenset(
    {"PATH", "HOME", "USERPROFILE", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "TZ"}
)
"""Environment variables the child gets; keys and addresses are none of its business."""
_LONGEST_LINE_BYTES = 256 * 1024
_LAST_WORDS = 300
_SURELY_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmChecks:
    """The `AlgorithmChecker` of a process. Thread-safe; one check at a time."""

    module: str = MODULE
    seconds: float = 180.0
    """How long a check may take, with everything it imports."""
    search_seconds: float = 30.0
    """How long one search in it may take."""
    memory_bytes: int = 2 * 1024**3
    """How much memory the algorithm may take on top of the engine's own; kept where the system can (Linux)."""
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def check(self, entrypoint: str) -> Checked:
        """Return what it calls itself and what every rule found.

        Raises:
            CapacityError: another algorithm is being checked.
            InfrastructureError: no process could be started.
        """
        if not self._turn.acquire(blocking=False):
            raise CapacityError(
                "wanted: to check an algorithm; found: another one is being checked; possible: try again in a minute"
            )
        try:
            trial = self._trial(entrypoint, digest_only=False)
            findings = trial.findings()
            if all(one.outcome is Outcome.KEPT for one in findings):
                again = self._trial(entrypoint, digest_only=True)
                findings = (*findings, _compared(trial.digest, again.digest))
            return Checked(name=trial.name, findings=findings)
        finally:
            self._turn.release()

    def _trial(self, entrypoint: str, *, digest_only: bool) -> "_Trial":
        environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
        # Sets and dicts of texts stand in another order in every process; what comes of a search may not.
        environment |= {"PYTHONHASHSEED": "2" if digest_only else "1", "OMP_NUM_THREADS": "1"}
        order: Mapping[str, Json] = {
            "entrypoint": entrypoint,
            "paths": [os.path.abspath(one) for one in sys.path],  # noqa: PTH100 - "" is this folder
            "memory_bytes": self.memory_bytes,
            "limit_seconds": self.search_seconds,
            "digest_only": digest_only,
        }
        with tempfile.TemporaryDirectory(prefix="algorithm-check-", ignore_cleanup_errors=True) as folder:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-m", self.module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**environment, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise InfrastructureError(
                    f"wanted: a process to check the algorithm in; found: {error}; possible: try again; give the "
                    "machine more memory or processes"
                ) from error
            trial = _Trial(process)
            trial.follow(order, self.seconds)
        logger.info(
            "Algorithm checked",
            extra={"action": "algorithm_checked", "entrypoint": entrypoint, "code": trial.status},
        )
        return trial


class _Trial:
    """One child, from its start to its end, and what it told."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._told: list[RuleFinding] = []
        self._rules: Sequence[str] = ()
        self._begun: str | None = None
        self._words: deque[str] = deque(maxlen=3)
        self._done = False
        self._in_time = True
        self._seconds = 0.0
        self.status = 0
        self.name: str | None = None
        self.digest: str | None = None

    def follow(self, order: Mapping[str, Json], seconds: float) -> None:
        """Give the order and read until the child ends or its time is up; then end it with all it has started."""
        self._seconds = seconds
        process = self._process
        readers = [
            threading.Thread(target=read, args=[stream], name=f"check-{process.pid}", daemon=True)
            for read, stream in ((self._read, process.stdout), (self._listen, process.stderr))
        ]
        for reader in readers:
            reader.start()
        try:
            if process.stdin is not None:
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.close()
        except OSError:
            logger.debug("Check hears nothing", extra={"action": "algorithm_check_deaf"})
        try:
            readers[0].join(seconds)
            self._in_time = not readers[0].is_alive()
        finally:
            self._end()
            for reader in readers:
                reader.join(_SURELY_SECONDS)

    def findings(self) -> tuple[RuleFinding, ...]:
        """Return what every rule found; of a child that did not end well, what it was doing."""
        if self._done:
            return tuple(self._told)
        told = {one.rule for one in self._told}
        at = self._begun if self._begun is not None and self._begun not in told else "loads"
        what, possible = self._how_it_ended()
        broken = RuleFinding(
            rule=at, outcome=Outcome.BROKEN, wanted="a check that comes to its end", found=what, possible=possible
        )
        rest = [
            RuleFinding(
                rule=one,
                outcome=Outcome.UNCHECKED,
                wanted="a check that comes so far",
                found="it ended before",
                possible="mend what ended it",
            )
            for one in self._rules
            if one not in told and one != at
        ]
        return (*self._told, broken, *rest)

    def _how_it_ended(self) -> tuple[str, str]:
        words = f"; its last words: {' '.join(self._words)[-_LAST_WORDS:]}" if self._words else ""
        if not self._in_time:
            return (
                f"it went on for more than {self._seconds:g} s and its process was ended{words}",
                "bound every loop by what was asked, or state smaller options for the check in check_options",
            )
        if self.status < 0:
            number = -self.status
            try:
                known = signal.Signals(number).name
            except ValueError:
                known = str(number)
            return (
                f"its process was killed by signal {known}{words}",
                "take less memory, and no native code that crashes",
            )
        return (
            f"it ended its process itself, with exit status {self.status}{words}",
            "return from search, or raise; nothing may end the process",
        )

    def _end(self) -> None:
        process = self._process
        ended_itself = process.poll()
        if self._in_time and ended_itself is None:
            try:
                ended_itself = process.wait(_SURELY_SECONDS)
            except subprocess.TimeoutExpired:
                self._in_time = False
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # with every process it has started
            else:
                process.kill()
        except OSError:
            logger.debug("Check has ended", extra={"action": "algorithm_check_ended"})
        self.status = process.wait()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(_LONGEST_LINE_BYTES):
                try:
                    told = json.loads(line)
                except ValueError:
                    continue  # it died in the middle of it, or something else writes there
                if isinstance(told, dict):
                    self._hear(told)

    def _hear(self, told: Mapping[str, Json]) -> None:
        match told:
            case {"rules": list(rules)}:
                self._rules = [str(one) for one in rules]
            case {"begins": str(rule)}:
                self._begun = rule
            case {"finding": dict(finding), **rest}:
                self._told.append(RuleFinding.from_json(finding))
                name = rest.get("name")
                self.name = name if isinstance(name, str) else self.name
            case {"digest": str(digest)}:
                self.digest = digest
            case {"done": True}:
                self._done = True

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(_LONGEST_LINE_BYTES):
                words = scrub(line.decode(errors="replace").strip())
                if words:
                    self._words.append(words)


def _compared(one: str | None, other: str | None) -> RuleFinding:
    if one is not None and one == other:
        return RuleFinding(rule=SAME_ELSEWHERE, outcome=Outcome.KEPT)
    return RuleFinding(
        rule=SAME_ELSEWHERE,
        outcome=Outcome.BROKEN,
        wanted="the same calls, trials and results in every process with the same seed",
        found="others in a second process",
        possible="sort sets before they decide anything: their order is another one in every process",
    )
