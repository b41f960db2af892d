"""Units taken in piece by piece: refused out of order, kept as JSON, the same however they were cut."""

import json
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest
from experiment_world import ERRORS, LATENCY, analysed, exposure, hours, log_of, outcome, plan, seconds, units_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.evidence import evidence_of
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import MissingOutcome, Terms
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.statistics.sequential import BetDesign, EProcess, SampleRatio, Units

PLAN = plan(guardrails=(LATENCY, ERRORS))
END = hours(100)


def rows_of(seed: int, count: int, *, lost: float = 0.1) -> list[Exposure | Outcome]:
    """Units a minute apart; a share of them never says anything."""
    rng = random.Random(seed)
    rows: list[Exposure | Outcome] = []
    for number in range(count):
        unit, at = f"u{number}", 60.0 * number
        rows.append(exposure(PLAN, unit, at))
        if rng.random() >= lost:
            said = {"score": float(rng.random() < 0.8), "latency_ms": rng.uniform(10.0, 1_500.0)}
            rows.append(outcome(PLAN, unit, f"e{number}", at + 5.0, **said))
    return rows


LOG = log_of(PLAN, rows_of(1, 240))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.floats(0.0, 6.0), max_size=6))
def test_pieces_make_the_same_analysis(cuts: list[float]) -> None:
    """Bit for bit, and through JSON between any two of them."""
    analysis = Analysis.start(PLAN)
    for cut in [*sorted(cuts), 100.0]:
        analysis = analysed(PLAN, LOG, hours(cut), analysis)
        analysis = Analysis.from_json(json.loads(json.dumps(analysis.to_json(), allow_nan=False)))

    assert analysed(PLAN, LOG, END) == analysis


def test_the_numbers_are_those_of_the_units() -> None:
    """Counts, means and shares against plain sums over the same log."""
    units = LOG.usable(END)
    evidence = evidence_of(PLAN, analysed(PLAN, LOG, END), END)
    scores = {
        variant: [one.score for one in units if one.variant is variant and one.score is not None] for variant in Variant
    }
    latency = [one.harms[0] for one in units if one.variant is Variant.OPTIMIZED and one.harms[0] is not None]

    assert (len(scores[Variant.BASELINE]), len(scores[Variant.OPTIMIZED])) == (
        evidence.n_baseline,
        evidence.n_optimized,
    )
    assert statistics.fmean(scores[Variant.BASELINE]) == pytest.approx(evidence.mean_baseline)
    assert statistics.fmean(scores[Variant.OPTIMIZED]) == pytest.approx(evidence.mean_optimized)
    assert statistics.fmean(latency) == pytest.approx(evidence.guardrails[0].mean_optimized)
    assert 240 == evidence.exposed_baseline + evidence.exposed_optimized
    assert sum(unit.n_events == 0 for unit in units) == evidence.silent_baseline + evidence.silent_optimized
    assert 240 - len(latency) > evidence.guardrails[0].n_optimized == len(latency)


def test_the_primary_metric_is_tested_with_the_propensities_that_were_logged() -> None:
    """Against the e-process of the same units, half of them drawn at .5 and half at .9."""
    wide, log = Split(buckets=9_000), ExperimentLog(PLAN)
    for number in range(200):
        row = exposure(PLAN, f"u{number}", float(number))
        if number >= 100:
            variant = wide.variant(PLAN.assigner.unit_hash.bucket(row.unit_id))
            row = replace(row, split=wide, variant=variant, version=PLAN.version(variant))
        log.add_exposure(row)
        log.add_outcome(outcome(PLAN, row.unit_id, f"e{number}", number + 1.0, score=float(number % 3 > 0)))
    units = log.usable(END)
    treated = [unit.variant is Variant.OPTIMIZED for unit in units]
    scores = [float(number % 3 > 0) for number in range(200)]
    design = BetDesign.difference(effect=0.05, historical_mean=0.8, alpha=0.05)
    expected = EProcess.start(design).extend(Units.of(treated, scores, [0.5] * 100 + [0.9] * 100))

    assert expected == analysed(PLAN, log, END).primary


def test_a_guardrail_that_one_version_tells_of_less_is_not_comparable() -> None:
    """The slow answers of one version are not told: the rest says nothing of it, and does not count as proof."""
    of = plan(guardrails=(LATENCY,))
    comparable = []
    for silent in (False, True):
        log = ExperimentLog(of)
        for number in range(3_000):
            row = exposure(of, f"u{number}", float(number))
            log.add_exposure(row)
            says = row.variant is Variant.BASELINE or number % 3 > 0 or not silent
            said = {"score": 1.0, "latency_ms": 300.0} if says else {"score": 1.0}
            log.add_outcome(outcome(of, row.unit_id, f"e{number}", number + 1.0, **said))
        found = evidence_of(of, analysed(of, log, END), END)
        assert not found.mismatches
        assert found.guardrails[0].is_non_inferior
        comparable.append((found.guardrails[0].is_comparable, found.guardrails[0].is_proven))

    assert [(True, True), (False, False)] == comparable


