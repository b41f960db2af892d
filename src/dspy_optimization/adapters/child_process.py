"""Optimizations in processes of their own: starts one for each, passes on that it has to end, and says how it ended.

`child_line` says what is said on the line to a child.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from dspy_optimization.adapters.child_line import Ended, Order
from dspy_optimization.adapters.models.failures import scrub
from dspy_optimization.errors import (
    CancelRequested,
    ConflictError,
    InfrastructureError,
    ProcessDiedError,
    StopSearch,
    StoreError,
)
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.handling import HandoverRequested
from dspy_optimization.tenancy import TenantId

logger = logging.getLogger(__name__)

GRACE_SECONDS = 12.0
"""How long a child may take to hand over; less than its worker has."""
_LOOK_SECONDS = 1.0
"""How soon the end of a process is noticed whose output another one holds open."""
_EXIT_SECONDS = 0.02
_LAST_WORDS_SECONDS = 2.0
_LAST_WORDS_CHARACTERS = 300
_LONGEST_MESSAGE_BYTES = 4 * 1024 * 1024
_LONGEST_WORDS_BYTES = 8 * 1024
_MOST_WORDS_BYTES = 1024 * 1024
"""Of all it says in its own words, in the log of the worker."""
_FROM_OUTSIDE = {
    "SIGKILL": "out of memory, or somebody killed it",
    "SIGTERM": "somebody ended it",
    "SIGHUP": "its terminal went away",
    "SIGINT": "somebody interrupted it",
}
"""Signals that a program rarely gives itself: trying again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProcesses:
    """The `IsolatedRuns` of one worker. Thread-safe."""

    module: str
    """Run by the Python of this process: `python -m <module>`."""
    settings: Json = field(repr=False)
    """Those of this process, the address of its database among them."""
    worker: str
    """Whose child it is: its sessions are cut off together with this worker's."""
    withheld: frozenset[str] = frozenset()
    """Environment variables of this process that are none of an agent's business."""
    grace_seconds: float = GRACE_SECONDS

    def run(self, tenant: TenantId, optimization_id: OptimizationId, stop: StopSignal) -> None:
        """Work on it until it ends, pauses, or is stopped; what became of it stands in the store."""
        words = [sys.executable, "-m", self.module, str(tenant), str(optimization_id), self.worker]
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module, ids
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={name: value for name, value in os.environ.items() if name not in self.withheld},
                start_new_session=True,  # a signal to the terminal's group is the worker's to pass on
            )
        except OSError as error:
            raise InfrastructureError(
                f"wanted: a process of its own for the optimization; found: {error}; possible: it is tried again; give "
                "the machine more memory or processes"
            ) from error
        child = _Child(process, str(optimization_id))
        facts = {"optimization": str(optimization_id), "process_id": process.pid}
        logger.info("Process begun", extra={"action": "child_begun", **facts})
        began = time.monotonic()
        try:
            child.tell(self._opening())
            child.follow(stop, self.grace_seconds)
        finally:
            status = child.end()
            seconds = round(time.monotonic() - began, 3)
            logger.info("Process ended", extra={"action": "child_ended", **facts, "code": status, "seconds": seconds})
        child.judge(status)

    def _opening(self) -> Mapping[str, Json]:
        """Return what makes the child a process like this one."""
        levels: dict[str, Json] = {
            name: logging.getLogger(name).getEffectiveLevel() for name in ("", "dspy_optimization")
        }
        return {
            "settings": self.settings,
            "paths": list(sys.path),
            "levels": levels,
            "parent": os.getpid(),
            "switch_seconds": sys.getswitchinterval(),
        }


