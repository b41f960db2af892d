"""What clients of a stream are told, and how a log of events is read for them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, Protocol

from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.standing import Standing


class MessageType(StrEnum):
    """What a message is about."""

    PROGRESS = "progress"  # it goes on
    RESULT = "result"  # it completed or was cancelled; the last one
    ERROR = "error"  # it failed; the last one


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a client is told."""

    id: int
    """From where a client that lost its stream goes on: the event's id; 0 before the first."""
    type: MessageType
    optimization_id: OptimizationId
    at: datetime
    event: str
    data: Mapping[str, Json]

    @property
    def ends(self) -> bool:
        """Whether nothing follows."""
        return self.type is not MessageType.PROGRESS

    @cached_property
    def text(self) -> str:
        """The message as clients read it, written once however many they are: ASCII, one line."""
        body: dict[str, Json] = {
            "type": self.type.value,
            "id": self.id,
            "optimization_id": str(self.optimization_id),
            "timestamp": self.at.isoformat(),
            "data": {**self.data, "event": self.event},
        }
        return json.dumps(body, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a log was read, and where the optimization stood there."""

    id: int
    standing: Standing
    end: int | None = None
    """Id of the event that ended it; None: nothing did, or it went on afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The next part of a log."""

    place: Place
    messages: Sequence[Message]
    state: Message
    """Where the optimization stands; its type says how it ended once it is over."""
    is_over: bool
    is_full: bool
    """Whether more may be there already."""


class Source(Protocol):
    """Reads the log of one optimization. Thread-safe."""

    def read(self, place: Place | None) -> Page:
        """Return what follows; None: from the beginning. Raises `NotFoundError` and `StoreError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """How patient streams are."""

    poll_seconds: float = 5.0
    """Logs are read at least this often, heard or not."""
    heartbeat_seconds: float = 15.0
    """How long a stream of server-sent events may be silent."""
    recheck_seconds: float = 30.0
    """How often it is asked, at the next message or heartbeat, whether who watches still may."""
    patience_seconds: float = 20.0
    """How long a client may take for one message before it is dropped."""


class SplitSizes(NamedTuple):
    """How many examples a dataset has to measure with."""

    val: int
    test: int
