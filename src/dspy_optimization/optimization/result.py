"""What an optimization ends with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.agents.candidate import Candidate, ComponentName, Fingerprint
from dspy_optimization.evaluation.gate import Estimate, ValidatedResult
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.front import Front
from dspy_optimization.optimization.policy import Pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Improvement:
    """What one change is worth: the candidate with this change put back, paired on `val`."""

    component: ComponentName
    part: str
    """instructions or demos."""
    worth: Estimate
    """Candidate minus candidate without the change, primary objective; optimistic, for it is measured on val."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Where the optimized agent went."""

    agent_version: Fingerprint
    checksum: str
    mlflow_run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationResult:
    """The evidence, and the agent it is about."""

    optimization_id: OptimizationId
    baseline: Candidate
    optimized: Candidate
    """The baseline itself when nothing better was found."""
    validated: ValidatedResult | None
    """None: it ended (cancelled, a cap) before the sealed split was measured, so nothing is claimed."""
    algorithm_used: str | None
    """Whose candidate it is; None when it is the baseline."""
    key_improvements: tuple[Improvement, ...] = ()
    iterations: int = 0
    trials: int = 0
    front: Front | None = None
    """Who is beaten by nobody on val; None where the baseline was not measured, or an older engine wrote this."""
    pick: Pick | None = None
    """Why this candidate went to the gate; None as for the front."""
    bill: Bill
    artifact: Artifact
    ended_because: str
    """finished, target_met, no_headroom, cancelled, or the name of the cap that was reached."""
    parameters: Mapping[str, Json] = field(default_factory=dict)
    completed_at: datetime
