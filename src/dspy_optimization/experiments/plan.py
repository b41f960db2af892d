"""What is fixed before the first exposure; a changed plan is another experiment."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property

from dspy_optimization.agents.candidate import Fingerprint, content_hash
from dspy_optimization.agents.untrusted import listed, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import Assigner, ExperimentId, Override, UnitHash
from dspy_optimization.experiments.bounds import checked_count, checked_name, checked_number
from dspy_optimization.experiments.guardrail import Guardrail
from dspy_optimization.experiments.split import BUCKETS, Split, Variant
from dspy_optimization.statistics.probability import checked_probability
from dspy_optimization.tenancy import TenantId

PLAN_VERSION = 1
HOUR = 3_600.0
DAY_HOURS = 24.0
REVIEW_HOURS = 168.0
"""After so long without an answer a person is told, once: `not_significant_in_7_days`."""
LONGEST_HOURS = 672.0
MAX_GUARDRAILS = 16
MAX_SALT = 64


class UnitRule(StrEnum):
    """How the events of one unit become its one number."""

    MEAN = "mean"  # of their scores
    ANY_SUCCESS = "any_success"  # 1 where one of them scored 1, else 0


class MissingOutcome(StrEnum):
    """What a unit without a score counts for, once its window has closed."""

    ZERO = "zero"  # nothing heard is nothing achieved
    EXCLUDE = "exclude"  # not at all; whether both versions lose as many is watched


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryMetric:
    """What decides."""

    metric: str
    """Its name; every outcome's `score` is of it, in [0, 1], higher is better."""
    mde: float
    """The smallest difference of the means that matters, in (0, 1); bets are aimed at it."""
    expected: float = 0.5
    """What the baseline's mean was before, in [0, 1]; a wrong one costs time, never validity."""
    unit_rule: UnitRule = UnitRule.MEAN
    missing: MissingOutcome
    """Has to be declared: `zero` where silence is a result (only successes are told), `exclude` where it is none
    (scores of a sample, outcomes that get lost)."""

    def __post_init__(self) -> None:
        checked_name("primary: metric", self.metric)
        mde = checked_number("primary: mde", self.mde, possible="0.05 for 5 points")
        object.__setattr__(self, "mde", checked_probability("primary: mde", mde))
        expected = checked_number("primary: expected", self.expected, high=1.0, possible="0.5 when nothing is known")
        object.__setattr__(self, "expected", expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which events of a unit count, and until when their news is waited for."""

    seconds: float = DAY_HOURS * HOUR
    """W: events in [t0, t0 + W] count, t0 being the first exposure; at most 24 h."""
    grace_seconds: float = 300.0
    """News of them counts when it is received by t0 + W + grace, of the exposure by t0 + grace."""

    def __post_init__(self) -> None:
        longest = DAY_HOURS * HOUR
        possible = "86400, or how long a session lasts"
        seconds = checked_number("window: seconds", self.seconds, open_low=True, high=longest, possible=possible)
        grace = checked_number("window: grace_seconds", self.grace_seconds, high=longest, possible="300")
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "grace_seconds", grace)

    @property
    def length(self) -> timedelta:
        """W."""
        return timedelta(seconds=self.seconds)

    @property
    def grace(self) -> timedelta:
        """How long after an event its news may take."""
        return timedelta(seconds=self.grace_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """When something may be said, and how sure it has to be."""

    alpha: float = 0.05
    """For superiority and harm together, and for each of: all breaches, one proof of non-inferiority; in (0, 1)."""
    minimum_units: int = 100
    """Units with an outcome, of each variant, before a winner may be deployed."""
    minimum_hours: float = DAY_HOURS
    """Since the first exposure, before a winner may be deployed."""
    extended_validation: bool = False
    """Whether a winner waits for seven days, a whole week of users."""
    maximum_hours: float = LONGEST_HOURS
    """Since the start, after which the experiment ends whatever is known; at most 28 days."""
    fdr_alpha: float | None = None
    """The level e-LOND gave this experiment when it started; None: the tenant does not bound false wins together."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "alpha", _level("terms: alpha", self.alpha))
        checked_count("terms: minimum_units", self.minimum_units, low=1, possible="100")
        minimum = checked_number("terms: minimum_hours", self.minimum_hours, high=LONGEST_HOURS, possible="24")
        set_(self, "minimum_hours", minimum)
        if self.fdr_alpha is not None:
            set_(self, "fdr_alpha", _level("terms: fdr_alpha", self.fdr_alpha))
        if not isinstance(self.extended_validation, bool):
            raise InvalidRequestError(
                f"terms: extended_validation: wanted: true or false; found: {shown(self.extended_validation)}; "
                "possible: true, false"
            )
        possible = "168, 336 or 672"
        maximum = checked_number(
            "terms: maximum_hours", self.maximum_hours, open_low=True, high=LONGEST_HOURS, possible=possible
        )
        set_(self, "maximum_hours", maximum)
        if self.maximum_hours < self.waiting_hours:
            raise InvalidRequestError(
                f"terms: maximum_hours: wanted: at least the {self.waiting_hours:g} h that a winner has to wait; "
                f"found: {self.maximum_hours:g}; possible: up to {LONGEST_HOURS:g}, fewer minimum_hours, or no "
                "extended_validation"
            )

    @property
    def waiting_hours(self) -> float:
        """Since the first exposure, before a winner may be deployed, all things considered."""
        return max(self.minimum_hours, REVIEW_HOURS) if self.extended_validation else self.minimum_hours


@dataclass(frozen=True, kw_only=True)
class ExperimentPlan:
    """One experiment as it was declared.

    Raises:
        InvalidRequestError: on construction, when something in it is wrong or the two versions are the same.
    """

    experiment_id: ExperimentId
    tenant: TenantId
    optimization_id: OptimizationId
    """The optimization whose validated result the optimized version is."""
    agent: str
    baseline: Fingerprint
    optimized: Fingerprint
    primary: PrimaryMetric
    guardrails: tuple[Guardrail, ...] = ()
    window: Window = field(default_factory=Window)
    terms: Terms = field(default_factory=Terms)
    split: Split
    """At the start; it alone may rise later, and what it is later is not in the plan."""
    salt: str
    """Fresh for every experiment, so that it deals its units independently of all others."""
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        checked_name("plan: agent", self.agent)
        checked_name("plan: salt", self.salt, most=MAX_SALT)
        if self.baseline == self.optimized:
            raise InvalidRequestError(
                f"plan: wanted: an optimized version that differs from the baseline; found: {self.baseline} as both; "
                "possible: the version that an optimization with the verdict `improved` ended with"
            )
        if not self.split.compares:
            raise InvalidRequestError(
                f"plan: split: wanted: units for both versions; found: {self.split.buckets} of {BUCKETS:,} buckets; "
                f"possible: 1 to {BUCKETS - 1:,}"
            )
        names = [guardrail.name for guardrail in self.guardrails]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles or len(names) > MAX_GUARDRAILS:
            raise InvalidRequestError(
                f"plan: guardrails: wanted: at most {MAX_GUARDRAILS}, each with a name of its own; found: "
                f"{len(names)}, more than once: {listed(doubles)}; possible: other names, fewer guardrails"
            )

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of everything in it, 64 hexadecimal characters."""
        return content_hash(self.to_json())

    @cached_property
    def assigner(self) -> Assigner:
        """Who assigns its units."""
        return Assigner(
            experiment_id=self.experiment_id,
            unit_hash=UnitHash(seed=f"{self.tenant}:{self.experiment_id}:{self.salt}"),
            overrides=self.overrides,
        )

    def version(self, variant: Variant) -> Fingerprint:
        """Return the agent version that a variant is."""
        return self.optimized if variant is Variant.OPTIMIZED else self.baseline

    def as_another(self, experiment_id: ExperimentId, salt: str) -> "ExperimentPlan":
        """Return the same plan for another experiment, to change it or to try again."""
        return replace(self, experiment_id=experiment_id, salt=salt)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, from which `plan_from_json` reads an equal plan."""
        return {
            "version": PLAN_VERSION,
            "experiment_id": str(self.experiment_id),
            "tenant": str(self.tenant),
            "optimization_id": str(self.optimization_id),
            "agent": self.agent,
            "baseline": self.baseline,
            "optimized": self.optimized,
            "primary": {
                "metric": self.primary.metric,
                "mde": self.primary.mde,
                "expected": self.primary.expected,
                "unit_rule": self.primary.unit_rule.value,
                "missing": self.primary.missing.value,
            },
            "guardrails": [guardrail.to_json() for guardrail in self.guardrails],
            "window": {"seconds": self.window.seconds, "grace_seconds": self.window.grace_seconds},
            "terms": {
                "alpha": self.terms.alpha,
                "minimum_units": self.terms.minimum_units,
                "minimum_hours": self.terms.minimum_hours,
                "extended_validation": self.terms.extended_validation,
                "maximum_hours": self.terms.maximum_hours,
                "fdr_alpha": self.terms.fdr_alpha,
            },
            "split_buckets": self.split.buckets,
            "salt": self.salt,
            "overrides": [
                {"attribute": one.attribute, "values": list[Json](sorted(one.values)), "variant": one.variant.value}
                for one in self.overrides
            ],
        }


def _level(name: str, value: object) -> float:
    return checked_probability(name, checked_number(name, value, possible="0.05"))
