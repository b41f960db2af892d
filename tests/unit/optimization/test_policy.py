"""Who goes to the gate under each policy."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from contender_samples import BOTH, COST, QUALITY, contender, flat
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.objective import Objectives
from dspy_optimization.optimization.contender import Contender, as_good, goals_of, undominated
from dspy_optimization.optimization.policy import (
    BEYOND,
    Knee,
    Lexicographic,
    MaxCost,
    Picked,
    Policy,
    TargetValues,
    Weights,
    knee_volumes,
    pick,
)

TARGETED = Objectives(items=(replace(QUALITY, target_value=0.7), COST))
POLICIES: dict[str, Policy] = {
    "weights": Weights(objectives=BOTH),
    "target_values": TargetValues(objectives=TARGETED),
    "target_values with least": TargetValues(objectives=TARGETED, least="cost_usd"),
    "lexicographic": Lexicographic(objectives=BOTH, order=("quality", "cost_usd"), tolerance=0.05),
    "cost first": Lexicographic(objectives=BOTH, order=("cost_usd",), tolerance=0.0),
    "knee": Knee(objectives=BOTH),
    "max_cost": MaxCost(objectives=BOTH, metric="cost_usd", at_most=0.5),
}


def taken(policy: Policy, *some: Contender) -> str:
    name = pick(policy, some).candidate
    return next(
        str(next(iter(one.candidate.components.values())).instructions) for one in some if one.fingerprint == name
    )


BASELINE = flat("baseline", quality=0.5, cost_usd=1.0)
DEAR = flat("dear", quality=0.9, cost_usd=3.0)
MIDDLE = flat("middle", quality=0.8, cost_usd=0.9)
CHEAP = flat("cheap", quality=0.55, cost_usd=0.2)
ALL = (BASELINE, DEAR, MIDDLE, CHEAP)


def test_every_policy_takes_what_it_says() -> None:
    """The same four candidates, another answer each."""
    assert max(ALL, key=lambda one: one.utility).fingerprint == pick(Weights(objectives=BOTH), ALL).candidate
    assert "middle" == taken(TargetValues(objectives=TARGETED, least="cost_usd"), *ALL)
    assert "dear" == taken(Lexicographic(objectives=BOTH, order=("quality",), tolerance=0.0), *ALL)
    assert "middle" == taken(Lexicographic(objectives=BOTH, order=("quality",), tolerance=0.25), *ALL)
    assert "cheap" == taken(Lexicographic(objectives=BOTH, order=("cost_usd",), tolerance=0.0), *ALL)
    assert "middle" == taken(Knee(objectives=BOTH), *ALL)
    assert "cheap" == taken(MaxCost(objectives=BOTH, metric="cost_usd", at_most=0.5), *ALL)
    assert "middle" == taken(MaxCost(objectives=BOTH, metric="cost_usd", at_most=1.0), *ALL)
    assert "dear" == taken(Picked(objectives=BOTH, candidate=DEAR.fingerprint), *ALL)


def test_targets_that_nobody_reaches_are_approached() -> None:
    """The nearest one, in units of what separates the baseline from each target; only if it is nearer."""
    goals = Objectives(items=(replace(QUALITY, target_value=0.95), replace(COST, target_value=0.5)))
    policy = TargetValues(objectives=goals)

    assert "middle" == taken(policy, *ALL)
    assert math.isclose(math.hypot(0.15 / 0.45, 0.4 / 0.5), policy.missing(MIDDLE, BASELINE))
    assert math.isclose(math.sqrt(2.0), policy.missing(BASELINE, BASELINE))
    assert "baseline" == taken(policy, BASELINE, flat("far", quality=0.1, cost_usd=0.9))
    assert "no candidate reaches every target" in pick(policy, ALL).reason


def test_a_search_goes_on_after_the_targets_where_less_is_wanted() -> None:
    """The first one that reaches them need not be the cheapest."""
    assert TargetValues(objectives=TARGETED).ends_at_targets
    assert not TargetValues(objectives=TARGETED, least="cost_usd").ends_at_targets
    assert not Picked(objectives=TARGETED, candidate=DEAR.fingerprint).ends_at_targets


def test_a_guardrail_holds_first_whatever_the_policy() -> None:
    """Who hurts one is never taken, and pushes nobody else aside."""
    hurting = flat("hurting", quality=1.0, cost_usd=0.01, guardrails_hold=False)
    for name, policy in POLICIES.items():
        with_it, without = pick(policy, (*ALL, hurting)), pick(policy, ALL)

        assert without == with_it, name
    assert (
        BASELINE.fingerprint
        == pick(Picked(objectives=BOTH, candidate=hurting.fingerprint), (BASELINE, hurting)).candidate
    )


def test_a_cap_may_be_on_a_guardrail() -> None:
    """The best one of those below the cap, although a dearer one beats it in the only goal."""
    goals = Objectives(items=(QUALITY, replace(COST, guardrail=True)))
    some = [
        flat(name, goals, quality=quality, cost_usd=cost)
        for name, quality, cost in (("baseline", 0.5, 1.0), ("dear", 0.9, 3.0), ("fair", 0.6, 1.5))
    ]
    policy = MaxCost(objectives=goals, metric="cost_usd", at_most=2.0)

    assert "fair" == taken(policy, *some)
    assert "baseline" == taken(MaxCost(objectives=goals, metric="cost_usd", at_most=0.1), *some)


def test_a_cap_that_the_baseline_breaks_is_kept_all_the_same() -> None:
    """The cheap one is worse in quality, and not in everything."""
    worse = flat("worse", quality=0.4, cost_usd=0.3)

    found = pick(MaxCost(objectives=BOTH, metric="cost_usd", at_most=0.5), (BASELINE, worse))

    assert (worse.fingerprint, 1) == (found.candidate, found.eligible)
    assert "cost_usd at most 0.5" in found.reason


def test_a_pick_that_is_worse_in_everything_stays_where_it_is() -> None:
    """A person may pick whom they want; the test split is not opened for it in vain."""
    worse = flat("worse", quality=0.4, cost_usd=1.3)

    found = pick(Picked(objectives=BOTH, candidate=worse.fingerprint), (BASELINE, worse))

    assert BASELINE.fingerprint == found.candidate
    assert "the baseline stays" in found.reason


def test_a_better_utility_of_worse_means_is_not_taken() -> None:
    """1 / (1 + cost) is curved: costs that vary have a better utility than their mean, and are dearer all the same."""
    goals = Objectives(items=(QUALITY, COST), scales={"cost_usd": 1.0})
    even = contender("baseline", {"quality": (0.5, 0.5), "cost_usd": (1.0, 1.0)}, goals)
    uneven = contender("uneven", {"quality": (0.5, 0.5), "cost_usd": (0.0, 2.1)}, goals)

    dear = contender("baseline", {"quality": (0.5, 0.5), "cost_usd": (2.0, 2.0)}, goals)
    cheaper = contender("cheaper", {"quality": (0.5, 0.5), "cost_usd": (1.0, 1.0)}, goals)

    assert uneven.utility > even.utility == cheaper.utility > dear.utility
    assert "baseline" == taken(Weights(objectives=goals), even, uneven)
    assert "cheaper" == taken(Weights(objectives=goals), dear, uneven, cheaper)


def test_the_knee_is_where_the_largest_box_stands() -> None:
    """Against the product of gains, computed by hand; a front of two has none, the utility decides."""
    some = (DEAR, MIDDLE, CHEAP)
    low, high = np.array([-0.9, 0.2]), np.array([-0.55, 3.0])
    points = np.array([[-one.means["quality"], one.means["cost_usd"]] for one in some])
    by_hand = np.prod(1.0 + BEYOND - (points - low) / (high - low), axis=1)

    assert np.allclose(by_hand, knee_volumes(some, BOTH.items))
    two = knee_volumes((DEAR, CHEAP), BOTH.items)
    assert math.isclose(two[0], two[1])


grades = st.integers(0, 8)
fields = st.lists(st.tuples(grades, grades, st.booleans()), min_size=1, max_size=12)


def _field(rows: "list[tuple[int, int, bool]]") -> list[Contender]:
    first, *rest = rows
    found = [flat("baseline", quality=first[0] / 8, cost_usd=first[1] / 8)]
    return found + [
        flat(f"candidate {number}", quality=quality / 8, cost_usd=cost / 8, guardrails_hold=holds)
        for number, (quality, cost, holds) in enumerate(rest)
    ]


@settings(max_examples=150, deadline=None)
@given(fields, st.sampled_from(sorted(POLICIES)), st.integers(0, 10**6))
def test_laws_of_every_policy(rows: "list[tuple[int, int, bool]]", name: str, seed: int) -> None:
    """Nobody eligible beats who is taken; it is no worse than the baseline in everything; order decides nothing."""
    some, policy = _field(rows), POLICIES[name]
    shuffled = random.Random(seed).sample(some, len(some))

    found = pick(policy, some)

    one = next(one for one in some if one.fingerprint == found.candidate)
    baseline, goals = some[0], goals_of(policy.objectives)
    assert found == pick(policy, shuffled)
    if not one.is_baseline:
        eligible = [other for other in some if other.guardrails_hold and policy.admits(other)]
        assert one in undominated(eligible, goals)
        assert one.guardrails_hold
        assert not as_good(baseline, one, goals)
        assert any(goal.oriented(one.means[goal.metric]) > goal.oriented(baseline.means[goal.metric]) for goal in goals)


@settings(max_examples=60, deadline=None)
@given(fields)
def test_the_front_is_what_brute_force_finds(rows: "list[tuple[int, int, bool]]") -> None:
    """By comparing all pairs."""
    some = _field(rows)

    def beats(one: Contender, other: Contender) -> bool:
        mine, its = (-one.means["quality"], one.means["cost_usd"]), (-other.means["quality"], other.means["cost_usd"])
        return all(a <= b for a, b in zip(mine, its, strict=True)) and mine != its

    assert [one for one in some if not any(beats(other, one) for other in some)] == list(
        undominated(some, goals_of(BOTH))
    )


def test_rounding_makes_no_difference() -> None:
    """The same scores added in another order neither beat each other nor the baseline."""
    values = [0.1, 0.2, 0.3, 0.7, 1e-3]
    for order in itertools.islice(itertools.permutations(values), 20):
        some = (
            contender("baseline", {"quality": values, "cost_usd": values}),
            contender("same", {"quality": order, "cost_usd": order}),
        )
        for policy in POLICIES.values():
            assert some[0].fingerprint == pick(policy, some).candidate


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_lone_baseline_stays(name: str) -> None:
    """And is said to."""
    assert "the baseline stays" in pick(POLICIES[name], (BASELINE,)).reason
