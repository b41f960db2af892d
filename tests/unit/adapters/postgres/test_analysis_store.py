"""Analyses of experiments: of two who go on from the same one, one is kept."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from experiment_rows_world import at, exposure_row, log_of, outcome_row, running_in

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.analysis_store import PostgresAnalyses
from dspy_optimization.errors import NotFoundError
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.log import LogCounts
from dspy_optimization.tenancy import TenantId


@pytest.fixture
def analyses(database: Database, tenant: TenantId) -> PostgresAnalyses:
    return PostgresAnalyses(database, tenant)


@pytest.fixture
def experiment(database: Database) -> Experiment:
    return running_in(database)


def going_on(experiment: Experiment, n_units: int) -> Analysis:
    """The analysis of so many units; the first has a name that PostgreSQL takes for no text."""
    plan = experiment.plan
    exposures = [exposure_row(plan, f"u\x00{n}", n) for n in range(n_units)]
    outcomes = [outcome_row(plan, f"u\x00{n}", f"e{n}", n + 5, score=n / (n_units + 1)) for n in range(n_units)]
    log = log_of(plan, [*exposures, *outcomes])
    return Analysis.start(plan).extend(plan, log.exposed(at(9_000)), log.usable(at(9_000)))


def test_an_analysis_is_kept_bit_for_bit(analyses: PostgresAnalyses, experiment: Experiment) -> None:
    """The newest one of each experiment; only who goes on from it may replace it."""
    key = experiment.plan.experiment_id
    begun, further = going_on(experiment, 3), going_on(experiment, 7)
    assert analyses.analysis(key) is None
    assert not analyses.save(key, begun, further)
    assert analyses.save(key, None, begun)
    assert not analyses.save(key, None, further)
    assert begun == analyses.analysis(key)
    assert analyses.save(key, begun, further)
    assert not analyses.save(key, begun, going_on(experiment, 8))

    assert further == analyses.analysis(key)
    assert further.to_json() == going_on(experiment, 7).to_json()


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_who_save_at_once_one_was_first(
    analyses: PostgresAnalyses, experiment: Experiment, is_first: bool
) -> None:
    """The other one hears that somebody else went on."""
    key = experiment.plan.experiment_id
    before = None
    if not is_first:
        before = going_on(experiment, 1)
        analyses.save(key, None, before)
    for number in range(1 if is_first else 3):
        together = threading.Barrier(2)

        def save(
            n_units: int, before: Analysis | None = before, together: threading.Barrier = together
        ) -> tuple[bool, Analysis]:
            after = going_on(experiment, n_units)
            together.wait(20.0)
            return analyses.save(key, before, after), after

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(save, (2 * number + 2, 2 * number + 3)))

        assert [False, True] == sorted(was_first for was_first, _ in found)
        before = next(after for was_first, after in found if was_first)
        assert before == analyses.analysis(key)


def test_an_unknown_experiment_has_no_analysis(
    database: Database, other_tenant: TenantId, analyses: PostgresAnalyses, experiment: Experiment
) -> None:
    """Another tenant's is unknown too."""
    start = going_on(experiment, 1)
    analyses.save(experiment.plan.experiment_id, None, start)
    for store, key in (
        (analyses, ExperimentId(uuid4())),
        (PostgresAnalyses(database, other_tenant), experiment.plan.experiment_id),
    ):
        assert store.analysis(key) is None
        assert not store.save(key, start, start)
        with pytest.raises(NotFoundError, match="no such id"):
            store.save(key, None, start)
        with pytest.raises(NotFoundError, match="no such id"):
            store.counts(key)


def test_an_empty_log_counts_nothing(analyses: PostgresAnalyses, experiment: Experiment) -> None:
    """Zeros, not nulls."""
    assert LogCounts() == analyses.counts(experiment.plan.experiment_id)
