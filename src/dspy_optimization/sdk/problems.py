"""What the service refuses, as an error of the tree: the one table from a status to what went wrong."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from dspy_optimization.errors import (
    CapacityError,
    ConflictError,
    EngineError,
    ExpiredError,
    InfrastructureError,
    InvalidRequestError,
    NoGpuError,
    NotFoundError,
    QueueFullError,
)
from dspy_optimization.events import Json
from dspy_optimization.sdk.errors import AccessError

PASSING = frozenset({429, 503})
"""Statuses that may be gone the next time."""
QUEUE_FULL = "queue-full"
"""How the `type` of a problem ends that says the queue is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is no success."""

    status: int
    url: str
    method: str
    content_type: str
    body: bytes
    retry_after_seconds: float | None = None

    @property
    def error(self) -> EngineError:
        """What to raise for it."""
        document = self._document()
        message = self._message(document)
        match self.status:
            case 401 | 403:
                return AccessError(message, status=self.status)
            case 404:
                return NotFoundError(message)
            case 409:
                return ConflictError(message)
            case 410:
                return ExpiredError(message)
            case 429:
                return CapacityError(message)
            case 503 if self.retry_after_seconds is not None and self._tells_of_the_queue(document):
                return QueueFullError(message, retry_after_seconds=self.retry_after_seconds)
            case 507:
                return NoGpuError(message)
            case status if 400 <= status < 500:
                return InvalidRequestError(message)
            case _:
                return InfrastructureError(message)

    def _document(self) -> Mapping[str, Json]:
        if "json" not in self.content_type:
            return {}
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def _tells_of_the_queue(self, document: Mapping[str, Json]) -> bool:
        """Say whether a 503 means a full queue: it says so, or leaves it open and the request was to be queued."""
        kind = document.get("type")
        if isinstance(kind, str) and kind not in {"", "about:blank"}:
            return kind.endswith(QUEUE_FULL)
        queues = self.url.partition("?")[0].endswith(("/optimize", "/resume", "/retry"))
        return bool(document) and self.method == "POST" and queues

    def _message(self, document: Mapping[str, Json]) -> str:
        detail = document.get("detail")
        if not isinstance(detail, str) or not detail:
            title = document.get("title")
            said = title if isinstance(title, str) else self.body[:200].decode("utf-8", "replace").strip() or "nothing"
            return (
                f"wanted: an answer to {self.method} {self.url}; found: status {self.status} saying {said!r}; "
                "possible: check that this is the address of the service"
            )
        errors = document.get("errors")
        others = [
            f"{one.get('field')}: {one.get('message')}"
            for one in (errors if isinstance(errors, list) else [])
            if isinstance(one, dict)
        ]
        return f"{detail} ({'; '.join(others)})" if len(others) > 1 else detail


def unreachable(url: str, found: Exception) -> InfrastructureError:
    """Return the error for a service that does not answer."""
    said = str(found) or type(found).__name__
    return InfrastructureError(
        f"wanted: an answer of the service at {url}; found: {said}; possible: is `dspy-opt serve` running there? "
        "DSPY_OPT_URL or base_url says where it is"
    )
