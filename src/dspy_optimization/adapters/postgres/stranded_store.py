"""Which optimizations wait for a job that will not go on."""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.queue_table import DELAYED, RUNNING, SCHEMA, WAITING
from dspy_optimization.adapters.postgres.tables import optimization_request
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.jobs.job import JobId
from dspy_optimization.optimization.request import AWAITED
from dspy_optimization.optimization.stranded import Stranded
from dspy_optimization.tenancy import TenantId

_job = sa.table(
    "workflow_status",
    sa.column("workflow_uuid", sa.Text()),
    sa.column("status", sa.Text()),
    sa.column("authenticated_user", sa.Text()),
    schema=SCHEMA,
)
_GOES_ON = (WAITING, DELAYED, RUNNING)


def stranded(database: Database) -> Sequence[Stranded]:
    """Return them, of every tenant that the queue knows. Raises `StoreError` when the database is away.

    Row and job are read by one statement, so a job that hands over to the next is not seen half-way.
    """
    query = (
        sa.select(
            optimization_request.c.optimization_id,
            optimization_request.c.job,
            sa.func.coalesce(_job.c.status, "missing").label("how"),
        )
        .outerjoin(_job, _job.c.workflow_uuid == optimization_request.c.job)
        .where(
            optimization_request.c.status.in_(AWAITED),
            optimization_request.c.job.is_not(None),
            sa.or_(_job.c.status.is_(None), _job.c.status.not_in(_GOES_ON)),
        )
    )
    known = sa.select(_job.c.authenticated_user).where(_job.c.authenticated_user.is_not(None)).distinct()
    with database.shared() as connection:
        tenants = [TenantId(UUID(one)) for one in connection.execute(known).scalars()]
    found: list[Stranded] = []
    for tenant in tenants:
        with database.transaction(tenant) as connection:
            found += [
                Stranded(tenant=tenant, id=OptimizationId(row.optimization_id), job=JobId(row.job), how=row.how)
                for row in connection.execute(query)
            ]
    return found
