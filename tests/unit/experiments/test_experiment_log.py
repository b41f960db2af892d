"""The state is a function of the set of rows: order, repetitions and late arrivals decide nothing."""

import itertools
import math
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from experiment_world import (
    ERRORS,
    LATENCY,
    OPTIMIZATION,
    analysed,
    exposure,
    log_of,
    outcome,
    plan,
    seconds,
    units_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.log import ExperimentLog, LogCounts
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan, MissingOutcome, UnitRule, Window
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.experiments.unit import Unit, unit_of

PLAN = plan(guardrails=(LATENCY, ERRORS))
LONG_AFTER = seconds(1e6)

Row = Exposure | Outcome


def only(of: ExperimentPlan, *rows: Row) -> Unit:
    """The one usable unit that rows make."""
    (unit,) = log_of(of, rows).usable(LONG_AFTER)
    return unit


def counts(*rows: Row) -> LogCounts:
    return log_of(PLAN, rows).counts()


def test_the_first_exposure_of_a_unit_counts() -> None:
    """By when it was served, not by when the row came; later ones are repetitions."""
    rows = [exposure(PLAN, "u1", at) for at in (30.0, 10.0, 20.0)]

    assert seconds(10) == only(PLAN, *rows).exposed_at
    assert (1, 2, 0) == (counts(*rows).units, counts(*rows).repeated_exposures, counts(*rows).crossovers)


def test_a_unit_stays_in_the_variant_it_was_exposed_to_first() -> None:
    """The split rose and it was served the other version: intention to treat, and it is counted."""
    unit = units_of(PLAN, Variant.BASELINE, 1)[0]
    moved = replace(
        exposure(PLAN, unit, 50.0), variant=Variant.OPTIMIZED, split=Split(buckets=9_999), version=PLAN.optimized
    )
    rows = [moved, exposure(PLAN, unit, 10.0), outcome(PLAN, unit, "e1", 60.0)]

    assert (Variant.BASELINE, 0.5, 1.0) == (
        only(PLAN, *rows).variant,
        only(PLAN, *rows).split.share,
        only(PLAN, *rows).score,
    )
    assert 1 == counts(*rows).crossovers


def test_an_exposure_that_comes_after_the_grace_does_not_exist() -> None:
    """Its unit may have been looked at already without it."""
    late = exposure(PLAN, "u1", 10.0, received=70.1)
    timely = exposure(PLAN, "u1", 20.0, received=80.0)

    assert [] == log_of(PLAN, [late]).usable(LONG_AFTER)
    assert seconds(20) == only(PLAN, timely, late).exposed_at
    assert 1 == counts(timely, late).late_exposures
    assert seconds(10) == only(PLAN, timely, replace(late, received_at=seconds(70))).exposed_at


def test_the_same_event_twice_counts_once() -> None:
    """Told again later, with or without a time of its own."""
    told = outcome(PLAN, "u1", "e1", 20.0, score=0.25)
    untimed = replace(told, happened_at=None, event_id="e2")
    rows = [
        exposure(PLAN, "u1", 10.0),
        told,
        replace(told, received_at=seconds(30)),
        untimed,
        replace(untimed, received_at=seconds(40)),
    ]

    assert (0.25, 2) == (only(PLAN, *rows).score, only(PLAN, *rows).n_events)
    assert (2, 2, 0) == (counts(*rows).events, counts(*rows).repeated_outcomes, counts(*rows).conflicting_outcomes)


def test_of_an_event_told_differently_the_one_received_first_counts() -> None:
    """Whichever row came first to the log; the other one is a conflict, told twice it is two."""
    first = outcome(PLAN, "u1", "e1", 20.0, received=25.0, score=1.0)
    other = outcome(PLAN, "u1", "e1", 20.0, received=26.0, score=0.0)
    rows = [exposure(PLAN, "u1", 10.0), other, first, replace(other, received_at=seconds(27))]

    assert 1.0 == only(PLAN, *rows).score
    assert 1.0 == only(PLAN, *reversed(rows)).score
    assert (1, 0, 2) == (counts(*rows).events, counts(*rows).repeated_outcomes, counts(*rows).conflicting_outcomes)


def test_of_two_received_at_one_moment_the_content_decides() -> None:
    """A tie is broken by what is in the rows."""
    rows = [
        outcome(PLAN, "u1", "e1", 20.0, received=25.0, score=1.0),
        outcome(PLAN, "u1", "e1", 20.0, received=25.0, score=0.0),
    ]
    shown = exposure(PLAN, "u1", 10.0)

    assert only(PLAN, shown, *rows) == only(PLAN, *reversed(rows), shown)


def test_an_event_belongs_to_one_unit() -> None:
    """The same id told of another exposure is a conflict, and takes nothing from the one it was first told of."""
    rows = [
        exposure(PLAN, "u1", 10.0),
        exposure(PLAN, "u2", 11.0),
        outcome(PLAN, "u2", "e1", 20.0, received=30.0),
        outcome(PLAN, "u1", "e1", 20.0, received=29.0),
    ]
    units = log_of(PLAN, rows).usable(LONG_AFTER)

    assert [1.0, None] == [unit.score for unit in units]
    assert 1 == counts(*rows).conflicting_outcomes


@pytest.mark.parametrize(
    ("at", "received", "counted", "field"),
    [
        (10.0, 10.0, 1, "counted_events"),  # at t0
        (3_610.0, 3_610.0, 1, "counted_events"),  # at t0 + W
        (3_610.0, 3_670.0, 1, "counted_events"),  # and at the end of the grace
        (9.999, 12.0, 0, "early_outcomes"),
        (3_610.001, 3_611.0, 0, "outside_window"),
        (20.0, 3_670.001, 0, "late_outcomes"),
    ],
)
def test_events_count_in_the_window_when_their_news_comes_in_time(
    at: float, received: float, counted: int, field: str
) -> None:
    """[t0, t0 + W], received by t0 + W + grace; both ends belong to it."""
    rows = [exposure(PLAN, "u1", 10.0), outcome(PLAN, "u1", "e1", at, received=received)]

    assert counted == only(PLAN, *rows).n_events
    assert 1 == getattr(counts(*rows), field)
    assert counted == counts(*rows).counted_events


def test_events_of_nobody_wait_and_are_counted() -> None:
    """Until their exposure comes."""
    log = log_of(PLAN, [outcome(PLAN, "u1", "e1", 20.0)])

    assert (1, 0) == (log.counts().unknown_exposures, len(log.usable(LONG_AFTER)))
    log.add_exposure(exposure(PLAN, "u1", 10.0))
    assert (0, 1) == (log.counts().unknown_exposures, log.counts().counted_events)
    assert exposure(PLAN, "u1", 10.0) == log.first_exposure(PLAN.assigner.exposure_id(exposure(PLAN, "u1", 1).unit_id))


def test_a_unit_is_usable_once_its_window_and_grace_have_passed() -> None:
    """At t0 + W + grace, not a microsecond before; exposures at t0 + grace."""
    log = log_of(PLAN, [exposure(PLAN, "u1", 10.0)])

    assert [] == log.usable(seconds(3_670) - timedelta(microseconds=1))
    assert 1 == len(log.usable(seconds(3_670)))
    assert [] == log.exposed(seconds(70) - timedelta(microseconds=1))
    assert 1 == len(log.exposed(seconds(70)))


def test_units_follow_each_other_by_exposure_and_then_by_id() -> None:
    """And go on after a place."""
    log = log_of(PLAN, [exposure(PLAN, unit, at) for unit, at in (("b", 1.0), ("c", 0.0), ("a", 1.0), ("A", 1.0))])
    units = log.usable(LONG_AFTER)

    assert ["c", "A", "a", "b"] == [unit.unit_id for unit in units]
    assert ["a", "b"] == [unit.unit_id for unit in log.usable(LONG_AFTER, after=units[1].place)]
    assert ["c", "A", "a", "b"] == [one.unit_id for one in log.exposed(LONG_AFTER)]


@pytest.mark.parametrize(
    ("rule", "missing", "scores", "expected"),
    [
        (UnitRule.MEAN, MissingOutcome.EXCLUDE, [0.0, 1.0, 0.5, 0.5], 0.5),
        (UnitRule.ANY_SUCCESS, MissingOutcome.EXCLUDE, [0.0, 1.0, 0.0], 1.0),
        (UnitRule.ANY_SUCCESS, MissingOutcome.EXCLUDE, [0.0, 0.9], 0.0),
        (UnitRule.MEAN, MissingOutcome.EXCLUDE, [], None),
        (UnitRule.MEAN, MissingOutcome.ZERO, [], 0.0),
        (UnitRule.ANY_SUCCESS, MissingOutcome.ZERO, [], 0.0),
    ],
)
def test_the_events_of_a_unit_make_one_score(
    rule: UnitRule, missing: MissingOutcome, scores: list[float], expected: float | None
) -> None:
    """Mean or any success; without an event what the plan says."""
    of = plan(primary=replace(PLAN.primary, unit_rule=rule, missing=missing))
    told = [outcome(of, "u1", f"e{number}", 20.0, score=score) for number, score in enumerate(scores)]

    assert expected == only(of, exposure(of, "u1", 10.0), *told).score


def test_the_order_of_events_does_not_touch_the_last_bit() -> None:
    """These seven scores have sums that differ by their order; their mean does not."""
    scores = [0.1, 0.7, 0.2, 0.9, 0.3, 1e-16, 1e-16]
    told = [outcome(PLAN, "u1", f"e{number}", 20.0, score=score) for number, score in enumerate(scores)]
    orders = [random.Random(seed).sample(told, len(told)) for seed in range(30)]
    found = {unit_of(PLAN, exposure(PLAN, "u1", 10.0), order).score for order in orders}

    assert 1 < len({sum(one.score or 0.0 for one in order) for order in orders})
    assert {math.fsum(scores) / 7} == found


def test_of_two_exposures_at_one_moment_the_rows_decide() -> None:
    """Received first, then by the smaller split; whichever came to the log first."""
    narrow = exposure(PLAN, "u1", 10.0, received=12.0)
    wide = replace(narrow, split=Split(buckets=9_999), variant=Variant.OPTIMIZED, version=PLAN.optimized)
    earlier = replace(wide, received_at=seconds(11))

    for rows, expected in (((narrow, wide), narrow), ((narrow, wide, earlier), earlier)):
        assert {expected.split} == {only(PLAN, *order).split for order in itertools.permutations(rows)}


def test_events_without_a_score_say_something_of_guardrails_only() -> None:
    """Latency alone is no zero; a guardrail nobody spoke of has no value."""
    rows = [
        exposure(PLAN, "u1", 10.0),
        outcome(PLAN, "u1", "e1", 20.0, latency_ms=200.0),
        outcome(PLAN, "u1", "e2", 21.0, latency_ms=400.0),
        outcome(PLAN, "u1", "e3", 22.0, score=0.5),
    ]
    (latency, errors), silent = only(PLAN, *rows).harms, only(PLAN, rows[0]).harms

    assert (0.5, pytest.approx(0.3), 0.0) == (only(PLAN, *rows).score, latency, errors)
    assert (None, None) == silent


def test_rows_of_another_experiment_are_refused() -> None:
    """A log is of one."""
    log = ExperimentLog(PLAN)
    other = ExperimentId(OPTIMIZATION)
    with pytest.raises(InvalidRequestError, match=r"u1: wanted: a row of experiment .*; found: one of .*; possible"):
        log.add_exposure(replace(exposure(PLAN, "u1", 1.0), experiment_id=other))
    with pytest.raises(InvalidRequestError, match="e1: wanted: a row of experiment"):
        log.add_outcome(replace(outcome(PLAN, "u1", "e1", 1.0), experiment_id=other))

    assert LogCounts() == log.counts()
    assert {0} == set(log.counts().to_json().values())


# Few units, events, moments and values, so that repetitions, conflicts, ties and late rows are the rule.
SMALL = plan(guardrails=(LATENCY, ERRORS), window=Window(seconds=20.0, grace_seconds=5.0), split=Split(buckets=4_000))
_moments = st.integers(0, 60)
_delays = st.sampled_from([0, 0, 1, 4, 5, 6, 20, 26, 40])


@st.composite
def _rows(draw: st.DrawFn) -> list[Row]:
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 14))):
        at, unit = draw(_moments), draw(st.sampled_from("abcd"))
        shown = exposure(SMALL, unit, at, received=at + draw(_delays))
        if draw(st.booleans()):
            split = Split(buckets=8_000)
            variant = split.variant(SMALL.assigner.unit_hash.bucket(unit))
            shown = replace(shown, split=split, variant=variant, version=SMALL.version(variant))
        rows.append(shown)
    for _ in range(draw(st.integers(0, 25))):
        at = draw(_moments)
        said: dict[str, Any] = draw(
            st.sampled_from(
                [
                    {"score": 0.1},
                    {"score": 0.7},
                    {"failed": True},
                    {"latency_ms": 300.0},
                    {"score": 1.0, "cost_usd": 1.0},
                ]
            )
        )
        event = f"e{draw(st.integers(0, 9))}"
        row = outcome(SMALL, draw(st.sampled_from("abcd")), event, at, received=at + draw(_delays), **said)
        rows.append(row if draw(st.booleans()) else replace(row, happened_at=None))
    return rows


