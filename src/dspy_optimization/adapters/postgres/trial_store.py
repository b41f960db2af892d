"""Trials of one tenant."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.adapters.postgres.tables import trial as table
from dspy_optimization.agents.candidate import content_hash
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.trial import Trial
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
