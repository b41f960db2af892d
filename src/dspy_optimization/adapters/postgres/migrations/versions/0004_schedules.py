"""Schedules: requests that recur, and when each is due next.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEDULE = """
CREATE TABLE schedule (
    tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid,
    schedule_id uuid NOT NULL,
    name text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    request json NOT NULL,
    is_paused boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    last_due_at timestamptz,
    last_fired_at timestamptz,
    last_optimization_id uuid,
    last_error text,
    CONSTRAINT schedule_pkey PRIMARY KEY (tenant_id, schedule_id),
    CONSTRAINT schedule_tenant_id_name_key UNIQUE (tenant_id, name),
    CONSTRAINT schedule_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant,
    CONSTRAINT schedule_optimization_request_fkey
        FOREIGN KEY (tenant_id, last_optimization_id) REFERENCES optimization_request
)
"""

POLICY = """
CREATE POLICY tenant ON schedule
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""

# Every process that takes requests in looks for what is due of every tenant, so this belongs to none; it holds no
# content, which stays with the tenant.
DUE = """
CREATE TABLE schedule_due (
    holder uuid NOT NULL,
    schedule_id uuid NOT NULL,
    due_at timestamptz,
    claimed_until timestamptz,
    CONSTRAINT schedule_due_pkey PRIMARY KEY (holder, schedule_id),
    CONSTRAINT schedule_due_schedule_fkey
        FOREIGN KEY (holder, schedule_id) REFERENCES schedule (tenant_id, schedule_id) ON DELETE CASCADE
)
"""


def upgrade() -> None:
    op.execute(SCHEDULE)
    op.execute("ALTER TABLE schedule ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE schedule FORCE ROW LEVEL SECURITY")
    op.execute(POLICY)
    changed = "is_paused, last_due_at, last_fired_at, last_optimization_id, last_error"
    op.execute(f"GRANT SELECT, INSERT, UPDATE ({changed}), DELETE ON schedule TO dspy_opt_app")
    op.execute(DUE)
    op.execute("CREATE INDEX schedule_due_next ON schedule_due (due_at) WHERE due_at IS NOT NULL")
    op.execute("GRANT SELECT, INSERT, UPDATE (due_at, claimed_until) ON schedule_due TO dspy_opt_app")