@pytest.mark.parametrize(("fdr_alpha", "within"), [(None, True), (0.04, True), (1e-9, False)])
def test_the_level_of_many_experiments_is_held_against_the_largest_e_value(
    fdr_alpha: float | None, within: bool
) -> None:
    """E >= 1 / alpha_t, besides superiority."""
    of = plan(terms=Terms(fdr_alpha=fdr_alpha))
    log, rng = ExperimentLog(of), random.Random(4)
    for number in range(400):
        row = exposure(of, f"u{number}", float(number))
        log.add_exposure(row)
        chance = 0.9 if row.variant is Variant.OPTIMIZED else 0.65
        log.add_outcome(outcome(of, row.unit_id, f"e{number}", number + 1.0, score=float(rng.random() < chance)))
    found = evidence_of(of, analysed(of, log, END), END)

    assert found.is_superior
    assert within is found.is_within_fdr


def test_missing_outcomes_are_left_out_or_are_zeros() -> None:
    """As the plan says; left out, it is watched whether both versions lose as many."""
    zero = plan(guardrails=(LATENCY, ERRORS), primary=replace(PLAN.primary, missing=MissingOutcome.ZERO))
    lossy = log_of(zero, rows_of(1, 240))
    as_zero, left_out = (evidence_of(of, analysed(of, log, END), END) for of, log in ((zero, lossy), (PLAN, LOG)))
    silent = left_out.silent_baseline + left_out.silent_optimized

    assert silent > 0
    assert 240 == as_zero.n_baseline + as_zero.n_optimized
    assert 240 - silent == left_out.n_baseline + left_out.n_optimized
    assert as_zero.difference is not None


def test_exposures_count_before_their_windows_close() -> None:
    """The sample ratio of exposures does not wait for outcomes."""
    early = analysed(PLAN, LOG, seconds(60.0 * 50 + 60.0))

    assert 51 == early.exposures.n_baseline + early.exposures.n_optimized
    assert 0 == early.primary.n_units


def test_every_split_has_a_sample_ratio_of_its_own() -> None:
    """Pooled, a split that was raised would look like a mismatch."""
    wide = Split(buckets=9_000)
    log = ExperimentLog(PLAN)
    for number in range(2_000):
        row = exposure(PLAN, f"u{number}", float(number))
        if number >= 1_000:
            variant = wide.variant(PLAN.assigner.unit_hash.bucket(row.unit_id))
            row = replace(row, split=wide, variant=variant, version=PLAN.version(variant))
        log.add_exposure(row)
    ratios = analysed(PLAN, log, END).exposures
    pooled = SampleRatio.start((0.5, 0.5)).extend([int(row.variant is Variant.OPTIMIZED) for row in log.exposed(END)])

    assert [0.5, 0.9] == [stage.split.share for stage in ratios.stages]
    assert [1_000, 1_000] == [sum(stage.ratio.counts) for stage in ratios.stages]
    assert not ratios.is_mismatch
    assert pooled.is_mismatch


@pytest.mark.parametrize("policy", MissingOutcome)
def test_outcomes_that_one_version_loses_are_a_mismatch_where_they_are_left_out(policy: MissingOutcome) -> None:
    """Declared as zeros they are a result."""
    of = plan(primary=replace(PLAN.primary, missing=policy))
    log = ExperimentLog(of)
    for variant in Variant:
        for number, unit in enumerate(units_of(of, variant, 400)):
            log.add_exposure(exposure(of, unit, float(number)))
            if variant is Variant.BASELINE or number % 2:
                log.add_outcome(outcome(of, unit, f"{unit}/1", number + 1.0))
    analysis = analysed(of, log, END)

    assert not analysis.exposures.is_mismatch
    assert (policy is MissingOutcome.EXCLUDE) == analysis.outcomes.is_mismatch


@pytest.mark.parametrize("allowance", [0.0, 0.05])
def test_what_never_happens_is_proven_with_an_allowance_only(allowance: float) -> None:
    """No failure in 4,000 units of either version: a share of nothing stays open, 5 points more are ruled out."""
    of = plan(guardrails=(replace(ERRORS, allowance=allowance),))
    log = ExperimentLog(of)
    for number in range(4_000):
        row = exposure(of, f"u{number}", float(number))
        log.add_exposure(row)
        log.add_outcome(outcome(of, row.unit_id, f"e{number}", number + 1.0))
    (found,) = evidence_of(of, analysed(of, log, END), END).guardrails

    assert (allowance > 0.0) == found.is_proven
    assert (0.0, 0.0) == (found.mean_baseline, found.mean_optimized)


