"""Partitions: jobs that use the same thing, such as an algorithm, of which so many run at once, over all lanes.

A job of a bounded partition is held before its lane until its partitions have room, so it never stands in the way of
those behind it. Who may enter is decided anew every half second, by one process at a time, from what waits and runs.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.errors import StoreError
from dspy_optimization.jobs.job import JobId

POLLING_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLoad:
    """How busy a bounded partition is, over all lanes, workers and tenants."""

    waiting: int
    running: int
    concurrency: int
    """How many may run at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that waits."""

    id: JobId
    partitions: tuple[str, ...]
    is_held: bool
    """Whether it stands before its lane, where no worker claims it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Which jobs change their place."""

    admitted: tuple[JobId, ...] = ()
    """From before the lane into it."""
    held: tuple[JobId, ...] = ()
    """Back again: a bound was lowered, or somebody whose turn is earlier came."""


def moves(waiting: Sequence[Waiting], running: Mapping[str, int], bounds: Mapping[str, int]) -> Moves:
    """Return who enters the lane and who leaves it, so that no partition ever has more than its bound there.

    A job needs room in every bounded partition it uses. One that finds none keeps its place in all of them, so that
    nobody behind it who uses the same passes it for ever.

    Args:
        waiting: in the order of turns, in all lanes.
        running: partition → how many jobs of it run.
        bounds: partition → how many may run at once; others know no bound.
    """
    used = Counter(running)
    admitted: list[JobId] = []
    held: list[JobId] = []
    for job in waiting:
        bounded = [partition for partition in job.partitions if partition in bounds]
        fits = all(used[partition] < bounds[partition] for partition in bounded)
        used.update(bounded)
        if fits and job.is_held:
            admitted.append(job.id)
        elif not fits and not job.is_held:
            held.append(job.id)
    return Moves(admitted=tuple(admitted), held=tuple(held))


class Doorkeeper:
    """Lets held jobs in when there is room, from a thread of its own. Every process that serves lanes has one."""

    def __init__(self, settle: Callable[[], int], polling_seconds: float = POLLING_SECONDS) -> None:
        """Call `settle`, which makes the moves of one moment, this often."""
        self._settle = settle
        self._polling_seconds = polling_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="doorkeeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Move nothing more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(self._polling_seconds):
            try:
                self._settle()
            except StoreError as error:
                logger.warning("Held jobs wait", extra={"action": "doorkeeper_failed", "error": str(error)})
