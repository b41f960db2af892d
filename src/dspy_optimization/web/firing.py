"""Schedules fire: what is due is handed in, for every tenant, each due time once however many processes look.

    claim → decide → hand in, which notes it and moves the due time on in the same transaction

Who dies before that transaction leaves a claim that ends by itself; who dies after it leaves nothing to do. Due times
that were missed count as one, the newest.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from dspy_optimization import bootstrap
from dspy_optimization.adapters.postgres.schedule_store import (
    Due,
    Firing,
    OvertakenError,
    PostgresDueTimes,
    PostgresSchedules,
)
from dspy_optimization.engine import Engine
from dspy_optimization.errors import (
    CapacityError,
    ConflictError,
    EngineError,
    InfrastructureError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    StoreError,
)
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import Optimization
from dspy_optimization.optimization.schedule import NOT_ENDED, Schedule
from dspy_optimization.optimization.store import Hook
from dspy_optimization.serving import Serving
from dspy_optimization.web.handing_in import Cause, hand_in
from dspy_optimization.web.schemas import OptimizeIn

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringTerms:
    """How often and how patiently."""

    poll_seconds: float = 2.0
    lease_seconds: float = 120.0
    """How long handing in may take; after that another process takes it for lost."""
    pause_seconds: float = 30.0
    """Until a due time that cannot be used now, because of something that may pass, is tried again."""
    longest_pause_seconds: float = 300.0


def fire(serving: Serving, engine: Engine, firing: Firing, key: str | None = None) -> Optimization:
    """Hand in what a schedule keeps.

    Raises:
        ConflictError: its last optimization has not ended, or somebody else was faster.
        InvalidRequestError: the request cannot be carried out any more.
        CapacityError: it cannot be taken in now.
    """
    schedule = firing.schedule
    _check_ended(schedule)
    schedules = PostgresSchedules(serving.foundation.database, engine.steering.tenant)
    told: dict[str, Json] = {"schedule": str(schedule.id), "schedule_name": schedule.name}
    if firing.due_at is not None:
        told["due_at"] = firing.due_at.isoformat()
    noted: list[OptimizationId] = []

    def note(optimization_id: OptimizationId) -> Hook:
        noted.append(optimization_id)
        return schedules.firing(firing, optimization_id)

    made = hand_in(serving, engine, _body(schedules.request(schedule.id)), key, Cause(told=told, also=note))
    if made.request.id not in noted:
        # Its key had made it before: only the schedule does not know of it yet.
        schedules.fired(firing, made.request.id)
    return made


class Firer:
    """Fires what is due, from a thread of its own."""

    def __init__(
        self, serving: Serving, *, now: Callable[[], datetime] = bootstrap.now, terms: FiringTerms | None = None
    ) -> None:
        self._serving = serving
        self._now = now
        self._terms = FiringTerms() if terms is None else terms
        self._due_times = PostgresDueTimes(serving.foundation.database)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="schedules", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """End when what is being handed in is, or after so long: what is left over is undone and fired elsewhere."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def step(self) -> bool:
        """Deal with one due time; return whether there was one. `StoreError` when the database is away."""
        due = self._due_times.claim(self._now(), self._terms.lease_seconds)
        if due is None:
            return False
        schedules = PostgresSchedules(self._serving.foundation.database, due.tenant)
        try:
            self._deal(due, schedules)
        except StoreError:
            raise
        except Exception:
            # A defect that one schedule brings to light must not keep the others from firing.
            logger.exception(
                "Schedule not fired", extra={"action": "schedule_failed", "schedule": str(due.schedule_id)}
            )
            why = (
                "wanted: an optimization; found: a defect of the engine, which its log shows; possible: it tries again"
            )
            schedules.put_off(due, why, self._terms.longest_pause_seconds)
        return True

    def _deal(self, due: Due, schedules: PostgresSchedules) -> None:
        now = self._now()
        try:
            schedule = schedules.get(due.schedule_id)
        except NotFoundError:
            return
        try:
            times = schedule.times
        except InvalidRequestError as error:
            self._refused(due, schedules, due.at, str(error), None)
            return
        due_at = max(times.newest(now), due.at)
        following = times.next(max(now, due_at))
        firing = Firing(schedule=schedule, at=now, due=due, due_at=due_at, next_due_at=following)
        key = f"schedule/{schedule.id}/{due_at.isoformat()}"
        try:
            made = fire(self._serving, self._serving.engine(due.tenant), firing, key)
        except OvertakenError as error:
            facts = {"schedule": str(schedule.id), "reason": str(error)}
            logger.info("Schedule overtaken", extra={"action": "schedule_overtaken", **facts})
        except StoreError:
            raise
        except (CapacityError, InfrastructureError) as error:
            self._put_off(due, schedules, error)
        except EngineError as error:
            self._refused(due, schedules, due_at, str(error), following)
        else:
            told = {"optimization": str(made.request.id), "late_seconds": round((now - due_at).total_seconds(), 1)}
            logger.info("Schedule fired", extra={"action": "schedule_fired", "schedule": str(schedule.id), **told})

    def _refused(
        self, due: Due, schedules: PostgresSchedules, due_at: datetime, why: str, next_due_at: datetime | None
    ) -> None:
        if schedules.not_fired(due, due_at, why, next_due_at):
            facts = {"schedule": str(due.schedule_id), "due_at": due_at.isoformat(), "reason": why}
            logger.warning("Schedule not fired", extra={"action": "schedule_not_fired", **facts})

    def _put_off(self, due: Due, schedules: PostgresSchedules, error: EngineError) -> None:
        wanted = error.retry_after_seconds if isinstance(error, QueueFullError) else self._terms.pause_seconds
        seconds = min(max(wanted, self._terms.poll_seconds), self._terms.longest_pause_seconds)
        if schedules.put_off(due, str(error), seconds):
            facts = {"schedule": str(due.schedule_id), "seconds": round(seconds, 1), "reason": str(error)}
            logger.warning("Schedule waits", extra={"action": "schedule_waits", **facts})

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                is_busy = self.step()
            except StoreError as error:
                logger.warning("Schedules wait", extra={"action": "schedules_wait", "error": str(error)})
                is_busy = False
            if not is_busy:
                self._ended.wait(self._terms.poll_seconds)


def _check_ended(schedule: Schedule) -> None:
    last, status = schedule.last_optimization_id, schedule.last_optimization_status
    if status is not None and status in NOT_ENDED:
        raise ConflictError(
            f"wanted: that the last optimization of the schedule has ended; found: {last} is {status.value}; possible: "
            "wait until it ends, or cancel it"
        )


def _body(kept: Mapping[str, Json]) -> OptimizeIn:
    try:
        return OptimizeIn.model_validate(kept)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("request", *first["loc"]))
        raise InvalidRequestError(
            f"{field}: wanted: a request that this version of the engine takes; found: {first['msg']}; possible: add "
            "the schedule anew"
        ) from error