class _Child:
    """One process, from its start to its end."""

    def __init__(self, process: "subprocess.Popen[bytes]", optimization: str) -> None:
        self._process = process
        self._optimization = optimization
        self._closed = threading.Event()
        """Set when nothing more comes from it."""
        self._news = threading.Event()
        """Set then, and when it is to end."""
        self._said: Mapping[str, Json] | None = None
        self._last_words = ""
        self._left_to_say = _MOST_WORDS_BYTES
        self._readers = [
            threading.Thread(target=target, args=[stream], name=f"child-{process.pid}-{name}", daemon=True)
            for target, stream, name in (
                (self._read_lines, process.stdout, "out"),
                (self._read_words, process.stderr, "err"),
            )
        ]
        for reader in self._readers:
            reader.start()

    def tell(self, order: Mapping[str, Json]) -> None:
        """Say something to it; nobody hears it when it has ended."""
        line = self._process.stdin
        if line is None or line.closed:
            return
        try:
            line.write(json.dumps(order).encode() + b"\n")
            line.flush()
        except OSError:
            logger.info("Process hears nothing", extra={"action": "child_deaf", "optimization": self._optimization})

    def follow(self, stop: StopSignal, grace_seconds: float) -> None:
        """Wait until it ends; tell it once when it is to."""
        stop.wake(self._news)
        while stop.reason is None and not self._has_ended:
            self._wait(self._news, _LOOK_SECONDS)
        reason = stop.reason
        if reason is None:
            return
        self.tell({"stop": _order(reason).value, "why": str(reason)})
        kill_at = time.monotonic() + grace_seconds if isinstance(reason, HandoverRequested) else None
        while not self._has_ended:
            left = _LOOK_SECONDS if kill_at is None else kill_at - time.monotonic()
            if left <= 0.0:
                facts = {"optimization": self._optimization, "after_seconds": grace_seconds}
                logger.warning("Process did not hand over", extra={"action": "child_killed", **facts})
                return
            self._wait(self._closed, min(left, _LOOK_SECONDS))

    def _wait(self, event: threading.Event, seconds: float) -> None:
        event.wait(seconds)
        if self._closed.is_set():
            time.sleep(_EXIT_SECONDS)  # it has said its last, and is about to end

    def end(self) -> int:
        """End it, with every process it left behind, and return its exit status; below 0: the signal that ended it."""
        process = self._process
        if hasattr(os, "killpg"):
            # Before it is waited for: until then nobody else gets its number.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except OSError:
                process.kill()
        else:
            process.kill()
        status = process.wait()
        for reader in self._readers:
            reader.join(_LAST_WORDS_SECONDS)
        if process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                logger.debug("Line was cut", extra={"action": "child_deaf", "optimization": self._optimization})
        return status

    def judge(self, status: int) -> None:
        """Return when the store says what became of it, and raise what kept it from saying so."""
        if self._said is None:
            raise self._death(status)
        error = str(self._said.get("error"))
        match Ended(str(self._said.get("ended"))):
            case Ended.DONE:
                return
            case Ended.CONFLICT:
                raise ConflictError(error)
            case Ended.AWAY:
                raise StoreError(error)
            case Ended.INFRASTRUCTURE:
                raise InfrastructureError(error)

    @property
    def _has_ended(self) -> bool:
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _death(self, status: int) -> ProcessDiedError:
        if status < 0:
            found, reason = _named(-status)
            may_pass = reason is not None
            what = f"the process of this optimization was killed by signal {found} ({reason or 'native code crashed'})"
        else:
            words = self._last_words
            what = f"the process of this optimization ended itself with exit status {status} before the optimization "
            what += f"ended; its last words: {words}" if words else "ended"
            may_pass = False
        possible = (
            "it is tried again by itself; when it happens again give the machine more memory or lower concurrency"
            if may_pass
            else "mend the agent, tool or metric that ended its process (the log of the worker has what it said), then "
            "resume it"
        )
        return ProcessDiedError(f"wanted: to carry it out; found: {what}; possible: {possible}", may_pass=may_pass)

    def _read_lines(self, stream: IO[bytes]) -> None:
        try:
            with stream:
                for line in _lines(stream, _LONGEST_MESSAGE_BYTES):
                    self._hear(line)
        finally:
            self._closed.set()
            self._news.set()

    def _hear(self, line: bytes) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            self._repeat(line)  # it died in the middle of it
            return
        if "log" in told:
            self._log(told["log"])
        else:
            self._said = told

    def _read_words(self, stream: IO[bytes]) -> None:
        with stream:
            for line in _lines(stream, _LONGEST_WORDS_BYTES):
                self._repeat(line)

    def _repeat(self, line: bytes) -> None:
        words = scrub(line[:_LONGEST_WORDS_BYTES].decode(errors="replace").rstrip())
        if not words:
            return
        self._last_words = words[:_LAST_WORDS_CHARACTERS]
        if self._left_to_say <= 0:
            return
        self._left_to_say -= len(line)
        facts = {"optimization": self._optimization, "process_id": self._process.pid}
        logger.info("Process said", extra={"action": "child_said", **facts, "words": words})
        if self._left_to_say <= 0:
            told = {"action": "child_cut_short", **facts, "bytes": _MOST_WORDS_BYTES}
            logger.warning("Process says too much, the rest is not kept", extra=told)

    def _log(self, told: Mapping[str, Json]) -> None:
        """Write a log line of the child as one of this process, which knows form and level."""
        target = logging.getLogger(str(told["name"]))
        level = int(str(told["level"]))
        if not target.isEnabledFor(level):
            return
        facts = told["facts"]
        own = {"optimization": self._optimization, "process_id": self._process.pid}
        record = target.makeRecord(
            target.name, level, "", 0, str(told["message"]), (), None, extra={**own, **_free(facts)}
        )
        target.handle(record)


def _lines(stream: IO[bytes], longest: int) -> Iterator[bytes]:
    """Yield lines, each cut to so many bytes: one that never ends must not fill the memory of who reads it."""
    while line := stream.readline(longest):
        yield line
        while line and not line.endswith(b"\n"):
            line = stream.readline(longest)


def _order(reason: StopSearch) -> Order:
    if isinstance(reason, HandoverRequested):
        return Order.HANDOVER
    return Order.CANCEL if isinstance(reason, CancelRequested) else Order.PAUSE


def _named(number: int) -> tuple[str, str | None]:
    """Return how to say which signal it was, and why it came when it came from outside."""
    try:
        known = signal.Signals(number)
    except ValueError:
        return str(number), None
    return f"{number}, {known.name}", _FROM_OUTSIDE.get(known.name)


def _free(facts: Json) -> Mapping[str, Json]:
    """Return facts without those that a log record has by itself."""
    taken = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    return {name: value for name, value in facts.items() if name not in taken} if isinstance(facts, dict) else {}
