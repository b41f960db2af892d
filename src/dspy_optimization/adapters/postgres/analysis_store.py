"""The analyses of one tenant's experiments, and what their logs hold."""

from collections.abc import Mapping
from typing import cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.experiment_store import unknown
from dspy_optimization.adapters.postgres.tables import experiment
from dspy_optimization.adapters.postgres.tables import experiment_analysis as table
from dspy_optimization.agents.candidate import content_hash
from dspy_optimization.events import Json
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.log import LogCounts
from dspy_optimization.tenancy import TenantId

# Where tables are new the planner takes them for small, and joins every event with every unit.
_NO_LOOPS = sa.text("SELECT set_config('enable_nestloop', 'off', true)")
# What `ExperimentLog.counts` says, without reading the log. Differences are compared, not sums: a day more of a moment
# is 23 hours in some time zones, a difference of moments is not.
_COUNTS = sa.text(
    """
    WITH shape AS (SELECT window_length, grace FROM experiment WHERE experiment_id = :experiment),
    timely AS (
        SELECT DISTINCT exposure_id, exposed_at, received_at, split_buckets, variant, version,
            received_at - exposed_at <= shape.grace AS is_timely
        FROM exposure CROSS JOIN shape WHERE experiment_id = :experiment
    ),
    unit AS (
        SELECT exposure_id,
            count(*) FILTER (WHERE is_timely) AS n_timely,
            count(*) FILTER (WHERE NOT is_timely) AS n_late,
            min(exposed_at) FILTER (WHERE is_timely) AS exposed_at,
            count(DISTINCT variant) FILTER (WHERE is_timely) AS n_variants
        FROM timely GROUP BY exposure_id
    ),
    units AS (
        SELECT count(*) FILTER (WHERE n_timely > 0) AS units,
            sum(greatest(n_timely - 1, 0)) AS repeated_exposures,
            sum(n_late) AS late_exposures,
            count(*) FILTER (WHERE n_variants > 1) AS crossovers
        FROM unit
    ),
    told AS (
        SELECT DISTINCT event_id, exposure_id, happened_at, received_at, content FROM outcome
        WHERE experiment_id = :experiment
    ),
    ranked AS (
        SELECT *, row_number() OVER later AS place, first_value(content) OVER later AS winning
        FROM told WINDOW later AS (PARTITION BY event_id ORDER BY received_at, content)
    ),
    tally AS (
        SELECT count(*) FILTER (WHERE place = 1) AS events,
            count(*) FILTER (WHERE place > 1 AND content = winning) AS repeated_outcomes,
            count(*) FILTER (WHERE content <> winning) AS conflicting_outcomes
        FROM ranked
    ),
    judged AS (
        SELECT unit.exposed_at, ranked.received_at - unit.exposed_at AS received_after,
            coalesce(ranked.happened_at, ranked.received_at) - unit.exposed_at AS happened_after
        FROM ranked LEFT JOIN unit ON unit.exposure_id = ranked.exposure_id
        WHERE ranked.place = 1
    ),
    events AS (
        SELECT count(*) FILTER (WHERE exposed_at IS NULL) AS unknown_exposures,
            count(*) FILTER (WHERE happened_after < interval '0') AS early_outcomes,
            count(*) FILTER (WHERE happened_after > window_length) AS outside_window,
            count(*) FILTER (
                WHERE happened_after BETWEEN interval '0' AND window_length AND received_after > window_length + grace
            ) AS late_outcomes,
            count(*) FILTER (
                WHERE happened_after BETWEEN interval '0' AND window_length AND received_after <= window_length + grace
            ) AS counted_events
        FROM judged CROSS JOIN shape
    )
    SELECT units.*, tally.*, events.* FROM shape CROSS JOIN units CROSS JOIN tally CROSS JOIN events
    """
)


class PostgresAnalyses:
    """The `AnalysisStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def analysis(self, experiment_id: ExperimentId) -> Analysis | None:
        """Return the newest; None when there is none yet. Raises `InvalidRequestError` for one of another version."""
        query = sa.select(table.c.document).where(table.c.experiment_id == experiment_id)
        with self._database.transaction(self._tenant) as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else Analysis.from_json(cast("Mapping[str, Json]", found))

    def counts(self, experiment_id: ExperimentId) -> LogCounts:
        """Return what is in the log, and what of it does not count; reads all of it. Raises `NotFoundError`."""
        with self._database.transaction(self._tenant) as connection:
            connection.execute(_NO_LOOPS)
            row = connection.execute(_COUNTS, {"experiment": experiment_id}).mappings().one_or_none()
            if row is None:
                raise unknown(connection, experiment_id)
        # A sum over nothing is null.
        return LogCounts(**{name: int(value or 0) for name, value in row.items()})

    def save(self, experiment_id: ExperimentId, before: Analysis | None, after: Analysis) -> bool:
        """Keep `after` when `before` is still the newest; False when somebody else went on first.

        Raises `NotFoundError` for an unknown experiment.
        """
        document = after.to_json()
        values: dict[str, object] = {"digest": content_hash(document), "document": document}
        with self._database.transaction(self._tenant) as connection:
            if before is None:
                return self._begin(connection, experiment_id, values)
            same = (table.c.experiment_id == experiment_id, table.c.digest == content_hash(before.to_json()))
            return connection.execute(sa.update(table).where(*same).values(values)).rowcount > 0

    def _begin(self, connection: sa.Connection, experiment_id: ExperimentId, values: dict[str, object]) -> bool:
        known = sa.select(experiment.c.experiment_id).where(experiment.c.experiment_id == experiment_id)
        if connection.execute(known).first() is None:
            raise unknown(connection, experiment_id)
        kept = insert(table).values(experiment_id=experiment_id, **values).on_conflict_do_nothing()
        return connection.execute(kept.returning(table.c.experiment_id)).first() is not None
