"""Optimizations as lists and status pages show them: one query a page, whatever it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read
from dspy_optimization.adapters.postgres.optimization_store import optimization_of
from dspy_optimization.adapters.postgres.tables import (
    event,
    lm_charge,
    optimization_request,
    optimization_result,
    trial,
)
from dspy_optimization.agents.example import Split
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.ledger import ChargeStatus, OptimizationId
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import EventType, Json
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.tenancy import TenantId

ACCEPTED_KEY = "accepted"
"""The key of the event that tells what was estimated."""
_PAST = 50
"""Ended optimizations that say how good estimates are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page begins: behind this one."""

    created_at: datetime
    optimization_id: OptimizationId


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which optimizations a page shows."""

    statuses: Sequence[OptimizationStatus] = ()
    """Empty: all."""
    target: str | None = None
    algorithm: str | None = None
    newest_first: bool = True
    after: Place | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpend:
    """What a role took."""

    role: Role
    calls: int
    cost_usd: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One optimization at a glance. Scores are of all of `val`."""

    optimization: Optimization
    baseline_score: float | None
    best_score: float | None
    trials: int
    spend: Sequence[RoleSpend]
    result: dict[str, Json] | None
    """What the result says of itself: verdict, reason, improvement_percentage, difference; None while there is none."""

    @property
    def lm_calls(self) -> int:
        """Calls of all roles."""
        return sum(one.calls for one in self.spend)

    @property
    def cost_usd(self) -> float:
        """Of all roles."""
        return sum(one.cost_usd for one in self.spend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is known of an optimization now."""

    overview: Overview
    latest: dict[str, Json]
    """Data of the newest progress event; empty before the first."""
    accepted: dict[str, Json]
    """What was estimated when it was handed in; empty when nobody did."""
    result: OptimizationResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """An ended optimization: how long it was to take, and took."""

    raw_seconds: float
    """The upper estimate."""
    estimated_seconds: float
    """What was told."""
    elapsed_seconds: float


def _overview() -> "sa.Select[tuple[object, ...]]":
    table, result = optimization_request, optimization_result
    same = (table.c.tenant_id, table.c.optimization_id)
    of_val = (
        sa.select(trial.c.score, trial.c.algorithm, trial.c.n_results.label("n"), trial.c.candidate)
        .where(trial.c.tenant_id == same[0], trial.c.optimization_id == same[1], trial.c.split == Split.VAL.value)
        .correlate(table)
        .subquery("of_val")
    )
    complete = sa.select(sa.func.max(of_val.c.n)).where(of_val.c.algorithm == "baseline").scalar_subquery()
    trials = sa.select(
        sa.func.max(of_val.c.score).filter(of_val.c.n >= complete).label("best"),
        sa.func.max(of_val.c.score).filter(of_val.c.algorithm == "baseline").label("baseline"),
        sa.func.count(of_val.c.candidate.distinct()).filter(of_val.c.n >= complete).label("trials"),
    ).lateral("trials")
    by_role = (
        sa.select(
            lm_charge.c.role,
            sa.func.count().label("calls"),
            sa.func.coalesce(sa.func.sum(lm_charge.c.cost_usd), 0.0).label("cost_usd"),
            sa.func.coalesce(sa.func.sum(lm_charge.c.prompt_tokens + lm_charge.c.completion_tokens), 0).label("tokens"),
        )
        .where(
            lm_charge.c.tenant_id == same[0],
            lm_charge.c.optimization_id == same[1],
            lm_charge.c.status != ChargeStatus.FAILED,
        )
        .group_by(lm_charge.c.role)
        .correlate(table)
        .subquery("by_role")
    )
    charges = sa.select(sa.func.json_agg(sa.func.row_to_json(sa.literal_column("by_role"))).label("spend")).select_from(
        by_role
    )
    joined = (
        table.join(trials, sa.true())
        .join(charges.lateral("charges"), sa.true())
        .outerjoin(
            result,
            sa.and_(result.c.tenant_id == same[0], result.c.optimization_id == same[1]),
        )
    )
    return sa.select(
        table,
        trials.c.best,
        trials.c.baseline,
        trials.c.trials,
        sa.literal_column("charges.spend", JSON()).label("spend"),
        result.c.optimization_details.label("details"),
        result.c.improvement_percentage,
        result.c.statistical_significance,
        result.c.document["noun"]["validated"].label("validated"),
    ).select_from(joined)


def _of_event(*which: sa.ColumnElement[bool]) -> "sa.ScalarSelect[object]":
    """Return the newest event like this of the optimization in the query around."""
    table = optimization_request
    return (
        sa.select(event.c.data)
        .where(event.c.tenant_id == table.c.tenant_id, event.c.optimization_id == table.c.optimization_id, *which)
        .order_by(event.c.event_id.desc())
        .limit(1)
        .correlate(table)
        .scalar_subquery()
    )


