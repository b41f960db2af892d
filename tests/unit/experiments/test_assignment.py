"""Assignment against GrowthBook's own vectors and against its laws."""

import math
from typing import Any

import pytest
from experiment_world import EXPERIMENT, plan
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.assignment import (
    Assigner,
    AssignmentReason,
    ExperimentId,
    Override,
    UnitHash,
    UnitId,
)
from dspy_optimization.experiments.split import BUCKETS, Split, Variant, experiment_split

IDS = [f"user-{number}" for number in range(20_000)]
HALF = Split(buckets=5_000)


def assigner(*overrides: Override, seed: str = "exp-1") -> Assigner:
    return Assigner(experiment_id=ExperimentId(EXPERIMENT), unit_hash=UnitHash(seed=seed), overrides=overrides)


@pytest.mark.parametrize(
    ("seed", "unit", "bucket"),
    [
        ("exp-1", "user-2", 70),
        ("exp-2", "user-1", 9028),
        ("seed", "a", 505),
        ("seed", "b", 2696),
        ("foo", "ab", 2575),
        ("foo", "def", 2019),
        ("89123klj", "8952klfjas09ujkasdf", 1240),
        ("90850943850283058242805", "123", 7516),
        ("()**(%$##$%#$#", '___)((*":&', 128),
    ],
)
def test_buckets_are_growthbooks(seed: str, unit: str, bucket: int) -> None:
    """hashVersion 2 against two vectors of the research notes and all seven in GrowthBook's `cases.json` (0.7.1)."""
    assert bucket == UnitHash(seed=seed).bucket(unit)


def test_text_beyond_ascii_is_hashed_by_utf_16_code_units() -> None:
    """As JavaScript's `charCodeAt` sees it, written out: one unit for ü, a pair of surrogates for an emoji."""

    def by_hand(units: list[int]) -> int:
        state = 2166136261
        for unit in units:
            state = ((state ^ unit) * 16777619) % 2**32
        return state

    once = by_hand([*map(ord, "s:"), 0x00FC, 0xD83D, 0xDE00])

    assert by_hand([*map(ord, str(once))]) % 10_000 == UnitHash(seed="s:").bucket("ü😀")


def test_a_split_that_rises_moves_units_to_optimized_only() -> None:
    """20,000 ids at 1, 10, 50 and 100 %: every set holds the one before, sizes within 4 standard deviations."""
    unit_hash = UnitHash(seed="tenant:experiment:salt")
    buckets = {unit: unit_hash.bucket(unit) for unit in IDS}
    before: set[str] = set()
    for share in (0.01, 0.1, 0.5, 1.0):
        split = Split(buckets=round(share * BUCKETS))
        optimized = {unit for unit, bucket in buckets.items() if split.variant(bucket) is Variant.OPTIMIZED}

        assert before <= optimized
        assert abs(len(optimized) - share * len(IDS)) <= 4 * math.sqrt(len(IDS) * share * (1 - share))
        before = optimized

    assert set(IDS) == before


@given(unit=st.text(min_size=1), low=st.integers(1, BUCKETS - 1), high=st.integers(1, BUCKETS - 1))
def test_every_unit_is_sticky_and_nested(unit: str, low: int, high: int) -> None:
    """The same unit gets the same, and optimized at a split is optimized at every larger one."""
    low, high = sorted((low, high))
    at_low, at_high = (assigner().assign(unit, Split(buckets=buckets)) for buckets in (low, high))

    assert at_low == assigner().assign(unit, Split(buckets=low))
    assert at_low.variant is Variant.BASELINE or at_high.variant is Variant.OPTIMIZED
    assert at_low.exposure_id == at_high.exposure_id


@given(bucket=st.integers(0, BUCKETS - 1), buckets=st.integers(0, BUCKETS))
def test_optimized_is_the_last_variation(bucket: int, buckets: int) -> None:
    """As many buckets as the split says, at the upper end, compared as integers."""
    assert (bucket >= BUCKETS - buckets) == (Split(buckets=buckets).variant(bucket) is Variant.OPTIMIZED)


def test_experiments_deal_independently() -> None:
    """Another salt, another deal: agreement of two halves is near one half (version 1 of the hash fails here)."""
    one, other = UnitHash(seed="tenant:exp:salt-1"), UnitHash(seed="tenant:exp:salt-2")
    same = sum(HALF.variant(one.bucket(unit)) is HALF.variant(other.bucket(unit)) for unit in IDS)

    assert abs(same - 10_000) <= 4 * math.sqrt(20_000 * 0.25)


@pytest.mark.parametrize(("share", "buckets"), [(0.1, 1_000), (0.00005001, 1), (0.0001, 1), (0.9999, 9_999)])
def test_a_split_is_whole_buckets(share: float, buckets: int) -> None:
    """Rounded to 0.01 %; the propensity is the share that is drawn, not the one that was asked for."""
    split = experiment_split(share)

    assert buckets == split.buckets
    assert buckets / 10_000 == split.share


@pytest.mark.parametrize(
    "share", [0, 0.0, 1, 1.0, 1.5, -0.1, math.nan, math.inf, -math.inf, "0.1", "text", None, True, [0.1], 10**400]
)
def test_a_split_outside_of_0_to_1_is_refused(share: Any) -> None:
    """Whatever it is, the message says what was wanted, found and possible."""
    with pytest.raises(InvalidRequestError, match=r"traffic_split: wanted: .*; found: .*; possible: 0\.1"):
        experiment_split(share)


