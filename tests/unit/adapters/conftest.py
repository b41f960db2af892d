"""The sample of the reports (`report_sample`), kept in a real database. Stands here so that tests below find it."""

from collections.abc import Callable

import pytest
from report_sample import material

from dspy_optimization.adapters.postgres import (
    Database,
    PostgresAgents,
    PostgresDatasets,
    PostgresEvents,
    PostgresLedger,
    PostgresOptimizations,
    PostgresResults,
    PostgresTrials,
)
from dspy_optimization.adapters.report.facts import Material
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.optimization.store import Stores
from dspy_optimization.tenancy import LOCAL_TENANT


@pytest.fixture
def kept(database: Database) -> Callable[[Material], Stores]:
    """Keep request, trials, events, agent and dataset of a sample; return the stores."""

    def keep(whole: Material) -> Stores:
        stores = Stores(
            optimizations=PostgresOptimizations(database, LOCAL_TENANT),
            trials=PostgresTrials(database, LOCAL_TENANT),
            results=PostgresResults(database, LOCAL_TENANT),
            events=PostgresEvents(database, LOCAL_TENANT),
            agents=PostgresAgents(database, LOCAL_TENANT, AllowList()),
            datasets=PostgresDatasets(database, LOCAL_TENANT),
            ledger=PostgresLedger(database, LOCAL_TENANT),
        )
        stores.agents.add(whole.agent)
        stores.datasets.add(whole.dataset)
        stores.optimizations.add(whole.optimization.request)
        for trial in whole.trials:
            stores.trials.record(whole.optimization.request.id, trial)
        for recorded in whole.events:
            stores.events.emit(recorded.event)
        return stores

    return keep


@pytest.fixture
def whole() -> Material:
    """The improved sample."""
    return material()
