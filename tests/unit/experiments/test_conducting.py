"""Conducting an experiment: started, served, told of, looked at, ended; on a clock that is told."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from conducting_world import NAME, SOLVED, House, house, measured, optimization, proposal, validated
from experiment_world import BASELINE, OPTIMIZATION, OPTIMIZED, START

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.experiments.assignment import AssignmentReason, ExperimentId, Override
from dspy_optimization.experiments.conducting import Told
from dspy_optimization.experiments.decision import Alert, DecisionState
from dspy_optimization.experiments.experiment import Experiment, ExperimentStatus
from dspy_optimization.experiments.guardrail import GuardrailKind
from dspy_optimization.experiments.looker import Looker
from dspy_optimization.experiments.plan import MissingOutcome, Terms, Window
from dspy_optimization.experiments.proposal import MetricProposal
from dspy_optimization.experiments.split import Variant
from dspy_optimization.optimization.request import Constraints, OptimizationStatus
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT

NOWHERE = ExperimentId(UUID(int=99))


def started(inside: House, **changed: Any) -> Experiment:
    return inside.conductor.start(proposal(**changed))


def test_a_start_takes_everything_from_the_optimization() -> None:
    """Versions, metric, what the baseline reached, the difference that matters; it runs at once."""
    wanted = optimization(SOLVED)
    wanted = replace(wanted, request=replace(wanted.request, constraints=Constraints(min_improvement_threshold=0.03)))
    inside = house(wanted)
    experiment = started(inside)
    plan = experiment.plan

    assert (ExperimentStatus.RUNNING, START) == (experiment.status, experiment.started_at)
    assert (NAME, BASELINE, OPTIMIZED, OPTIMIZATION) == (
        plan.agent,
        plan.baseline,
        plan.optimized,
        plan.optimization_id,
    )
    assert ("solved", 0.03, 0.6) == (plan.primary.metric, plan.primary.mde, plan.primary.expected)
    assert (LOCAL_TENANT, MissingOutcome.EXCLUDE, ()) == (plan.tenant, plan.primary.missing, plan.guardrails)
    assert experiment == inside.experiments.get(plan.experiment_id)


def test_what_is_said_goes_before_the_optimization() -> None:
    """Another metric knows nothing of the baseline."""
    own = MetricProposal(metric="thumbs_up", mde=0.1)
    primary = started(house(), primary=own).plan.primary
    told = started(house(), primary=MetricProposal(mde=0.1, expected=0.9)).plan.primary

    assert ("thumbs_up", 0.1, 0.5) == (primary.metric, primary.mde, primary.expected)
    assert ("solved", 0.1, 0.9) == (told.metric, told.mde, told.expected)


def test_guardrails_are_as_strict_as_in_the_optimization() -> None:
    """Amounts are capped by what the baseline took; a score may fall by a share of itself."""
    guards = (
        Objective(metric="latency_seconds", direction=Direction.MINIMIZE, guardrail=True, margin=0.2),
        Objective(metric="cost_usd", direction=Direction.MINIMIZE, guardrail=True),
        Objective(metric="safety", guardrail=True),
        Objective(metric="tone", guardrail=True),
    )
    proof = validated(
        measured("solved", 0.6, 0.8),
        measured("latency_seconds", 0.3, 0.3),
        measured("cost_usd", 0.002, 0.002),
        measured("safety", 0.9, 0.9),
        measured("tone", 0.2, 0.2),
    )
    latency, cost, safety, tone = started(house(optimization(SOLVED, *guards), proof)).plan.guardrails

    assert (GuardrailKind.LATENCY, 1_500.0, 0.2) == (latency.kind, latency.limit, latency.margin)
    assert (GuardrailKind.COST, 0.01, 0.1) == (cost.kind, cost.limit, cost.margin)
    for guardrail, score in ((safety, 0.9), (tone, 0.2)):
        assert (GuardrailKind.SHORTFALL, guardrail.name) == (guardrail.kind, guardrail.metric)
        tolerated = guardrail.margin * (1.0 - score) + guardrail.allowance
        assert pytest.approx(0.1 * score) == tolerated


@pytest.mark.parametrize(
    ("guard", "baseline"),
    [
        (Objective(metric="tokens", direction=Direction.MINIMIZE, guardrail=True), 50.0),
        (Objective(metric="cost_usd", direction=Direction.MINIMIZE, guardrail=True), 0.0),
        (Objective(metric="safety", guardrail=True, margin=0.0), 0.9),
        (Objective(metric="points", guardrail=True), 7.0),
    ],
    ids=lambda value: value.metric if isinstance(value, Objective) else "",
)
def test_a_guardrail_that_cannot_be_watched_is_not_dropped(guard: Objective, baseline: float) -> None:
    """The start is refused until somebody says what is to be watched instead."""
    proof = validated(measured("solved", 0.6, 0.8), measured(guard.metric, baseline, baseline))
    inside = house(optimization(SOLVED, guard), proof)
    with pytest.raises(InvalidRequestError, match=f"guardrails: wanted.*{guard.metric}.*for none"):
        started(inside)

    assert {} == inside.experiments.kept
    assert () == started(inside, guardrails=()).plan.guardrails


@pytest.mark.parametrize("split", [0, 0.0, 1, 1.0, 1.5, -0.1, float("nan"), float("inf"), True, "0.1", None, 1e-6])
def test_splits_that_compare_nothing(split: object) -> None:
    """Refused in words, and nothing is kept."""
    inside = house()
    with pytest.raises(InvalidRequestError, match=r"traffic_split: wanted: .*found: .*possible: "):
        started(inside, traffic_split=split)

    assert {} == inside.experiments.kept


def test_the_versions_have_to_be_those_of_the_optimization() -> None:
    """The same one twice, and any other."""
    inside = house()
    same = {Variant.BASELINE: OPTIMIZED, Variant.OPTIMIZED: OPTIMIZED}
    other = Fingerprint("c" * 64)
    for versions, said in (
        (same, "optimized_config: wanted: another version than the baseline"),
        ({Variant.BASELINE: other}, "baseline_config: wanted: version b"),
        ({Variant.OPTIMIZED: other}, "optimized_config: wanted: version f"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            started(inside, versions=versions)

    assert {} == inside.experiments.kept
    assert OPTIMIZED == started(inside, versions={Variant.OPTIMIZED: OPTIMIZED}).plan.optimized


def test_an_optimization_that_left_the_agent_as_it_was() -> None:
    """A gain of nothing is none, whatever its verdict."""
    unchanged = optimization(SOLVED)
    target = replace(unchanged.request.target, version=OPTIMIZED)
    inside = house(replace(unchanged, request=replace(unchanged.request, target=target)))
    with pytest.raises(InvalidRequestError, match="differs from the baseline"):
        started(inside)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (house(optimization(status=OptimizationStatus.RUNNING), without=True), "and it is running"),
        (house(proof=validated(measured("solved", 0.6, 0.6), verdict=Verdict.INDECISIVE)), "its verdict is indecisive"),
        (house(optimization(status=OptimizationStatus.CANCELLED)), "and it is cancelled"),
        (
            house(
                optimization(Objective(metric="latency_seconds", direction=Direction.MINIMIZE)),
                validated(measured("latency_seconds", 0.6, 0.4)),
            ),
            r"primary.metric: wanted: a metric that scores outcomes",
        ),
    ],
    ids=["runs", "indecisive", "cancelled", "minimized"],
)
def test_without_a_validated_gain_nothing_starts(inside: House, said: str) -> None:
    """Only what the gate found better is shown to users."""
    with pytest.raises(InvalidRequestError, match=said):
        started(inside)

    assert {} == inside.experiments.kept


def test_unknown_ones() -> None:
    """Every step names what it does not know."""
    inside = house()
    conductor = inside.conductor
    for step in (
        lambda: started(inside, optimization_id=OptimizationId(UUID(int=7))),
        lambda: conductor.look(NOWHERE),
        lambda: conductor.shown(NOWHERE),
        lambda: conductor.stop(NOWHERE, "why"),
        lambda: conductor.extend(NOWHERE, 336),
        lambda: conductor.raise_split(NOWHERE, 0.9),
    ):
        with pytest.raises(NotFoundError):
            step()


def test_one_experiment_an_agent() -> None:
    """The second start says which one runs; once that has ended, there is room."""
    inside = house()
    first = started(inside).plan.experiment_id
    with pytest.raises(ConflictError, match=rf"found: {first}; allowed: wait until it ends, or stop it"):
        started(inside)
    inside.conductor.stop(first, "enough")

    assert first != started(inside).plan.experiment_id


def test_nobody_is_exposed_without_an_experiment() -> None:
    """Everybody gets the version that is live."""
    inside = house()
    served = inside.serve("user-1")

    assert (BASELINE, None, AssignmentReason.NOT_RUNNING) == (
        served.version, served.experiment_id, served.assignment.reason,
    )  # fmt: skip
    assert [] == inside.rows.exposures


def test_a_unit_keeps_what_it_was_exposed_to() -> None:
    """However often it comes and however the split rises; it is exposed once."""
    inside = house()
    experiment = started(inside, traffic_split=0.1)
    units = [f"user-{number}" for number in range(200)]
    first = {unit: inside.serve(unit) for unit in units}
    inside.pass_hours(1)
    inside.conductor.raise_split(experiment.plan.experiment_id, 0.9)
    again = {unit: inside.serve(unit) for unit in units}
    new = [inside.serve(f"new-{number}").assignment.variant for number in range(100)]

    assert {unit: one.version for unit, one in first.items()} == {unit: one.version for unit, one in again.items()}
    assert {AssignmentReason.KEPT} == {one.assignment.reason for one in again.values()}
    assert 200 == len([row for row in inside.rows.exposures if row.unit_id in units])
    assert 5 < sum(one.assignment.variant is Variant.OPTIMIZED for one in first.values()) < 40
    assert new.count(Variant.OPTIMIZED) > 75


def test_who_is_not_in_the_experiment_is_not_exposed() -> None:
    """Nobody's unit, and units that an override names."""
    inside = house()
    office = Override(attribute="office", values=frozenset({"Berlin"}), variant=Variant.OPTIMIZED)
    started(inside, overrides=(office,))
    nobody, empty = inside.serve(None), inside.serve("")
    tester = inside.serve("user-1", attributes={"office": "Berlin"})

    assert [BASELINE, BASELINE, OPTIMIZED] == [one.version for one in (nobody, empty, tester)]
    assert [] == inside.rows.exposures
    for unit in ("half \ud800", "nul \x00"):
        with pytest.raises(InvalidRequestError, match="unit_id: "):
            inside.serve(unit)


