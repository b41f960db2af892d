"""Answers for operators: queue, workers, health, GPUs, who asks."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from dspy_optimization.web.answers.base import Answer


class LaneOut(Answer):
    """How busy a lane is."""

    lane: str
    waiting: int
    running: int
    concurrency: int = Field(description="How many may run at once, over all workers.")
    worker_concurrency: int | None = Field(description="How many may run at once in each worker; null: any number.")


class PartitionOut(Answer):
    """How busy an algorithm is of which not all may run at once, over all lanes."""

    partition: str = Field(description="The algorithm.")
    waiting: int
    running: int
    concurrency: int | None = Field(description="How many may run at once; null: any number, as with those not listed.")


class QueueOut(Answer):
    """The queue."""

    lanes: list[LaneOut]
    partitions: list[PartitionOut] = Field(description="Algorithms of which not all may run at once.")
    bound: int = Field(description="How many may wait, over all lanes.")


class WorkerOut(Answer):
    """A process that serves."""

    id: str
    host: str | None = Field(description="Null unless the key may administer.")
    process_id: int | None = Field(description="Null unless the key may administer.")
    lanes: list[str]
    running: int
    version: str
    started_at: datetime
    expires_at: datetime
    is_alive: bool
    is_this: bool


class CalibrationOut(Answer):
    """How good estimates of time were for the newest ended optimizations."""

    n: int
    median_absolute_percentage_error: float | None
    share_within_half: float | None = Field(description="Share that took between half and twice what was told.")


class SystemOut(Answer):
    """Queue, workers and estimates."""

    queue: QueueOut
    workers: list[WorkerOut]
    calibration: CalibrationOut


class Health(Answer):
    """Whether the process lives."""

    status: str
    role: str
    version: str


class Ready(Answer):
    """Whether the process can do its work."""

    ready: bool
    checks: dict[str, str]


class GpuOut(Answer):
    """One GPU."""

    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization: float | None
    temperature_celsius: int | None


class ComputeOut(Answer):
    """What this process works on arrays with."""

    device: str = Field(description="cuda, mps or cpu.")
    library: str = Field(description="torch or numpy.")
    torch_version: str | None = Field(description="Null: torch cannot be used here; the reason says why.")
    reason: str = Field(description="Why this device.")
    memory_fraction: float = Field(
        description="GPU_MEMORY_FRACTION: share of a GPU's memory this process takes at most."
    )
    allocator_configuration: str | None = Field(
        description="PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF, as torch reads it; null: torch's own way."
    )


class GpuStatus(Answer):
    """The GPUs of this machine."""

    available: bool
    devices: list[GpuOut]
    reason: str | None
    compute: ComputeOut


class Me(Answer):
    """Who asks."""

    name: str
    role: str
    permissions: list[str] = Field(description="What the key allows: read, run, administer.")
    tenant: UUID
    requires_key: bool