# Built once: building a query takes longer than asking it.
_OVERVIEW = _overview()
_MOMENTS = _OVERVIEW.add_columns(
    _of_event(event.c.type == EventType.PROGRESS.value).label("latest"),
    _of_event(event.c.key == ACCEPTED_KEY).label("accepted"),
    optimization_result.c.document.label("result_document"),
).where(optimization_request.c.optimization_id == sa.any_(sa.bindparam("ids", type_=ARRAY(sa.Uuid()))))


class PostgresOverview:
    """Pages and moments of one tenant. Thread-safe; only reads."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def page(self, wanted: Wanted) -> Sequence[Overview]:
        """Return the page, in order."""
        table = optimization_request
        query = _OVERVIEW
        if wanted.statuses:
            query = query.where(table.c.status.in_(wanted.statuses))
        if wanted.target is not None:
            query = query.where(table.c.target_id == wanted.target)
        if wanted.algorithm is not None:
            query = query.where(table.c.algorithms.contains([wanted.algorithm]))
        place = sa.tuple_(table.c.created_at, table.c.optimization_id)
        if wanted.after is not None:
            last = sa.tuple_(sa.literal(wanted.after.created_at), sa.literal(wanted.after.optimization_id, sa.Uuid()))
            query = query.where(place < last if wanted.newest_first else place > last)
        order = (table.c.created_at, table.c.optimization_id)
        query = query.order_by(*(one.desc() if wanted.newest_first else one for one in order)).limit(wanted.limit)
        with self._database.transaction(self._tenant) as connection:
            return [_seen(row) for row in connection.execute(query)]

    def moments(self, optimization_ids: Sequence[OptimizationId]) -> Mapping[OptimizationId, Moment]:
        """Return where these stand; one that is not there is absent."""
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(_MOMENTS, {"ids": list(optimization_ids)}).all()
        return {OptimizationId(row.optimization_id): _moment(row) for row in rows}

    def moment(self, optimization_id: OptimizationId) -> Moment:
        """Return where one stands. Raises `NotFoundError`."""
        found = self.moments([optimization_id]).get(optimization_id)
        if found is None:
            raise unknown(optimization_id)
        return found

    def past(self) -> Sequence[Past]:
        """Return the newest ended optimizations for which something was estimated."""
        table = optimization_request
        query = (
            sa.select(event.c.data, table.c.elapsed_seconds)
            .join(table, event.c.optimization_id == table.c.optimization_id)
            .where(
                event.c.type == EventType.OPTIMIZATION_ACCEPTED.value,
                table.c.status == OptimizationStatus.COMPLETED,
            )
            .order_by(table.c.created_at.desc())
            .limit(_PAST)
        )
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Past(
                raw_seconds=float(row["data"]["data"]["raw_seconds"]),
                estimated_seconds=float(row["data"]["data"]["estimated_seconds"]),
                elapsed_seconds=row["elapsed_seconds"],
            )
            for row in rows
        ]


def unknown(optimization_id: OptimizationId) -> NotFoundError:
    """Return the error of an optimization that is not there."""
    return NotFoundError(
        f"wanted: optimization {optimization_id}; found: no such id; possible: one that the list shows"
    )


def _moment(row: "sa.Row[tuple[object, ...]]") -> Moment:
    return Moment(
        overview=_seen(row),
        latest=_data(row.latest),
        accepted=_data(row.accepted),
        result=None if row.result_document is None else read(OptimizationResult, row.result_document),
    )


def _data(document: Mapping[str, Json] | None) -> dict[str, Json]:
    found = None if document is None else document.get("data")
    return found if isinstance(found, dict) else {}


def _seen(row: "sa.Row[tuple[object, ...]]") -> Overview:
    result: dict[str, Json] | None = None
    if row.details is not None:
        result = {
            **row.details,
            "improvement_percentage": row.improvement_percentage,
            "statistical_significance": row.statistical_significance,
            "difference": _difference(row.validated),
        }
    return Overview(
        optimization=optimization_of(row),
        baseline_score=row.baseline,
        best_score=row.best,
        trials=row.trials,
        spend=[
            RoleSpend(role=Role(one["role"]), calls=one["calls"], cost_usd=one["cost_usd"], tokens=one["tokens"])
            for one in row.spend or ()
        ],
        result=result,
    )


def _difference(validated: Json) -> Json:
    """Return the difference of the primary objective with its interval."""
    if not isinstance(validated, dict):
        return None
    objectives, primary = validated.get("objectives"), validated.get("primary")
    found = objectives.get(str(primary)) if isinstance(objectives, dict) else None
    return found.get("difference") if isinstance(found, dict) else None
