"""The decision rule, line by line and in its order."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from decision_world import (
    BAD_RATIO,
    BREACH,
    BREACHED,
    HARMFUL,
    MISMATCH,
    OPEN,
    PLAN,
    PROVEN,
    SUPERIOR,
    evidence,
)
from experiment_world import hours

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.deciding import Clock, Look, decide
from dspy_optimization.experiments.decision import Alert, Decision, DecisionState
from dspy_optimization.experiments.evidence import Evidence
from dspy_optimization.experiments.plan import Terms
from dspy_optimization.experiments.split import Variant


def look(found: Evidence, *, of: Any = PLAN, until: float = 168.0, alerted: bool = False) -> Look:
    return decide(of, found, Clock(started_at=hours(0), until_hours=until, is_alerted=alerted))


def decision(found: Evidence, **asked: Any) -> Decision:
    return look(found, **asked).decision


def test_the_first_finding_in_the_order_of_the_rule_decides() -> None:
    """All 16 combinations of mismatch, breach, harm and superiority, at any time."""
    findings = [
        (BAD_RATIO, DecisionState.INVALID),
        (BREACH, DecisionState.GUARDRAIL_BREACH),
        (HARMFUL, DecisionState.HARM),
        (SUPERIOR, DecisionState.WINNER),
    ]
    for size in range(1, 5):
        for chosen in itertools.combinations(findings, size):
            changed: dict[str, Any] = {}
            for change, _ in chosen:
                changed |= change
            for at_hours in (30.0, 200.0):
                assert chosen[0][1] is decision(evidence(at_hours, **changed)).state

    assert DecisionState.RUNNING is decision(evidence()).state


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        (BAD_RATIO, DecisionState.INVALID),
        (BREACH, DecisionState.GUARDRAIL_BREACH),
        (HARMFUL, DecisionState.HARM),
    ],
)
def test_a_rollback_waits_for_nothing(changed: dict[str, Any], state: DecisionState) -> None:
    """One unit each, in the first minute."""
    found = decision(evidence(0.01, n_baseline=1, n_optimized=1, **changed))

    assert (state, True, True, False, Variant.BASELINE) == (
        found.state,
        found.rolls_back,
        found.ends,
        found.deployment_recommended,
        found.winner,
    )


def test_a_winner_is_optimized_with_1_minus_p() -> None:
    """And ends the experiment."""
    found = decision(evidence(**SUPERIOR))

    assert (DecisionState.WINNER, Variant.OPTIMIZED, True, True, False) == (
        found.state,
        found.winner,
        found.deployment_recommended,
        found.ends,
        found.rolls_back,
    )
    assert 0.99 == found.confidence


@pytest.mark.parametrize(
    ("changed", "terms", "wanted"),
    [
        ({"n_optimized": 99}, Terms(), "100 units of each version (99 so far)"),
        ({"n_baseline": 99}, Terms(), "100 units of each version (99 so far)"),
        ({"as_of": hours(23.99)}, Terms(), "24 h since the first exposure (24 so far)"),
        ({"first_exposed_at": hours(7)}, Terms(), "24 h since the first exposure (23 so far)"),
        ({}, Terms(extended_validation=True), "168 h since the first exposure (30 so far)"),
        ({"guardrails": (PROVEN, OPEN)}, Terms(), "proof that errors is within the margin"),
        ({"guardrails": (OPEN, OPEN)}, Terms(), "proof that errors, errors are within the margin"),
        (
            {"guardrails": (replace(PROVEN, is_comparable=False), PROVEN)},
            Terms(),
            "latency (the versions tell of it unequally often)",
        ),
        (
            {"guardrails": (PROVEN, replace(OPEN, mean_baseline=0.0))},
            Terms(),
            "errors (the baseline shows none of it, and a share of nothing cannot be proven: plan an allowance)",
        ),
        ({"is_within_fdr": False}, Terms(fdr_alpha=0.004), "the level 0.004 that bounds false wins"),
    ],
)
def test_a_winner_waits_for_what_a_deployment_needs(changed: dict[str, Any], terms: Terms, wanted: str) -> None:
    """Better, not recommended, and the words say what is missing."""
    found = decision(evidence(**(SUPERIOR | changed)), of=replace(PLAN, terms=terms))

    assert (DecisionState.SIGNIFICANT_WAITING, Variant.OPTIMIZED, False, False) == (
        found.state,
        found.winner,
        found.deployment_recommended,
        found.ends,
    )
    assert 0.99 == found.confidence
    assert wanted in found.reason


@pytest.mark.parametrize("changed", [{"n_optimized": 100, "n_baseline": 100}, {"as_of": hours(24)}])
def test_the_minimum_is_enough(changed: dict[str, Any]) -> None:
    """100 units and 24 hours, neither one more."""
    assert DecisionState.WINNER is decision(evidence(**(SUPERIOR | changed))).state


def test_extended_validation_takes_seven_days() -> None:
    """168 h since the first exposure; no alert, for it was significant."""
    extended = replace(PLAN, terms=Terms(extended_validation=True))
    found = look(evidence(168.0, **SUPERIOR), of=extended)

    assert (DecisionState.WINNER, None) == (found.decision.state, found.alert)


def test_seven_days_without_an_answer_are_inconclusive_and_told_once() -> None:
    """Before: running. After: the state stays, the alert does not come again."""
    at_last = look(evidence(168.0))

    assert (DecisionState.RUNNING, None) == (decision(evidence(167.99)).state, look(evidence(167.99)).alert)
    assert (DecisionState.INCONCLUSIVE, Variant.BASELINE) == (at_last.decision.state, at_last.decision.winner)
    assert Alert.NOT_SIGNIFICANT_IN_7_DAYS is at_last.alert
    assert (False, False) == (at_last.decision.ends, at_last.decision.rolls_back)
    assert (DecisionState.INCONCLUSIVE, None) == look_state(look(evidence(169.0), alerted=True))


def look_state(found: Look) -> tuple[DecisionState, Alert | None]:
    return found.decision.state, found.alert


def test_an_extension_goes_on_and_the_alert_is_not_told_again() -> None:
    """Running until 336 h, then inconclusive; one that was extended early is told at 168 h all the same."""
    assert (DecisionState.RUNNING, None) == look_state(look(evidence(200.0), until=336.0, alerted=True))
    assert (DecisionState.INCONCLUSIVE, None) == look_state(look(evidence(336.0), until=336.0, alerted=True))
    assert (DecisionState.RUNNING, Alert.NOT_SIGNIFICANT_IN_7_DAYS) == look_state(look(evidence(168.0), until=336.0))


@pytest.mark.parametrize("changed", [BAD_RATIO, BREACH, HARMFUL, SUPERIOR, SUPERIOR | {"n_optimized": 9}])
def test_what_was_found_is_no_alert(changed: dict[str, Any]) -> None:
    """Seven days with a finding are no seven days without one."""
    assert look(evidence(168.0, **changed)).alert is None


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, DecisionState.INCONCLUSIVE),
        (SUPERIOR | {"guardrails": (PROVEN, OPEN)}, DecisionState.SIGNIFICANT_WAITING),
    ],
)
def test_the_longest_time_ends_it_whatever_is_known(changed: dict[str, Any], state: DecisionState) -> None:
    """Without a rollback's alarm and without a recommendation."""
    found = decision(evidence(672.0, **changed), until=672.0, alerted=True)

    assert (state, True, False, False) == (found.state, found.ends, found.rolls_back, found.deployment_recommended)
    assert "ended" in found.reason


