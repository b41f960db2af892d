"""GPU time is added to the optimization it was held by and to the sum of all, and is nobody else's to see."""

from uuid import UUID

import pytest

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.gpu_use_store import PostgresGpuUse, gpu_use_of_all
from dspy_optimization.compute.devices import DeviceKind
from dspy_optimization.compute.metering import GpuUse
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId


def use(seconds: float, out_of_memory: int = 0, kind: DeviceKind = DeviceKind.CUDA) -> GpuUse:
    return GpuUse(kind=kind, seconds=seconds, out_of_memory=out_of_memory)


def sums(database: Database) -> dict[DeviceKind, tuple[float, int]]:
    return {kind: (one.seconds, one.out_of_memory) for kind, one in gpu_use_of_all(database).items()}


def test_use_adds_up(
    database: Database, tenant: TenantId, other_tenant: TenantId, optimization_id: OptimizationId
) -> None:
    """On the row, for the tenant, and over all tenants by kind of device."""
    store = PostgresGpuUse(database, tenant)
    before = sums(database)
    store.add(optimization_id, [use(1.5, 1), use(2.0, kind=DeviceKind.MPS)])
    store.add(optimization_id, [use(0.25), use(0.0, 3, DeviceKind.CPU)])
    store.add(optimization_id, [])

    more = {kind: (one[0] - before[kind][0], one[1] - before[kind][1]) for kind, one in sums(database).items()}
    assert {DeviceKind.CUDA: (1.75, 1), DeviceKind.MPS: (2.0, 0), DeviceKind.CPU: (0.0, 3)} == more
    assert 3.75 == store.seconds_of(optimization_id)
    assert 3.75 == store.seconds()
    assert 0.0 == PostgresGpuUse(database, other_tenant).seconds()


def test_only_the_tenant_adds_and_sees(
    database: Database, other_tenant: TenantId, optimization_id: OptimizationId
) -> None:
    others = PostgresGpuUse(database, other_tenant)
    before = sums(database)

    with pytest.raises(NotFoundError, match="wanted: optimization"):
        others.add(optimization_id, [use(1.0)])
    with pytest.raises(NotFoundError, match="found: no such id"):
        others.seconds_of(optimization_id)
    with pytest.raises(NotFoundError):
        others.add(OptimizationId(UUID(int=7)), [use(1.0)])
    assert before == sums(database)
