"""How much traffic the optimized version gets, in whole buckets."""

import math
from dataclasses import dataclass
from enum import StrEnum

from dspy_optimization.agents.untrusted import shown
from dspy_optimization.errors import InvalidRequestError

BUCKETS = 10_000


class Variant(StrEnum):
    """Which of the two versions a unit gets; the order is the order of the buckets."""

    BASELINE = "baseline"  # the version that is live
    OPTIMIZED = "optimized"  # the version on trial: the last buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The last `buckets` of 10,000 get the optimized version, so a larger split holds every smaller one.

    0 and 10,000 are for rollouts; an experiment needs both versions, see `experiment_split`.
    """

    buckets: int

    def __post_init__(self) -> None:
        if type(self.buckets) is not int or not 0 <= self.buckets <= BUCKETS:
            raise InvalidRequestError(
                f"split: wanted: 0 to {BUCKETS} whole buckets; found: {shown(self.buckets)}; possible: 1000 for 10 %"
            )

    @property
    def share(self) -> float:
        """The chance of a unit to get the optimized version, in [0, 1], exactly as it is drawn."""
        return self.buckets / BUCKETS

    @property
    def compares(self) -> bool:
        """Whether both versions get units."""
        return 0 < self.buckets < BUCKETS

    def variant(self, bucket: int) -> Variant:
        """Return what a bucket in [0, 9999] gets."""
        return Variant.OPTIMIZED if bucket >= BUCKETS - self.buckets else Variant.BASELINE


def experiment_split(share: object) -> Split:
    """Return the split of an experiment, rounded to whole buckets of 0.01 %.

    Args:
        share: of the units that get the optimized version, in (0, 1).
    Raises:
        InvalidRequestError: no number, NaN, not inside (0, 1), or so near to 0 or 1 that one version gets no bucket.
    """
    possible = "possible: 0.1 for 10 % of the units, in steps of 0.0001 from 0.0001 to 0.9999"
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise InvalidRequestError(
            f"traffic_split: wanted: a number above 0 and below 1; found: {type(share).__name__} {shown(share)}; "
            f"{possible}"
        )
    if not 0.0 < share < 1.0 or math.isnan(share):
        raise InvalidRequestError(
            f"traffic_split: wanted: a number above 0 and below 1; found: {shown(share)}; {possible}"
        )
    split = Split(buckets=round(BUCKETS * share))
    if not split.compares:
        left_out = Variant.OPTIMIZED if split.buckets == 0 else Variant.BASELINE
        raise InvalidRequestError(
            f"traffic_split: wanted: at least one bucket of {BUCKETS:,} for each version; found: {share!r}, which "
            f"rounds to none for {left_out.value}; {possible}"
        )
    return split
