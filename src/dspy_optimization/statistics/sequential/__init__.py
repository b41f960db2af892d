"""Sequential statistics of live experiments: valid at every look, for any outcomes in [0, 1] and any traffic split."""

from dspy_optimization.statistics.sequential.betting import BetDesign, EProcess
from dspy_optimization.statistics.sequential.change_detection import DropDetector
from dspy_optimization.statistics.sequential.confidence_sequence import DifferenceInterval
from dspy_optimization.statistics.sequential.levels import (
    breach_threshold,
    non_inferiority_threshold,
    stage_alpha,
    stage_average,
    two_sided_threshold,
)
from dspy_optimization.statistics.sequential.online_fdr import e_lond_level, e_lond_threshold, expected_false_wins
from dspy_optimization.statistics.sequential.planning import Plan, days_until, units_at_decision
from dspy_optimization.statistics.sequential.sample_ratio import (
    SampleRatio,
    sample_ratio_log_e,
    sample_ratio_p_value,
)
from dspy_optimization.statistics.sequential.units import Units, exposure_order

__all__ = [
    "BetDesign",
    "DifferenceInterval",
    "DropDetector",
    "EProcess",
    "Plan",
    "SampleRatio",
    "Units",
    "breach_threshold",
    "days_until",
    "e_lond_level",
    "e_lond_threshold",
    "expected_false_wins",
    "exposure_order",
    "non_inferiority_threshold",
    "sample_ratio_log_e",
    "sample_ratio_p_value",
    "stage_alpha",
    "stage_average",
    "two_sided_threshold",
    "units_at_decision",
]
