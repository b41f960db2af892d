"""What the service has: agents, datasets, algorithms, metrics, models, and itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVersion:
    """One version of a registered agent."""

    name: str
    version: str
    created_at: datetime | None = None
    config: Mapping[str, Json] = field(default_factory=dict)
    """Empty in lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset that is kept; its id is its version."""

    id: str
    name: str
    seed: int | None = None
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetExample:
    """One example that is not sealed."""

    id: str | None = None
    split: str | None = None
    inputs: Mapping[str, Json] = field(default_factory=dict)
    expected: Mapping[str, Json] = field(default_factory=dict)
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found in a dataset."""

    severity: str
    code: str
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What a dataset can prove."""

    usable: bool
    sentence: str
    findings: tuple[Finding, ...] = ()
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    detectable_gain: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmOption:
    """One option of an algorithm."""

    name: str
    type: str | None = None
    default: Json = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """An installed algorithm."""

    name: str
    description: str = ""
    options: tuple[AlgorithmOption, ...] = ()
    objectives_supported: Json = None
    needs: tuple[str, ...] = ()
    source: str | None = None
    """The package it comes with; of a registered one its entrypoint."""
    version: str | None = None
    custom: bool = False
    """Whether this tenant has registered it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFinding:
    """One rule of the contract of algorithms."""

    rule: str
    outcome: str
    """kept, broken or unchecked."""
    wanted: str = ""
    found: str = ""
    possible: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAlgorithm:
    """A registered algorithm."""

    name: str
    entrypoint: str
    version: str
    """Of the code that was checked."""
    registered_at: datetime | None = None
    problem: str | None = None
    """Why it cannot be used now; None: it can."""
    checks: tuple[RuleFinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricType:
    """A type of metric."""

    name: str
    description: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The language model of a role."""

    role: str
    model: str
    base_url: str | None = None
    """None unless the key may administer, and where there is no server."""
    priced: bool | None = None
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTest:
    """Whether a model answers."""

    role: str
    ok: bool
    latency_seconds: float | None = None
    answer: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """How busy a lane is."""

    lane: str
    waiting: int
    running: int
    concurrency: int
    """How many may run at once, over all workers."""
    worker_concurrency: int | None = None
    """How many may run at once in each worker; None: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """How busy an algorithm is of which not all may run at once."""

    partition: str
    """The algorithm."""
    waiting: int
    running: int
    concurrency: int | None = None
    """None: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits and works."""

    lanes: tuple[LaneState, ...] = ()
    partitions: tuple[PartitionState, ...] = ()
    bound: int | None = None
    """How many may wait, over all lanes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that serves."""

    id: str
    host: str | None = None
    process_id: int | None = None
    lanes: tuple[str, ...] = ()
    running: int | None = None
    version: str | None = None
    started_at: datetime | None = None
    expires_at: datetime | None = None
    is_alive: bool
    is_this: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The queue and the workers."""

    queue: Queue
    workers: tuple[Worker, ...] = ()
