"""The rows of one tenant's experiments: who was exposed, and what became of it.

A row counts by its `received_at`, and becomes visible a little later. So that no look misses one, `settled_until`
promises that none with an earlier `received_at` will appear, whatever clocks, queues and slow writers do:

    1. the promise, a moment not after the database's clock, is written and committed;
    2. who writes from then on sees it, and a row received before it counts as received right after it;
    3. who was writing then may not have seen it: writers share a lock, and those that held it at that moment are waited
       for. While one of them goes on, the last promise that everybody knows of holds.

Nobody who writes waits for somebody who looks. The server ends writers that hang.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from psycopg import errors
from sqlalchemy import exc

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.escaping import escape, unescape
from dspy_optimization.adapters.postgres.tables import experiment_horizon as horizon
from dspy_optimization.adapters.postgres.transaction_lock import holders, share
from dspy_optimization.agents.candidate import Fingerprint, canonical_json
from dspy_optimization.agents.untrusted import listed
from dspy_optimization.errors import NotFoundError, StoreError
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId, UnitId
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.experiments.unit import Place
from dspy_optimization.tenancy import TenantId

FORM = 1
"""Of the content of outcomes; another form of `Outcome.content` raises it and teaches `_outcome` the older one."""
BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)
"""What is settled before anything was promised."""
STATEMENT_SECONDS = 60
IDLE_SECONDS = 30
"""So long a writer may do nothing before the server ends it; until then looks wait where they are."""
_POLL_SECONDS = 0.02

# In the order of their keys: two writers of the same rows in other orders would wait for each other.
_RECEIVED_AT = """
    greatest(received_at, coalesce(
        (SELECT promised_until FROM experiment_horizon), timestamptz '1970-01-01 00:00:00+00'
    ) + interval '1 microsecond')
