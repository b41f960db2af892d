"""What is fixed before the first exposure."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from experiment_world import BASELINE, ERRORS, LATENCY, OPTIMIZATION, OPTIMIZED, plan

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.assignment import ExperimentId, Override
from dspy_optimization.experiments.guardrail import Guardrail, GuardrailKind
from dspy_optimization.experiments.plan import (
    ExperimentPlan,
    MissingOutcome,
    PrimaryMetric,
    Terms,
    UnitRule,
    Window,
)
from dspy_optimization.experiments.plan_reading import plan_from_json
from dspy_optimization.experiments.split import Split, Variant

FULL = plan(
    guardrails=(
        LATENCY,
        ERRORS,
        Guardrail(name="safe", kind=GuardrailKind.SHORTFALL, metric="safety", margin=0.2, allowance=0.01),
    ),
    overrides=(Override(attribute="office", values=frozenset({"rome", "berlin"}), variant=Variant.OPTIMIZED),),
    terms=Terms(fdr_alpha=0.01, extended_validation=True),
)


def test_a_plan_comes_back_from_json() -> None:
    """The same plan, the same hash."""
    back = plan_from_json(json.loads(json.dumps(FULL.to_json(), allow_nan=False)))

    assert back == FULL
    assert back.hash == FULL.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"primary": PrimaryMetric(metric="solved", mde=0.06, expected=0.8, missing=MissingOutcome.EXCLUDE)},
        {"primary": PrimaryMetric(metric="solved", mde=0.05, expected=0.7, missing=MissingOutcome.EXCLUDE)},
        {"primary": PrimaryMetric(metric="helped", mde=0.05, expected=0.8, missing=MissingOutcome.EXCLUDE)},
        {"primary": PrimaryMetric(metric="solved", mde=0.05, expected=0.8, missing=MissingOutcome.ZERO)},
        {"primary": replace(FULL.primary, unit_rule=UnitRule.ANY_SUCCESS)},
        {"guardrails": (LATENCY,)},
        {"guardrails": (*FULL.guardrails[:2], replace(FULL.guardrails[2], margin=0.3))},
        {"guardrails": (*FULL.guardrails[:2], replace(FULL.guardrails[2], allowance=0.0))},
        {"window": Window(seconds=3_601.0, grace_seconds=60.0)},
        {"window": Window(seconds=3_600.0, grace_seconds=61.0)},
        {"terms": replace(FULL.terms, alpha=0.01)},
        {"terms": replace(FULL.terms, minimum_units=99)},
        {"terms": replace(FULL.terms, minimum_hours=25.0)},
        {"terms": replace(FULL.terms, extended_validation=False)},
        {"terms": replace(FULL.terms, maximum_hours=336.0)},
        {"terms": replace(FULL.terms, fdr_alpha=None)},
        {"split": Split(buckets=5_001)},
        {"salt": "salt-2"},
        {"baseline": OPTIMIZED, "optimized": BASELINE},
        {"agent": "sales"},
        {"experiment_id": ExperimentId(OPTIMIZATION)},
        {"overrides": ()},
    ],
)
def test_whatever_is_changed_makes_another_plan(changed: dict[str, Any]) -> None:
    """Nothing is left out of the hash."""
    assert replace(FULL, **changed).hash != FULL.hash


def test_whole_numbers_and_floats_make_one_plan() -> None:
    """A window of 3600 is one of 3600.0."""
    assert plan(window=Window(seconds=3600, grace_seconds=60)).hash == plan().hash


def test_both_versions_the_same_are_refused() -> None:
    """There would be nothing to learn."""
    with pytest.raises(InvalidRequestError, match=r"differs from the baseline; found: b+ as both; possible"):
        plan(optimized=BASELINE)


@pytest.mark.parametrize("buckets", [0, 10_000])
def test_a_plan_needs_units_for_both(buckets: int) -> None:
    """0 and 100 % are for rollouts."""
    with pytest.raises(InvalidRequestError, match="units for both versions"):
        plan(split=Split(buckets=buckets))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: PrimaryMetric(metric="m", mde=0.0, missing=MissingOutcome.ZERO), "primary: mde"),
        (lambda: PrimaryMetric(metric="m", mde=1.0, missing=MissingOutcome.ZERO), "primary: mde"),
        (lambda: PrimaryMetric(metric="m", mde=math.nan, missing=MissingOutcome.ZERO), "primary: mde"),
        (lambda: PrimaryMetric(metric="m", mde=True, missing=MissingOutcome.ZERO), "primary: mde"),
        (lambda: PrimaryMetric(metric=" ", mde=0.1, missing=MissingOutcome.ZERO), "primary: metric"),
        (lambda: PrimaryMetric(metric="m", mde=0.1, expected=1.1, missing=MissingOutcome.ZERO), "primary: expected"),
        (lambda: Window(seconds=0.0), "window: seconds"),
        (lambda: Window(seconds=86_401.0), "window: seconds"),
        (lambda: Window(grace_seconds=-1.0), "window: grace_seconds"),
        (lambda: Terms(alpha=0.0), "terms: alpha"),
        (lambda: Terms(alpha=math.inf), "terms: alpha"),
        (lambda: Terms(minimum_units=0), "terms: minimum_units"),
        (lambda: Terms(minimum_units=1.5), "terms: minimum_units"),
        (lambda: Terms(minimum_hours=-1.0), "terms: minimum_hours"),
        (lambda: Terms(maximum_hours=673.0), "terms: maximum_hours"),
        (lambda: Terms(maximum_hours=12.0), "terms: maximum_hours"),
        (lambda: Terms(maximum_hours=100.0, extended_validation=True), "terms: maximum_hours"),
        (lambda: Terms(extended_validation="yes"), "terms: extended_validation"),
        (lambda: Terms(fdr_alpha=1.0), "terms: fdr_alpha"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.LATENCY), "guardrail g: limit"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.COST, limit=0.0), "guardrail g: limit"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.ERROR_RATE, limit=1.0), "guardrail g"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.SHORTFALL), "guardrail g: metric"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.ERROR_RATE, metric="m"), "guardrail g"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.ERROR_RATE, margin=0.0), "guardrail g: margin"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.ERROR_RATE, allowance=-0.1), "guardrail g: allowance"),
        (lambda: Guardrail(name="g", kind=GuardrailKind.ERROR_RATE, expected=0.0), "guardrail g: expected"),
        (lambda: plan(guardrails=(LATENCY, LATENCY)), "plan: guardrails"),
        (lambda: plan(agent=""), "plan: agent"),
        (lambda: plan(salt="s" * 65), "plan: salt"),
    ],
)
def test_what_is_wrong_is_named(wrong: Any, named: str) -> None:
    """Every message: what was wanted, what was found, what is possible."""
    with pytest.raises(InvalidRequestError) as refused:
        wrong()

    message = str(refused.value)
    assert message.startswith(named)
    assert "found" in message
    assert "possible" in message


@pytest.mark.parametrize(
    "broken",
    [
        {"version": 2},
        {"experiment_id": "e1"},
        {"primary": "solved"},
        {"split_buckets": 0},
        {"unknown": 1},
        {"overrides": [{"attribute": "office", "values": [1], "variant": "baseline"}]},
    ],
)
def test_what_is_no_plan_is_refused(broken: dict[str, Any]) -> None:
    """Read back as strictly as it was written."""
    with pytest.raises(InvalidRequestError, match=r"plan.*(wanted|possible)"):
        plan_from_json(FULL.to_json() | broken)


def test_a_variant_is_a_version() -> None:
    """Baseline and optimized by name."""
    versions = [plan().version(variant) for variant in Variant]

    assert [BASELINE, OPTIMIZED] == versions


def test_another_experiment_takes_the_plan_over() -> None:
    """With an id and a salt of its own."""
    other = plan().as_another(ExperimentId(OPTIMIZATION), "salt-9")

    assert isinstance(other, ExperimentPlan)
    assert other.assigner.unit_hash.seed != plan().assigner.unit_hash.seed
    assert replace(other, experiment_id=plan().experiment_id, salt="salt-1") == plan()
