"""Charges and answers of one tenant."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.adapters.postgres.tables import lm_answer, lm_charge
from dspy_optimization.evaluation.ledger import (
    Bill,
    Charge,
    ChargeStatus,
    LedgerBatch,
    OptimizationId,
    Spend,
)
from dspy_optimization.evaluation.model import CallKey, ModelResponse, Role
from dspy_optimization.tenancy import TenantId

_RENAMED = {"id": "charge_id"}
_FIELDS = tuple((field.name, _RENAMED.get(field.name, field.name)) for field in fields(Charge))
_NEW_CHARGE = insert(lm_charge).on_conflict_do_nothing()
_NEW_ANSWER = insert(lm_answer).on_conflict_do_nothing()
_INSERTED = insert(lm_charge)
# A call that was given up for lost and answers after all costs what it cost, not what was feared.
_ENDED_CHARGE = _INSERTED.on_conflict_do_update(
    index_elements=[lm_charge.c.tenant_id, lm_charge.c.charge_id],
    set_={
        name: _INSERTED.excluded[name]
        for name in ("status", "cost_usd", "prompt_tokens", "completion_tokens", "settled_at")
    },
    where=sa.or_(lm_charge.c.status == ChargeStatus.STARTED, lm_charge.c.status == ChargeStatus.LOST),
)


class PostgresLedger:
    """The `LedgerStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def answers(self, keys: Sequence[CallKey]) -> Mapping[CallKey, ModelResponse]:
        """Return the answers that are known; unknown keys are absent."""
        if not keys:
            return {}
        wanted = sa.bindparam("keys", list(keys), type_=sa.ARRAY(lm_answer.c.key.type))
        query = sa.select(lm_answer.c.key, lm_answer.c.document).where(lm_answer.c.key == sa.any_(wanted))
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).all()
        return {CallKey(row.key): read(ModelResponse, row.document) for row in rows}

    def commit(self, batch: LedgerBatch) -> None:
        """Write the batch durably in one transaction; idempotent.

        Rows go in the order of their keys, so that two batches never wait for each other in a ring.
        """
        ended = {charge.id: charge for charge in batch.ended}
        started = {charge.id: charge for charge in batch.started if charge.id not in ended}
        answers = [{"key": key, "document": write(answer)} for key, answer in sorted(batch.answers.items())]
        with self._database.transaction(self._tenant) as connection:
            if started:
                connection.execute(_NEW_CHARGE, [_row(started[key]) for key in sorted(started)])
            if ended:
                connection.execute(_ENDED_CHARGE, [_row(ended[key]) for key in sorted(ended)])
            if answers:
                connection.execute(_NEW_ANSWER, answers)

    def bill(self, optimization_id: OptimizationId) -> Bill:
        """Return what the optimization was charged so far; a call under way counts with what is reserved for it."""
        under_way = lm_charge.c.status == ChargeStatus.STARTED
        cost = sa.case((under_way, lm_charge.c.reserved_usd), else_=lm_charge.c.cost_usd)
        query = (
            sa.select(
                lm_charge.c.role,
                lm_charge.c.label,
                sa.func.count().label("calls"),
                sa.func.count().filter(lm_charge.c.status == ChargeStatus.LOST).label("lost_calls"),
                sa.func.sum(cost).label("cost_usd"),
                sa.cast(sa.func.sum(lm_charge.c.prompt_tokens), sa.BigInteger).label("prompt_tokens"),
                sa.cast(sa.func.sum(lm_charge.c.completion_tokens), sa.BigInteger).label("completion_tokens"),
            )
            .where(lm_charge.c.optimization_id == optimization_id, lm_charge.c.status != ChargeStatus.FAILED)
            .group_by(lm_charge.c.role, lm_charge.c.label)
            .order_by(lm_charge.c.role, lm_charge.c.label)
        )
        by_role: dict[Role, Spend] = {}
        by_label: dict[str, Spend] = {}
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).all()
        for row in rows:
            spend = Spend(
                calls=row.calls,
                lost_calls=row.lost_calls,
                cost_usd=row.cost_usd,
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
            )
            by_role[row.role] = by_role.get(row.role, Spend()) + spend
            by_label[row.label] = by_label.get(row.label, Spend()) + spend
        return Bill(by_role=by_role, by_label=by_label)

    def close_lost(self, optimization_id: OptimizationId) -> Sequence[Charge]:
        """Mark every charge that was started and never ended as lost, at its reserved cost; return them."""
        change = (
            sa.update(lm_charge)
            .where(lm_charge.c.optimization_id == optimization_id, lm_charge.c.status == ChargeStatus.STARTED)
            .values(status=ChargeStatus.LOST, cost_usd=lm_charge.c.reserved_usd)
            .returning(lm_charge)
        )
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(change).mappings().all()
        lost = [Charge(**{name: row[column] for name, column in _FIELDS}) for row in rows]
        return sorted(lost, key=lambda charge: (charge.started_at, charge.id))


def _row(charge: Charge) -> dict[str, object]:
    return {column: getattr(charge, name) for name, column in _FIELDS}
