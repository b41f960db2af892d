"""Agents, datasets, trials and results."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import (
    Database,
    PostgresAgents,
    PostgresDatasets,
    PostgresEvents,
    PostgresOptimizations,
    PostgresResults,
    PostgresTrials,
)
from dspy_optimization.adapters.postgres.overview_store import PostgresOverview
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.agents.splitting import dataset_version
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.tenancy import TenantId

COMPLETED = OptimizationStatus.COMPLETED


def test_an_agent_is_kept_once_a_version(database: Database, tenant: TenantId, agent: AgentConfig) -> None:
    """Equal content, one version; a changed one has its parent; the newest comes first."""
    store = PostgresAgents(database, tenant, AllowList())
    first = store.add(agent)
    second = store.add(replace(agent, adapter="json"), parent=first)
    other = store.add(replace(agent, name="other"))

    assert first == store.add(agent)
    assert agent == store.get(first)
    assert [("other", other), ("router", second), ("router", first)] == store.versions()
    assert [("router", second), ("router", first)] == store.versions("router")


def test_an_unknown_agent_names_the_known(database: Database, tenant: TenantId, agent: AgentConfig) -> None:
    """As a version and as a parent."""
    store = PostgresAgents(database, tenant, AllowList())
    version = store.add(agent)

    with pytest.raises(NotFoundError, match=f"newest first: router {version}"):
        store.get("nope")
    with pytest.raises(NotFoundError, match="agent version nope"):
        store.add(replace(agent, name="child"), parent="nope")


def test_a_stored_agent_is_as_untrusted_as_a_file(database: Database, tenant: TenantId, agent: AgentConfig) -> None:
    """What is no longer allowed is refused when it is read."""
    tool = "package.module:function"
    armed = replace(agent, kind=AgentKind.REACT, tools=(tool,))
    version = PostgresAgents(database, tenant, AllowList(tools=frozenset({tool}))).add(armed)

    with pytest.raises(InvalidRequestError, match=tool):
        PostgresAgents(database, tenant, AllowList()).get(version)


def test_a_dataset_comes_back_to_the_order_of_its_keys(database: Database, tenant: TenantId, dataset: Dataset) -> None:
    """A prompt built from an example must be the same text after a resume."""
    store = PostgresDatasets(database, tenant)
    assert dataset.version == store.add(dataset) == store.add(replace(dataset, name="again"))

    found = store.get(dataset.version)

    assert dataset == found
    assert [json.dumps(one.to_json()) for one in dataset.examples] == [
        json.dumps(one.to_json()) for one in found.examples
    ]


def test_an_empty_split_is_kept(database: Database, tenant: TenantId, dataset: Dataset) -> None:
    """No examples at all is a dataset too."""
    empty = replace(dataset, splits=dict.fromkeys(Split, ()), seed=0)
    store = PostgresDatasets(database, tenant)
    store.add(empty)

    assert empty == store.get(empty.version)


def test_an_unknown_dataset_names_the_known(database: Database, tenant: TenantId, dataset: Dataset) -> None:
    """The newest first, by name as well."""
    store = PostgresDatasets(database, tenant)
    store.add(dataset)
    store.add(replace(dataset, name="letters", version="e" * 64))

    with pytest.raises(NotFoundError, match=r"newest first: letters eee.*, numbers ddd"):
        store.get("nope")
    assert [("letters", "e" * 64), ("numbers", "d" * 64)] == store.versions()
    assert [("numbers", "d" * 64)] == store.versions("numbers")


def test_a_trial_is_recorded_once(
    database: Database, tenant: TenantId, optimization_id: OptimizationId, trial_of: Callable[..., Trial]
) -> None:
    """Same algorithm, candidate, split and examples: a replay records nothing new."""
    store = PostgresTrials(database, tenant)
    trials = [trial_of(2), trial_of(1), trial_of(1, algorithm="simba")]

    assert [True, True, True] == [store.record(optimization_id, trial) for trial in trials]
    assert [False] * 3 == [store.record(optimization_id, replace(trial, iteration=99)) for trial in trials]
    assert trials == store.trials(optimization_id)


def test_a_candidate_that_was_measured_twice_is_one_trial(
    database: Database, tenant: TenantId, optimization_id: OptimizationId, trial_of: Callable[..., Trial]
) -> None:
    """An algorithm that measures the baseline again has tried nothing more: results count the same."""
    store = PostgresTrials(database, tenant)

    for algorithm in ("baseline", "gepa"):
        store.record(optimization_id, trial_of(1, algorithm=algorithm))

    assert 1 == PostgresOverview(database, tenant).moment(optimization_id).overview.trials


@pytest.fixture
def running(database: Database, tenant: TenantId, optimization_id: OptimizationId) -> OptimizationId:
    optimizations = PostgresOptimizations(database, tenant)
    optimizations.update(optimization_id, lambda one: replace(one, status=OptimizationStatus.RUNNING))
    return optimization_id


def test_a_result_is_kept_with_its_status_and_events(
    database: Database,
    tenant: TenantId,
    running: OptimizationId,
    result_of: Callable[..., OptimizationResult],
    noon: datetime,
) -> None:
    """One transaction for all three; tried again it changes nothing."""
    store = PostgresResults(database, tenant)
    result = result_of(running)
    told = Event(type=EventType.OPTIMIZATION_COMPLETED, optimization_id=running, at=noon)
    assert store.result(running) is None

    store.save(result, COMPLETED, [told])
    store.save(result, COMPLETED, [told])

    assert result == store.result(running)
    assert COMPLETED is PostgresOptimizations(database, tenant).get(running).status
    assert [told] == [one.event for one in PostgresEvents(database, tenant).events(running)]


def test_a_result_is_never_replaced(
    database: Database, tenant: TenantId, running: OptimizationId, result_of: Callable[..., OptimizationResult]
) -> None:
    """Evidence is written once, and only where the status allows it."""
    store = PostgresResults(database, tenant)
    with pytest.raises(ConflictError, match="is running and cannot become queued"):
        store.save(result_of(running), OptimizationStatus.QUEUED, [])
    assert store.result(running) is None
    store.save(result_of(running), COMPLETED, [])

    with pytest.raises(ConflictError, match="the first result of optimization"):
        store.save(result_of(running, trials=9), COMPLETED, [])


@pytest.mark.parametrize(("proven", "expected"), [(True, ("gepa", 50.0, 0.01, "improved", 0.75)), (False, None)])
def test_results_can_be_searched(
    database: Database,
    tenant: TenantId,
    running: OptimizationId,
    result_of: Callable[..., OptimizationResult],
    proven: bool,
    expected: tuple[object, ...] | None,
) -> None:
    """The columns of the data model say what the result says; without a verdict they claim nothing."""
    changes = {} if proven else {"validated": None, "algorithm_used": None, "ended_because": "cancelled"}
    result = result_of(running, **changes)
    PostgresResults(database, tenant).save(result, COMPLETED, [])
    query = sa.text(
        "SELECT algorithm_used, improvement_percentage, statistical_significance, optimization_details->>'verdict',"
        " (optimized_performance->'exact_match'->>'value')::float FROM optimization_result"
    )

    with database.transaction(tenant) as connection:
        found = connection.execute(query).one()

    assert (expected or (None,) * 5) == tuple(found)
    assert result == PostgresResults(database, tenant).result(running)


def test_uses_of_a_test_split_are_counted_from_their_opening(
    database: Database, tenant: TenantId, dataset: Dataset, optimization_in: Callable[..., OptimizationId]
) -> None:
    """Every optimization has one number, however often it is resumed, and threads get different ones."""
    store = PostgresResults(database, tenant)
    ids = [optimization_in(minutes=minute) for minute in range(5)]
    uses: dict[OptimizationId, int] = {}

    def open_split(one: OptimizationId) -> None:
        uses[one] = store.open_test_split(dataset.version, one)

    threads = [threading.Thread(target=open_split, args=(one,)) for one in ids[:4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [1, 2, 3, 4] == sorted(uses.values())
    assert uses[ids[0]] == store.open_test_split(dataset.version, ids[0])
    assert 4 == store.test_split_uses([one.id for one in dataset[Split.TEST]])


def test_splitting_the_same_examples_anew_makes_no_fresh_test_split(
    database: Database, tenant: TenantId, dataset: Dataset, optimization_in: Callable[..., OptimizationId]
) -> None:
    """A dataset whose test split shares an example with an opened one is a further use; one that shares none is not."""
    sealed, others = dataset[Split.TEST], dataset[Split.TRAIN]
    mixed = {Split.TRAIN: sealed[1:], Split.VAL: dataset[Split.VAL], Split.TEST: (sealed[0], *others)}
    fresh = {Split.TRAIN: sealed, Split.VAL: dataset[Split.VAL], Split.TEST: others}
    again, disjoint = (replace(dataset, version=dataset_version(splits), splits=splits) for splits in (mixed, fresh))
    datasets, store = PostgresDatasets(database, tenant), PostgresResults(database, tenant)
    for one in (again, disjoint):
        datasets.add(one)
    ids = [optimization_in(minutes=minute) for minute in range(3)]

    uses = [store.open_test_split(one.version, by) for one, by in zip((dataset, disjoint, again), ids, strict=True)]

    assert [1, 1, 3] == uses
    assert (2, 0) == (store.test_split_uses([sealed[0].id]), store.test_split_uses([ExampleId("unseen")]))


def test_a_candidate_is_complete_when_every_example_was_measured(
    database: Database, tenant: TenantId, optimization_id: OptimizationId, trial_of: Callable[..., Trial]
) -> None:
    """At once or in parts; a part that comes twice counts once, one on train not at all."""
    store = PostgresTrials(database, tenant)
    halves = [trial_of(1), trial_of(1, algorithm="simba"), trial_of(2), trial_of(3)]
    other = Candidate(components={ComponentName("self"): ComponentValue(instructions="other")})
    whole = replace(trial_of(4), candidate=other, results=(*halves[0].results, *halves[2].results), paid_calls=9)
    train = replace(trial_of(5), split=Split.TRAIN)
    for trial in (halves[0], train, halves[1], whole, halves[2], halves[3]):
        store.record(optimization_id, trial)

    assert [(other.fingerprint, 9), (halves[0].candidate.fingerprint, 2)] == store.completed(optimization_id, 2)
    assert [] == store.completed(optimization_id, 4)