def test_a_short_experiment_ends_without_the_seven_days() -> None:
    """A plan of two days is over after two days, and nobody waited for seven."""
    short = replace(PLAN, terms=Terms(maximum_hours=48.0))
    found = look(evidence(48.0), of=short, until=48.0)

    assert (DecisionState.INCONCLUSIVE, None, True) == (*look_state(found), found.decision.ends)


def test_nothing_found_is_never_the_baseline_is_better() -> None:
    """The baseline stays, with no confidence in it, and the words say so."""
    for at_hours in (30.0, 168.0, 672.0):
        found = decision(evidence(at_hours))

        assert (Variant.BASELINE, 0.0, False) == (found.winner, found.confidence, found.deployment_recommended)
    assert "does not say that the baseline is better" in decision(evidence(168.0)).reason
    assert 0.98 == decision(evidence(**HARMFUL)).confidence


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (BAD_RATIO, ["Invalid", "43.75% of 1600 units", "50.00%", "back to the baseline"]),
        (
            {"ratios": (replace(MISMATCH, of="outcomes"),)},
            ["units with an outcome are of the optimized version where 50.00% should be"],
        ),
        (BREACH, ["Rolled back", "errors is worse by more than 10% of the baseline's (0.6 against 0.4"]),
        ({"guardrails": (replace(BREACHED, allowance=0.02),)}, ["10% of the baseline's and 0.02 (0.6"]),
        (HARMFUL, ["Rolled back", "worse", "0.82 on 800 units against 0.8 on 800", "p = 0.02"]),
        (SUPERIOR, ["better", "difference +0.02", "0.95 interval -0.03 to +0.07", "recommended, with latency, errors"]),
        ({}, ["Nothing is proven yet after 30 h", "about 3700 units, in 40 h"]),
        ({"units_at_decision": None}, ["cannot be told yet"]),
        ({"hours_to_decision": None}, ["at about 3700 units."]),
        ({"interval": None}, ["no one difference fits the whole time"]),
        ({"mean_optimized": None}, ["outcomes of one version only so far, of 850 units exposed"]),
        (
            {"mean_optimized": None, "mean_baseline": None, "n_baseline": 0, "n_optimized": 0, "difference": None},
            ["no outcome so far, of 850 units exposed to the baseline and 850"],
        ),
    ],
)
def test_decisions_are_said_with_their_numbers(changed: dict[str, Any], words: list[str]) -> None:
    """In one or two sentences."""
    said = decision(evidence(**changed)).reason

    assert [] == [word for word in words if word not in said]
    assert said.count(". ") <= 1
    assert "None" not in said
    assert "nan" not in said


def test_a_decision_comes_back_from_json() -> None:
    """The same one; something else is refused."""
    found = decision(evidence(**SUPERIOR))

    assert found == Decision.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    with pytest.raises(InvalidRequestError, match=r"decision\.state"):
        Decision.from_json(found.to_json() | {"state": "won"})
    with pytest.raises(InvalidRequestError, match=r"decision\.decided_at"):
        Decision.from_json(found.to_json() | {"decided_at": "soon"})
