"""Whether both versions got the units they were promised, for every split the experiment ran at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.split import BUCKETS, Split, Variant
from dspy_optimization.statistics.sequential import SampleRatio


class Stage(NamedTuple):
    """The units of one split."""

    split: Split
    ratio: SampleRatio


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatios:
    """One sequential test a split, since raising it changes what was promised; by rising split."""

    stages: tuple[Stage, ...] = ()

    def extend(self, units: Sequence[tuple[Split, Variant]]) -> "SampleRatios":
        """Return the evidence after further units, given in order with the split each was drawn under."""
        stages = {stage.split.buckets: stage for stage in self.stages}
        arms: dict[int, list[int]] = {}
        for split, variant in units:
            arms.setdefault(split.buckets, []).append(int(variant is Variant.OPTIMIZED))
        for buckets, places in arms.items():
            split = Split(buckets=buckets)
            before = stages[buckets].ratio if buckets in stages else SampleRatio.start((1.0 - split.share, split.share))
            stages[buckets] = Stage(split, before.extend(places))
        return SampleRatios(stages=tuple(stages[buckets] for buckets in sorted(stages)))

    @property
    def is_mismatch(self) -> bool:
        """Whether, at one split or another, the versions are proven to get other shares than promised."""
        return any(stage.ratio.is_mismatch for stage in self.stages)

    @property
    def n_baseline(self) -> int:
        """Units of the baseline, over all splits."""
        return sum(stage.ratio.counts[0] for stage in self.stages)

    @property
    def n_optimized(self) -> int:
        """Units of the optimized version, over all splits."""
        return sum(stage.ratio.counts[1] for stage in self.stages)

    def to_json(self) -> list[Json]:
        """Return it as plain JSON; `from_json` gives back the same, bit for bit."""
        return [{"split_buckets": stage.split.buckets, "ratio": stage.ratio.to_json()} for stage in self.stages]

    @staticmethod
    def from_json(data: Sequence[Json]) -> "SampleRatios":
        """Return what `to_json` stored.

        Raises:
            InvalidRequestError: it is something else.
        """
        return SampleRatios(stages=tuple(_stage(one) for one in data))


def _stage(value: Json) -> Stage:
    buckets = value.get("split_buckets") if isinstance(value, dict) else None
    ratio = value.get("ratio") if isinstance(value, dict) else None
    if isinstance(buckets, bool) or not isinstance(buckets, int) or not isinstance(ratio, dict):
        raise InvalidRequestError(
            f"wanted: split_buckets of 1 to {BUCKETS - 1:,} and a ratio as a stage of stored sample ratios; found: "
            f"{str(value)[:60]}; possible: what to_json returned"
        )
    return Stage(Split(buckets=buckets), SampleRatio.from_json(ratio))