@settings(max_examples=150, deadline=None)
@given(rows=_rows(), seed=st.integers(0, 2**32), as_of=st.integers(0, 130))
def test_any_order_with_any_repetition_makes_the_same_state(rows: list[Row], seed: int, as_of: int) -> None:
    """Units, exposures, counts and the whole analysis, bit for bit."""
    shuffled = [*rows, *random.Random(seed).choices(rows, k=len(rows))] if rows else []
    random.Random(seed).shuffle(shuffled)
    straight, other = log_of(SMALL, rows), log_of(SMALL, shuffled)
    moment = seconds(as_of)

    assert straight.usable(moment) == other.usable(moment)
    assert straight.exposed(moment) == other.exposed(moment)
    assert straight.counts() == other.counts()
    assert analysed(SMALL, straight, moment).to_json() == analysed(SMALL, other, moment).to_json()


@settings(max_examples=150, deadline=None)
@given(rows=_rows(), looks=st.lists(st.integers(0, 130), min_size=1, max_size=8))
def test_looking_as_rows_come_in_ends_where_the_whole_log_does(rows: list[Row], looks: list[int]) -> None:
    """Every look sees the rows received until then; recomputed from the log it is the same, bit for bit."""
    arriving = sorted(rows, key=lambda row: row.received_at)
    growing, analysis = ExperimentLog(SMALL), analysed(SMALL, ExperimentLog(SMALL), seconds(0))
    for look in sorted(looks):
        moment = seconds(look)
        while arriving and arriving[0].received_at <= moment:
            row = arriving.pop(0)
            if isinstance(row, Exposure):
                growing.add_exposure(row)
            else:
                growing.add_outcome(row)
        analysis = analysed(SMALL, growing, moment, analysis)

        assert analysed(SMALL, log_of(SMALL, rows), moment).to_json() == analysis.to_json()
