"""What the analysis shows at one look, as numbers that a decision and a page are made of."""

import math
from dataclasses import dataclass
from datetime import datetime

from dspy_optimization.events import Json
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.plan import HOUR, ExperimentPlan
from dspy_optimization.experiments.sample_ratios import SampleRatios
from dspy_optimization.statistics.sequential import EProcess, two_sided_threshold, units_at_decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioEvidence:
    """Whether units went where they should, at one split."""

    of: str
    """`exposures`, or `outcomes`: units with a score."""
    share: float
    """Promised to the optimized version, in (0, 1)."""
    n_baseline: int
    n_optimized: int
    p_value: float | None
    """Chi-square of this one look, for display; None without units."""
    is_mismatch: bool
    """By the sequential test, at any look so far."""

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailEvidence:
    """What is known of one guardrail; less is better."""

    name: str
    margin: float
    """By how large a share of the baseline's mean it may be worse."""
    allowance: float
    """By how much it may be worse besides."""
    n_baseline: int
    """Units that told something of it."""
    n_optimized: int
    mean_baseline: float | None
    """In [0, 1], as measured; for display."""
    mean_optimized: float | None
    is_breached: bool
    """Proven to be worse by more than margin and allowance."""
    is_non_inferior: bool
    """Proven to be worse by less than margin and allowance, if at all."""
    is_comparable: bool
    """Whether both versions told of it as often as they should."""
    breach_log_e: float
    """Natural log of the largest e-value for a breach."""
    proof_log_e: float
    """Natural log of the largest e-value for non-inferiority."""

    @property
    def is_proven(self) -> bool:
        """Whether a winner may be deployed as far as this guardrail goes."""
        return self.is_non_inferior and self.is_comparable and not self.is_breached

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One look at an experiment. Looking is free: everything here holds at every look together."""

    as_of: datetime
    first_exposed_at: datetime | None
    exposed_baseline: int
    """Units, including those still in their window."""
    exposed_optimized: int
    n_baseline: int
    """Units whose window has closed and that have a score."""
    n_optimized: int
    silent_baseline: int
    """Units whose window has closed without any event."""
    silent_optimized: int
    mean_baseline: float | None
    """Of the scores, for display: after the split was raised the two means come from different times."""
    mean_optimized: float | None
    difference: float | None
    """Optimized minus baseline; inflated where it is what stopped the experiment."""
    interval: tuple[float, float] | None
    """Holds at all looks together with a chance of 1 - alpha; None when no one difference fits all that was seen."""
    p_value: float
    """Two-sided, never rises."""
    p_superior: float
    """The part that speaks for the optimized version."""
    p_harmful: float
    """The part that speaks for the baseline."""
    is_superior: bool
    is_harmful: bool
    is_within_fdr: bool
    """Whether superiority also reaches the level that e-LOND gave; true where none is in the plan."""
    log_e_superior: float
    """Natural log of the current e-value; what the time left is reckoned from."""
    log_e_harmful: float
    ratios: tuple[RatioEvidence, ...]
    guardrails: tuple[GuardrailEvidence, ...]
    units_at_decision: int | None
    """Of both versions, if it goes on as so far; None while nothing speaks for the optimized version."""
    hours_to_decision: float | None
    """From `as_of` on, at the traffic so far; None when it cannot be told."""

    @property
    def mismatches(self) -> tuple[RatioEvidence, ...]:
        """The splits at which units went where they should not."""
        return tuple(ratio for ratio in self.ratios if ratio.is_mismatch)

    @property
    def hours_exposed(self) -> float:
        """Since the first exposure; 0 without any."""
        return 0.0 if self.first_exposed_at is None else hours_between(self.first_exposed_at, self.as_of)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, numbers finite."""
        plain: dict[str, Json] = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in {"as_of", "first_exposed_at", "interval", "ratios", "guardrails"}
        }
        return {
            **plain,
            "as_of": self.as_of.isoformat(),
            "first_exposed_at": None if self.first_exposed_at is None else self.first_exposed_at.isoformat(),
            "interval": None if self.interval is None else list(self.interval),
            "ratios": [ratio.to_json() for ratio in self.ratios],
            "guardrails": [guardrail.to_json() for guardrail in self.guardrails],
        }


