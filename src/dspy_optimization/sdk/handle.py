"""One optimization at the service."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.sdk.answers import Asked, OptimizationStatus, PickAccepted, Results, Status, Summary
from dspy_optimization.sdk.artifact import check, unpack
from dspy_optimization.sdk.errors import NotFinishedError
from dspy_optimization.sdk.evidence import (
    Candidate,
    CandidateTexts,
    Curve,
    Diff,
    ExampleComparison,
    Front,
    Lineage,
    LogEntry,
)
from dspy_optimization.sdk.pages import PAGE_SIZE, items, pages
from dspy_optimization.sdk.transport import Transport, segment
from dspy_optimization.sdk.updates import Update
from dspy_optimization.sdk.watching import Watch

POLL_SECONDS = 2.0


class OptimizationHandle:
    """Asks and tells of one optimization; keeps nothing but its id.

    submit → handle → watch() or wait() → result() → artifact(folder)
    """

    def __init__(self, transport: Transport, optimization_id: str) -> None:
        self._transport = transport
        self._path = f"/optimizations/{segment(optimization_id)}"
        self.id = optimization_id

    def __repr__(self) -> str:
        return f"OptimizationHandle({self.id!r})"

    def status(self) -> Status:
        """Return where it stands. Raises `NotFoundError`."""
        return self._transport.get_as(Status, f"{self._path}/status")

    def summary(self) -> Summary:
        """Return it at a glance, with what was asked for. Raises `NotFoundError`."""
        return self._transport.get_as(Summary, self._path)

    def watch(self, *, after: int | None = None, poll_seconds: float = POLL_SECONDS) -> Iterator[Update]:
        """Yield the current state and then all news, up to the end; a broken connection is opened again.

        Args:
            after: yield everything after this message instead; 0: all there was.
            poll_seconds: how often the status is asked where the service cannot tell by itself.
        Raises:
            NotFoundError: there is no such optimization.
            InfrastructureError: the service did not come back in as many attempts as the client makes.
        """
        return iter(Watch(self._transport, self.id, after=after, poll_seconds=poll_seconds))

    def wait(self, timeout_seconds: float | None = None, *, poll_seconds: float = POLL_SECONDS) -> Status:
        """Return the status once nothing more happens by itself: completed, failed, cancelled or paused.

        Raises:
            NotFinishedError: the time is over; the optimization goes on.
        """
        surroundings = self._transport.surroundings
        started = surroundings.monotonic()
        while True:
            status = self.status()
            if status.status.stands_still:
                return status
            pause = poll_seconds
            if timeout_seconds is not None:
                left = timeout_seconds - (surroundings.monotonic() - started)
                if left <= 0.0:
                    raise NotFinishedError(
                        f"wanted: the end of {self.id} within {timeout_seconds:g} s; found: {status.status.value}, "
                        f"{status.progress:.0%}; possible: wait() again, watch(), cancel()",
                        optimization_id=self.id,
                    )
                pause = min(pause, left)
            surroundings.sleep(pause)

    def result(self, timeout_seconds: float | None = None) -> Results:
        """Return what may be said of it, once it has ended; of a cancelled one, what there is.

        Raises:
            NotFinishedError: it failed, was paused, was cancelled too early, or the time is over; says why.
        """
        status = self.wait(timeout_seconds)
        if status.results is not None and status.status.is_done:
            return status.results
        match status.status:
            case OptimizationStatus.PAUSED:
                possible = "resume()"
            case OptimizationStatus.FAILED:
                possible = "mend it, then retry()"
            case _:
                possible = "start another one"
        because = "" if status.error is None else f": {status.error}"
        raise NotFinishedError(
            f"wanted: the result of {self.id}; found: {status.status.value}{because}; possible: {possible}",
            optimization_id=self.id,
        )

    def cancel(self) -> Asked:
        """End it; the best so far is kept. Raises `ConflictError` when it has ended."""
        return self._ask("cancel")

    def pause(self) -> Asked:
        """Stop it for now. Raises `ConflictError` when it does not run."""
        return self._ask("pause")

    def resume(self) -> Asked:
        """Let a paused one go on; nothing is paid twice. Raises `ConflictError` when it is not paused."""
        return self._ask("resume")

    def retry(self) -> Asked:
        """Let a failed one go on; nothing is paid twice. Raises `ConflictError` when it has not failed."""
        return self._ask("retry")

    def pick(self, candidate: str, *, idempotency_key: str | None = None) -> "Picked":
        """Take another candidate to the gate: a new optimization, and the next use of the test split.

        Args:
            candidate: its fingerprint, or a beginning that no other one has; `front()` lists them.
            idempotency_key: the same key again is the same optimization; not given: a fresh one.
        Raises:
            NotFoundError: there is no such candidate; names those on the front.
            ConflictError: this one has not ended, or the candidate was at the gate already.
        """
        key = idempotency_key if idempotency_key is not None else self._transport.surroundings.new_key()
        accepted = self._transport.post_as(
            PickAccepted, f"{self._path}/pick", {"candidate": candidate}, idempotency_key=key
        )
        return Picked(
            optimization=OptimizationHandle(self._transport, accepted.optimization_id),
            accepted=accepted,
        )

    def front(self) -> Front:
        """Return who is beaten by nobody on val, and who of them went to the gate. Raises `NotFoundError`."""
        return self._transport.get_as(Front, f"{self._path}/front")

    def candidates(self) -> Iterator[Candidate]:
        """Yield the candidates that were measured."""
        return pages(self._transport, Candidate, f"{self._path}/candidates")

    def candidate(self, fingerprint: str) -> CandidateTexts:
        """Return the texts of a candidate. Raises `NotFoundError`."""
        return self._transport.get_as(CandidateTexts, f"{self._path}/candidates/{segment(fingerprint)}")

    def diff(self, before: str | None = None, after: str | None = None) -> Diff:
        """Return what differs between two candidates; not given: the baseline and the chosen one."""
        return self._transport.get_as(Diff, f"{self._path}/diff", {"from": before, "to": after})

    def curve(self, points: int | None = None) -> Curve:
        """Return how the score on val rose, in at most so many points."""
        return self._transport.get_as(Curve, f"{self._path}/curve", {"points": points})

    def examples(self) -> Iterator[ExampleComparison]:
        """Yield the val examples under both agents, those that became worse first."""
        return pages(self._transport, ExampleComparison, f"{self._path}/examples")

    def lineage(self) -> Lineage:
        """Return who came from whom."""
        return self._transport.get_as(Lineage, f"{self._path}/lineage")

    def log(self, after: int = 0) -> Iterator[LogEntry]:
        """Yield what was recorded so far after this entry; 0: all of it."""
        path = f"{self._path}/log"
        while True:
            page = items(self._transport.get(path, {"after": after, "limit": PAGE_SIZE}), LogEntry, path)
            yield from page
            if len(page) < PAGE_SIZE:
                return
            after = page[-1].id

    def report(self, path: Path | str) -> Path:
        """Write the report as one HTML page into the file; returns the file."""
        return self._transport.download(f"{self._path}/report", Path(path))

    def artifact(self, path: Path | str) -> Path:
        """Fetch the optimized agent with its evidence; returns where it is.

        Args:
            path: a file that ends in `.zip` gets the archive as it is; anything else is a new or empty folder that
                its files are unpacked into.
        Raises:
            InfrastructureError: the archive is broken or names a place outside the folder; nothing was written.
            InvalidRequestError: the place cannot be written or holds something already.
        """
        place = Path(path)
        if not place.absolute().parent.is_dir():
            raise InvalidRequestError(
                f"{place}: wanted: a place in a folder that exists; found: none; possible: make {place.parent} first"
            )
        with TemporaryDirectory() as folder:
            archive = self._transport.download(f"{self._path}/artifact", Path(folder) / "artifact.zip")
            if place.suffix.lower() != ".zip":
                return unpack(archive, place)
            check(archive)
            return _copied(archive, place)

    def _ask(self, step: str) -> Asked:
        return self._transport.post_as(Asked, f"{self._path}/{step}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The optimization that takes a picked candidate to the gate, and at which level it will be tested."""

    optimization: OptimizationHandle
    accepted: PickAccepted


def _copied(archive: Path, place: Path) -> Path:
    try:
        place.write_bytes(archive.read_bytes())
    except OSError as error:
        raise InvalidRequestError(
            f"{place}: wanted: a file that can be written; found: {error.strerror}; possible: another path"
        ) from error
    return place
