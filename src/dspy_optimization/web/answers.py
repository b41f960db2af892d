"""What answers hold: fields are added, never renamed or dropped."""

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class Answer(BaseModel):
    """Base of everything that goes out."""

    model_config = ConfigDict(allow_inf_nan=False)


class Page(Answer, Generic[Item]):
    """A part of a list."""

    items: list[Item]
    next_cursor: str | None = Field(default=None, description="Where the next page begins; null on the last one.")


class Accepted(Answer):
    """An optimization that waits for a worker."""

    optimization_id: UUID
    status: str
    estimated_completion: datetime | None
    estimated_cost_usd: float | None
    links: dict[str, str]


class Asked(Answer):
    """What became of asking something of an optimization."""

    optimization_id: UUID
    status: str
    is_done: bool = Field(description="False: a worker does it after the calls in flight.")


class EstimateOut(Answer):
    """What an optimization takes at most."""

    calls: int
    calls_by_role: dict[str, int]
    calls_by_phase: dict[str, int]
    tokens: int
    cost_usd: float | None
    minutes: float
    seconds_a_call: float
    algorithms: list[str]
    reason: str | None
    models: dict[str, str]
    dataset: str
    estimated_seconds: float = Field(description="What it will probably take, by what earlier ones took.")


class TargetOut(Answer):
    """What is optimized."""

    type: str
    id: str
    version: str


class Summary(Answer):
    """An optimization at a glance. Scores are of val; verdict and gain of the sealed test split."""

    optimization_id: UUID
    target: TargetOut
    status: str
    progress: float
    algorithms: list[str]
    created_at: datetime
    updated_at: datetime
    elapsed_seconds: float
    baseline_score: float | None
    best_score: float | None
    verdict: str | None
    improvement_percentage: float | None
    absolute_improvement: float | None
    confidence_interval: tuple[float, float] | None
    lm_calls: int
    cost_usd: float
    error: str | None


class Detail(Summary):
    """An optimization with what was asked for."""

    request: dict[str, Any]
    links: dict[str, str]


class Measured(Answer):
    """A mean with its interval."""

    value: float
    n: int
    low: float | None
    high: float | None


class Worth(Answer):
    """What one change is worth."""

    component: str
    part: str
    worth: Measured


class ResultDetails(Answer):
    """How the result came about."""

    iterations: int
    trials: int
    key_improvements: list[Worth]
    parameters: dict[str, Any]
    ended_because: str
    test_split_use: int | None
    n_examples: int | None


class ArtifactOut(Answer):
    """Where the optimized agent is."""

    agent_version: str
    checksum: str
    mlflow_run_id: str | None


class Results(Answer):
    """What the sealed test split allows to be said."""

    baseline_performance: dict[str, Measured]
    optimized_performance: dict[str, Measured]
    improvement_percentage: float | None
    absolute_improvement: float | None
    statistical_significance: float | None = Field(description="The p-value, two-sided, adjusted.")
    confidence_interval: tuple[float, float] | None
    mde: float | None
    verdict: str | None
    reason: str | None
    pareto_front: list[dict[str, Any]]
    algorithm_used: str | None
    optimization_details: ResultDetails
    artifact: ArtifactOut


class Metrics(Answer):
    """Where a running optimization is."""

    current_iteration: int | None
    best_score: float | None
    algorithm: str | None
    phase: str | None
    trials: int
    lm_calls: int
    cache_hit_rate: float | None
    cost_usd: dict[str, float]
    tokens: int
    elapsed_seconds: float
    eta_seconds: float | None


class StatusOut(Answer):
    """Where an optimization stands."""

    optimization_id: UUID
    status: str
    progress: float
    estimated_completion: datetime | None
    metrics: Metrics
    results: Results | None
    error: str | None


class CandidateOut(Answer):
    """A candidate measured once."""

    candidate: str
    algorithm: str
    split: str
    score: float
    n_examples: int
    complete: bool
    iteration: int
    paid_calls: int
    recorded_at: datetime
    parents: list[str]
    is_baseline: bool
    is_chosen: bool


class ComponentOut(Answer):
    """One component of a candidate."""

    instructions: str | None
    demos: list[dict[str, Any]]


class CandidateDetail(Answer):
    """A candidate with its texts."""

    candidate: str
    components: dict[str, ComponentOut]