def evidence_of(plan: ExperimentPlan, analysis: Analysis, as_of: datetime) -> Evidence:
    """Return what the analysis shows.

    Args:
        plan: the one the analysis was started with.
        analysis: of everything usable at `as_of`.
        as_of: the moment of this look.
    """
    moment = checked_moment("as_of", as_of)
    primary, terms = analysis.primary, plan.terms
    interval = primary.interval
    decided_at = units_at_decision(primary.n_units, primary.log_e_above, threshold=two_sided_threshold(terms.alpha))
    return Evidence(
        as_of=moment,
        first_exposed_at=analysis.first_exposed_at,
        exposed_baseline=analysis.exposures.n_baseline,
        exposed_optimized=analysis.exposures.n_optimized,
        n_baseline=primary.moments.n_control,
        n_optimized=primary.moments.n_treated,
        silent_baseline=analysis.n_silent[0],
        silent_optimized=analysis.n_silent[1],
        mean_baseline=primary.mean_control,
        mean_optimized=primary.mean_treated,
        difference=primary.difference,
        interval=None if interval is None else (interval.lower, interval.upper),
        p_value=primary.p_value,
        p_superior=primary.p_superior,
        p_harmful=primary.p_harmful,
        is_superior=primary.is_superior(terms.alpha),
        is_harmful=primary.is_harmful(terms.alpha),
        is_within_fdr=terms.fdr_alpha is None or primary.max_log_e_above >= -math.log(terms.fdr_alpha),
        log_e_superior=primary.log_e_above,
        log_e_harmful=primary.log_e_below,
        ratios=(*_ratios("exposures", analysis.exposures), *_ratios("outcomes", analysis.outcomes)),
        guardrails=tuple(_guardrail(plan, analysis, number) for number in range(len(plan.guardrails))),
        units_at_decision=decided_at,
        hours_to_decision=_hours_left(primary, decided_at, analysis),
    )


def hours_between(earlier: datetime, later: datetime) -> float:
    """Return the hours from one moment to another."""
    return (later - earlier).total_seconds() / HOUR


def _ratios(of: str, ratios: SampleRatios) -> list[RatioEvidence]:
    return [
        RatioEvidence(
            of=of,
            share=stage.split.share,
            n_baseline=stage.ratio.counts[0],
            n_optimized=stage.ratio.counts[1],
            p_value=stage.ratio.p_value,
            is_mismatch=stage.ratio.is_mismatch,
        )
        for stage in ratios.stages
    ]


def _guardrail(plan: ExperimentPlan, analysis: Analysis, number: int) -> GuardrailEvidence:
    guardrail, process = plan.guardrails[number], analysis.guardrails[number]
    return GuardrailEvidence(
        name=guardrail.name,
        margin=guardrail.margin,
        n_baseline=process.moments.n_control,
        n_optimized=process.moments.n_treated,
        mean_baseline=None if process.mean_control is None else guardrail.unpadded(process.mean_control),
        mean_optimized=None if process.mean_treated is None else guardrail.unpadded(process.mean_treated),
        allowance=guardrail.allowance,
        is_breached=process.is_breached(plan.terms.alpha, guardrails=len(plan.guardrails)),
        is_non_inferior=process.is_non_inferior(plan.terms.alpha),
        is_comparable=not analysis.heard[number].is_mismatch,
        breach_log_e=process.max_log_e_above,
        proof_log_e=process.max_log_e_below,
    )


def _hours_left(primary: EProcess, decided_at: int | None, analysis: Analysis) -> float | None:
    if decided_at is None or analysis.first_exposed_at is None or analysis.last_unit is None:
        return None
    # At the traffic so far, the units still missing take as many times the hours that those which count took to come.
    hours = hours_between(analysis.first_exposed_at, analysis.last_unit.exposed_at)
    return hours * (decided_at / primary.n_units - 1.0) if hours > 0.0 else None
