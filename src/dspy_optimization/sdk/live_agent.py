"""An agent under live traffic: which version answers a unit, and what became of it.

In the path of somebody's request nothing here raises unless it is asked to: while the service is away everybody gets
the version that was live when it was last heard of, and outcomes wait for it.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from dspy_optimization.errors import EngineError, InvalidRequestError
from dspy_optimization.sdk.transport import Transport, segment

logger = logging.getLogger(__name__)

FALLBACK = "fallback"
"""The reason of an assignment that the service did not make."""
BASELINE = "baseline"
MOST_WAITING = 1_000
"""Outcomes that wait; the oldest are forgotten first. Also the most that the service takes in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one unit is to be served."""

    variant: str
    """baseline or optimized."""
    reason: str
    """hashed, kept, overridden, no_unit or not_running; fallback: the service did not answer."""
    version: str | None = None
    """Of the agent; None: the service was never heard of, so serve what you have."""
    live_version: str | None = None
    """What everybody gets who is in no experiment."""
    exposure_id: str | None = None
    """Under which outcomes are told; None: nobody counts them."""
    experiment_id: str | None = None

    @property
    def is_fallback(self) -> bool:
        """Whether the service did not answer."""
        return self.reason == FALLBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedOutcome:
    """An outcome that the service does not take."""

    position: int
    status: int
    detail: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What became of outcomes."""

    accepted: int = 0
    refused: tuple[RefusedOutcome, ...] = ()


class LiveAgent:
    """`client.agent("support")`. May be shared by threads."""

    def __init__(self, transport: Transport, name: str, *, timeout_seconds: float, pause_seconds: float) -> None:
        """Say how patient it is.

        Args:
            transport: to the service.
            name: of the agent.
            timeout_seconds: how long a request of yours may wait for the service.
            pause_seconds: how long the service is not asked after it did not answer.
        """
        self._transport = transport
        self._path = f"/agents/{segment(name)}/assign"
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._live_version: str | None = None
        self._away_until = 0.0
        self._waiting: deque[dict[str, object]] = deque(maxlen=MOST_WAITING)

    @property
    def waiting(self) -> int:
        """Outcomes that the service has not heard of yet."""
        with self._lock:
            return len(self._waiting)

    def assign(
        self, unit_id: str | None, attributes: Mapping[str, object] | None = None, *, strict: bool = False
    ) -> Assignment:
        """Return which version answers a unit; its exposure is recorded.

        Args:
            unit_id: a user or a session, always the same text for the same one; None: in no experiment.
            attributes: what is known before it is served, for overrides.
            strict: raise what the service says, or that it is away, instead of falling back to the live version.
        """
        body = {"unit_id": unit_id, "attributes": dict(attributes or {})}
        if not strict and self._is_away():
            return self._fallback()
        try:
            made = self._transport.post_as(Assignment, self._path, body, within_seconds=self._timeout_seconds)
        except EngineError as error:
            if strict:
                raise
            self._failed("assignment_fell_back", error)
            return self._fallback()
        with self._lock:
            self._away_until = 0.0
            self._live_version = made.live_version
        return made

    def report(
        self,
        exposure: Assignment | str | None,
        *,
        score: float | None = None,
        success: bool | None = None,
        event_id: str | None = None,
        failed: bool = False,
        cost_usd: float | None = None,
        latency_ms: float | None = None,
        scores: Mapping[str, float] | None = None,
        feedback: str | None = None,
        happened_at: datetime | None = None,
        strict: bool = False,
    ) -> Reported:
        """Tell what became of a unit, together with what waits; return what the service says of all of it.

        Args:
            exposure: what `assign` returned, or its exposure_id; one without tells nobody anything.
            score: of the primary metric, in [0, 1].
            success: in place of a score.
            event_id: your own, so that telling it twice counts once; None: a fresh one.
            failed: the agent gave no usable answer.
            cost_usd: dollars.
            latency_ms: milliseconds.
            scores: of other metrics, for guardrails.
            feedback: words of a person.
            happened_at: aware; None: when the service hears of it, or now where it has to wait.
            strict: raise what the service says, or that it is away, instead of keeping the outcome for later.
        """
        exposure_id = exposure.exposure_id if isinstance(exposure, Assignment) else exposure
        if exposure_id is None:
            return Reported()
        fields: dict[str, object] = {
            "event_id": self._transport.surroundings.new_key() if event_id is None else event_id,
            "exposure_id": exposure_id,
            "score": score,
            "success": success,
            "failed": failed or None,
            "cost_usd": cost_usd,
            "latency_ms": latency_ms,
            "scores": None if scores is None else dict(scores),
            "feedback": feedback,
            "happened_at": None if happened_at is None else happened_at.isoformat(),
        }
        told = {name: value for name, value in fields.items() if value is not None}
        return self._tell(told, strict=strict)

    def flush(self, *, strict: bool = False) -> Reported:
        """Tell what waits. As `report`."""
        return self._tell(None, strict=strict)

    def _tell(self, told: dict[str, object] | None, *, strict: bool) -> Reported:
        with self._lock:
            batch = [*self._waiting]
            self._waiting.clear()
        if told is not None:
            batch = [*batch, told][-MOST_WAITING:]
        if not batch:
            return Reported()
        if not strict and self._is_away():
            self._keep(batch)
            return Reported()
        try:
            found = self._transport.post_as(
                Reported, "/outcomes", {"outcomes": batch}, within_seconds=self._timeout_seconds
            )
        except InvalidRequestError as error:
            # Told again it would be refused again.
            if strict:
                raise
            logger.warning("Outcomes refused", extra={"action": "outcomes_refused", "error": str(error)})
            return Reported()
        except EngineError as error:
            self._keep(batch if not strict else batch[:-1] if told is not None else batch)
            if strict:
                raise
            self._failed("outcomes_wait", error)
            return Reported()
        for one in found.refused:
            logger.warning("Outcome refused", extra={"action": "outcome_refused", "error": one.detail})
        return found

    def _keep(self, batch: list[dict[str, object]]) -> None:
        moment = self._transport.surroundings.now().isoformat()
        with self._lock:
            self._waiting.extend({"happened_at": moment, **one} for one in batch)

    def _is_away(self) -> bool:
        with self._lock:
            return self._transport.surroundings.monotonic() < self._away_until

    def _failed(self, action: str, error: EngineError) -> None:
        with self._lock:
            self._away_until = self._transport.surroundings.monotonic() + self._pause_seconds
        logger.warning("Service did not answer", extra={"action": action, "agent": self._name, "error": str(error)})

    def _fallback(self) -> Assignment:
        with self._lock:
            live = self._live_version
        return replace(Assignment(variant=BASELINE, reason=FALLBACK), version=live, live_version=live)