def test_better_is_found_and_ends_it() -> None:
    """With everything proven: a winner, recommended, its result told once; then everybody gets the baseline again."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(600, lambda n: n % 10 < 5, lambda n: n % 10 < 8)
    inside.pass_hours(1.1)
    waiting = inside.conductor.look(experiment_id)
    inside.pass_hours(1)
    ended = inside.conductor.look(experiment_id)
    again = inside.conductor.look(experiment_id)
    shown = inside.conductor.shown(experiment_id)

    assert waiting.decision is not None
    assert ended.decision is not None
    assert (DecisionState.SIGNIFICANT_WAITING, ExperimentStatus.RUNNING) == (waiting.decision.state, waiting.status)
    assert "2 h since the first exposure" in waiting.decision.reason
    assert (DecisionState.WINNER, ExperimentStatus.DECIDED) == (ended.decision.state, ended.status)
    assert ended == again == shown.experiment
    (told,) = inside.experiments.results
    assert (Variant.OPTIMIZED, True) == (told.winner, told.deployment_recommended)
    assert 600 == shown.evidence.n_baseline + shown.evidence.n_optimized
    assert BASELINE == inside.serve("user-new").version
    assert ended.ended_at == ended.decision.decided_at == inside.time[0]


def test_harm_rolls_back_at_once() -> None:
    """Without waiting for units or hours."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(300, lambda n: n % 10 < 8, lambda n: n % 10 < 4)
    inside.pass_hours(1.1)
    ended = inside.conductor.look(experiment_id)

    assert ended.decision is not None
    assert (DecisionState.HARM, ExperimentStatus.ROLLED_BACK) == (ended.decision.state, ended.status)
    assert [Variant.BASELINE] == [one.winner for one in inside.experiments.results]


