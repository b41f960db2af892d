"""PostgreSQL, the only memory: embedded or by URL, and a store a noun."""

from dspy_optimization.adapters.postgres.agent_store import PostgresAgents
from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.dataset_store import PostgresDatasets
from dspy_optimization.adapters.postgres.embedded import EmbeddedPostgres
from dspy_optimization.adapters.postgres.event_store import PostgresEvents
from dspy_optimization.adapters.postgres.gpu_use_store import PostgresGpuUse
from dspy_optimization.adapters.postgres.key_store import PostgresKeys
from dspy_optimization.adapters.postgres.lease_store import PostgresLeases
from dspy_optimization.adapters.postgres.ledger_store import PostgresLedger
from dspy_optimization.adapters.postgres.optimization_store import PostgresOptimizations
from dspy_optimization.adapters.postgres.result_store import PostgresResults
from dspy_optimization.adapters.postgres.trial_store import PostgresTrials

__all__ = [
    "Database",
    "EmbeddedPostgres",
    "PostgresAgents",
    "PostgresDatasets",
    "PostgresEvents",
    "PostgresGpuUse",
    "PostgresKeys",
    "PostgresLeases",
    "PostgresLedger",
    "PostgresOptimizations",
    "PostgresResults",
    "PostgresTrials",
]
