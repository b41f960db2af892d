"""The door of the log, and the rows behind it."""

import math
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from experiment_world import BASELINE, OPTIMIZATION, exposure, outcome, plan, seconds

from dspy_optimization.errors import InvalidRequestError, NotFoundError
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId
from dspy_optimization.experiments.guardrail import Guardrail, GuardrailKind
from dspy_optimization.experiments.outcome import score_of
from dspy_optimization.experiments.recording import check_exposure, check_outcome, exposure_of
from dspy_optimization.experiments.split import Split, Variant

PLAN = plan()
SHOWN = exposure(PLAN, "u1", 100.0)


def test_an_assignment_becomes_an_exposure() -> None:
    """With the version that answered, and the propensity it was drawn with."""
    assignment = PLAN.assigner.assign("u1", PLAN.split)
    row = exposure_of(PLAN, assignment, exposed_at=seconds(100), received_at=seconds(100))

    assert SHOWN == row
    assert 0.5 == row.propensity
    assert PLAN.version(row.variant) == row.version
    assert row.to_json()["propensity"] == 0.5
    check_exposure(PLAN, row)


def test_who_is_not_in_the_experiment_leaves_no_row() -> None:
    """No exposure without a unit."""
    with pytest.raises(InvalidRequestError, match=r"not \(no_unit\)"):
        exposure_of(PLAN, PLAN.assigner.assign(None, PLAN.split), exposed_at=seconds(1), received_at=seconds(1))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"experiment_id": ExperimentId(OPTIMIZATION)}, "experiment"),
        ({"id": ExposureId(UUID(int=1))}, "exposure id"),
        ({"variant": Variant.BASELINE if SHOWN.variant is Variant.OPTIMIZED else Variant.OPTIMIZED}, "variant"),
        ({"version": "0" * 64}, "version"),
    ],
)
def test_an_exposure_that_nobody_drew_is_refused(changed: dict[str, Any], named: str) -> None:
    """Recorded elsewhere, worked out again here."""
    with pytest.raises(InvalidRequestError, match=rf"u1: wanted: {named} .*; found: .*; possible: record what"):
        check_exposure(PLAN, replace(SHOWN, **changed))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"unit_id": ""}, "unit id"),
        ({"split": Split(buckets=0)}, "units for both versions"),
        ({"exposed_at": seconds(101)}, "that has happened"),
        ({"exposed_at": seconds(1).replace(tzinfo=None)}, "exposed_at: wanted: a moment with its time zone"),
    ],
)
def test_an_exposure_that_cannot_be_is_refused(changed: dict[str, Any], named: str) -> None:
    """By its constructor."""
    with pytest.raises(InvalidRequestError, match=named):
        replace(SHOWN, **changed)


def test_moments_are_kept_in_utc() -> None:
    """The same moment, said in another zone, is the same row."""
    there = timezone(timedelta(hours=5))
    row = replace(SHOWN, exposed_at=seconds(100).astimezone(there), received_at=seconds(100).astimezone(there))

    assert SHOWN == row
    assert UTC is row.exposed_at.tzinfo


def test_an_outcome_of_a_known_exposure_is_taken() -> None:
    """From the moment of the exposure on."""
    check_outcome(outcome(PLAN, "u1", "e1", 100.0), {SHOWN.id: SHOWN})
    check_outcome(outcome(PLAN, "u1", "e1", 200.0), {SHOWN.id: SHOWN})


def test_an_outcome_before_its_exposure_is_refused() -> None:
    """It cannot have come of it."""
    with pytest.raises(InvalidRequestError, match=r"e1: wanted: .* after its exposure at .*; found: .*; possible"):
        check_outcome(outcome(PLAN, "u1", "e1", 99.9), {SHOWN.id: SHOWN})


def test_an_outcome_of_an_unknown_exposure_is_refused() -> None:
    """Also when the id is one of another experiment."""
    with pytest.raises(
        NotFoundError, match=r"e1: wanted: a recorded exposure .*; found: .*; possible: the exposure_id"
    ):
        check_outcome(outcome(PLAN, "u1", "e1", 200.0), {})
    stranger = replace(SHOWN, experiment_id=ExperimentId(OPTIMIZATION))
    with pytest.raises(NotFoundError):
        check_outcome(outcome(PLAN, "u1", "e1", 200.0), {SHOWN.id: stranger})


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"score": 1.0001}, "e1: score"),
        ({"score": -0.1}, "e1: score"),
        ({"score": math.nan}, "e1: score"),
        ({"score": math.inf}, "e1: score"),
        ({"score": "1"}, "e1: score"),
        ({"score": True}, "e1: score"),
        ({"cost_usd": -1.0}, "e1: cost_usd"),
        ({"latency_ms": math.inf}, "e1: latency_ms"),
        ({"latency_ms": 10**400}, "e1: latency_ms"),
        ({"scores": (("safety", 2.0),)}, "e1: scores: safety"),
        ({"scores": (("safety", 1.0), ("safety", 0.5))}, "one score a metric"),
        ({"failed": False}, "at least one thing"),
    ],
)
def test_what_an_outcome_cannot_say_is_refused(said: dict[str, Any], named: str) -> None:
    """Out of range, no number, nothing at all."""
    with pytest.raises(InvalidRequestError, match=rf"{named}.*found: .*; possible"):
        outcome(PLAN, "u1", "e1", 200.0, **said)