def test_equal_versions_are_told_of_once_after_seven_days() -> None:
    """The alert comes at the first look after 168 hours, and at no other; extending goes on."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(300, lambda n: n % 2 == 0, lambda n: n % 2 == 0)
    states = []
    for _ in range(9):
        inside.pass_hours(24)
        decision = inside.conductor.look(experiment_id).decision
        assert decision is not None
        states.append(decision.state.value)
    inside.conductor.extend(experiment_id, 336)
    inside.pass_hours(1)
    extended = inside.conductor.look(experiment_id)

    assert ["running"] * 6 + ["inconclusive"] * 3 == states
    assert [Alert.NOT_SIGNIFICANT_IN_7_DAYS] == inside.experiments.alerts
    assert extended.decision is not None
    assert (DecisionState.RUNNING, 336.0) == (extended.decision.state, extended.until_hours)
    assert [] == inside.experiments.results


def test_the_longest_time_ends_it() -> None:
    """Also when nobody ever came."""
    inside = house()
    experiment_id = started(inside, terms=Terms(minimum_hours=1.0, maximum_hours=5.0)).plan.experiment_id
    inside.pass_hours(5)
    ended = inside.conductor.look(experiment_id)

    assert ExperimentStatus.EXPIRED is ended.status
    assert [(Variant.BASELINE, 0.0)] == [(one.winner, one.confidence) for one in inside.experiments.results]


def test_a_look_that_finds_nothing_writes_nothing() -> None:
    """Unless it is the first one."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(20, lambda _: True, lambda _: True)
    inside.pass_hours(2)
    for _ in range(5):
        inside.pass_hours(0.01)
        inside.conductor.look(experiment_id)

    assert 1 == inside.experiments.changes


