"""The front on val: who is on it, how sure that is, and how it grew."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from contender_samples import BOTH, COST, QUALITY, contender, examples, flat
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.compute.ranking import fronts
from dspy_optimization.optimization.contender import Contender
from dspy_optimization.optimization.front import MOST_POINTS, Completed, Front, FrontPoint, front_of


def front(some: Sequence[Contender], chosen: Contender | None = None, **more: object) -> Front:
    terms: dict[str, object] = {
        "objectives": BOTH, "val": examples(some[0].n), "seed": 3, "unbounded": frozenset({"cost_usd"}), **more,
    }  # fmt: skip
    picked = some[0] if chosen is None else chosen
    return front_of(some, chosen=picked.fingerprint, **terms)  # type: ignore[arg-type]


def noisy(name: str, right: int, cost: float, n: int = 40, seed: int = 0) -> Contender:
    """Right on so many examples, drawn by chance; costs vary by a tenth."""
    chance = random.Random(f"{seed}/{name}")
    marks = [1.0] * right + [0.0] * (n - right)
    chance.shuffle(marks)
    return contender(name, {"quality": marks, "cost_usd": [cost * chance.uniform(0.9, 1.1) for _ in range(n)]})


def by_name(found: Front, one: Contender) -> FrontPoint:
    return next(point for point in (*found.points, found.baseline, found.chosen) if point.candidate == one.fingerprint)


BASELINE, GOOD, CHEAP = noisy("baseline", 20, 1.0), noisy("good", 32, 2.0), noisy("cheap", 21, 0.4)
NEAR = noisy("near", 33, 2.2)
WORSE = noisy("worse", 10, 3.0)
ALL = (BASELINE, GOOD, CHEAP, NEAR, WORSE)


def test_points_are_those_that_nobody_beats() -> None:
    """The best first; the baseline and the chosen one are told of beside them."""
    found = front(ALL, GOOD)

    assert [NEAR.fingerprint, GOOD.fingerprint, CHEAP.fingerprint] == [one.candidate for one in found.points]
    assert (3, 5, 40, None) == (found.size, found.candidates, found.n, found.clusters)
    assert (False, True) == (found.baseline.on_front, found.chosen.is_chosen)
    assert ("quality", "cost_usd") == found.goals


def test_how_sure_that_is() -> None:
    """Two that differ on an example cannot be told apart in quality; a price that differs by half tells."""
    found = front((BASELINE, GOOD, replace_cost(GOOD, "twin", 1.0), CHEAP, WORSE), GOOD)
    twin = replace_cost(GOOD, "twin", 1.0)

    assert found.baseline.probability_on_front < 0.5
    assert by_name(found, CHEAP).probability_on_front > 0.99
    assert twin.fingerprint in by_name(found, GOOD).equal + by_name(found, GOOD).alike
    assert found.baseline.dominated_by[CHEAP.fingerprint] > 0.5
    assert CHEAP.fingerprint not in by_name(found, GOOD).alike


def replace_cost(one: Contender, name: str, factor: float) -> Contender:
    return contender(
        name,
        {
            "quality": [result.scores["quality"].value for result in one.results],
            "cost_usd": [factor * result.scores["cost_usd"].value for result in one.results],
        },
    )


def test_probabilities_against_an_independent_bootstrap() -> None:
    """Another generator, another way to draw, all pairs compared: within what 2,000 samples leave open."""
    found, rng = front(ALL, GOOD), np.random.default_rng(99)
    scores = np.array([[[-r.scores["quality"].value, r.scores["cost_usd"].value] for r in one.results] for one in ALL])
    hits = np.zeros(len(ALL))
    dominated = np.zeros((len(ALL), len(ALL)))
    for _ in range(2_000):
        means = scores[:, rng.integers(0, 40, 40), :].mean(axis=1)
        beats = (means[:, None] <= means[None]).all(axis=2) & (means[:, None] < means[None]).any(axis=2)
        hits += ~beats.any(axis=0)
        dominated += beats
    for place, one in enumerate(ALL[:-1]):
        point = by_name(found, one)

        assert hits[place] / 2_000 == pytest.approx(point.probability_on_front, abs=0.05)
        for other, other_one in enumerate(ALL[:-1]):
            share = dominated[other, place] / 2_000
            assert share == pytest.approx(point.dominated_by.get(other_one.fingerprint, 0.0), abs=0.055)


def test_probabilities_of_a_single_goal_against_an_independent_bootstrap() -> None:
    """Whoever is best in a sample is its front; equal ones share it."""
    goals = Objectives(items=(QUALITY,))
    found, rng = front(ALL, NEAR, objectives=goals, unbounded=frozenset()), np.random.default_rng(99)
    scores = np.array([[r.scores["quality"].value for r in one.results] for one in ALL])
    means = np.array([scores[:, rng.integers(0, 40, 40)].mean(axis=1) for _ in range(2_000)])
    hits = (means > means.max(axis=1, keepdims=True) - 1e-9).mean(axis=0)

    assert hits[ALL.index(NEAR)] == pytest.approx(by_name(found, NEAR).probability_on_front, abs=0.05)
    assert hits[ALL.index(BASELINE)] == pytest.approx(found.baseline.probability_on_front, abs=0.02)


def test_clusters_are_drawn_whole() -> None:
    """Against a bootstrap of clusters: four examples that belong together tell as much as one."""
    marks = {"baseline": [1, 0, 0, 1, 0, 0, 1, 0], "other": [1, 1, 0, 1, 0, 1, 0, 0]}
    some = [
        contender(name, {"quality": [float(one) for one in right for _ in range(5)], "cost_usd": [1.0] * 40})
        for name, right in marks.items()
    ]
    names = [f"c{number // 5}" for number in range(40)]
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 8, (20_000, 8))
    difference = np.array(marks["other"])[drawn].sum(axis=1) - np.array(marks["baseline"])[drawn].sum(axis=1)
    share = float(np.mean(difference <= 0))

    found = front(some, val=examples(40, names))

    assert share == pytest.approx(found.baseline.probability_on_front, abs=0.04)
    assert front(some).baseline.probability_on_front < share - 0.1
    assert (some[1].fingerprint,) == found.baseline.alike


def test_candidates_in_another_order_make_the_same_front() -> None:
    """Every list in it too."""
    some = [noisy("baseline", 20, 1.0), *(noisy(f"c{n}", 20 + n, 1.0 + n / 50) for n in range(1, 9))]

    assert front(some, some[3]) == front(some[::-1], some[3])


def test_intervals_are_those_of_the_statistics() -> None:
    """Wilson for right and wrong, t for amounts on 40 examples (scipy); with clusters t on clusters; none for amounts
    that never vary."""
    found = by_name(front(ALL, GOOD), GOOD)
    costs = [one.scores["cost_usd"].value for one in GOOD.results]
    wilson = stats.binomtest(32, 40).proportion_ci(0.95, method="wilson")
    by_t = stats.t.interval(0.95, 39, loc=np.mean(costs), scale=stats.sem(costs))
    quality, cost = found.means["quality"], found.means["cost_usd"]

    assert ("wilson", "t") == (quality.method, cost.method)
    assert (wilson.low, wilson.high) == pytest.approx((quality.low, quality.high))
    assert by_t == pytest.approx((cost.low, cost.high))
    names = [f"c{number // 4}" for number in range(40)]
    clustered = front(ALL, GOOD, val=examples(40, names))
    assert (10, "cluster_t") == (clustered.clusters, by_name(clustered, GOOD).means["cost_usd"].method)
    same = front((flat("baseline", quality=0.5, cost_usd=0.0), flat("other", quality=0.6, cost_usd=0.0)))
    assert (None, None) == (same.baseline.means["cost_usd"].low, same.baseline.means["cost_usd"].method)


def test_one_goal_makes_one_point() -> None:
    """Of equal ones the baseline, then the chosen one, then the shortest; the others are named."""
    goals = Objectives(items=(QUALITY, replace(COST, guardrail=True)))
    some = [
        flat(name, goals, quality=quality, cost_usd=1.0)
        for name, quality in (("baseline", 0.5), ("longer", 0.8), ("best", 0.8), ("bad", 0.1))
    ]

    found = front(some, some[1], objectives=goals)

    assert [some[1].fingerprint] == [one.candidate for one in found.points]
    assert (some[2].fingerprint,) == found.points[0].equal
    assert {"quality", "cost_usd"} == set(found.points[0].means)


def test_who_hurts_a_guardrail_is_shown_and_pushes_nobody_away() -> None:
    """A person sees what the guardrails cost."""
    hurting = replace(noisy("hurting", 39, 0.2), guardrails_hold=False)

    found, without = front((*ALL, hurting), GOOD), front(ALL, GOOD)

    marked = by_name(found, hurting)
    assert (False, True) == (marked.guardrails_hold, marked.on_front)
    assert [one.candidate for one in without.points] == [one.candidate for one in found.points if one.guardrails_hold]
    assert marked.probability_on_front > 0.9
    assert by_name(without, GOOD).probability_on_front == by_name(found, GOOD).probability_on_front


def test_the_hypervolume_rises_while_calls_are_paid() -> None:
    """Against rectangles added by hand; what is dominated, hurts a guardrail or is not known adds no step."""
    some = (
        flat("baseline", quality=0.5, cost_usd=1.0),
        flat("worse", quality=0.0, cost_usd=2.0),
        flat("good", quality=1.0, cost_usd=1.5),
        flat("cheap", quality=0.5, cost_usd=0.0),
        flat("hurting", quality=1.0, cost_usd=0.0, guardrails_hold=False),
    )
    moments = [Completed(one.fingerprint, 10 * place) for place, one in enumerate(some)]

    found = front(some, completed=moments)

    box = 1.1 * 1.1
    volumes = [0.6 * 0.6, 0.6 * 0.6 + 0.5 * 0.35, 1.1 * 0.6 + 0.35 * 0.5]
    assert [0, 20, 30] == [step.paid_calls for step in found.course]
    assert [one / box for one in volumes] == pytest.approx([step.volume for step in found.course])
    assert {"quality": -0.1, "cost_usd": 2.2} == pytest.approx(dict(found.reference))


def test_of_a_large_front_those_with_the_most_room_are_kept() -> None:
    """And it says how many there are."""
    some = [flat("baseline", quality=0.0, cost_usd=0.001)]
    some += [flat(f"c{n}", quality=n / 100, cost_usd=1.0 + n / 100) for n in range(1, 80)]

    found = front(some, some[40])

    assert (80, MOST_POINTS) == (found.size, len(found.points))
    assert {some[0].fingerprint, some[-1].fingerprint} <= {one.candidate for one in found.points}
    assert (True, some[40].fingerprint) == (found.chosen.on_front, found.chosen.candidate)


def test_a_front_is_kept_as_it_is() -> None:
    """Written and read back."""
    found = front(ALL, GOOD, completed=[Completed(one.fingerprint, 7) for one in ALL])

    assert found == read(Front, write(found))


marks = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6), st.booleans()), min_size=1, max_size=7)


@settings(max_examples=15, deadline=None)
@given(marks, st.integers(0, 10**6))
def test_order_decides_nothing(rows: "list[tuple[int, int, bool]]", seed: int) -> None:
    """Candidates and examples in any order; the points are front 0 of those whose guardrails hold."""
    some = [
        replace(noisy("baseline" if n == 0 else f"c{n}", right, cost / 4, n=6), guardrails_hold=holds or n == 0)
        for n, (right, cost, holds) in enumerate(rows)
    ]
    val = examples(6, ["a", "a", "b", "c", "d", "d"])
    chance = random.Random(seed)

    found = front(some, some[-1], val=val)
    shuffled = front(
        chance.sample(some, len(some)), some[-1], val=chance.sample(val, len(val)),
        completed=[],
    )  # fmt: skip

    assert found == shuffled
    holding = [one for one in some if one.guardrails_hold]
    first = fronts([[-one.means["quality"], one.means["cost_usd"]] for one in holding]) == 0
    members = {one.fingerprint for one, is_first in zip(holding, first, strict=True) if is_first}
    told = {name for one in found.points if one.guardrails_hold for name in (one.candidate, *one.equal)}
    assert members == told
    assert all(
        0.0 <= one.probability_on_front <= 1.0 and not math.isnan(one.means["quality"].value) for one in found.points
    )
