"""Trials of one tenant."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.adapters.postgres.tables import trial as table
from dspy_optimization.agents.candidate import Fingerprint, content_hash
from dspy_optimization.agents.example import Split
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.optimization.front import Completed
from dspy_optimization.tenancy import TenantId


class PostgresTrials:
    """The `TrialStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def record(self, optimization_id: OptimizationId, trial: Trial) -> bool:
        """Keep a trial; False when (algorithm, candidate, split, example ids) is known already."""
        row = {
            "optimization_id": optimization_id,
            "algorithm": trial.algorithm,
            "candidate": trial.candidate.fingerprint,
            "split": trial.split.value,
            "examples": content_hash(list(trial.example_ids)),
            "score": trial.score,
            "document": write(trial),
            "recorded_at": trial.recorded_at,
        }
        added = insert(table).values(row).on_conflict_do_nothing().returning(table.c.trial_id)
        with self._database.transaction(self._tenant) as connection:
            return connection.execute(added).first() is not None

    def trials(self, optimization_id: OptimizationId) -> Sequence[Trial]:
        """Return them in the order they were recorded."""
        query = sa.select(table.c.document).where(table.c.optimization_id == optimization_id).order_by(table.c.trial_id)
        with self._database.transaction(self._tenant) as connection:
            documents = connection.execute(query).scalars().all()
        return [read(Trial, document) for document in documents]

    def completed(self, optimization_id: OptimizationId, n_val: int) -> Sequence[Completed]:
        """Return the candidates measured on all `n_val` examples of val, in the order in which they became so.

        Which examples a trial holds is only read of those that hold a part of val.
        """
        result = sa.func.json_array_elements(table.c.document["noun"]["results"]).table_valued(
            sa.column("value", sa.JSON())
        )
        names = sa.select(sa.func.array_agg(result.c.value["example_id"].as_string())).scalar_subquery()
        query = (
            sa.select(
                table.c.candidate,
                table.c.paid_calls,
                table.c.n_results,
                sa.case((table.c.n_results < n_val, names)).label("examples"),
            )
            .where(table.c.optimization_id == optimization_id, table.c.split == Split.VAL.value)
            .order_by(table.c.trial_id)
        )
        known: dict[str, set[str]] = {}
        found: dict[str, Completed] = {}
        with self._database.transaction(self._tenant) as connection:
            for row in connection.execute(query):
                examples = known.setdefault(row.candidate, set())
                examples.update(row.examples or ())
                if row.candidate not in found and (row.n_results >= n_val or len(examples) >= n_val):
                    found[row.candidate] = Completed(Fingerprint(row.candidate), row.paid_calls)
        return list(found.values())
