"""Algorithms that tenants have registered, each with the code that was checked and what the checks found.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE custom_algorithm (
    tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid,
    name text NOT NULL,
    entrypoint text NOT NULL,
    version text NOT NULL,
    checks json NOT NULL,
    registered_at timestamptz NOT NULL,
    CONSTRAINT custom_algorithm_pkey PRIMARY KEY (tenant_id, name),
    CONSTRAINT custom_algorithm_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant
)
"""

POLICY = """
CREATE POLICY tenant ON custom_algorithm
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE custom_algorithm ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE custom_algorithm FORCE ROW LEVEL SECURITY")
    op.execute(POLICY)
    # Registered again when the code it names has changed: the same name, another version.
    changed = "entrypoint, version, checks, registered_at"
    op.execute(f"GRANT SELECT, INSERT, UPDATE ({changed}), DELETE ON custom_algorithm TO dspy_opt_app")
