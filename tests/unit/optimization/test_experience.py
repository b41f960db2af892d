"""What past optimizations say of algorithms: estimates against closed forms, and decisions against a known truth."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from past_world import CAPPED, ROOMY, gained, history, lesson

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.optimization.choosing import choose
from dspy_optimization.optimization.experience import Judgement, TooLittle, judge, similarity
from dspy_optimization.optimization.lesson import Lesson
from dspy_optimization.optimization.situation import Situation

RULES = ("miprov2", "gepa")
ALL = frozenset({"miprov2", "gepa", "genetic", "mine"})
REPEATS = 400
OTHER = replace(CAPPED, goals=2, metric="json_match")
LEVEL = 0.05


def judged(situation: Situation, lessons: Sequence[Lesson]) -> Judgement:
    found = judge(situation, lessons, usable=ALL, preferred=RULES)
    assert isinstance(found, Judgement)
    return found


def by_name(found: Judgement) -> dict[str, float]:
    return {one.algorithm: one.gain for one in found.gains}


def most(lessons: Sequence[Lesson], situation: Situation) -> str:
    return judged(situation, lessons).gains[0].algorithm


def two(number: int, one: float, other: float) -> Lesson:
    return lesson(number, CAPPED, gained("gepa", one, sealed=one), gained("miprov2", other, sealed=other))


def test_an_estimate_is_the_mean_drawn_toward_all_and_the_rules() -> None:
    """Against the formula by hand: eight equal optimizations of each, all of them like this one."""
    found = by_name(judged(CAPPED, [two(number, 0.2, 0.1) for number in range(8)]))

    rules = (8 * 0.2 + 8 * 0.1) / 18
    everywhere = (8 * 0.2 + 2 * rules) / 10

    assert math.isclose((8 * 0.2 + 2 * everywhere) / 10, found["gepa"])


def test_a_margin_is_the_one_of_students_t() -> None:
    """Against the formula by hand: no spread seen, so the prior standard deviation of 0.1 alone, with 14 + 4 degrees.

    2.2010 is the 97.5 % quantile for 7 + 4 degrees (Abramowitz and Stegun, table 26.10).
    """
    found = judged(CAPPED, [two(number, 0.2, 0.1) for number in range(8)]).gains[0]

    typical = 4 * 0.01 / (14 + 4)
    own = 4 * typical / (7 + 4)

    assert math.isclose(2.2010 * math.sqrt(own / 10 + 0.04 * own / 10), found.margin, rel_tol=1e-4)


def test_the_order_of_the_past_decides_nothing() -> None:
    """To the last bit."""
    lessons = history(random.Random(1), 40, {"gepa": 0.1, "genetic": 0.12, "miprov2": 0.09})
    mixed = random.Random(2).sample(lessons, len(lessons))

    assert judged(CAPPED, lessons) == judged(CAPPED, mixed)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1.0),
        ({"kind": AgentKind.REACT}, 0.2),
        ({"metric": "token_f1"}, 0.2),
        ({"goals": 2}, 0.2),
        ({"n_train": 403}, math.exp(-0.5)),
        ({"max_lm_calls": 100}, 1.0),
        ({"can_propose": False}, 0.0),
        ({"kind": AgentKind.HTTP}, 0.0),
    ],
)
def test_targets_are_more_or_less_alike(changes: dict[str, object], expected: float) -> None:
    """Equal kinds and amounts are worth 1; what cannot run the same algorithms is worth nothing."""
    other = replace(CAPPED, **changes)

    assert math.isclose(expected, similarity(CAPPED, other), abs_tol=1e-12)
    assert similarity(CAPPED, other) == similarity(other, CAPPED)


@pytest.mark.parametrize(
    ("lessons", "comparable", "ran"),
    [
        ([], 0, {}),
        ([two(number, 0.2, 0.1) for number in range(7)], 7, {"gepa": 7, "miprov2": 7}),
        ([lesson(number, CAPPED, gained("gepa", 0.1)) for number in range(30)], 30, {"gepa": 30}),
        (
            [lesson(number, CAPPED, gained("gepa" if number > 1 else "mine", 0.1)) for number in range(30)],
            30,
            {"gepa": 28, "mine": 2},
        ),
        ([replace(two(number, 0.2, 0.1), situation=OTHER) for number in range(9)], 0, {}),
    ],
    ids=["nothing", "seven", "one algorithm", "two of the other", "other targets"],
)
def test_too_little_concludes_nothing(lessons: Sequence[Lesson], comparable: int, ran: dict[str, int]) -> None:
    """Eight like this one, and two algorithms in three each; it says how much there is."""
    found = judge(CAPPED, lessons, usable=ALL, preferred=RULES)

    assert TooLittle(comparable=comparable, optimizations=ran) == found


def test_the_same_thing_done_again_is_no_further_evidence() -> None:
    """However often a schedule runs it; a target that was done twice counts with the mean."""
    again = [replace(two(number, 0.2, 0.1), target=Fingerprint("nightly")) for number in range(50)]
    eight = [two(number, 0.2, 0.1) for number in range(100, 108)]
    twice = [replace(two(number + 100, 0.4, 0.1), target=two(number, 0, 0).target) for number in range(100, 108)]

    assert TooLittle(comparable=1, optimizations={"gepa": 1, "miprov2": 1}) == judge(
        CAPPED, again, usable=ALL, preferred=RULES
    )
    assert 9 == judged(CAPPED, again + eight).comparable
    expected = by_name(judged(CAPPED, [two(number, 0.3, 0.1) for number in range(8)]))
    assert pytest.approx(expected) == by_name(judged(CAPPED, eight + twice))


def test_what_cannot_run_is_passed_over() -> None:
    """An algorithm that is not installed any more has no say, however much it gained."""
    lessons = [
        lesson(number, CAPPED, gained("lost", 0.9), gained("gepa", 0.2), gained("miprov2", 0.1)) for number in range(9)
    ]

    assert {"gepa", "miprov2"} == by_name(judged(CAPPED, lessons)).keys()


def test_gains_are_compared_at_equal_calls() -> None:
    """One that is slow at first is behind at few calls and ahead at many; its points say so."""
    slow, fast = [(100, 0.02), (900, 0.3)], [(100, 0.1), (900, 0.15)]
    lessons = [
        lesson(
            number, CAPPED, gained("gepa", 0.3, sealed=0.3, points=slow), gained("mine", 0.15, sealed=0.15, points=fast)
        )
        for number in range(12)
    ]

    assert ("gepa", 1000) == (most(lessons, CAPPED), judged(CAPPED, lessons).calls)
    few = replace(CAPPED, max_lm_calls=850)
    assert 250 == few.search_calls
    assert ("mine", 250) == (most(lessons, few), judged(few, lessons).calls)


def test_fewer_calls_are_compared_when_only_few_got_far() -> None:
    """Where the second of two never got more than its first turn, both are compared there."""
    lessons = [
        lesson(
            number,
            CAPPED,
            gained("gepa", 0.3, calls=750, points=[(200, 0.1), (700, 0.3)]),
            gained("mine", 0.1, calls=240),
        )
        for number in range(12)
    ]

    found = judged(CAPPED, lessons)

    assert 250 == found.calls
    assert math.isclose(by_name(found)["gepa"], by_name(found)["mine"], rel_tol=1e-4)


def test_a_search_that_ended_by_itself_says_what_more_calls_would_bring() -> None:
    """Nothing; one that was cut off there says little of so many calls."""
    early = {"calls": 120, "is_finished": True}
    lessons = [
        lesson(number, CAPPED, gained("gepa", 0.3), gained("mine", 0.1, **early)) for number in range(12)
    ]  # fmt: skip
    cut = [replace(one, gained=tuple(replace(each, is_finished=False) for each in one.gained)) for one in lessons]

    assert 1000 == judged(CAPPED, lessons).calls
    assert isinstance(judge(CAPPED, cut, usable=ALL, preferred=RULES), TooLittle)


def test_without_a_cap_searches_count_as_they_ended() -> None:
    """Those that calls ended count half."""
    lessons = [lesson(number, CAPPED, gained("gepa", 0.3), gained("mine", 0.1)) for number in range(12)]

    assert (None, "gepa") == (judged(ROOMY, lessons).calls, most(lessons, ROOMY))


def test_what_is_better_for_a_kind_of_target_is_taken_there() -> None:
    """(a) After enough data; not before, and not for another kind."""
    reacting = replace(CAPPED, kind=AgentKind.REACT, optimizable_components=3, input_length=900)
    right = wrong_elsewhere = 0
    for seed in range(60):
        chance = random.Random(seed)
        past = history(chance, 60, {"genetic": 0.20, "miprov2": 0.05, "gepa": 0.06}, situation=reacting)
        past += history(chance, 60, {"genetic": 0.08, "miprov2": 0.08, "gepa": 0.08}, first=1000)
        there, here = judged(reacting, past), judged(CAPPED, past)
        right += there.gains[0].algorithm == "genetic" and there.worse == {"miprov2", "gepa"}
        wrong_elsewhere += bool(here.worse)
        early = choose(reacting, past[:4], can_run=ALL.__contains__, seed=seed)
        assert ["miprov2", "gepa"] == [one.name for one in early.algorithms]

    assert right >= 57
    assert wrong_elsewhere / 60 <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 60)


@pytest.mark.parametrize(("n", "spread"), [(12, 0.05), (24, 0.08), (60, 0.15)])
def test_no_difference_is_claimed_where_there_is_none(n: int, spread: float) -> None:
    """(b) The negative control: claims are as rare as their level says, and no algorithm is favoured."""
    claims = decided = 0
    first: dict[str, int] = {"genetic": 0, "miprov2": 0, "gepa": 0}
    for seed in range(REPEATS):
        past = history(random.Random(f"{n}/{seed}"), n, dict.fromkeys(first, 0.08), spread=spread)
        found = judge(CAPPED, past, usable=ALL, preferred=RULES)
        if isinstance(found, TooLittle):
            continue
        decided += 1
        claims += bool(found.worse)
        first[found.gains[0].algorithm] += 1
        if not found.worse:
            reason = choose(CAPPED, past, can_run=ALL.__contains__, seed=seed).reason
            assert "cannot tell" in reason
            assert "is shown to gain more" not in reason

    assert decided > 0.9 * REPEATS
    assert claims / decided <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / decided)
    expected = decided / 3
    assert sum((count - expected) ** 2 / expected for count in first.values()) < 13.82  # chi square, 2 degrees, 0.001


@pytest.mark.parametrize("changes", [{"metric": "token_f1"}, {"kind": AgentKind.REACT, "optimizable_components": 3}])
def test_a_difference_on_other_targets_is_not_claimed_here(changes: dict[str, object]) -> None:
    """(b) A harder control: what is true of another metric or kind does not leak, however much of it was seen."""
    claims = 0
    other = replace(CAPPED, **changes)
    for seed in range(60):
        chance = random.Random(f"{changes}/{seed}")
        past = history(chance, 150, {"genetic": 0.25, "miprov2": 0.05, "gepa": 0.05}, situation=other)
        past += history(chance, 60, {"genetic": 0.08, "miprov2": 0.08, "gepa": 0.08}, first=1000)
        claims += bool(judged(CAPPED, past).worse)

    assert claims / 60 <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 60)


def test_a_claim_holds_at_whatever_time_it_is_looked_for() -> None:
    """(b) Who looks after every few optimizations sees a claim as rarely as its level says, over all looks together."""
    ever = 0
    for seed in range(120):
        past = history(random.Random(f"looks/{seed}"), 64, {"genetic": 0.1, "miprov2": 0.1}, spread=0.15)
        looks = (judge(CAPPED, past[:n], usable=ALL, preferred=RULES) for n in range(8, 65, 4))
        ever += any(isinstance(one, Judgement) and bool(one.worse) for one in looks)

    assert ever / 120 <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 120)


def test_no_difference_is_claimed_where_algorithms_vary_unequally() -> None:
    """(b) A harder control: the two that ran seldom vary five times as much as the one that ran often."""
    spreads = {"gepa": 0.08, "genetic": 0.03, "miprov2": 0.15}
    claims = decided = 0
    for seed in range(REPEATS):
        chance = random.Random(f"unequal/{seed}")
        past = []
        for number in range(40):
            name = chance.choices(sorted(spreads), (1, 8, 1))[0]
            gain = max(0.1 + chance.gauss(0.0, spreads[name]), 1e-4)
            past.append(lesson(number, CAPPED, gained(name, gain, sealed=gain)))
        found = judge(CAPPED, past, usable=ALL, preferred=RULES)
        if isinstance(found, Judgement):
            decided += 1
            claims += bool(found.worse)

    assert decided > 0.9 * REPEATS
    assert claims / decided <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / decided)


def test_no_difference_is_claimed_when_auto_made_the_past_itself() -> None:
    """(b) The hardest control: who looked better by chance got the runs and the rest of the calls, every time anew."""
    claims = sum(bool(judged(CAPPED, made_by_auto(random.Random(f"loop/{seed}"))).worse) for seed in range(60))

    assert claims / 60 <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 60)


def made_by_auto(chance: random.Random) -> list[Lesson]:
    """Return forty optimizations whose algorithms `auto` chose, now and then a person; all gain the same on average."""
    past: list[Lesson] = []
    for number in range(40):
        taken = [one.name for one in choose(CAPPED, past, can_run=ALL.__contains__, seed=number).algorithms]
        if chance.random() < 0.3:
            taken = ["genetic"]
        target = chance.gauss(0.0, 0.04)
        holds = {name: 0.08 + target + chance.gauss(0.0, 0.07) for name in taken}
        val = {name: max(holds[name] + chance.gauss(0.03, 0.04), 1e-4) for name in taken}
        best = max(taken, key=lambda name: val[name])
        shown = [
            gained(
                name,
                val[name] if name == best else val[name] / 2,
                sealed=holds[name] if name == best else None,
                calls=950 if len(taken) == 1 else 740 if name == best else 240,
                points=[(200, val[name] / 2), *([(720, val[name])] if name == best else [])],
            )
            for name in sorted(taken)
        ]
        past.append(lesson(number, CAPPED, *shown))
    return past


def test_sealed_splits_correct_what_val_promises() -> None:
    """(c) One algorithm looks best on val and holds little; without the gate's answers it would be taken."""
    truth, optimism = {"genetic": 0.03, "miprov2": 0.12, "gepa": 0.05}, {"genetic": 0.20}
    corrected = fooled = 0
    for seed in range(40):
        corrected += most(history(random.Random(seed), 60, truth, optimism=optimism), CAPPED) == "miprov2"
        fooled += most(history(random.Random(seed), 60, truth, optimism=optimism, sealed=False), CAPPED) == "genetic"

    assert corrected >= 38
    assert fooled >= 38


def test_a_gain_on_val_alone_counts_half_until_a_sealed_split_was_seen() -> None:
    """The share is the algorithm's own as soon as it has been at the gate often enough."""
    lessons = [lesson(number, CAPPED, gained("gepa", 0.2), gained("mine", 0.2)) for number in range(400)]
    held = [replace(one, gained=(replace(one.gained[0], sealed=0.2), one.gained[1])) for one in lessons]

    assert math.isclose(0.1, by_name(judged(CAPPED, lessons))["gepa"], rel_tol=0.02)
    assert math.isclose(0.2, by_name(judged(CAPPED, held))["gepa"], rel_tol=0.02)


def test_how_much_there_is_counts_where_there_is_most() -> None:
    """At fewer calls than there are for searching, when no search got that far."""
    lessons = [lesson(number, CAPPED, gained("gepa", 0.1, calls=240)) for number in range(5)]

    found = judge(CAPPED, lessons, usable=ALL, preferred=RULES)

    assert TooLittle(comparable=5, optimizations={"gepa": 5}) == found
