"""Experiments of one tenant. What is told of them stands in the event log of the optimization they are about."""

from collections.abc import Callable, Sequence
from typing import cast

import sqlalchemy as sa
from psycopg import errors
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.event_store import tell
from dspy_optimization.adapters.postgres.tables import experiment as table
from dspy_optimization.adapters.postgres.tables import experiment_holder, optimization_request
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.decision import Alert
from dspy_optimization.experiments.experiment import ALLOWED, Conclusion, Experiment, ExperimentStatus
from dspy_optimization.experiments.experiment_reading import experiment_from_json
from dspy_optimization.experiments.result import ExperimentResult
from dspy_optimization.tenancy import TenantId

_SHOWN = 5
_NEWEST_FIRST = (table.c.created_at.desc(), table.c.experiment_id.desc())


class PostgresExperiments:
    """The `ExperimentStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def add(self, experiment: Experiment) -> None:
        """Keep a new one.

        Raises `ConflictError` when its agent has one that has not ended or the id is taken, `NotFoundError` without its
        optimization, `InvalidRequestError` for another tenant's plan and for what could not be read again.
        """
        plan = experiment.plan
        row = {"experiment_id": plan.experiment_id, "created_at": experiment.created_at, **self._columns(experiment)}
        of = sa.select(optimization_request.c.optimization_id).where(
            optimization_request.c.optimization_id == plan.optimization_id
        )
        added = insert(table).values(row).on_conflict_do_nothing().returning(table.c.experiment_id)
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(of).first() is None:
                raise NotFoundError(
                    f"experiment {plan.experiment_id}: wanted: optimization {plan.optimization_id}, whose result it "
                    "compares; found: no such id; possible: one that is listed with the tenant"
                )
            if connection.execute(added).first() is None:
                raise _taken(connection, experiment)
            connection.execute(insert(experiment_holder).values(holder=self._tenant).on_conflict_do_nothing())

    def get(self, experiment_id: ExperimentId) -> Experiment:
        """Return it. Raises `NotFoundError`, naming the newest ids."""
        with self._database.transaction(self._tenant) as connection:
            return _found(connection, experiment_id)

    def newest(self, count: int) -> Sequence[Experiment]:
        """Return the newest first."""
        return self._read(sa.select(table.c.document).order_by(*_NEWEST_FIRST).limit(count))

    def running(self, agent: str | None = None) -> Sequence[Experiment]:
        """Return those that take units in: of one agent, or all, the newest first."""
        query = sa.select(table.c.document).where(table.c.status == ExperimentStatus.RUNNING).order_by(*_NEWEST_FIRST)
        return self._read(query if agent is None else query.where(table.c.agent == agent))

    def change(
        self, experiment_id: ExperimentId, change: Callable[[Experiment], Experiment | Conclusion]
    ) -> Experiment:
        """Change it under a row lock; an alert, and the result once it ends, are events of the same transaction.

        What `change` raises undoes everything. Raises `NotFoundError`, `ConflictError` for a step that is not allowed
        and for an agent that has another experiment, `InvalidRequestError` as `add`.
        """
        with self._database.transaction(self._tenant) as connection:
            before = _found(connection, experiment_id, lock=True)
            changed = change(before)
            after, alert, _ = changed if isinstance(changed, Conclusion) else Conclusion(changed, None, None)
            _check_step(before, after)
            if after != before:
                self._write(connection, after)
            if alert is not None:
                tell(connection, _alerted(after, alert))
            if after.has_ended and not before.has_ended:
                tell(connection, _ended(after.result()))
            return after

    def _write(self, connection: sa.Connection, experiment: Experiment) -> None:
        changed = sa.update(table).where(table.c.experiment_id == experiment.plan.experiment_id)
        try:
            connection.execute(changed.values(self._columns(experiment)))
        except exc.IntegrityError as error:
            if not isinstance(error.orig, errors.UniqueViolation):
                raise
            raise ConflictError(_in_the_way(experiment, "another experiment")) from error

    def _columns(self, experiment: Experiment) -> dict[str, object]:
        plan = experiment.plan
        if plan.tenant != self._tenant:
            raise InvalidRequestError(
                f"experiment {plan.experiment_id}: wanted: a plan of the tenant {self._tenant}; found: one of "
                f"{plan.tenant}; possible: the store of its tenant"
            )
        document = experiment.to_json()
        # What could not be read again is refused before it is kept.
        experiment_from_json(document)
        return {
            "optimization_id": plan.optimization_id,
            "agent": plan.agent,
            "status": experiment.status,
            "window_length": plan.window.length,
            "grace": plan.window.grace,
            "document": document,
        }

    def _read(self, query: "sa.Select[tuple[object]]") -> Sequence[Experiment]:
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).scalars().all()
        return [_experiment(document) for document in rows]


def tenants_with_experiments(database: Database) -> Sequence[TenantId]:
    """Return every tenant that has, or once had, an experiment."""
    with database.shared() as connection:
        found = connection.execute(sa.select(experiment_holder.c.holder).order_by(experiment_holder.c.holder))
        return [TenantId(holder) for holder in found.scalars()]


def _experiment(document: object) -> Experiment:
    return experiment_from_json(cast("dict[str, Json]", document))


def _found(connection: sa.Connection, experiment_id: ExperimentId, *, lock: bool = False) -> Experiment:
    query = sa.select(table.c.document).where(table.c.experiment_id == experiment_id)
    # Weaker than FOR UPDATE: rows of its log may be written meanwhile, other changes of it may not.
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    if row is None:
        raise unknown(connection, experiment_id)
    return _experiment(row.document)


def unknown(connection: sa.Connection, experiment_id: ExperimentId) -> NotFoundError:
    """Return what says that there is no such experiment, with the newest there are."""
    newest = sa.select(table.c.experiment_id).order_by(*_NEWEST_FIRST).limit(_SHOWN)
    known = ", ".join(str(one) for one in connection.execute(newest).scalars()) or "none yet"
    return NotFoundError(f"wanted: experiment {experiment_id}; found: no such id; possible, newest first: {known}")


def _taken(connection: sa.Connection, experiment: Experiment) -> ConflictError:
    plan = experiment.plan
    same = connection.execute(sa.select(table.c.status).where(table.c.experiment_id == plan.experiment_id)).first()
    if same is not None:
        return ConflictError(
            f"experiment {plan.experiment_id}: wanted: a new experiment; found: one with this id; allowed: a new id"
        )
    other = sa.select(table.c.experiment_id).where(
        table.c.agent == plan.agent,
        table.c.status.in_([ExperimentStatus.PLANNED, ExperimentStatus.RUNNING]),
    )
    # It may have ended at this moment.
    found = connection.execute(other).scalar_one_or_none()
    return ConflictError(_in_the_way(experiment, "another experiment" if found is None else f"experiment {found}"))


def _in_the_way(experiment: Experiment, what: str) -> str:
    return (
        f"agent {experiment.plan.agent}: wanted: no experiment on it that has not ended; found: {what}; allowed: wait "
        "until it ends, or stop it"
    )


def _check_step(before: Experiment, after: Experiment) -> None:
    plan = before.plan
    if after.plan.experiment_id != plan.experiment_id:
        raise ConflictError(
            f"experiment {plan.experiment_id}: wanted: a change of itself; found: experiment "
            f"{after.plan.experiment_id}; allowed: add that one"
        )
    if after.plan != plan and before.status is not ExperimentStatus.PLANNED:
        raise ConflictError(
            f"experiment {plan.experiment_id}: wanted: the plan it was started with; found: another plan; allowed: "
            "another experiment"
        )
    if after == before or (after.status is before.status and not before.has_ended):
        return
    if after.status not in ALLOWED[before.status]:
        allowed = ", ".join(sorted(status.value for status in ALLOWED[before.status])) or "nothing, it is final"
        raise ConflictError(
            f"experiment {plan.experiment_id}: wanted: to become {after.status.value}; found: it is "
            f"{before.status.value}; allowed: {allowed}"
        )


def _alerted(experiment: Experiment, alert: Alert) -> Event:
    plan, decision = experiment.plan, experiment.decision
    return Event(
        type=EventType.EXPERIMENT_ALERT,
        optimization_id=plan.optimization_id,
        at=experiment.created_at if experiment.alerted_at is None else experiment.alerted_at,
        data={
            "experiment_id": str(plan.experiment_id),
            "alert": alert.value,
            "reason": None if decision is None else decision.reason,
        },
        key=f"{EventType.EXPERIMENT_ALERT.value}/{plan.experiment_id}/{alert.value}",
    )


def _ended(result: ExperimentResult) -> Event:
    return Event(
        type=EventType.EXPERIMENT_RESULT,
        optimization_id=result.optimization_id,
        at=result.timestamp,
        data=result.to_json(),
        key=f"{EventType.EXPERIMENT_RESULT.value}/{result.experiment_id}",
    )
