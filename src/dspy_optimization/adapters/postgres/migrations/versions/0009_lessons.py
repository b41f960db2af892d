"""What ended optimizations showed of their algorithms, worked out once: from 500 of them anew it takes too long.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Worked out from other rows and worked out again when those changed: losing it loses nothing but time.
TABLE = """
CREATE TABLE lesson (
    tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid,
    optimization_id uuid NOT NULL,
    form smallint NOT NULL,
    learned_from timestamptz NOT NULL,
    document json,
    CONSTRAINT lesson_pkey PRIMARY KEY (tenant_id, optimization_id),
    CONSTRAINT lesson_optimization_request_fkey FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request
)
"""

POLICY = """
CREATE POLICY tenant ON lesson
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE lesson ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE lesson FORCE ROW LEVEL SECURITY")
    op.execute(POLICY)
    op.execute("GRANT SELECT, INSERT, UPDATE (form, learned_from, document) ON lesson TO dspy_opt_app")
