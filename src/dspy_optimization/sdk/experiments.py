"""Experiments: two versions of an agent on live traffic, side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dspy_optimization.events import Json
from dspy_optimization.sdk.pages import pages
from dspy_optimization.sdk.transport import Transport, segment


class ExperimentStatus(StrEnum):
    """Where an experiment stands."""

    PLANNED = "planned"  # nobody was exposed
    RUNNING = "running"  # takes units in
    DECIDED = "decided"  # ended with a winner whose deployment is recommended
    ROLLED_BACK = "rolled_back"  # ended by a mismatch, a breach or harm
    EXPIRED = "expired"  # ended because its longest time had passed
    STOPPED = "stopped"  # ended by a person
    UNKNOWN = "unknown"  # a newer service says what this client has no word for

    @property
    def has_ended(self) -> bool:
        """Whether nothing about it changes any more."""
        return self in {
            ExperimentStatus.DECIDED,
            ExperimentStatus.ROLLED_BACK,
            ExperimentStatus.EXPIRED,
            ExperimentStatus.STOPPED,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided at the newest look."""

    state: str
    """invalid, guardrail_breach, harm, winner, significant_waiting, running or inconclusive."""
    winner: str
    confidence: float
    deployment_recommended: bool
    ends: bool
    decided_at: datetime
    reason: str
    """In one or two sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One version in the experiment."""

    variant: str
    version: str
    exposed: int
    """Units, those still in their window too."""
    n: int
    """Units whose window has closed and that have a score."""
    silent: int = 0
    mean: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentComparison:
    """Optimized minus baseline; everything holds at all looks together."""

    metric: str
    p_value: float
    difference: float | None = None
    interval: tuple[float, float] | None = None
    level: float | None = None
    e_value_superior: float | None = None
    e_value_harmful: float | None = None
    is_superior: bool = False
    is_harmful: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """Whether units went where they should, at one split."""

    of: str
    share: float
    n_baseline: int
    n_optimized: int
    p_value: float | None = None
    is_mismatch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailStanding:
    """What is known of one guardrail; less is better."""

    name: str
    is_breached: bool
    is_proven: bool
    mean_baseline: float | None = None
    mean_optimized: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """When it may be decided, if it goes on like this."""

    units_at_decision: int | None = None
    hours_to_decision: float | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectable:
    """What one amount of traffic allows, at a power of 0.8."""

    units_per_day: float
    effect: float | None = None
    """The smallest difference seen in seven days; None: none that is possible."""
    days_needed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an experiment can find."""

    sentence: str
    units_needed: int | None = None
    """Of both versions; None: the baseline does not leave so much to gain."""
    detectable: tuple[Detectable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedExperiment:
    """A plan that nothing was started of."""

    forecast: Forecast
    plan: Mapping[str, Json] | None = None
    """None: no optimization was named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment; the evidence is there where one was asked for, and absent in lists."""

    experiment_id: str
    optimization_id: str
    agent: str
    status: ExperimentStatus
    traffic_split: float
    created_at: datetime
    started_at: datetime | None = None
    until: datetime | None = None
    ended_at: datetime | None = None
    ended_because: str | None = None
    decision: Decision | None = None
    """None before the first look."""
    monitoring_url: str | None = None
    plan_hash: str | None = None
    plan: Mapping[str, Json] = field(default_factory=dict)
    forecast: Forecast | None = None
    """Of the start alone."""
    arms: tuple[Arm, ...] = ()
    comparison: ExperimentComparison | None = None
    sample_ratios: tuple[SampleRatio, ...] = ()
    guardrails: tuple[GuardrailStanding, ...] = ()
    eta: Eta | None = None


class Experiments:
    """`client.experiments`: iterating it yields all of them, the newest first."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __iter__(self) -> Iterator[Experiment]:
        """Yield all experiments, without their evidence."""
        return pages(self._transport, Experiment, "/experiments")

    def start(
        self,
        optimization_id: str,
        *,
        traffic_split: float = 0.1,
        primary: Mapping[str, object] | None = None,
        guardrails: Sequence[Mapping[str, object]] | None = None,
        units_per_day: float | None = None,
        **more: object,
    ) -> Experiment:
        """Return an experiment on the result of an optimization that takes units in from now on.

        Args:
            optimization_id: one with the verdict `improved`.
            traffic_split: share of the units that get the optimized version, in (0, 1).
            primary: what decides: metric, mde, expected, unit_rule, missing; not given: as the optimization has it.
            guardrails: what must not get worse; None: those of the optimization, empty: none.
            units_per_day: for the forecast.
            more: window, terms, overrides, baseline_config, optimized_config, as the service takes them.
        Raises:
            NotFoundError: no such optimization.
            ConflictError: another experiment runs on the agent.
            InvalidRequestError: it cannot be compared, or not like this; says what to mend.
        """
        body = _body(optimization_id, traffic_split, primary, guardrails, units_per_day, more)
        return self._transport.post_as(Experiment, "/experiments", body)

    def plan(
        self,
        optimization_id: str | None = None,
        *,
        traffic_split: float = 0.1,
        primary: Mapping[str, object] | None = None,
        guardrails: Sequence[Mapping[str, object]] | None = None,
        units_per_day: float | None = None,
        **more: object,
    ) -> PlannedExperiment:
        """Return what `start` with the same arguments could find; nothing is started."""
        body = _body(optimization_id, traffic_split, primary, guardrails, units_per_day, more)
        return self._transport.post_as(PlannedExperiment, "/experiments/plan", body)

    def get(self, experiment_id: str) -> Experiment:
        """Return an experiment with its evidence. Raises `NotFoundError`."""
        return self._transport.get_as(Experiment, _path(experiment_id))

    def stop(self, experiment_id: str, because: str) -> Experiment:
        """Return it as ended: everybody gets the baseline. Raises `ConflictError` when it has ended already."""
        return self._transport.post_as(Experiment, f"{_path(experiment_id)}/stop", {"because": because})

    def extend(self, experiment_id: str, until_hours: float) -> Experiment:
        """Return it with more time since its start: 336 and 672 hours are 14 and 28 days. Raises `ConflictError`."""
        return self._transport.post_as(Experiment, f"{_path(experiment_id)}/extend", {"until_hours": until_hours})

    def raise_split(self, experiment_id: str, traffic_split: float) -> Experiment:
        """Return it with a larger share for the optimized version. Raises `ConflictError` where it would not rise."""
        return self._transport.post_as(Experiment, f"{_path(experiment_id)}/split", {"traffic_split": traffic_split})


def _body(
    optimization_id: str | None,
    traffic_split: float,
    primary: Mapping[str, object] | None,
    guardrails: Sequence[Mapping[str, object]] | None,
    units_per_day: float | None,
    more: Mapping[str, object],
) -> dict[str, object]:
    given: dict[str, object] = {
        "optimization_id": optimization_id,
        "traffic_split": traffic_split,
        "primary": primary,
        "guardrails": None if guardrails is None else list(guardrails),
        "units_per_day": units_per_day,
        **more,
    }
    return {name: value for name, value in given.items() if value is not None}


def _path(experiment_id: str) -> str:
    return f"/experiments/{segment(experiment_id)}"
