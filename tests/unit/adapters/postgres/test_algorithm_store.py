"""Registered algorithms, on the real database."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres import algorithm_store as module
from dspy_optimization.adapters.postgres.algorithm_store import PostgresAlgorithms
from dspy_optimization.algorithms.custom import CustomAlgorithm
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.tenancy import TenantId


def _mine(noon: datetime, name: str = "mine") -> CustomAlgorithm:
    kept = RuleFinding(rule="forecasts", outcome=Outcome.KEPT)
    odd = RuleFinding(rule="loads", outcome=Outcome.BROKEN, wanted='naïve "🦙"', found="\u0000", possible="x")
    return CustomAlgorithm(
        name=name,
        entrypoint="my_search:Mine",
        version="my-search==1.0 sha256:00",
        findings=(kept, odd),
        registered_at=noon,
    )


def test_it_comes_back_as_it_was(database: Database, tenant: TenantId, noon: datetime) -> None:
    """With what the check found, in whatever characters."""
    store = PostgresAlgorithms(database, tenant)
    store.keep(_mine(noon))
    store.keep(_mine(noon, "also"))

    assert _mine(noon) == store.get("mine")
    assert ["also", "mine"] == [one.name for one in store.registered()]


def test_the_same_name_again_takes_its_place(database: Database, tenant: TenantId, noon: datetime) -> None:
    """Registering again is how a new version becomes usable."""
    store = PostgresAlgorithms(database, tenant)
    newer = replace(_mine(noon), version="my-search==2.0 sha256:11", registered_at=noon + timedelta(days=1))
    store.keep(_mine(noon))
    store.keep(newer)

    assert [newer] == list(store.registered())


def test_what_is_removed_is_gone(database: Database, tenant: TenantId, noon: datetime) -> None:
    """And what is not there is named, with what is."""
    store = PostgresAlgorithms(database, tenant)
    store.keep(_mine(noon))
    store.keep(_mine(noon, "also"))
    store.remove("mine")

    for look in (store.get, store.remove):
        with pytest.raises(NotFoundError, match="'mine'; found: none of that name; possible: also"):
            look("mine")


def test_too_many(database: Database, tenant: TenantId, noon: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last place is one place; one that is there already needs none."""
    monkeypatch.setattr(module, "MOST_ALGORITHMS", 1)
    store = PostgresAlgorithms(database, tenant)
    store.keep(_mine(noon))
    store.keep(_mine(noon))

    with pytest.raises(ConflictError, match="at most 1 registered"):
        store.keep(_mine(noon, "other"))
