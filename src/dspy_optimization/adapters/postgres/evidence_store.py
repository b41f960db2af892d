"""What an optimization measured, read in parts: whoever shows a page takes the rows it shows and no others.

A trial's document holds every answer of every example, so thousands of them are hundreds of megabytes. Its columns say
what lists and curves need; a document is opened for the few trials of which the answers themselves are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read
from dspy_optimization.adapters.postgres.event_store import recorded_event
from dspy_optimization.adapters.postgres.tables import event, example, trial
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import RecordedEvent
from dspy_optimization.tenancy import TenantId

_SHORT = (
    trial.c.trial_id,
    trial.c.algorithm,
    trial.c.candidate,
    trial.c.split,
    trial.c.score,
    trial.c.n_results,
    trial.c.iteration,
    trial.c.paid_calls,
    trial.c.origin,
    trial.c.parents,
    trial.c.recorded_at,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial without its answers and without the candidate's texts."""

    id: int
    """Grows in the order trials were recorded."""
    algorithm: str
    candidate: Fingerprint
    split: Split
    score: float
    n_results: int
    iteration: int
    paid_calls: int
    origin: str
    parents: tuple[Fingerprint, ...]
    recorded_at: datetime


class PostgresEvidence:
    """Evidence of one tenant. Thread-safe; only reads. Ids that another tenant has are as unknown as any."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def rows(self, optimization_id: OptimizationId, *, after: int = 0, limit: int | None = None) -> Sequence[TrialRow]:
        """Return trials with a greater id, in the order they were recorded."""
        query = (
            sa.select(*_SHORT)
            .where(trial.c.optimization_id == optimization_id, trial.c.trial_id > after)
            .order_by(trial.c.trial_id)
            .limit(limit)
        )
        with self._database.transaction(self._tenant) as connection:
            return [_row(one) for one in connection.execute(query).mappings()]

    def trials_of(
        self, optimization_id: OptimizationId, candidates: Sequence[Fingerprint], split: Split
    ) -> Sequence[Trial]:
        """Return the trials of these candidates on a split, whole, in the order they were recorded."""
        query = (
            sa.select(trial.c.document)
            .where(
                trial.c.optimization_id == optimization_id,
                trial.c.candidate.in_(candidates),
                trial.c.split == split.value,
            )
            .order_by(trial.c.trial_id)
        )
        with self._database.transaction(self._tenant) as connection:
            return [read(Trial, document) for document in connection.execute(query).scalars()]

    def marks(self, trials: Sequence[int]) -> Mapping[int, Mapping[ExampleId, Mapping[str, Score]]]:
        """Return trial → example → metric → score; the scores without their reasons."""
        query = sa.select(trial.c.trial_id, trial.c.document["noun"]["results"].label("results")).where(
            trial.c.trial_id.in_(trials)
        )
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).all()
        return {
            row.trial_id: {
                ExampleId(result["example_id"]): {
                    metric: Score(value=float(score["value"])) for metric, score in result["scores"].items()
                }
                for result in row.results
            }
            for row in rows
        }

    def means(
        self, optimization_id: OptimizationId, candidates: Sequence[Fingerprint], n_val: int
    ) -> Mapping[Fingerprint, Mapping[str, float]]:
        """Return candidate → metric → mean on val, of those measured on all of it, on one trial or several.

        The newest result of an example counts, as for the optimizer. Computed where the answers lie: none is sent.
        """
        value = sa.column("value", sa.JSON())
        results = sa.func.json_array_elements(trial.c.document["noun"]["results"]).table_valued(value).lateral("result")
        scores = sa.func.json_each(results.c.value["scores"]).table_valued("key", value).lateral("scored")
        place = sa.func.row_number().over(
            partition_by=(trial.c.candidate, results.c.value["example_id"].as_string(), scores.c.key),
            order_by=trial.c.trial_id.desc(),
        )
        every = (
            sa.select(
                trial.c.candidate,
                scores.c.key.label("metric"),
                sa.cast(scores.c.value["value"].as_string(), sa.Double()).label("score"),
                place.label("place"),
            )
            .select_from(trial.join(results, sa.true()).join(scores, sa.true()))
            .where(
                trial.c.optimization_id == optimization_id,
                trial.c.split == Split.VAL.value,
                trial.c.candidate.in_(candidates),
            )
            .subquery()
        )
        query = (
            sa.select(every.c.candidate, every.c.metric, sa.func.avg(every.c.score).label("mean"))
            .where(every.c.place == 1)
            .group_by(every.c.candidate, every.c.metric)
            .having(sa.func.count() >= n_val)
        )
        found: dict[Fingerprint, dict[str, float]] = {}
        with self._database.transaction(self._tenant) as connection:
            for row in connection.execute(query):
                found.setdefault(Fingerprint(row.candidate), {})[row.metric] = row.mean
        return found

    def candidates(self, trials: Sequence[int]) -> Mapping[int, Candidate]:
        """Return trial → its candidate with all texts."""
        whole = sa.func.json_build_object(
            "version", trial.c.document["version"], "noun", trial.c.document["noun"]["candidate"], type_=sa.JSON()
        )
        query = sa.select(trial.c.trial_id, whole.label("document")).where(trial.c.trial_id.in_(trials))
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).all()
        return {row.trial_id: read(Candidate, row.document) for row in rows}

    def beginning_with(
        self, optimization_id: OptimizationId, beginning: str, limit: int
    ) -> Sequence[tuple[Fingerprint, int]]:
        """Return candidates whose fingerprint begins so, each with its first trial, in the order they were met."""
        query = (
            sa.select(trial.c.candidate, sa.func.min(trial.c.trial_id).label("first"))
            .where(trial.c.optimization_id == optimization_id, trial.c.candidate.startswith(beginning, autoescape=True))
            .group_by(trial.c.candidate)
            .order_by(sa.text("first"))
            .limit(limit)
        )
        with self._database.transaction(self._tenant) as connection:
            return [(Fingerprint(row.candidate), row.first) for row in connection.execute(query)]

    def sizes(self, dataset: DatasetVersion) -> Mapping[Split, int]:
        """Return split → how many examples it has; a dataset that is not kept has none."""
        query = (
            sa.select(example.c.split, sa.func.count().label("n"))
            .where(example.c.dataset_version == dataset)
            .group_by(example.c.split)
        )
        with self._database.transaction(self._tenant) as connection:
            found = {Split(row.split): row.n for row in connection.execute(query)}
        return dict.fromkeys(Split, 0) | found

    def examples(self, dataset: DatasetVersion, split: Split) -> Sequence[Example]:
        """Return the examples of one split, in their order."""
        query = (
            sa.select(example.c.document)
            .where(example.c.dataset_version == dataset, example.c.split == split.value)
            .order_by(example.c.position)
        )
        with self._database.transaction(self._tenant) as connection:
            return [read(Example, document) for document in connection.execute(query).scalars()]

    def events(
        self, optimization_id: OptimizationId, *, after: int, before: int | None, newest_first: bool, limit: int
    ) -> Sequence[RecordedEvent]:
        """Return events between two ids, both left out; `before` None: up to the end."""
        query = (
            sa.select(event)
            .where(event.c.optimization_id == optimization_id, event.c.event_id > after)
            .order_by(event.c.event_id.desc() if newest_first else event.c.event_id)
            .limit(limit)
        )
        if before is not None:
            query = query.where(event.c.event_id < before)
        with self._database.transaction(self._tenant) as connection:
            return [recorded_event(row) for row in connection.execute(query)]

    def last_event(self, optimization_id: OptimizationId) -> int:
        """Return the id of the newest event; 0 when there is none. It grows with everything that happens."""
        query = sa.select(sa.func.max(event.c.event_id)).where(event.c.optimization_id == optimization_id)
        with self._database.transaction(self._tenant) as connection:
            return connection.execute(query).scalar_one() or 0


def _row(row: sa.RowMapping) -> TrialRow:
    return TrialRow(
        id=row["trial_id"],
        algorithm=row["algorithm"],
        candidate=Fingerprint(row["candidate"]),
        split=Split(row["split"]),
        score=row["score"],
        n_results=row["n_results"],
        iteration=row["iteration"],
        paid_calls=row["paid_calls"],
        origin=row["origin"],
        parents=tuple(Fingerprint(one) for one in row["parents"]),
        recorded_at=row["recorded_at"],
    )