@pytest.mark.parametrize("event_id", ["", "  ", "x" * 257, 5])
def test_an_event_id_is_a_short_text(event_id: Any) -> None:
    """Idempotency hangs on it."""
    with pytest.raises(InvalidRequestError, match="event_id: wanted: text"):
        outcome(PLAN, "u1", event_id, 200.0)


def test_an_outcome_has_happened_when_it_is_told() -> None:
    """The future is refused; without a time the receipt counts."""
    with pytest.raises(InvalidRequestError, match=r"that has happened; found: .*; possible: leave happened_at out"):
        outcome(PLAN, "u1", "e1", 201.0, received=200.0)
    untimed = replace(outcome(PLAN, "u1", "e1", 200.0), happened_at=None)

    assert seconds(200) == untimed.at
    assert replace(untimed, received_at=seconds(900)).content == untimed.content


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"score": 0.25}, 0.25),
        ({"score": 1}, 1.0),
        ({"success": True}, 1.0),
        ({"success": False}, 0.0),
    ],
)
def test_a_success_is_a_score(given: dict[str, Any], expected: float | None) -> None:
    """One of the two, or neither."""
    assert expected == score_of("e1", **given)


@pytest.mark.parametrize("given", [{"score": 1.0, "success": True}, {"success": 1}, {"success": "yes"}, {"score": "1"}])
def test_neither_both_nor_half_a_success(given: dict[str, Any]) -> None:
    """1 is no true."""
    with pytest.raises(InvalidRequestError, match=r"'e1'.*wanted: .*; found: .*; possible"):
        score_of("e1", **given)


def test_a_failure_without_a_score_is_a_score_of_0() -> None:
    """With one, the score counts."""
    assert 0.0 == outcome(PLAN, "u1", "e1", 200.0, failed=True).primary
    assert 0.5 == outcome(PLAN, "u1", "e1", 200.0, failed=True, score=0.5).primary
    assert outcome(PLAN, "u1", "e1", 200.0, latency_ms=5.0).primary is None


@pytest.mark.parametrize(
    ("guardrail", "said", "expected"),
    [
        ({"kind": GuardrailKind.LATENCY, "limit": 2_000.0}, {"latency_ms": 500.0}, 0.25),
        ({"kind": GuardrailKind.LATENCY, "limit": 2_000.0}, {"latency_ms": 9_000.0}, 1.0),
        ({"kind": GuardrailKind.LATENCY, "limit": 2_000.0}, {"score": 1.0}, None),
        ({"kind": GuardrailKind.LATENCY_TAIL, "limit": 500.0}, {"latency_ms": 500.0}, 0.0),
        ({"kind": GuardrailKind.LATENCY_TAIL, "limit": 500.0}, {"latency_ms": 500.1}, 1.0),
        ({"kind": GuardrailKind.LATENCY_TAIL, "limit": 500.0}, {"score": 1.0}, None),
        ({"kind": GuardrailKind.COST, "limit": 0.1}, {"cost_usd": 0.05}, 0.5),
        ({"kind": GuardrailKind.COST, "limit": 0.1}, {"cost_usd": 0.0}, 0.0),
        ({"kind": GuardrailKind.ERROR_RATE}, {"failed": True}, 1.0),
        ({"kind": GuardrailKind.ERROR_RATE}, {"score": 0.0}, 0.0),
        ({"kind": GuardrailKind.SHORTFALL, "metric": "safety"}, {"scores": (("safety", 0.75),)}, 0.25),
        ({"kind": GuardrailKind.SHORTFALL, "metric": "safety"}, {"scores": (("tone", 0.75),)}, None),
    ],
)
def test_a_guardrail_measures_in_0_to_1_where_less_is_better(
    guardrail: dict[str, Any], said: dict[str, Any], expected: float | None
) -> None:
    """min(x, C) / C, or 1 where x exceeds the objective; nothing where nothing is said."""
    assert expected == Guardrail(name="g", **guardrail).harm(outcome(PLAN, "u1", "e1", 200.0, **said))


def test_rows_say_what_they_are_in_json() -> None:
    """For pages and answers."""
    assert BASELINE != SHOWN.version or SHOWN.variant is Variant.BASELINE
    assert "u1" == SHOWN.to_json()["unit_id"]
    assert {"safety": 0.5} == outcome(PLAN, "u1", "e1", 1.0, scores=(("safety", 0.5),)).to_json()["scores"]
