"""A version of an agent as it is deployed: content that never changes, with the evidence it rests on."""

from dataclasses import dataclass, field
from datetime import datetime

from dspy_optimization.agents.candidate import Fingerprint, content_hash
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.errors import InfrastructureError, InvalidRequestError
from dspy_optimization.evaluation.gate import ValidatedResult
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict


class ChangedContentError(InfrastructureError):
    """Put back the content that was approved, or revert to another version: as it is now it is not served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One deployable version of an agent; equal content, equal checksum.

    Without a validated result it is a baseline: what was live before anything was deployed. A baseline cannot be
    promoted.

    Raises:
        InvalidRequestError: on construction, when the validated result says anything but `improved`, is of another
            candidate, or names no optimization.
    """

    config: AgentConfig
    candidate: Fingerprint
    """The candidate whose texts and settings the configuration holds."""
    created_at: datetime
    optimization_id: OptimizationId | None = None
    """Whose result it is; None for a baseline."""
    validated: ValidatedResult | None = None
    """The evidence from the sealed split; None for a baseline."""
    checksum: Fingerprint = field(init=False)
    """SHA-256 of the canonical JSON of the configuration, 64 hexadecimal characters: the agent version it also has
    elsewhere, as in exposures."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "created_at", checked_moment("version: created_at", self.created_at))
        object.__setattr__(self, "checksum", checksum_of(self.config))
        if (self.validated is None) != (self.optimization_id is None):
            raise InvalidRequestError(
                f"version of {self.config.name}: wanted: a validated result with the optimization it is of; found: "
                "one of the two; possible: both, or neither for a baseline"
            )
        if self.validated is not None:
            _check_evidence(f"version of {self.config.name}", self.validated, self.candidate)

    @staticmethod
    def baseline(config: AgentConfig, candidate: Fingerprint, *, created_at: datetime) -> "Version":
        """Return what an agent is before anything was deployed."""
        return Version(config=config, candidate=candidate, created_at=created_at)

    @staticmethod
    def optimized(result: OptimizationResult, config: AgentConfig) -> "Version":
        """Return the version an optimization ended with.

        Args:
            result: with a validated result whose verdict is `improved`.
            config: the agent version that the result's artifact names.
        Raises:
            InvalidRequestError: nothing was validated, nothing was improved, or the configuration is another one.
        """
        where = f"version of {config.name}"
        if result.validated is None:
            raise InvalidRequestError(
                f"{where}: wanted: a validated result; found: none, optimization {result.optimization_id} ended before "
                f"the sealed split was measured ({result.ended_because}); possible: resume it, or optimize again"
            )
        _check_evidence(where, result.validated, result.optimized.fingerprint)
        found = checksum_of(config)
        wanted = result.artifact.checksum
        if found != wanted or checksum_of(config.with_candidate(result.optimized)) != found:
            raise InvalidRequestError(
                f"{where}: wanted: the configuration {wanted[:12]} that optimization {result.optimization_id} ended "
                f"with; found: {found[:12]}; possible: the agent version that its artifact names, unchanged"
            )
        return Version(
            config=config,
            candidate=result.optimized.fingerprint,
            created_at=result.completed_at,
            optimization_id=result.optimization_id,
            validated=result.validated,
        )

    @property
    def agent(self) -> str:
        """The name of the agent."""
        return self.config.name

    def evidence(self) -> dict[str, Json]:
        """Return what it rests on, as plain JSON: optimization, metric, difference with interval, p, examples."""
        if self.validated is None:
            return {}
        primary = self.validated.objectives[self.validated.primary]
        return {
            "optimization_id": str(self.optimization_id),
            "verdict": self.validated.verdict.value,
            "metric": primary.metric,
            "difference": primary.difference.value,
            "interval": [primary.difference.low, primary.difference.high],
            "p_value": primary.p_value,
            "n_examples": self.validated.n_examples,
        }


def checksum_of(config: AgentConfig) -> Fingerprint:
    """Return the SHA-256 of the canonical content of a configuration, worked out from what it holds now."""
    return Fingerprint(content_hash(config.to_json()))


def verified(config: AgentConfig, approved: Fingerprint) -> AgentConfig:
    """Return the configuration that is about to answer, once it is shown to be what was approved.

    Args:
        config: as it was read, and as it will be run.
        approved: the checksum that the pointer or the rollout names.
    Raises:
        ChangedContentError: the content is another one; it must not answer.
    """
    found = checksum_of(config)
    if found != approved:
        raise ChangedContentError(
            f"agent {config.name}: wanted: the content {approved[:12]} that was approved; found: {found[:12]}, so it "
            "was changed after its approval and does not answer; possible: put the approved content back, or revert "
            "to another version"
        )
    return config


def _check_evidence(where: str, validated: ValidatedResult, candidate: Fingerprint) -> None:
    if validated.verdict is not Verdict.IMPROVED:
        raise InvalidRequestError(
            f"{where}: wanted: a validated result with the verdict {Verdict.IMPROVED.value}; found: "
            f"{validated.verdict.value}: {validated.reason}; possible: optimize further, or stay with what is live"
        )
    if validated.optimized != candidate or validated.optimized == validated.baseline:
        raise InvalidRequestError(
            f"{where}: wanted: the candidate that was validated, {validated.optimized[:12]}, and another one than its "
            f"baseline {validated.baseline[:12]}; found: {candidate[:12]}; possible: the result of its own optimization"
        )
