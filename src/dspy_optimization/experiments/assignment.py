"""Which version a unit gets: a function of the unit and the experiment, kept nowhere and the same everywhere."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType
from uuid import UUID, uuid5

from dspy_optimization.agents.untrusted import shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.bounds import checked_name
from dspy_optimization.experiments.split import BUCKETS, Split, Variant

ExperimentId = NewType("ExperimentId", UUID)
UnitId = NewType("UnitId", str)
ExposureId = NewType("ExposureId", UUID)

_FNV_START = 0x811C9DC5
_FNV_PRIME = 0x01000193
_FNV_MASK = 0xFFFFFFFF


class AssignmentReason(StrEnum):
    """Why a unit got what it got."""

    HASHED = "hashed"  # by its bucket; in the experiment
    KEPT = "kept"  # it was exposed before and keeps its variant and its propensity; in the experiment
    OVERRIDDEN = "overridden"  # an override names it; served, not in the experiment
    NO_UNIT = "no_unit"  # nobody said who asks; baseline, not in the experiment
    NOT_RUNNING = "not_running"  # the experiment takes no units in; baseline, not in the experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitHash:
    """Buckets of units, evenly spread and unrelated between seeds.

    Source: GrowthBook's hashVersion 2, FNV-1a (32 bits) twice, over UTF-16 code units.
    """

    seed: str
    """`tenant:experiment:salt`; another salt deals anew."""
    _state: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # FNV-1a goes from left to right: what the seed does to it is worked out once, not for every unit.
        object.__setattr__(self, "_state", _fnv1a(self.seed, _FNV_START))

    def bucket(self, unit_id: str) -> int:
        """Return the bucket of a unit, in [0, 9999]."""
        state = self._state
        if unit_id.isascii():
            for code in unit_id.encode():
                state = (state ^ code) * _FNV_PRIME & _FNV_MASK
        else:
            state = _fnv1a(unit_id, state)
        folded = _FNV_START
        for code in b"%d" % state:
            folded = (folded ^ code) * _FNV_PRIME & _FNV_MASK
        return folded % BUCKETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Units that always get one version and are not in the experiment: testers, contracts, an own office.

    It goes by what is known before the exposure, and takes such units out of both versions alike: leaving out only
    those of one version is what makes groups incomparable.
    """

    attribute: str
    """Name of the attribute; `unit_id` for the unit's own id."""
    values: frozenset[str]
    variant: Variant
    """What they get."""

    def __post_init__(self) -> None:
        checked_name("override: attribute", self.attribute)
        if not self.values or not all(isinstance(value, str) for value in self.values):
            raise InvalidRequestError(
                f"override on {self.attribute}: wanted: at least one value, all of them text; found: "
                f"{shown(sorted(map(repr, self.values)))}; possible: the values that units to leave out have"
            )

    def names(self, unit_id: str | None, attributes: Mapping[str, object]) -> bool:
        """Say whether it is meant for this unit."""
        found = unit_id if self.attribute == "unit_id" else attributes.get(self.attribute)
        return isinstance(found, str) and found in self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one unit gets, and what must be written down of it."""

    unit_id: UnitId | None
    variant: Variant
    reason: AssignmentReason
    split: Split | None
    """The split it was drawn under, whose share is its propensity; None: not in the experiment."""
    exposure_id: ExposureId | None
    """Under which its outcomes are told; None: not in the experiment."""

    @property
    def in_experiment(self) -> bool:
        """Whether an exposure has to be recorded."""
        return self.exposure_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigner:
    """Assigns units of one experiment; no storage, no clock, no chance."""

    experiment_id: ExperimentId
    unit_hash: UnitHash
    overrides: tuple[Override, ...] = ()

    def assign(
        self,
        unit_id: object,
        split: Split,
        *,
        attributes: Mapping[str, object] | None = None,
        kept: tuple[Variant, Split] | None = None,
    ) -> Assignment:
        """Return what a unit gets.

        When the split rises, units move from baseline to optimized and never back. Whoever can look up what a unit
        was exposed to first hands it in as `kept`, and then no unit moves at all while the experiment lasts.

        Args:
            unit_id: who asks, a text; None and "" get the baseline and are not in the experiment.
            split: of now; both versions get units.
            attributes: what is known of the unit before it is served, for overrides.
            kept: variant and split of the unit's exposure, if it has one.
        Raises:
            InvalidRequestError: a unit id that is no text, or a split that leaves nothing to compare.
        """
        if unit_id is not None and not isinstance(unit_id, str):
            raise InvalidRequestError(
                f"unit_id: wanted: text that stays the same for a user or session; found: {type(unit_id).__name__} "
                f"{shown(unit_id)}; possible: quote it, or leave it out to be served the baseline"
            )
        known = UnitId(unit_id) if unit_id else None
        for override in self.overrides:
            if override.names(known, attributes or {}):
                return _outside(known, override.variant, AssignmentReason.OVERRIDDEN)
        if known is None:
            return _outside(None, Variant.BASELINE, AssignmentReason.NO_UNIT)
        if kept is not None:
            return self._inside(known, kept[0], kept[1], AssignmentReason.KEPT)
        if not split.compares:
            raise InvalidRequestError(
                f"split: wanted: units for both versions; found: {split.buckets} of {BUCKETS:,} buckets; possible: 1 "
                f"to {BUCKETS - 1:,} in an experiment, rollouts ask `Split.variant`"
            )
        return self._inside(known, split.variant(self.unit_hash.bucket(known)), split, AssignmentReason.HASHED)

    def exposure_id(self, unit_id: UnitId) -> ExposureId:
        """Return the one id that the unit's exposures in this experiment have, whichever process records them."""
        return ExposureId(uuid5(self.experiment_id, unit_id.encode("utf-8", "surrogatepass").hex()))

    def _inside(self, unit_id: UnitId, variant: Variant, split: Split, reason: AssignmentReason) -> Assignment:
        return Assignment(
            unit_id=unit_id, variant=variant, reason=reason, split=split, exposure_id=self.exposure_id(unit_id)
        )


def not_running(unit_id: object) -> Assignment:
    """Return what everybody gets of an experiment that takes no units in."""
    known = UnitId(unit_id) if isinstance(unit_id, str) and unit_id else None
    return _outside(known, Variant.BASELINE, AssignmentReason.NOT_RUNNING)


def _outside(unit_id: UnitId | None, variant: Variant, reason: AssignmentReason) -> Assignment:
    return Assignment(unit_id=unit_id, variant=variant, reason=reason, split=None, exposure_id=None)


def _fnv1a(text: str, state: int) -> int:
    units = text.encode("utf-16-le", "surrogatepass")
    for code in struct.unpack(f"<{len(units) // 2}H", units):
        state = (state ^ code) * _FNV_PRIME & _FNV_MASK
    return state
