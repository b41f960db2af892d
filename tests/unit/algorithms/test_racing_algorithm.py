"""Races of candidates: the best of a pool is found for a part of what asking all about everything costs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from benchmarks.simulated_agent import rule_text
from evolution_world import ANSWER, RIGHT, SHORT, Course, Place, PlainAgent, Truth, searched
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import PARAMETERS, Choices, ComponentSettings
from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.given import candidate_to_json
from dspy_optimization.algorithms.problem import Shape
from dspy_optimization.algorithms.racing import Racing, RacingOptions
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.errors import AlgorithmError, CancelRequested, InvalidRequestError
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Json
from dspy_optimization.testing.memory_ledger import MemoryLedger

METHODS = ("surrogate", "halving", "paired")
PLACE = Place(truth=Truth(seed=5), n_val=40)
SMALL = RacingOptions(evaluations=400, pool=12, demo_pool=6, bootstrap_examples=6, instructions=2)


def raced(place: Place = PLACE, options: RacingOptions = SMALL, **more: object) -> Course:
    found = searched(place, Racing(), options, **more)  # type: ignore[arg-type]
    assert [] == found.run.after_end
    return found


def of_rules(*rules: int, **more: object) -> Candidate:
    text = " ".join(["Answer the question.", *(rule_text(rule) for rule in rules)])
    return Candidate(components={ANSWER: ComponentValue(instructions=text, **more)}, origin="planted")  # type: ignore[arg-type]


def planted(place: Place, count: int = 16) -> tuple[Candidate, tuple[Candidate, ...]]:
    """Return the one with every rule that helps alone, and others with one that hurts more and more."""
    helping = [rule for rule in range(16) if place.truth.rules[rule] > 0.1]
    hurting = sorted(set(range(16)) - set(helping), key=lambda rule: place.truth.rules[rule])
    best = of_rules(*helping)
    others = tuple(of_rules(helping[number % len(helping)], hurting[number % len(hurting)]) for number in range(count))
    return best, others


def as_given(candidates: tuple[Candidate, ...]) -> tuple[Mapping[str, Json], ...]:
    return tuple(candidate_to_json(one, one.origin) for one in candidates)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_of_a_pool_wins(method: str, seed: int) -> None:
    """Given last, for a part of what everything costs."""
    place = replace(PLACE, truth=Truth(seed=60 + seed))
    best, others = planted(place)
    given_ones = as_given((*others, best))
    options = replace(SMALL, method=method, pool=0, evaluations=250, candidates=given_ones)  # type: ignore[arg-type]
    found = raced(place, options, seed=seed)

    assert found.ended is None
    assert best == found.best
    assert 1 == len(found.run.submitted)
    assert len(found.run.cells) <= 250 < len({*others, best, place.agent.baseline}) * 40
    assert 40 == len(found.on_val()[best.fingerprint])


@pytest.mark.parametrize("method", METHODS)
def test_drawn_candidates_race_too(method: str) -> None:
    """Of demos and texts; whoever wins is better than the baseline in truth."""
    found = raced(options=replace(SMALL, method=method))  # type: ignore[arg-type]
    measured = found.on_val()

    assert found.ended is None
    assert 13 == len(measured)
    assert found.gain > 0.0
    assert found.best.fingerprint in measured
    told = found.run.reports[-1]
    assert ("raced", found.best, 13) == (told.phase, told.candidate, told.data["candidates"])
    assert len(found.run.cells) == told.data["evaluations"]
    assert (method != "surrogate") <= (told.data["surrogate_doubt"] is None)


@pytest.mark.parametrize("method", METHODS)
def test_cells_are_paid_once_and_trials_are_what_came(method: str) -> None:
    found = raced(options=replace(SMALL, method=method))  # type: ignore[arg-type]

    assert 1 == max(Counter(found.run.cells).values())
    assert len(found.run.cells) == sum(len(of) for of in found.on_val().values()) <= 400
    for of in found.on_val().values():
        for one in of.values():
            assert float(one.outputs["answer"] != "A") == one.scores["right"].value


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_is_the_same_race(method: str) -> None:
    """Whatever order answers come in; run again on the same ledger it pays nothing, ended and run again the rest."""
    options = replace(SMALL, method=method)  # type: ignore[arg-type]
    ledger, part = MemoryLedger(), MemoryLedger()
    straight = raced(options=options, ledger=ledger, concurrency=1)

    assert straight.content == raced(options=options, concurrency=8, shuffled="order").content
    again = raced(options=options, ledger=ledger)
    assert (0, straight.content) == (again.paid, again.content)
    ended = raced(options=options, ledger=part, stop_at_call=120)
    assert isinstance(ended.ended, CancelRequested)
    rest = raced(options=options, ledger=part)
    assert straight.content == rest.content
    assert straight.paid == ended.paid + rest.paid
    assert straight.content != raced(options=options, seed=99).content


def test_candidates_found_before_race_where_they_may() -> None:
    best, others = planted(PLACE, 4)
    options = replace(SMALL, pool=0, evaluations=200)

    with_them = raced(options=options, known=(*others, best))
    assert best == with_them.best
    assert {*(one.fingerprint for one in others), best.fingerprint} < set(with_them.on_val())
    without = raced(options=replace(options, earlier=False, candidates=as_given(others)), known=(best,))
    assert best.fingerprint not in without.on_val()


def test_the_order_in_which_others_found_them_decides_nothing() -> None:
    best, others = planted(PLACE, 5)
    options = replace(SMALL, pool=0, evaluations=200)

    one = raced(options=options, known=(*others, best))
    assert one.content == raced(options=options, known=(best, *reversed(others))).content


def test_who_is_there_twice_races_once_and_the_baseline_stays_the_first() -> None:
    """Given as well as found before, the baseline given again."""
    best, others = planted(PLACE, 3)
    again = (*others, PLACE.agent.baseline, best, best)
    found = raced(options=replace(SMALL, pool=0, candidates=as_given(again)), known=(best, *others))

    assert found.ended is None
    assert 5 == len(found.on_val())
    assert PLACE.agent.baseline.fingerprint == found.run.trials[0].candidate.fingerprint


DEMOS: tuple[Mapping[str, Json], ...] = tuple({"question": f"Q{n}", "answer": f"A{n}"} for n in range(7))


@pytest.mark.parametrize("method", METHODS)
def test_candidates_that_no_genes_describe_race_as_well(method: str) -> None:
    """More demos than drawn ones may show, and other settings; drawn ones show no more for it."""
    choices = {ANSWER: Choices(parameters={"temperature": PARAMETERS["temperature"]})}
    place = replace(PLACE, agent=PlainAgent(choices=choices))
    best, _ = planted(place)
    many = replace(best.components[ANSWER], demos=DEMOS)
    warm = ComponentValue(instructions="x", settings=ComponentSettings(parameters={"temperature": 0.55}))
    given_ones = tuple(Candidate(components={ANSWER: value}, origin="given") for value in (many, warm))
    options = replace(SMALL, method=method, demos=2, candidates=as_given(given_ones))  # type: ignore[arg-type]
    found = raced(place, options)

    assert found.ended is None
    assert {one.fingerprint for one in given_ones} < set(found.on_val())
    shown = {
        len(one.candidate.components[ANSWER].demos)
        for one in found.run.trials
        if one.split is Split.VAL and one.candidate not in given_ones
    }
    assert {0, 1, 2} >= shown
    assert 2 in shown


@pytest.mark.parametrize("method", METHODS)
def test_a_winner_hurts_no_guardrail_where_somebody_does_not(method: str) -> None:
    """The best answers with a prompt four times as long as it may be: the next best wins."""
    place = replace(PLACE, goals=(RIGHT, replace(SHORT, guardrail=True, margin=1.5)), scales={"tokens": 20.0})
    best, others = planted(place, 4)
    helping = max(range(16), key=lambda rule: place.truth.rules[rule])
    short = of_rules(helping)
    options = replace(SMALL, method=method, pool=0, candidates=as_given((best, *others, short)))  # type: ignore[arg-type]
    found = raced(place, options)
    of = found.on_val()[found.best.fingerprint].values()

    assert best != found.best
    assert sum(one.scores["tokens"].value for one in of) / len(of) <= 50.0


@pytest.mark.parametrize("stop_at_call", [1, 5, 30, 80, 200, 300])
def test_whoever_ends_a_race_finds_the_best_known_submitted(stop_at_call: int) -> None:
    """Once somebody was measured; before it there is nothing to name."""
    best, others = planted(PLACE)
    options = replace(SMALL, pool=0, method="halving", candidates=as_given((*others, best)))
    found = raced(options=options, stop_at_call=stop_at_call, concurrency=1)

    assert isinstance(found.ended, CancelRequested)
    assert 1 == len(found.run.submitted)
    if stop_at_call >= 200:
        assert best == found.best


def test_an_empty_pool_says_so() -> None:
    for place, options in (
        (PLACE, replace(SMALL, pool=0)),
        (Place(n_train=0), replace(SMALL, instructions=0)),
        (PLACE, replace(SMALL, pool=0, candidates=as_given((PLACE.agent.baseline,)))),
    ):
        found = raced(place, options)
        assert (
            "racing: wanted: at least one candidate beside the baseline; found: none; possible: pool: 40, candidates, "
            "or an algorithm before this one that finds some"
        ) == str(found.ended)
        assert [] == found.run.cells


@pytest.mark.parametrize(("evaluations", "calls", "found_room"), [(30, None, "20"), (None, 50, "18"), (400, 50, "18")])
def test_a_budget_too_small_is_said(evaluations: int | None, calls: int | None, found_room: str) -> None:
    found = raced(options=replace(SMALL, evaluations=evaluations, pool=20), calls=calls)

    assert isinstance(found.ended, AlgorithmError)
    assert str(found.ended).startswith(
        "racing: wanted: a budget for 42 runs on val at least, two for each of 21 candidates"
    )
    assert "; possible: more calls, or a smaller pool" in str(found.ended)
    assert 10 == len(found.run.cells)


def test_candidates_that_the_agent_cannot_have_are_refused() -> None:
    frozen = replace(PLACE, agent=PlainAgent(before=("read",), frozen=("read",)))
    wrong: Mapping[str, Json] = {"components": {"reed": {}}}
    other: Mapping[str, Json] = {"components": {"read": {"instructions": "x"}}}

    for place, one, said in (
        (PLACE, wrong, "a component of the agent; found: reed"),
        (frozen, other, "the frozen component read"),
    ):
        found = raced(place, replace(SMALL, candidates=(one,)))
        assert isinstance(found.ended, InvalidRequestError)
        assert f"candidates[0]: wanted: {said}" in str(found.ended) or said in str(found.ended)
        assert 0 == found.paid


def test_steps_that_are_frozen_stay() -> None:
    agent = PlainAgent(before=("read",), frozen=("read",))
    found = raced(replace(PLACE, agent=agent))
    read = agent.baseline.components[ComponentName("read")]

    assert found.ended is None
    assert all(read == one.candidate.components[ComponentName("read")] for one in found.run.trials)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(METHODS),
    evaluations=st.integers(10, 120),
    pool=st.integers(1, 10),
    n_val=st.integers(1, 25),
    n_train=st.integers(0, 10),
    block=st.integers(1, 12),
    demos=st.integers(0, 3),
    components=st.sampled_from((0, 1)),
    seed=st.integers(0, 9),
)
def test_no_race_takes_more_than_it_said(
    method: str,
    evaluations: int,
    pool: int,
    n_val: int,
    n_train: int,
    block: int,
    demos: int,
    components: int,
    seed: int,
) -> None:
    """Whatever the shape: runs on val, runs on train, texts; and whoever is submitted was measured."""
    place = Place(agent=PlainAgent(before=("read",) * components), n_val=n_val, n_train=n_train)
    options = replace(SMALL, method=method, evaluations=evaluations, pool=pool, block=block, demos=demos)  # type: ignore[arg-type]
    found = raced(place, options, seed=seed)
    forecast = Racing().forecast(options, Shape(n_train=n_train, n_val=n_val, n_components=1 + components))

    assert found.ended is None or isinstance(found.ended, AlgorithmError)
    assert len(found.run.cells) <= evaluations
    assert len(found.asked_of(Role.REFLECTION)) <= forecast.proposals
    train = sum(len(one.results) for one in found.run.trials if one.split is Split.TRAIN)
    assert len(found.run.cells) + train + n_val <= forecast.runs
    if found.ended is None:
        assert found.best.fingerprint in found.on_val()


@pytest.mark.parametrize(
    ("given_options", "said"),
    [
        ({"method": "lottery"}, "method"),
        ({"evaluations": 9}, "evaluations: wanted 10 or more; found 9"),
        ({"pool": -1}, "pool: wanted 0 or more"),
        ({"pool": 0, "earlier": False}, "pool: wanted: somebody to race; found: pool 0, no candidates"),
        ({"demos": -1}, "demos: wanted 0 or more"),
        ({"demo_pool": -1}, "demo_pool: wanted 0 or more"),
        ({"bootstrap_examples": -1}, "bootstrap_examples: wanted 0 or more"),
        ({"instructions": -1}, "instructions: wanted 0 or more"),
        ({"block": 0}, "block: wanted 1 or more"),
        ({"alpha": 0.0}, "alpha: wanted: above 0, at most 0.5; found: 0; possible: 0.02"),
        ({"alpha": 0.6}, "alpha: wanted: above 0, at most 0.5; found: 0.6"),
        ({"proposal_temperature": 0.0}, "proposal_temperature: wanted more than 0"),
        ({"candidates": [{"components": {"a": {}}}] * 257}, "candidates: wanted: at most 256; found: 257"),
    ],
)
def test_options_that_make_no_race_are_refused(given_options: dict[str, Json], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        AlgorithmRegistry.of_environment().options("racing", given_options)