class PieceOut(Answer):
    """A piece of text with one fate."""

    edit: str
    text: str


class ComponentDiff(Answer):
    """One component before and after."""

    component: str
    frozen: bool
    instructions_changed: bool
    words: list[PieceOut]
    demos_added: list[dict[str, Any]]
    demos_removed: list[dict[str, Any]]
    demos_kept: int
    demos_reordered: bool


class Diff(Answer):
    """What differs between two candidates or agent versions."""

    from_: str = Field(alias="from")
    to: str
    components: list[ComponentDiff]

    model_config = ConfigDict(populate_by_name=True)


class CurvePoint(Answer):
    """One candidate measured on val."""

    paid_calls: int
    score: float
    algorithm: str
    candidate: str
    complete: bool


class BestStep(Answer):
    """From here on this was the best candidate."""

    paid_calls: int
    score: float
    candidate: str


class Curve(Answer):
    """How the score on val rose while calls were paid."""

    points: list[CurvePoint]
    best: list[BestStep]
    baseline_score: float | None
    total: int = Field(description="Points there are; `points` may hold fewer.")


class Outcome(Answer):
    """What one candidate made of an example."""

    score: float
    outputs: dict[str, Any]
    failure: str | None


class ExampleOut(Answer):
    """One val example under both candidates."""

    example_id: str
    inputs: dict[str, Any]
    expected: dict[str, Any]
    baseline: Outcome
    optimized: Outcome
    change: str


class Node(Answer):
    """One candidate in the family."""

    id: str
    label: str
    score: float | None
    algorithm: str
    generation: int
    is_baseline: bool
    is_chosen: bool


class Edge(Answer):
    """Who came from whom."""

    from_: str = Field(alias="from")
    to: str

    model_config = ConfigDict(populate_by_name=True)


class Lineage(Answer):
    """The family of candidates."""

    nodes: list[Node]
    edges: list[Edge]


class EventOut(Answer):
    """A fact about an optimization."""

    id: int
    type: str
    at: datetime
    data: dict[str, Any]


class AgentVersion(Answer):
    """One version of an agent."""

    name: str
    version: str


class AgentOut(AgentVersion):
    """An agent's configuration."""

    config: dict[str, Any]


class DatasetVersionOut(Answer):
    """A dataset that is kept."""

    id: str
    name: str


class DatasetOut(DatasetVersionOut):
    """A dataset with its sizes."""

    seed: int
    n_train: int
    n_val: int
    n_test: int


class DatasetExample(Answer):
    """One example that is not sealed."""

    id: str
    split: str
    inputs: dict[str, Any]
    expected: dict[str, Any]
    cluster: str | None


class FindingOut(Answer):
    """One thing found in a dataset."""

    severity: str
    code: str
    message: str
    examples: list[str]


class ReportOut(Answer):
    """What a dataset can prove."""

    usable: bool
    sentence: str
    findings: list[FindingOut]
    n_train: int
    n_val: int
    n_test: int
    detectable_gain: float | None


class OptionOut(Answer):
    """One option of an algorithm."""

    name: str
    type: str
    default: Any
    description: str


class AlgorithmOut(Answer):
    """An installed algorithm."""

    name: str
    description: str
    options: list[OptionOut]
    objectives_supported: str
    needs: list[str]


class MetricOut(Answer):
    """A metric type."""

    name: str
    description: str
    options: list[str]


class ModelOut(Answer):
    """The language model of a role."""

    role: str
    model: str
    base_url: str | None
    priced: bool
    max_concurrency: int | None


class ModelTest(Answer):
    """Whether a model answers."""

    role: str
    ok: bool
    latency_seconds: float | None
    answer: str | None
    error: str | None


class LaneOut(Answer):
    """How busy a lane is."""

    lane: str
    waiting: int
    running: int
    concurrency: int


class QueueOut(Answer):
    """The queue."""

    lanes: list[LaneOut]
    bound: int = Field(description="How many may wait, over all lanes.")


class WorkerOut(Answer):
    """A process that serves."""

    id: str
    host: str
    process_id: int
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


class GpuStatus(Answer):
    """The GPUs of this machine."""

    available: bool
    devices: list[GpuOut]
    reason: str | None


class Me(Answer):
    """Who asks."""

    name: str
    role: str
    tenant: UUID
    requires_key: bool


class Problem(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] = []
