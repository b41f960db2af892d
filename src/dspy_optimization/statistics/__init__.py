"""Pure statistics: what a paired comparison on held-out examples allows to be said."""

from dspy_optimization.statistics.intervals import (
    Interval,
    IntervalMethod,
    bca_interval,
    improvement_interval,
    mean_interval,
    newcombe_interval,
    paired_interval,
    t_interval,
    wilson_interval,
)
from dspy_optimization.statistics.multiplicity import benjamini_hochberg, check_reuse, holm, max_t, reuse_level
from dspy_optimization.statistics.paired import (
    PairedMethod,
    PairedSample,
    PairedTest,
    mcnemar_test,
    paired_test,
    sign_flip_test,
    standard_error,
)
from dspy_optimization.statistics.power import (
    detectable_mean,
    detectable_share,
    mcnemar_power,
    mcnemar_sample_size,
    minimum_units,
)
from dspy_optimization.statistics.resampling import resampled_means
from dspy_optimization.statistics.verdict import (
    Comparison,
    Headroom,
    Verdict,
    adjust_for_objectives,
    compare,
    headroom,
)

__all__ = [
    "Comparison",
    "Headroom",
    "Interval",
    "IntervalMethod",
    "PairedMethod",
    "PairedSample",
    "PairedTest",
    "Verdict",
    "adjust_for_objectives",
    "bca_interval",
    "benjamini_hochberg",
    "check_reuse",
    "compare",
    "detectable_mean",
    "detectable_share",
    "headroom",
    "holm",
    "improvement_interval",
    "max_t",
    "mcnemar_power",
    "mcnemar_sample_size",
    "mcnemar_test",
    "mean_interval",
    "minimum_units",
    "newcombe_interval",
    "paired_interval",
    "paired_test",
    "resampled_means",
    "reuse_level",
    "sign_flip_test",
    "standard_error",
    "t_interval",
    "wilson_interval",
]