@pytest.mark.parametrize(("share", "left_out"), [(0.00004, "optimized"), (0.00005, "optimized"), (0.99996, "baseline")])
def test_a_split_that_leaves_a_version_without_a_bucket_is_refused(share: float, left_out: str) -> None:
    """It rounds to 0 (or to all)."""
    with pytest.raises(InvalidRequestError, match=rf"rounds to none for {left_out}"):
        experiment_split(share)


@pytest.mark.parametrize("buckets", [-1, 10_001, 0.5, True, "1000"])
def test_a_split_is_made_of_whole_buckets(buckets: Any) -> None:
    """Nothing between two buckets."""
    with pytest.raises(InvalidRequestError, match="whole buckets"):
        Split(buckets=buckets)


@pytest.mark.parametrize("unit", [None, ""])
def test_nobody_is_served_the_baseline_outside_of_the_experiment(unit: str | None) -> None:
    """No unit id: no exposure, no propensity."""
    assignment = assigner().assign(unit, HALF)

    assert (Variant.BASELINE, AssignmentReason.NO_UNIT, False) == (
        assignment.variant,
        assignment.reason,
        assignment.in_experiment,
    )
    assert (None, None) == (assignment.split, assignment.exposure_id)


@pytest.mark.parametrize("unit", [7, 1.5, b"user-1", True, ["user-1"]])
def test_a_unit_id_is_text(unit: Any) -> None:
    """1 and "1" would be two units or one, depending on who asks."""
    with pytest.raises(InvalidRequestError, match=r"unit_id: wanted: text .* found: .*; possible: quote it"):
        assigner().assign(unit, HALF)


def test_the_propensity_is_the_split_it_was_drawn_under() -> None:
    """And the variant follows from bucket and split."""
    for share, expected in ((0.1, Variant.BASELINE), (0.9731, Variant.OPTIMIZED)):
        assignment = assigner(seed="seed").assign("b", experiment_split(share))  # bucket 2696

        assert expected is assignment.variant
        assert assignment.split is not None
        assert share == assignment.split.share
        assert assignment.reason is AssignmentReason.HASHED


def test_a_unit_that_was_exposed_keeps_variant_and_propensity() -> None:
    """Whoever hands in the first exposure moves nobody, also when the split has risen."""
    first = assigner(seed="exp-1").assign("user-2", Split(buckets=1_000))  # bucket 70
    assert first.split is not None
    again = assigner(seed="exp-1").assign("user-2", Split(buckets=9_999), kept=(first.variant, first.split))

    assert (Variant.BASELINE, first.split, first.exposure_id) == (again.variant, again.split, again.exposure_id)
    assert again.reason is AssignmentReason.KEPT
    assert assigner(seed="exp-1").assign("user-2", Split(buckets=9_999)).variant is Variant.OPTIMIZED


@pytest.mark.parametrize("variant", Variant)
def test_overrides_take_units_out_of_both_versions(variant: Variant) -> None:
    """By what is known before; whatever the hash says, and even without a unit id."""
    office = Override(attribute="office", values=frozenset({"berlin"}), variant=variant)
    tester = Override(attribute="unit_id", values=frozenset({"user-1"}), variant=variant)
    mine = assigner(office, tester)
    served = [
        mine.assign("user-2", HALF, attributes={"office": "berlin"}),
        mine.assign("user-9", HALF, attributes={"office": "berlin"}),
        mine.assign("user-1", HALF),
        mine.assign(None, HALF, attributes={"office": "berlin"}),
        mine.assign("user-2", HALF, attributes={"office": "berlin"}, kept=(Variant.BASELINE, HALF)),
    ]

    assert {(variant, AssignmentReason.OVERRIDDEN, False)} == {
        (one.variant, one.reason, one.in_experiment) for one in served
    }
    assert mine.assign("user-2", HALF, attributes={"office": "rome"}).in_experiment
    assert mine.assign("user-2", HALF, attributes={"office": 5}).in_experiment


def test_an_override_names_somebody() -> None:
    """No values would be an override of nobody."""
    with pytest.raises(InvalidRequestError, match="at least one value"):
        Override(attribute="office", values=frozenset(), variant=Variant.BASELINE)


@pytest.mark.parametrize("buckets", [0, BUCKETS])
def test_an_experiment_needs_both_versions(buckets: int) -> None:
    """Rollouts may have 0 and 100 %; an assignment into an experiment may not."""
    with pytest.raises(InvalidRequestError, match="units for both versions"):
        assigner().assign("user-1", Split(buckets=buckets))


def test_exposures_of_a_unit_have_one_id_wherever_they_are_recorded() -> None:
    """Another unit or experiment, another id."""
    other = Assigner(experiment_id=ExperimentId(plan().experiment_id), unit_hash=UnitHash(seed="other"))
    stranger = plan().as_another(ExperimentId(plan().optimization_id), "salt-2").assigner
    unit = UnitId("user-1")

    assert assigner().exposure_id(unit) == other.exposure_id(unit)
    assert assigner().exposure_id(unit) != assigner().exposure_id(UnitId("user-2"))
    assert assigner().exposure_id(unit) != stranger.exposure_id(unit)
    assert assigner().exposure_id(UnitId("ü😀")) != assigner().exposure_id(UnitId("ü"))


def test_the_seed_is_tenant_experiment_and_salt() -> None:
    """So two tenants with the same users deal them differently."""
    seed = plan().assigner.unit_hash.seed

    assert f"{plan().tenant}:{plan().experiment_id}:salt-1" == seed
