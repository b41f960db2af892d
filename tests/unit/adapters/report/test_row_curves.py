"""Curves and families from rows are those from whole trials, and few trials are opened for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.adapters.postgres.evidence_store import PostgresEvidence
from dspy_optimization.adapters.report.curves import scaled, score_curves
from dspy_optimization.adapters.report.lineage import family, lineage
from dspy_optimization.adapters.report.row_curves import RowCurves, row_curves
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.tenancy import LOCAL_TENANT
from evidence_world import ACCURACY, COST, Kept, keep

CHEAP = Objective(metric="cost_usd", direction=Direction.MINIMIZE, weight=0.5)
GOALS: dict[str, Sequence[Objective]] = {
    "one": (ACCURACY,),
    "guarded": (ACCURACY, COST),
    "tightly guarded": (ACCURACY, replace(COST, margin=0.0)),
    "two": (ACCURACY, CHEAP),
}


@dataclass(slots=True)
class Counting:
    """Opens documents, and remembers of how many trials."""

    evidence: PostgresEvidence
    scores: set[int] = field(default_factory=set)
    texts: set[int] = field(default_factory=set)

    def marks(self, trials: Sequence[int]) -> Any:
        self.scores |= set(trials)
        return self.evidence.marks(trials)

    def candidates(self, trials: Sequence[int]) -> Any:
        self.texts |= set(trials)
        return self.evidence.candidates(trials)


def from_rows(database: Database, kept: Kept, objectives: Sequence[Objective]) -> tuple[RowCurves, Counting]:
    evidence = PostgresEvidence(database, LOCAL_TENANT)
    answers = Counting(evidence)
    goals = Objectives(items=tuple(objectives))
    return row_curves(goals, len(kept.dataset[Split.VAL]), evidence.rows(kept.id), answers), answers


@pytest.mark.parametrize("parts", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", GOALS)
def test_the_same_as_from_whole_trials(database: Database, name: str, seed: int, parts: float) -> None:
    """Points, steps, baseline, leader: guardrails, ties, wholes that were measured in parts."""
    objectives = GOALS[name]
    kept = keep(database, 60, 8, objectives=objectives, parts=parts, seed=seed)
    goals = Objectives(items=tuple(objectives))
    whole = score_curves(scaled(goals, kept.trials), kept.dataset[Split.VAL], kept.trials)
    found, _ = from_rows(database, kept, objectives)

    assert [
        (one.paid_calls, one.algorithm, one.candidate, one.complete, pytest.approx(one.score)) for one in whole.points
    ] == [(one.paid_calls, one.algorithm, one.candidate, one.complete, one.score) for one in found.points]
    assert [(one.paid_calls, one.candidate) for one in whole.best] == [
        (one.paid_calls, one.candidate) for one in found.best
    ]
    assert whole.baseline is not None
    assert found.baseline is not None
    assert whole.baseline.candidate.fingerprint == found.baseline.candidate
    chosen = None if whole.leader is None else whole.leader.candidate
    assert (None if chosen is None else chosen.fingerprint) == (found.leader and found.leader.candidate)
    rows = PostgresEvidence(database, LOCAL_TENANT).rows(kept.id)
    assert [replace(one, score=pytest.approx(one.score)) for one in lineage(kept.trials, whole, chosen)] == list(
        family(rows, found.scores, None if chosen is None else chosen.fingerprint)
    )


def test_wholes_in_parts_are_there(database: Database) -> None:
    """The test above is about something: candidates that only parts together made whole, and ties."""
    kept = keep(database, 60, 8, parts=0.7, seed=1)
    found, _ = from_rows(database, kept, (ACCURACY,))
    sizes = {row.id: row.n_results for row in PostgresEvidence(database, LOCAL_TENANT).rows(kept.id)}

    assert [one for one in found.points if one.complete and sizes[one.trial] < 8]


def test_few_documents_are_opened(database: Database) -> None:
    """Texts of those that are equally good; the scores on examples only for a guardrail, of those that might lead."""
    kept = keep(database, 300, 40, parts=0.0)
    _, plain = from_rows(database, kept, (ACCURACY,))
    _, guarded = from_rows(database, kept, (ACCURACY, COST))

    assert set() == plain.scores
    assert len(plain.texts) < 75
    assert len(guarded.scores) < 150


def test_nothing_measured_is_an_empty_curve(database: Database) -> None:
    """Before the baseline there is nothing, and that is no error."""
    found = row_curves(
        Objectives(items=(ACCURACY,)), 8, [], Counting(PostgresEvidence(database, LOCAL_TENANT))
    )  # fmt: skip

    assert RowCurves(points=(), best=(), baseline=None) == found
    assert (None, {}) == (found.leader, found.scores)
