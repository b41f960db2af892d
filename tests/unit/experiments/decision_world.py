"""Looks at an experiment, for tests of what is decided."""

from dataclasses import replace
from typing import Any

from experiment_world import ERRORS, LATENCY, hours, plan

from dspy_optimization.experiments.evidence import Evidence, GuardrailEvidence, RatioEvidence

PLAN = plan(guardrails=(LATENCY, ERRORS))
MISMATCH = RatioEvidence(of="exposures", share=0.5, n_baseline=900, n_optimized=700, p_value=1e-6, is_mismatch=True)
PROVEN = GuardrailEvidence(
    name="latency",
    margin=0.1,
    allowance=0.0,
    n_baseline=800,
    n_optimized=800,
    mean_baseline=0.4,
    mean_optimized=0.39,
    is_breached=False,
    is_non_inferior=True,
    is_comparable=True,
    breach_log_e=0.0,
    proof_log_e=5.0,
)
OPEN = replace(PROVEN, name="errors", is_non_inferior=False, proof_log_e=1.0)
BREACHED = replace(PROVEN, name="errors", is_non_inferior=False, is_breached=True, mean_optimized=0.6, breach_log_e=9.0)


def evidence(at_hours: float = 30.0, **changed: Any) -> Evidence:
    """A look after so many hours at which everything is fine and nothing is proven of the primary metric."""
    fields: dict[str, Any] = {
        "as_of": hours(at_hours),
        "first_exposed_at": hours(0),
        "exposed_baseline": 850,
        "exposed_optimized": 850,
        "n_baseline": 800,
        "n_optimized": 800,
        "silent_baseline": 3,
        "silent_optimized": 4,
        "mean_baseline": 0.8,
        "mean_optimized": 0.82,
        "difference": 0.02,
        "interval": (-0.03, 0.07),
        "p_value": 0.4,
        "p_superior": 0.4,
        "p_harmful": 1.0,
        "is_superior": False,
        "is_harmful": False,
        "is_within_fdr": True,
        "log_e_superior": 1.6,
        "log_e_harmful": -2.0,
        "ratios": (replace(MISMATCH, is_mismatch=False),),
        "guardrails": (PROVEN, replace(PROVEN, name="errors")),
        "units_at_decision": 3_700,
        "hours_to_decision": 39.4,
    }
    return Evidence(**(fields | changed))


SUPERIOR: dict[str, Any] = {"is_superior": True, "p_superior": 0.01, "p_value": 0.01}
HARMFUL: dict[str, Any] = {"is_harmful": True, "p_harmful": 0.02, "p_value": 0.02}
BAD_RATIO: dict[str, Any] = {"ratios": (MISMATCH,)}
BREACH: dict[str, Any] = {"guardrails": (PROVEN, BREACHED)}
