"""Experiments: one an agent, changed by one at a time, and what is told of them is told once or not at all."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from experiment_rows_world import at, planned_in, running_in

from dspy_optimization.adapters.postgres import Database, PostgresEvents
from dspy_optimization.adapters.postgres.experiment_store import PostgresExperiments, tenants_with_experiments
from dspy_optimization.adapters.postgres.outbox_store import PostgresOutbox
from dspy_optimization.adapters.postgres.webhook_store import OutwardType, PostgresWebhooks
from dspy_optimization.adapters.webhooks import cloud_event
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event
from dspy_optimization.experiments.assignment import ExperimentId, Override
from dspy_optimization.experiments.decision import Alert, Decision, DecisionState
from dspy_optimization.experiments.experiment import Conclusion, Experiment, ExperimentStatus
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from webhook_world import add_optimization


@pytest.fixture
def experiments(database: Database, tenant: TenantId) -> PostgresExperiments:
    return PostgresExperiments(database, tenant)


@pytest.fixture
def events(database: Database, tenant: TenantId) -> Callable[[Experiment], list[Event]]:
    """What was told of the optimization that an experiment is about."""

    def read(experiment: Experiment) -> list[Event]:
        recorded = PostgresEvents(database, tenant).events(experiment.plan.optimization_id)
        return [one.event for one in recorded]

    return read


def alerted(experiment: Experiment) -> Conclusion:
    """As a look after seven days leaves it."""
    decision = Decision(
        state=DecisionState.INCONCLUSIVE,
        winner=Variant.BASELINE,
        confidence=0.25,
        deployment_recommended=False,
        ends=False,
        decided_at=at(604_800),
        reason="No answer after 168 h.",
    )
    return Conclusion(
        replace(experiment, decision=decision, alerted_at=at(604_800)), Alert.NOT_SIGNIFICANT_IN_7_DAYS, None
    )


def won(experiment: Experiment) -> Conclusion:
    """As the look leaves it that found a winner."""
    decision = Decision(
        state=DecisionState.WINNER,
        winner=Variant.OPTIMIZED,
        confidence=0.97,
        deployment_recommended=True,
        ends=True,
        decided_at=at(700_000),
        reason="The optimized version is better.",
    )
    ended = replace(
        experiment,
        status=ExperimentStatus.DECIDED,
        decision=decision,
        ended_at=decision.decided_at,
        ended_because=decision.reason,
    )
    return Conclusion(ended, None, ended.result())


def test_an_experiment_is_kept_as_it_is(database: Database, experiments: PostgresExperiments) -> None:
    """Newest first, running ones by agent; ended ones make room for the next on their agent."""
    first = running_in(database)
    other = planned_in(database, agent="router")
    experiments.add(replace(other, created_at=at(60)))
    experiments.change(first.plan.experiment_id, lambda one: one.stop("enough", at=at(90)))
    second = running_in(database, optimization_id=first.plan.optimization_id)

    assert second == experiments.get(second.plan.experiment_id)
    newest = [one.plan.experiment_id for one in experiments.newest(9)]
    assert other.plan.experiment_id == newest[0]
    assert {first.plan.experiment_id, second.plan.experiment_id} == set(newest[1:])
    assert newest[:2] == [one.plan.experiment_id for one in experiments.newest(2)]
    assert [second] == experiments.running() == experiments.running("support")
    assert [] == experiments.running("router")
    assert [LOCAL_TENANT] == tenants_with_experiments(database)


def test_an_unknown_experiment_is_not_found(database: Database, experiments: PostgresExperiments) -> None:
    """The message names the newest."""
    wanted = ExperimentId(uuid4())
    with pytest.raises(NotFoundError, match="none yet"):
        experiments.get(wanted)
    known = running_in(database).plan.experiment_id
    with pytest.raises(NotFoundError, match=f"{wanted}; found: no such id; possible, newest first: {known}"):
        experiments.change(wanted, lambda one: one)


def test_what_cannot_be_kept_is_refused(
    database: Database, other_tenant: TenantId, experiments: PostgresExperiments
) -> None:
    """Nothing of it is kept."""
    running = running_in(database)
    about = running.plan.optimization_id
    with pytest.raises(ConflictError, match=f"agent support: .* found: experiment {running.plan.experiment_id}"):
        experiments.add(planned_in(database, optimization_id=about))
    with pytest.raises(ConflictError, match="one with this id"):
        experiments.add(running)
    with pytest.raises(NotFoundError, match="whose result it compares"):
        experiments.add(planned_in(database, agent="a", optimization_id=OptimizationId(uuid4())))
    theirs = add_optimization(database, other_tenant)
    with pytest.raises(NotFoundError, match=str(theirs)):
        experiments.add(planned_in(database, agent="a", optimization_id=theirs))
    with pytest.raises(InvalidRequestError, match=f"a plan of the tenant {LOCAL_TENANT}"):
        experiments.add(planned_in(database, other_tenant, agent="a"))
    many = tuple(
        Override(attribute="unit_id", values=frozenset({str(n)}), variant=Variant.BASELINE) for n in range(101)
    )
    with pytest.raises(InvalidRequestError, match="overrides"):
        experiments.add(planned_in(database, agent="a", optimization_id=about, overrides=many))

    assert [running] == experiments.newest(9)


def test_of_two_starts_at_once_one_is_refused(database: Database, experiments: PostgresExperiments) -> None:
    """Whoever comes second hears of the first, each time."""
    about = add_optimization(database, LOCAL_TENANT)
    for number in range(5):
        both = [planned_in(database, agent=f"a{number}", optimization_id=about).start(at=at(0)) for _ in range(2)]
        together = threading.Barrier(2)

        def add(one: Experiment, together: threading.Barrier = together) -> str | None:
            together.wait(20.0)
            try:
                experiments.add(one)
            except ConflictError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(2) as pool:
            refused = [one for one in pool.map(add, both) if one is not None]

        assert 1 == len(refused)
        assert str(experiments.running(f"a{number}")[0].plan.experiment_id) in refused[0]


def test_changes_at_once_come_one_after_the_other(database: Database, experiments: PostgresExperiments) -> None:
    """None is lost: each sees what the one before it left."""
    experiment = running_in(database, split=Split(buckets=1_000))

    def raise_split(_: int) -> None:
        experiments.change(
            experiment.plan.experiment_id, lambda one: one.raise_split(one.split.share + 0.01, at=one.splits[-1].at)
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(raise_split, range(20)))
    assert 3_000 == experiments.get(experiment.plan.experiment_id).split.buckets


def test_an_alert_and_the_result_are_told_with_the_change(
    database: Database, experiments: PostgresExperiments, events: Callable[[Experiment], list[Event]]
) -> None:
    """Once each, whoever looks how often, in the log of the optimization that is compared."""
    experiment = running_in(database)
    key = experiment.plan.experiment_id
    for _ in range(2):
        experiments.change(key, alerted)
    ended = experiments.change(key, won)
    with pytest.raises(ConflictError, match="allowed: nothing, it is final"):
        experiments.change(key, lambda one: alerted(one).experiment)
    experiments.change(key, lambda one: Conclusion(one, None, None))

    assert ended == experiments.get(key)
    alert, result = events(experiment)
    assert (at(604_800), "not_significant_in_7_days", "No answer after 168 h.") == (
        alert.at,
        alert.data["alert"],
        alert.data["reason"],
    )
    assert {
        "experiment_id": str(key),
        "optimization_id": str(experiment.plan.optimization_id),
        "winner": "optimized",
        "confidence": 0.97,
        "deployment_recommended": True,
        "timestamp": at(700_000).isoformat(),
    } == result.data


def test_who_stops_an_experiment_publishes_its_result(
    database: Database, experiments: PostgresExperiments, events: Callable[[Experiment], list[Event]]
) -> None:
    """As whatever else ends one."""
    experiment = running_in(database)
    experiments.change(experiment.plan.experiment_id, lambda one: one.stop("enough", at=at(90)))

    assert [("experiment.result", "baseline", 0.0)] == [
        (one.type.value, one.data["winner"], one.data["confidence"]) for one in events(experiment)
    ]


def test_looks_at_once_publish_one_result(
    database: Database, experiments: PostgresExperiments, events: Callable[[Experiment], list[Event]]
) -> None:
    """All of them conclude; the first one ends it."""
    experiment = running_in(database)

    def look(_: int) -> None:
        experiments.change(
            experiment.plan.experiment_id, lambda one: Conclusion(one, None, None) if one.has_ended else won(one)
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(8)))
    assert 1 == len(events(experiment))


def test_a_change_that_raises_leaves_nothing(
    database: Database, experiments: PostgresExperiments, events: Callable[[Experiment], list[Event]]
) -> None:
    """Nor does one that is not allowed: another plan, another experiment, a step back."""
    experiment = running_in(database)
    key = experiment.plan.experiment_id
    other = planned_in(database, agent="router", optimization_id=experiment.plan.optimization_id)

    def breaks(one: Experiment) -> Experiment:
        raise ZeroDivisionError

    refused: list[tuple[Callable[[Experiment], Experiment], str]] = [
        (lambda one: replace(one, plan=replace(one.plan, salt="other")), "wanted: the plan it was started with"),
        (lambda one: other, "wanted: a change of itself"),
        (lambda one: replace(one, status=ExperimentStatus.PLANNED), "wanted: to become planned"),
    ]
    with pytest.raises(ZeroDivisionError):
        experiments.change(key, breaks)
    for change, part in refused:
        with pytest.raises(ConflictError, match=part):
            experiments.change(key, change)

    assert (experiment, []) == (experiments.get(key), events(experiment))


def test_the_result_is_undone_with_its_change(
    database: Database, experiments: PostgresExperiments, events: Callable[[Experiment], list[Event]]
) -> None:
    """When the event cannot be written the experiment has not ended."""
    experiment = running_in(database)

    def without_an_end(one: Experiment) -> Experiment:
        return replace(one, status=ExperimentStatus.STOPPED)

    with pytest.raises(ConflictError, match="wanted: its result"):
        experiments.change(experiment.plan.experiment_id, without_an_end)

    assert (experiment, []) == (experiments.get(experiment.plan.experiment_id), events(experiment))


def test_a_plan_may_change_before_the_start(database: Database, experiments: PostgresExperiments) -> None:
    """To another agent too, unless that one has an experiment."""
    running_in(database)
    planned = planned_in(database, agent="router")
    experiments.add(planned)
    key = planned.plan.experiment_id
    changed = experiments.change(key, lambda one: one.with_plan(replace(one.plan, agent="writer", salt="salt-2")))

    assert "writer" == experiments.get(key).plan.agent == changed.plan.agent
    with pytest.raises(ConflictError, match="agent support"):
        experiments.change(key, lambda one: one.with_plan(replace(one.plan, agent="support")))
    experiments.change(key, lambda one: one.start(at=at(5)))
    assert [changed.plan] == [one.plan for one in experiments.running("writer")]


def test_no_tenant_sees_experiments_of_another(
    database: Database, other_tenant: TenantId, experiments: PostgresExperiments
) -> None:
    """Both may have one on an agent of the same name; whoever looks knows both tenants."""
    mine, theirs = running_in(database), running_in(database, other_tenant)
    others = PostgresExperiments(database, other_tenant)

    assert ([mine], [theirs]) == (experiments.newest(9), others.newest(9))
    assert ([mine], [theirs]) == (experiments.running(), others.running("support"))
    with pytest.raises(NotFoundError):
        others.get(mine.plan.experiment_id)
    with pytest.raises(NotFoundError):
        others.change(mine.plan.experiment_id, lambda one: one.stop("no", at=at(90)))
    assert [LOCAL_TENANT, other_tenant] == tenants_with_experiments(database)


def test_webhooks_are_told_of_results(
    database: Database, experiments: PostgresExperiments, webhooks: PostgresWebhooks, outbox: PostgresOutbox
) -> None:
    """The fields of the breakdown, from the experiment."""
    webhooks.add("https://receiver.example.org", "whsec_c2VjcmV0", [OutwardType.EXPERIMENT_RESULT])
    experiment = running_in(database)
    experiments.change(experiment.plan.experiment_id, alerted)
    experiments.change(experiment.plan.experiment_id, won)
    claim = outbox.claim(60.0)
    assert claim is not None
    outgoing = outbox.outgoing(claim)
    assert outgoing is not None

    message = cloud_event(outgoing)
    assert ("experiment.result", f"/experiments/{experiment.plan.experiment_id}") == (
        message["type"],
        message["source"],
    )
    assert experiments.get(experiment.plan.experiment_id).result().to_json() == message["data"]
    assert outbox.claim(60.0) is None
