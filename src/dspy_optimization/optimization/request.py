"""What somebody wants optimized."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.objective import Objective
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.events import Json
from dspy_optimization.jobs.job import JobId, Lane, Priority
from dspy_optimization.optimization.situation import Situation


class TargetType(StrEnum):
    """What kind of thing is optimized."""

    AGENT = "agent"
    WORKFLOW = "workflow"
    COMPONENT = "component"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which agent, and which part of it."""

    type: TargetType = TargetType.AGENT
    id: str
    """The agent's name; for a component `<agent>/<component>`."""
    version: Fingerprint
    """The agent version that is the baseline."""


class Isolation(StrEnum):
    """What an optimization shares with the others of its worker."""

    THREAD = "thread"  # the process; its language models, their history and settings are its own
    PROCESS = "process"  # nothing: what its agent, tools and metrics do to their process harms no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Within which bounds."""

    limits: Limits = field(default_factory=Limits)
    min_improvement_threshold: float = 0.0
    """The smallest gain in the primary objective that matters, in its unit."""
    seed: int = 0
    concurrency: int = 8
    """Model calls in flight at once, over all roles."""
    lane: Lane = Lane.CPU
    """Which workers may carry it out."""
    priority: Priority = Priority.NORMAL
    isolation: Isolation = Isolation.THREAD
    """How a worker runs it; whoever runs it without a worker has a process for it already."""
    deadline: datetime | None = None
    """When it has to have ended: what was found until then is kept. Aware, UTC."""
    requires_approval: bool = False
    """Whether a person has to agree before its result goes live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmChoice:
    """One algorithm of the portfolio with its options as given."""

    name: str
    options: Mapping[str, Json] = field(default_factory=dict)


class OptimizationStatus(StrEnum):
    """Where an optimization stands; `ALLOWED` says what may follow."""

    QUEUED = "queued"  # accepted and not begun, or to be gone on with: waits for a process
    RUNNING = "running"  # a process works on it
    PAUSED = "paused"  # stopped on request or by a failure that may pass; can be resumed
    COMPLETED = "completed"  # ended with a verdict
    FAILED = "failed"  # ended with an error; can be resumed once that is mended
    CANCELLED = "cancelled"  # ended on request, with the best so far


ALLOWED: Mapping[OptimizationStatus, frozenset[OptimizationStatus]] = {
    OptimizationStatus.QUEUED: frozenset(
        {OptimizationStatus.RUNNING, OptimizationStatus.CANCELLED, OptimizationStatus.FAILED}
    ),
    OptimizationStatus.RUNNING: frozenset(
        {
            OptimizationStatus.RUNNING,  # taken over after its process died
            OptimizationStatus.PAUSED,
            OptimizationStatus.COMPLETED,
            OptimizationStatus.FAILED,
            OptimizationStatus.CANCELLED,
        }
    ),
    OptimizationStatus.PAUSED: frozenset(
        {OptimizationStatus.RUNNING, OptimizationStatus.QUEUED, OptimizationStatus.CANCELLED}
    ),
    OptimizationStatus.FAILED: frozenset({OptimizationStatus.RUNNING, OptimizationStatus.QUEUED}),
    OptimizationStatus.COMPLETED: frozenset(),
    OptimizationStatus.CANCELLED: frozenset(),
}
AWAITED = frozenset({OptimizationStatus.QUEUED, OptimizationStatus.RUNNING})
"""Somebody waits for these to go on by themselves: none may be left so when nothing goes on."""


class Wish(StrEnum):
    """What a person asked a running optimization to do."""

    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationRequest:
    """One request; carried out by `optimization.optimizer`."""

    id: OptimizationId
    target: Target
    dataset: DatasetVersion
    objectives: tuple[Objective, ...]
    algorithms: tuple[AlgorithmChoice, ...]
    """("auto",) is settled before anything runs; the reason is in the event."""
    constraints: Constraints
    metrics: tuple[Mapping[str, Json], ...] = ()
    """Metric specifications as `agents.metrics` reads them; the objectives name them."""
    policy: Mapping[str, Json] = field(default_factory=lambda: {"type": "weights"})
    """Which candidate goes to the gate, as `optimization.policy_reading` reads it."""
    situation: Situation | None = None
    """What `auto` will compare later requests with; None: kept by an older engine, which teaches nothing."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """A request and where it stands."""

    request: OptimizationRequest
    status: OptimizationStatus
    progress: float = 0.0
    """0 to 1, never falls."""
    elapsed_seconds: float = 0.0
    """Time worked on it, over all resumes."""
    error: str | None = None
    """What failed, why, what to do."""
    wish: Wish | None = None
    """What a person asked for; stays while it is paused because of it."""
    job: JobId | None = None
    """Which job carries it out, or did last; None: none, a person's own process does."""
    updated_at: datetime
