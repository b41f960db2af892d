"""What is told of an optimization while it goes on, and which of it was told already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dspy_optimization.events import Json
from dspy_optimization.sdk.answers import OptimizationStatus, Status


class UpdateType(StrEnum):
    """What kind of news it is."""

    PROGRESS = "progress"  # it goes on
    RESULT = "result"  # it ended, and there is something to look at; nothing follows
    ERROR = "error"  # it ended, and `data` says why; nothing follows
    UNKNOWN = "unknown"  # a newer service says what this client has no word for


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One message."""

    type: UpdateType
    id: int | None = None
    """Its place in the optimization's log; None: it was made of the status, not told by the service."""
    optimization_id: str
    timestamp: datetime | None = None
    data: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.type in {UpdateType.RESULT, UpdateType.ERROR}

    @property
    def event(self) -> str | None:
        """What happened, such as trial.recorded; `state`: nothing did, it says where the optimization stands."""
        return self._text("event")

    @property
    def progress(self) -> float | None:
        """0 to 1, where it is told."""
        return self._number("progress")

    @property
    def best_score(self) -> float | None:
        """On val, where it is told."""
        return self._number("best_score")

    @property
    def current_iteration(self) -> int | None:
        """Of the algorithm, where it is told."""
        value = self._number("current_iteration")
        return None if value is None else int(value)

    @property
    def algorithm(self) -> str | None:
        """Which one works, where it is told."""
        return self._text("algorithm")

    def _text(self, name: str) -> str | None:
        value = self.data.get(name)
        return value if isinstance(value, str) else None

    def _number(self, name: str) -> float | None:
        value = self.data.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def update_of(status: Status) -> Update:
    """Return the update that a status is worth, for those who can only ask."""
    match status.status:
        case OptimizationStatus.COMPLETED | OptimizationStatus.CANCELLED:
            kind = UpdateType.RESULT
        case OptimizationStatus.FAILED:
            kind = UpdateType.ERROR
        case _:
            kind = UpdateType.PROGRESS
    metrics = status.metrics
    data: dict[str, Json] = {
        "status": status.status.value,
        "progress": status.progress,
        "current_iteration": metrics.current_iteration,
        "best_score": metrics.best_score,
        "algorithm": metrics.algorithm,
        "phase": metrics.phase,
        "error": status.error,
    }
    return Update(type=kind, optimization_id=status.optimization_id, data=data)


class Position:
    """How far the log was told. Nothing is told twice and nothing is left out, however often a connection breaks.

    Every connection begins with the current state, which bears the id of the newest message. On a resumed one that
    message comes again in its turn, so the state is kept back until it is clear that it does not.

        begin() → take(state) → take(message) → … → end()
    """

    def __init__(self, after: int | None) -> None:
        self.after = after
        """The id of the last message that was told; None: none was, begin with now."""
        self._told_state = after is not None
        self._is_first = True
        self._kept: Update | None = None

    def begin(self) -> None:
        """A connection was opened."""
        self._is_first = True
        self._kept = None

    def take(self, update: Update) -> list[Update]:
        """Return what is to be told now that this came."""
        if self._is_first:
            self._is_first = False
            if self._told_state:
                if update.is_last or (update.id is not None and not self._is_old(update)):
                    self._kept = update
                return []
            self._told_state = True
        elif self._is_old(update) and not update.is_last:
            return []
        return [*self._overtaken_by(update), self._told(update)]

    def end(self) -> list[Update]:
        """Return what is still to be told when a connection ended in good order."""
        kept = self._kept
        return [self._told(kept)] if kept is not None and kept.is_last else []

    def _overtaken_by(self, update: Update) -> list[Update]:
        kept = self._kept
        if kept is None or kept.id is None or update.id is None or update.id < kept.id:
            return []
        self._kept = None
        return [self._told(kept)] if update.id > kept.id else []

    def _is_old(self, update: Update) -> bool:
        return update.id is not None and self.after is not None and update.id <= self.after

    def _told(self, update: Update) -> Update:
        if update.id is not None:
            self.after = max(update.id, self.after if self.after is not None else update.id)
        return update