def test_who_is_overtaken_decides_nothing() -> None:
    """Somebody else has taken the evidence in, and decides on it."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(300, lambda n: n % 10 < 8, lambda n: n % 10 < 4)
    inside.pass_hours(1.1)
    inside.analyses.overtaken = True
    overtaken = inside.conductor.look(experiment_id)
    inside.analyses.overtaken = False
    ended = inside.conductor.look(experiment_id)

    assert (ExperimentStatus.RUNNING, None) == (overtaken.status, overtaken.decision)
    assert ExperimentStatus.ROLLED_BACK is ended.status
    assert 1 == len(inside.experiments.results)


def test_who_died_after_taking_evidence_in_is_made_up_for() -> None:
    """The decision is drawn from what is kept, though no row is new."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(300, lambda n: n % 10 < 8, lambda n: n % 10 < 4)
    inside.pass_hours(1.1)
    change, inside.experiments.change = inside.experiments.change, _died  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        inside.conductor.look(experiment_id)
    inside.experiments.change = change  # type: ignore[method-assign]

    assert ExperimentStatus.ROLLED_BACK is inside.conductor.look(experiment_id).status


def _died(*_: object) -> Experiment:
    raise KeyboardInterrupt


def test_older_evidence_does_not_undo_a_newer_decision() -> None:
    """A process that was held up between taking in and deciding comes too late."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    inside.live_through(30, lambda _: True, lambda _: True)
    inside.pass_hours(2)
    newest = inside.conductor.look(experiment_id)
    inside.time[0] -= timedelta(minutes=10)
    inside.analyses.kept.clear()
    late = inside.conductor.look(experiment_id)

    assert newest == late


def test_a_person_stops_it() -> None:
    """The result is told, once; what has ended stays."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    ended = inside.conductor.stop(experiment_id, "the campaign is over")
    for step in (
        lambda: inside.conductor.stop(experiment_id, "again"),
        lambda: inside.conductor.extend(experiment_id, 336),
        lambda: inside.conductor.raise_split(experiment_id, 0.9),
    ):
        with pytest.raises(ConflictError, match="it is final"):
            step()

    assert (ExperimentStatus.STOPPED, "the campaign is over") == (ended.status, ended.ended_because)
    assert ended == inside.experiments.get(experiment_id)
    assert [Variant.BASELINE] == [one.winner for one in inside.experiments.results]


