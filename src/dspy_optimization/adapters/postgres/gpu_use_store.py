"""What optimizations took of GPUs: on the row of each, and the sum of all tenants."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import gpu_use, optimization_request
from dspy_optimization.compute.devices import DeviceKind
from dspy_optimization.compute.metering import GpuUse
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId


class PostgresGpuUse:
    """Adds up the GPU time of one tenant's optimizations. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def add(self, optimization_id: OptimizationId, uses: Sequence[GpuUse]) -> None:
        """Add what an optimization that this process works on has used since the last time; nothing: asks nobody.

        Raises `NotFoundError` for an unknown id and `ConflictError` when another process took it over.
        """
        if not uses:
            return
        with self._database.guarded():
            self._database.ownership.confirm(self._tenant, optimization_id)
        seconds = sum(one.seconds for one in uses)
        table = optimization_request
        with self._database.transaction(self._tenant) as connection:
            if seconds:
                change = sa.update(table).where(table.c.optimization_id == optimization_id)
                added = connection.execute(change.values(gpu_seconds=table.c.gpu_seconds + seconds))
                if not added.rowcount:
                    raise _unknown(optimization_id)
            for one in sorted(uses, key=lambda use: use.kind):
                sums = insert(gpu_use).values(
                    device=one.kind.value, seconds=one.seconds, out_of_memory=one.out_of_memory
                )
                more = {name: gpu_use.c[name] + sums.excluded[name] for name in ("seconds", "out_of_memory")}
                connection.execute(sums.on_conflict_do_update(index_elements=["device"], set_=more))

    def seconds_of(self, optimization_id: OptimizationId) -> float:
        """Return how long it held GPUs, over all resumes, in seconds. Raises `NotFoundError`."""
        column = optimization_request.c.gpu_seconds
        with self._database.transaction(self._tenant) as connection:
            query = sa.select(column).where(optimization_request.c.optimization_id == optimization_id)
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise _unknown(optimization_id)
        return float(found)

    def seconds(self) -> float:
        """Return how long all optimizations of the tenant that are kept held GPUs, in seconds."""
        with self._database.transaction(self._tenant) as connection:
            query = sa.select(sa.func.coalesce(sa.func.sum(optimization_request.c.gpu_seconds), 0.0))
            return float(connection.execute(query).scalar_one())


def gpu_use_of_all(database: Database) -> Mapping[DeviceKind, GpuUse]:
    """Return the sums of all tenants by kind of device; a kind that nobody used has zeros."""
    with database.shared() as connection:
        kept = {row.device: row for row in connection.execute(sa.select(gpu_use))}
    return {
        kind: GpuUse(
            kind=kind,
            seconds=float(kept[kind.value].seconds) if kind.value in kept else 0.0,
            out_of_memory=int(kept[kind.value].out_of_memory) if kind.value in kept else 0,
        )
        for kind in DeviceKind
    }


def _unknown(optimization_id: OptimizationId) -> NotFoundError:
    return NotFoundError(
        f"wanted: optimization {optimization_id}; found: no such id; possible: one that is listed with the tenant"
    )
