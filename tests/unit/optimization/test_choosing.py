"""What `auto` stands for."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from past_world import CAPPED, ROOMY, gained, history, lesson

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.optimization.choosing import EXPLORED, Choice, choose
from dspy_optimization.optimization.lesson import Lesson
from dspy_optimization.optimization.situation import Situation


def chosen(
    situation: Situation, lessons: Sequence[Lesson], seed: int = 0, lost: frozenset[str] = frozenset()
) -> Choice:
    return choose(situation, lessons, can_run=lambda name: name not in lost, seed=seed)


def names(choice: Choice) -> list[str]:
    return [one.name for one in choice.algorithms]


def both(number: int, one: float, other: float, **more: float) -> Lesson:
    shown = {"genetic": one, "miprov2": other, **more}
    return lesson(number, CAPPED, *(gained(name, gain, sealed=gain) for name, gain in shown.items()))


def dull(lessons: Sequence[Lesson]) -> int:
    """Return a seed by which nothing is explored."""
    return next(seed for seed in range(100) if "drawn by seed" not in chosen(CAPPED, lessons, seed).reason)


@pytest.mark.parametrize(
    ("situation", "algorithms", "because"),
    [
        (ROOMY, ["miprov2", "gepa"], "the better one gets the rest"),
        (replace(ROOMY, kind=AgentKind.HTTP), ["gepa"], "black box"),
        (replace(ROOMY, can_propose=False), ["bootstrap_random_search"], "too small to write instructions"),
        (replace(ROOMY, can_propose=False, n_train=19), ["labeled_fewshot", "bootstrap_fewshot"], "19 training"),
        (replace(ROOMY, can_propose=False, n_train=20), ["bootstrap_random_search"], "too small"),
        (replace(ROOMY, max_lm_calls=299), ["bootstrap_random_search"], "299 calls are too few"),
        (replace(ROOMY, max_lm_calls=300), ["miprov2", "gepa"], "enough examples and budget"),
        (replace(ROOMY, n_train=10), ["gepa"], "10 training examples are too few"),
        (replace(ROOMY, goals=2), ["genetic"], "2 goals have no single best candidate: genetic keeps a Pareto front"),
        (replace(ROOMY, goals=2, max_lm_calls=299), ["bootstrap_random_search"], "299 calls are too few"),
        (replace(ROOMY, goals=2, kind=AgentKind.HTTP), ["gepa"], "black box"),
    ],
)
def test_the_choice_follows_the_situation(situation: Situation, algorithms: list[str], because: str) -> None:
    """Target, data, model and budget decide, and the reason says which of them did."""
    choice = chosen(situation, [])

    assert algorithms == names(choice)
    assert because in choice.reason


def test_too_little_experience_is_said() -> None:
    """How much there is and how much is needed; the rules decide."""
    choice = chosen(CAPPED, [both(number, 0.3, 0.1) for number in range(5)])

    assert ["miprov2", "gepa"] == names(choice)
    assert choice.reason.endswith(
        "experience is not enough yet: 5 past optimizations like this one (genetic in 5, miprov2 in 5), needed are 8 "
        "with 2 algorithms in 3 each"
    )


def test_the_better_one_is_taken_with_its_numbers() -> None:
    """Gains with their intervals, how many showed them, and at how many calls."""
    lessons = [both(number, 0.3, 0.1) for number in range(12)]

    choice = chosen(CAPPED, lessons, dull(lessons))

    assert ["genetic"] == names(choice)
    assert (
        "12 past optimizations like this one: genetic gained 0.30 ± 0.01 in 12, miprov2 gained 0.10 ± 0.01 in 12 at "
        "1000 calls for searching"
    ) in choice.reason
    assert choice.reason.endswith("genetic is shown to gain more")


def test_those_that_cannot_be_told_apart_share() -> None:
    """The two with the most; the reason names all of them and claims nothing."""
    lessons = [both(number, 0.1 + number % 3 / 50, 0.12, gepa=0.12 - number % 2 / 30) for number in range(12)]

    choice = chosen(CAPPED, lessons, dull(lessons))

    assert 2 == len(choice.algorithms)
    assert "cannot tell" in choice.reason
    assert "shown to gain more" not in choice.reason


def test_where_nobody_gains_the_rules_have_a_place() -> None:
    """What is known to bring nothing is no reason to leave out what is not known."""
    lessons = [
        lesson(number, CAPPED, gained("simba", 0.0), gained("copro", 0.01 * (number % 2))) for number in range(12)
    ]

    choice = chosen(CAPPED, lessons)

    assert "miprov2" == names(choice)[1]
    assert "none is shown to gain anything, so miprov2, which the rules would take, has a place" in choice.reason


def test_an_algorithm_that_is_gone_is_not_taken() -> None:
    """With one that cannot run any more the rest is not enough, and it is not even named."""
    lessons = [both(number, 0.3, 0.1) for number in range(12)]

    choice = chosen(CAPPED, lessons, lost=frozenset({"genetic"}))

    assert ["miprov2", "gepa"] == names(choice)
    assert "genetic" not in choice.reason


def test_now_and_then_an_algorithm_with_little_data_has_a_place() -> None:
    """In a tenth of requests, by seed: the same seed and past choose the same, and the reason says it."""
    lessons = [both(number, 0.3, 0.1) for number in range(12)]

    drawn = [chosen(CAPPED, lessons, seed) for seed in range(1000)]
    explored = [one for one in drawn if len(one.algorithms) == 2]

    assert {("genetic", "gepa")} == {tuple(names(one)) for one in explored}
    assert all("gepa, of which little is known, has a place, as in 10% of requests" in one.reason for one in explored)
    assert abs(len(explored) / 1000 - EXPLORED) < 3 * (EXPLORED * (1 - EXPLORED) / 1000) ** 0.5
    assert drawn == [chosen(CAPPED, lessons[::-1], seed) for seed in range(1000)]


def test_the_default_seed_explores_too() -> None:
    """What was learned last counts for the draw, or a tenant that never names a seed would always or never explore."""
    counts = Counter(
        len(chosen(CAPPED, [both(number, 0.3, 0.1) for number in range(newest, newest + 12)]).algorithms)
        for newest in range(300)
    )

    assert 9 <= counts[2] <= 54


def test_choosing_by_a_long_past_is_fast() -> None:
    """Five hundred lessons of three algorithms: below 50 ms of the processor, the best of five."""
    lessons = history(random.Random(3), 500, {"gepa": 0.1, "genetic": 0.1, "miprov2": 0.1})

    took = []
    for _ in range(5):
        began = time.process_time()
        chosen(CAPPED, lessons)
        took.append(time.process_time() - began)

    assert min(took) < 0.05