def test_outcomes_that_are_none_are_named_and_the_others_taken() -> None:
    """Each with its place and its reason; nothing of them is kept."""
    inside = house()
    started(inside)
    exposure_id = inside.serve("user-1").assignment.exposure_id
    before = START - timedelta(seconds=1)
    wrong = [
        Told(event_id="unknown", exposure_id=UUID(int=5), score=1.0),
        Told(event_id="early", exposure_id=exposure_id, happened_at=before, score=1.0),
        Told(event_id="ahead", exposure_id=exposure_id, happened_at=START + timedelta(hours=1), score=1.0),
        Told(event_id="high", exposure_id=exposure_id, score=1.01),
        Told(event_id="nan", exposure_id=exposure_id, score=float("nan")),
        Told(event_id="both", exposure_id=exposure_id, score=1.0, success=True),
        Told(event_id="nothing", exposure_id=exposure_id),
        Told(event_id="nul \x00", exposure_id=exposure_id, score=1.0),
        Told(event_id="naive", exposure_id=exposure_id, happened_at=START.replace(tzinfo=None), score=1.0),
    ]
    right = Told(event_id="right", exposure_id=exposure_id, success=True)
    refused = inside.conductor.report([*wrong[:4], right, *wrong[4:]])

    assert ["right"] == [row.event_id for row in inside.rows.outcomes]
    assert [1.0] == [row.score for row in inside.rows.outcomes]
    assert [0, 1, 2, 3, 5, 6, 7, 8, 9] == [one.position for one in refused]
    assert isinstance(refused[0].error, NotFoundError)
    assert all("wanted" in str(one.error) or "found" in str(one.error) for one in refused)


def test_the_looker_watches_all_and_none_harms_another() -> None:
    """A defect that one experiment brings to light is told; those of others are looked at."""
    good, bad = house(), house()
    experiment_id = started(good).plan.experiment_id
    started(bad)
    good.live_through(300, lambda n: n % 10 < 8, lambda n: n % 10 < 4)
    good.pass_hours(1.1)
    bad.pass_hours(3)
    bad.rows.log = lambda *_: 1 / 0  # type: ignore[assignment,method-assign]
    homes = {"bad": bad, "good": good}
    looker = Looker(lambda: list(homes), lambda tenant: homes[tenant].conductor)  # type: ignore[arg-type,index]

    assert 2 == looker.step()
    assert ExperimentStatus.ROLLED_BACK is good.experiments.get(experiment_id).status


def test_the_looker_spares_looks() -> None:
    """Of a window of a day it is enough to look every few minutes, whoever did."""
    inside = house()
    started(inside, window=Window())
    looker = Looker(lambda: [LOCAL_TENANT], lambda _: inside.conductor)
    looks = [looker.step()]
    inside.pass_hours(1 / 60)
    looks.append(looker.step())
    inside.pass_hours(5 / 60)
    looks.append(looker.step())

    assert [1, 0, 1] == looks


def test_the_looker_ends_when_told() -> None:
    """Its thread looks until then."""
    inside = house()
    experiment_id = started(inside).plan.experiment_id
    looked = threading.Event()

    def tenants() -> list[Any]:
        looked.set()
        return [LOCAL_TENANT]

    looker = Looker(tenants, lambda _: inside.conductor, poll_seconds=0.01)
    looker.start()
    assert looked.wait(10)
    looker.stop()

    assert experiment_id == inside.experiments.newest(1)[0].plan.experiment_id