"""
_ADD_EXPOSURES = sa.text(
    f"""
    INSERT INTO exposure (exposure_id, digest, experiment_id, unit_id, variant, version, split_buckets, exposed_at,
        received_at)
    SELECT exposure_id, digest, experiment_id, unit_id, CAST(variant AS variant), version, split_buckets, exposed_at,
        {_RECEIVED_AT}
    FROM unnest(
        CAST(:exposure_id AS uuid[]), CAST(:digest AS bytea[]), CAST(:experiment_id AS uuid[]),
        CAST(:unit_id AS bytea[]), CAST(:variant AS text[]), CAST(:version AS text[]),
        CAST(:split_buckets AS smallint[]), CAST(:exposed_at AS timestamptz[]), CAST(:received_at AS timestamptz[])
    ) AS _ (exposure_id, digest, experiment_id, unit_id, variant, version, split_buckets, exposed_at, received_at)
    ORDER BY exposure_id, digest
    ON CONFLICT DO NOTHING
    """  # noqa: S608 - nothing but the expression above
)
_ADD_OUTCOMES = sa.text(
    f"""
    INSERT INTO outcome (experiment_id, event_id, digest, exposure_id, happened_at, received_at, form, content)
    SELECT experiment_id, event_id, digest, exposure_id, happened_at, {_RECEIVED_AT}, {FORM}, content
    FROM unnest(
        CAST(:experiment_id AS uuid[]), CAST(:event_id AS text[]), CAST(:digest AS bytea[]),
        CAST(:exposure_id AS uuid[]), CAST(:happened_at AS timestamptz[]), CAST(:received_at AS timestamptz[]),
        CAST(:content AS bytea[])
    ) AS _ (experiment_id, event_id, digest, exposure_id, happened_at, received_at, content)
    ORDER BY event_id COLLATE "C", experiment_id, digest
    ON CONFLICT DO NOTHING
    """  # noqa: S608 - nothing but the expression above
)

# Ordered as `Exposure.order`. A difference of moments is compared, for a day after one is 23 hours in some time zones.
_FIRST = sa.text(
    """
    SELECT DISTINCT ON (exposure.exposure_id) exposure.* FROM exposure JOIN experiment USING (experiment_id)
    WHERE exposure.exposure_id = ANY(CAST(:ids AS uuid[]))
        AND exposure.received_at - exposure.exposed_at <= experiment.grace
    ORDER BY exposure.exposure_id, exposure.exposed_at, exposure.received_at, exposure.split_buckets, exposure.variant,
        exposure.version COLLATE "C"
    """
)
# Where tables are new the planner knows nothing of them, and joins everything with everything. A sub-select that cannot
# be merged with its neighbour is looked up once for each unit or event, in the one index whose first columns it names.
_EXPOSURES = sa.text(
    """
    WITH seen AS MATERIALIZED (
        SELECT DISTINCT exposure_id FROM exposure
        WHERE experiment_id = :experiment AND received_at <= :as_of
            AND exposed_at >= coalesce(CAST(:after_at AS timestamptz), '-infinity')
    )
    SELECT unit.* FROM seen CROSS JOIN LATERAL (
        SELECT *,
            min(exposed_at) FILTER (WHERE received_at - exposed_at <= CAST(:grace AS interval)) OVER () AS first_at
        FROM exposure
        WHERE exposure_id = seen.exposure_id AND received_at <= :as_of
    ) AS unit
    WHERE (unit.first_at, unit.unit_id) > (
        coalesce(CAST(:after_at AS timestamptz), '-infinity'), coalesce(CAST(:after_unit AS bytea), '')
    )
    ORDER BY unit.first_at, unit.unit_id
    """
)
_OUTCOMES = sa.text(
    """
    WITH told AS MATERIALIZED (
        SELECT DISTINCT event_id FROM unnest(CAST(:ids AS uuid[])) AS unit (id) CROSS JOIN LATERAL (
            SELECT event_id FROM outcome
            WHERE exposure_id = unit.id AND experiment_id = :experiment AND received_at <= :as_of OFFSET 0
        ) AS named
    )
    SELECT event.* FROM told CROSS JOIN LATERAL (
        SELECT * FROM outcome WHERE event_id = told.event_id AND received_at <= :as_of OFFSET 0
    ) AS event
    WHERE event.experiment_id = :experiment
    """
)

_BOUND = sa.text(
    f"SELECT set_config('statement_timeout', '{STATEMENT_SECONDS}s', true),"
    f" set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true)"
)
_PROMISE = sa.text(
    """
    INSERT INTO experiment_horizon (promised_until, settled_until)
    VALUES (least(CAST(:now AS timestamptz), clock_timestamp()), :before_all)
    ON CONFLICT (tenant_id) DO UPDATE
        SET promised_until = greatest(experiment_horizon.promised_until, excluded.promised_until)
    RETURNING promised_until
    """
)


class PostgresExperimentRows:
    """The `RowStore` of one tenant. Thread-safe.

    All exposures of a unit in an experiment have one id (`Assigner.exposure_id`), and it is by that id that they belong
    together here; rows from elsewhere have to pass `check_exposure` first.
    """

    def __init__(
        self, database: Database, tenant: TenantId, now: Callable[[], datetime], *, wait_seconds: float = 1.0
    ) -> None:
        """Keep rows of a tenant.

        Args:
            database: where.
            tenant: whose.
            now: the clock that rows are received by. One that lags behind the database's, as a test's may, is fine; of
                one that runs ahead `settled_until` hears nothing until the database's gets there.
            wait_seconds: how long `settled_until` waits for who is writing before it says what it said before.
        """
        self._database = database
        self._tenant = tenant
        self._now = now
        self._wait_seconds = wait_seconds
        self._lock = f"experiment rows/{tenant}"

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Keep rows, all or none; equal ones once. Raises `NotFoundError` for rows of an unknown experiment."""
        rows = [_exposure_row(one) for one in exposures]
        with self._database.transaction(self._tenant) as connection:
            self.write(connection, _ADD_EXPOSURES, rows)

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Keep rows, all or none; equal ones once, those of one event with other content too.

        Raises `NotFoundError` for rows of an unknown experiment.
        """
        rows = [_outcome_row(one) for one in outcomes]
        with self._database.transaction(self._tenant) as connection:
            self.write(connection, _ADD_OUTCOMES, rows)

    def first_exposures(self, exposure_ids: Sequence[ExposureId]) -> Sequence[Exposure]:
        """Return the first exposures of these ids; left out are unknown ones and those all received too late."""
        with self._database.transaction(self._tenant) as connection:
            return [_exposure(row) for row in connection.execute(_FIRST, {"ids": list(exposure_ids)})]

    def log(self, experiment: Experiment, as_of: datetime, after: Place | None) -> ExperimentLog:
        """Return the log of the units after a place, with all rows of each and of their events received by `as_of`.

        Two queries, whatever there is; units whose exposures were all received too late are in no place, and left out.
        """
        plan = experiment.plan
        which = {"experiment": plan.experiment_id, "as_of": as_of}
        place = {
            "after_at": None if after is None else after.exposed_at,
            "after_unit": None if after is None else _bytes(after.unit_id),
            "grace": plan.window.grace,
        }
        log = ExperimentLog(plan)
        ids: set[ExposureId] = set()
        with self._database.transaction(self._tenant) as connection:
            for row in connection.execute(_EXPOSURES, {**which, **place}):
                exposure = _exposure(row)
                ids.add(exposure.id)
                log.add_exposure(exposure)
            if ids:
                for row in connection.execute(_OUTCOMES, {**which, "ids": list(ids)}):
                    log.add_outcome(_outcome(row))
        return log

    def settled_until(self) -> datetime:
        """Return the moment up to which every row that was received is visible; it never falls.

        At most the clock's; while a writer goes on for longer than `wait_seconds`, the one before it began.
        """
        with self._database.transaction(self._tenant) as connection:
            values = {"now": self._now(), "before_all": BEFORE_ALL}
            promised: datetime = connection.execute(_PROMISE, values).scalar_one()
        all_know = self._all_who_write_know()
        with self._database.transaction(self._tenant) as connection:
            if all_know:
                settled = sa.func.greatest(horizon.c.settled_until, promised)
                query = sa.update(horizon).values(settled_until=settled).returning(horizon.c.settled_until)
                found: datetime = connection.execute(query).scalar_one()
            else:
                found = connection.execute(sa.select(horizon.c.settled_until)).scalar_one()
        return found.astimezone(UTC)

    def write(self, connection: sa.Connection, statement: sa.TextClause, rows: Sequence[dict[str, object]]) -> None:
        """Write rows in the caller's transaction, which until it ends holds `settled_until` where it was."""
        if not rows:
            return
        connection.execute(_BOUND)
        # Before the statement that reads the promise: one that is written later waits for this transaction.
        share(connection, self._lock)
        try:
            connection.execute(statement, {name: [row[name] for row in rows] for name in rows[0]})
        except exc.IntegrityError as error:
            if not isinstance(error.orig, errors.ForeignKeyViolation):
                raise
            named = listed({str(row["experiment_id"]) for row in rows})
            raise NotFoundError(
                f"wanted: rows of experiments that are kept; found: of {named}, not all of which are; possible: add "
                "the experiment first"
            ) from error

    def _all_who_write_know(self) -> bool:
        """Wait for those who write at this moment, as long as may be; say whether all of them are done."""
        ends_at = time.monotonic() + self._wait_seconds
        waiting = self._writers()
        while waiting and time.monotonic() < ends_at:
            time.sleep(_POLL_SECONDS)
            waiting &= self._writers()
        return not waiting

    def _writers(self) -> frozenset[str]:
        with self._database.transaction(self._tenant) as connection:
            return holders(connection, self._lock)