@pytest.mark.parametrize(("failing", "breached"), [(0.14, False), (0.4, True)])
def test_an_allowance_tolerates_what_it_says(failing: float, breached: bool) -> None:
    """Baseline 10 % failures, margin 10 %, allowance .05: up to 16 % is tolerated, 40 % is a breach."""
    of = plan(guardrails=(ERRORS,))
    log, rng = ExperimentLog(of), random.Random(11)
    for number in range(3_000):
        row = exposure(of, f"u{number}", float(number))
        chance = failing if row.variant is Variant.OPTIMIZED else 0.1
        log.add_exposure(row)
        log.add_outcome(outcome(of, row.unit_id, f"e{number}", number + 1.0, score=1.0, failed=rng.random() < chance))
    (found,) = evidence_of(of, analysed(of, log, END), END).guardrails

    assert breached is found.is_breached
    assert failing == pytest.approx(found.mean_optimized, abs=0.04)


def test_units_are_taken_in_once_and_in_order() -> None:
    """Twice the same, or one from before, is refused."""
    analysis = analysed(PLAN, LOG, END)
    units, exposures = LOG.usable(END), LOG.exposed(END)

    with pytest.raises(ConflictError, match=r"wanted: units in the order of their exposure, each once; found: unit u0"):
        analysis.extend(PLAN, [], units[:1])
    with pytest.raises(ConflictError, match=r"wanted: exposures in the order"):
        analysis.extend(PLAN, exposures[-1:], [])
    with pytest.raises(ConflictError, match="wanted: units in the order"):
        Analysis.start(PLAN).extend(PLAN, [], units[::-1])


def test_a_changed_plan_is_another_analysis() -> None:
    """It cannot be gone on with."""
    with pytest.raises(ConflictError, match=r"wanted: the plan .*; found: .*; allowed: start the analysis again"):
        analysed(PLAN, LOG, END).extend(plan(salt="salt-2"), [], [])


@pytest.mark.parametrize(
    "broken",
    [
        {"version": 0},
        {"primary": {}},
        {"guardrails": [1]},
        {"exposures": [{"split_buckets": True}]},
        {"heard": [[]]},
        {"n_silent": {"baseline": -1, "optimized": 0}},
        {"first_exposed_at": "yesterday"},
        {"last_unit": {"exposed_at": "2026-03-02T09:00:00", "unit_id": "u1"}},
        {"more": 1},
    ],
)
def test_what_is_no_stored_analysis_is_refused(broken: dict[str, Any]) -> None:
    """The message names the field."""
    stored = analysed(PLAN, LOG, END).to_json()
    with pytest.raises(InvalidRequestError, match=r"(wanted|possible)"):
        Analysis.from_json({**stored, **broken})


def test_evidence_is_plain_json_without_nan() -> None:
    """Before the first unit and after many."""
    for as_of in (hours(0), END):
        said = evidence_of(PLAN, analysed(PLAN, LOG, as_of), as_of).to_json()

        assert said == json.loads(json.dumps(said, allow_nan=False))


def test_p_values_never_rise_and_the_time_left_is_reckoned_from_the_traffic() -> None:
    """Over looks of a stream in which optimized is better."""
    log = ExperimentLog(PLAN)
    rng = random.Random(5)
    for number in range(300):
        row = exposure(PLAN, f"u{number}", 60.0 * number)
        log.add_exposure(row)
        chance = 0.95 if row.variant is Variant.OPTIMIZED else 0.75
        log.add_outcome(outcome(PLAN, row.unit_id, f"e{number}", 60.0 * number + 1, score=float(rng.random() < chance)))
    analysis, before, told = Analysis.start(PLAN), 1.0, 0
    for look in range(1, 12):
        analysis = analysed(PLAN, log, hours(0.5 * look), analysis)
        evidence = evidence_of(PLAN, analysis, hours(0.5 * look))
        assert evidence.p_value <= before
        before = evidence.p_value
        if evidence.units_at_decision is not None and evidence.hours_to_decision is not None:
            n = evidence.n_baseline + evidence.n_optimized
            told += 1
            missing = max(evidence.units_at_decision - n, 0)
            assert missing / 60.0 == pytest.approx(evidence.hours_to_decision, abs=0.05 * missing / 60.0 + 0.05)

    assert told > 3
