"""Results of one tenant, and who opened which test split."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.adapters.postgres.optimization_store import locked, step
from dspy_optimization.adapters.postgres.tables import example, test_split_use
from dspy_optimization.adapters.postgres.tables import optimization_result as table
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.errors import ConflictError
from dspy_optimization.evaluation.gate import Estimate
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event, Json
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.tenancy import TenantId


class PostgresResults:
    """The `ResultStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def save(self, result: OptimizationResult, status: OptimizationStatus, events: Sequence[Event]) -> None:
        """Keep the result, set the status and write the events in one transaction.

        Saving the same once more changes nothing: a commit whose answer was lost may be tried again. Raises
        `ConflictError` when there is another result already or the status step is not in `ALLOWED`.
        """
        kept = sa.select(table.c.document).where(table.c.optimization_id == result.optimization_id)
        row = _row(result)
        with self._database.transaction(self._tenant) as connection:
            before = locked(connection, result.optimization_id)
            known = connection.execute(kept).scalar_one_or_none()
            if known is not None:
                if before.status is status and read(OptimizationResult, known) == result:
                    return
                raise ConflictError(
                    f"wanted: the first result of optimization {result.optimization_id}; found: one, and the status"
                    f" {before.status.value}; possible: read that one, a new optimization"
                )
            connection.execute(sa.insert(table).values(row))
            step(connection, before, replace(before, status=status, updated_at=result.completed_at), events)

    def result(self, optimization_id: OptimizationId) -> OptimizationResult | None:
        """Return the result; None while there is none."""
        query = sa.select(table.c.document).where(table.c.optimization_id == optimization_id)
        with self._database.transaction(self._tenant) as connection:
            document = connection.execute(query).scalar_one_or_none()
        return None if document is None else read(OptimizationResult, document)

    def test_split_uses(self, sealed: Sequence[ExampleId]) -> int:
        """Return how many optimizations opened a test split that holds any of these examples."""
        with self._database.transaction(self._tenant) as connection:
            return connection.execute(
                _uses(sa.select(sa.func.unnest(sa.literal(list(sealed), sa.ARRAY(sa.Text())))))
            ).scalar_one()

    def open_test_split(self, dataset: DatasetVersion, optimization_id: OptimizationId) -> int:
        """Record durably that this optimization opens the split; return which use it is (1 the first).

        An optimization that opens it again, after a resume, gets the number it had. Other datasets count whose test
        split shares an example: splitting the same examples anew makes no fresh test split.
        """
        mine = sa.select(test_split_use.c.use).where(
            test_split_use.c.dataset_version == dataset, test_split_use.c.optimization_id == optimization_id
        )
        owned = example.alias("owned")
        own = sa.select(owned.c.example_id).where(owned.c.dataset_version == dataset, owned.c.split == Split.TEST.value)
        turn = hashlib.sha256(f"test split/{self._tenant}".encode()).digest()
        with self._database.transaction(self._tenant) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(int.from_bytes(turn[:8], signed=True))))
            had: int | None = connection.execute(mine).scalar_one_or_none()
            if had is not None:
                return had
            use: int = connection.execute(_uses(own)).scalar_one() + 1
            row = {"dataset_version": dataset, "optimization_id": optimization_id, "use": use}
            connection.execute(sa.insert(test_split_use).values(row))
            return use


def _uses(sealed: "sa.Select[str]") -> "sa.Select[int]":
    """Count the uses of every dataset whose test split holds any of the selected example ids."""
    touched = sa.select(example.c.dataset_version).where(
        example.c.split == Split.TEST.value, example.c.example_id.in_(sealed)
    )
    return sa.select(sa.func.count()).select_from(test_split_use).where(test_split_use.c.dataset_version.in_(touched))


def _row(result: OptimizationResult) -> dict[str, object]:
    """Return the columns to search by, and the whole."""
    validated = result.validated
    primary = None if validated is None else validated.objectives[validated.primary]
    details: dict[str, Json] = {
        "verdict": None if validated is None else validated.verdict.value,
        "reason": None if validated is None else validated.reason,
        "ended_because": result.ended_because,
        "iterations": result.iterations,
        "trials": result.trials,
        "lm_calls": result.bill.total.calls,
        "cost_usd": result.bill.total.cost_usd,
    }
    return {
        "optimization_id": result.optimization_id,
        "algorithm_used": result.algorithm_used,
        "baseline_performance": _performance(result, "baseline"),
        "optimized_performance": _performance(result, "optimized"),
        "improvement_percentage": None if primary is None else primary.improvement_percentage,
        "statistical_significance": None if primary is None else primary.p_value,
        "optimization_details": details,
        "document": write(result),
        "completed_at": result.completed_at,
    }


def _performance(result: OptimizationResult, which: str) -> dict[str, Json]:
    """Return metric or figure → estimate, of the baseline or of the optimized agent."""
    if result.validated is None:
        return {}
    figures: Mapping[str, Estimate] = getattr(result.validated, f"{which}_performance")
    objectives = {name: getattr(one, which) for name, one in result.validated.objectives.items()}
    return {name: write(estimate)["noun"] for name, estimate in {**figures, **objectives}.items()}