def _bytes(text: str) -> bytes:
    """Return what compares as the text does; every Python text has such bytes, half surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def _digest(text: str) -> bytes:
    return hashlib.sha256(_bytes(text)).digest()


def _exposure_row(exposure: Exposure) -> dict[str, object]:
    return {
        "exposure_id": exposure.id,
        "digest": _digest(canonical_json({**exposure.to_json(), "split_buckets": exposure.split.buckets})),
        "experiment_id": exposure.experiment_id,
        "unit_id": _bytes(exposure.unit_id),
        "variant": exposure.variant.value,
        "version": escape(exposure.version),
        "split_buckets": exposure.split.buckets,
        "exposed_at": exposure.exposed_at,
        "received_at": exposure.received_at,
    }


def _outcome_row(outcome: Outcome) -> dict[str, object]:
    content = outcome.content
    return {
        "experiment_id": outcome.experiment_id,
        "event_id": escape(outcome.event_id),
        "digest": _digest(f"{outcome.received_at.isoformat()} {content}"),
        "exposure_id": outcome.exposure_id,
        "happened_at": outcome.happened_at,
        "received_at": outcome.received_at,
        "content": _bytes(content),
    }


def _exposure(row: "sa.Row[Any]") -> Exposure:
    return Exposure(
        id=ExposureId(row.exposure_id),
        experiment_id=ExperimentId(row.experiment_id),
        unit_id=UnitId(row.unit_id.decode("utf-8", "surrogatepass")),
        variant=Variant(row.variant),
        version=Fingerprint(unescape(row.version)),
        split=Split(buckets=row.split_buckets),
        exposed_at=row.exposed_at,
        received_at=row.received_at,
    )


def _outcome(row: "sa.Row[Any]") -> Outcome:
    if row.form != FORM:
        raise StoreError(
            f"wanted: a stored outcome of form {FORM}; found: form {row.form}; possible: the engine that wrote it"
        )
    told = json.loads(row.content.decode("utf-8", "surrogatepass"))
    return Outcome(
        experiment_id=ExperimentId(row.experiment_id),
        exposure_id=ExposureId(row.exposure_id),
        event_id=unescape(row.event_id),
        happened_at=row.happened_at,
        received_at=row.received_at,
        score=told["score"],
        failed=told["failed"],
        cost_usd=told["cost_usd"],
        latency_ms=told["latency_ms"],
        scores=tuple(told["scores"].items()),
        feedback=told["feedback"],
    )
