"""Experiments: what was planned and became of it, the rows of their logs, and the analysis between two looks.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TYPES = (
    "CREATE TYPE experiment_status AS ENUM ('planned', 'running', 'decided', 'rolled_back', 'expired', 'stopped')",
    "CREATE TYPE variant AS ENUM ('baseline', 'optimized')",
)

TENANT_ID = "tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid"

# A unit id is kept as its bytes: they compare as units follow each other, under every collation of the server.
TABLES = {
    "experiment": """
        {tenant_id},
        experiment_id uuid NOT NULL,
        optimization_id uuid NOT NULL,
        agent text NOT NULL,
        status experiment_status NOT NULL,
        window_length interval NOT NULL,
        grace interval NOT NULL,
        document json NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT experiment_pkey PRIMARY KEY (tenant_id, experiment_id),
        CONSTRAINT experiment_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant,
        CONSTRAINT experiment_optimization_request_fkey
            FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request""",
    "exposure": """
        {tenant_id},
        exposure_id uuid NOT NULL,
        digest bytea NOT NULL,
        experiment_id uuid NOT NULL,
        unit_id bytea NOT NULL,
        variant variant NOT NULL,
        version text NOT NULL,
        split_buckets smallint NOT NULL,
        exposed_at timestamptz NOT NULL,
        received_at timestamptz NOT NULL,
        CONSTRAINT exposure_pkey PRIMARY KEY (tenant_id, exposure_id, digest),
        CONSTRAINT exposure_experiment_fkey FOREIGN KEY (tenant_id, experiment_id) REFERENCES experiment""",
    "outcome": """
        {tenant_id},
        event_id text NOT NULL,
        experiment_id uuid NOT NULL,
        digest bytea NOT NULL,
        exposure_id uuid NOT NULL,
        happened_at timestamptz,
        received_at timestamptz NOT NULL,
        form smallint NOT NULL,
        content bytea NOT NULL,
        CONSTRAINT outcome_pkey PRIMARY KEY (tenant_id, event_id, experiment_id, digest),
        CONSTRAINT outcome_experiment_fkey FOREIGN KEY (tenant_id, experiment_id) REFERENCES experiment""",
    "experiment_analysis": """
        {tenant_id},
        experiment_id uuid NOT NULL,
        digest text NOT NULL,
        document json NOT NULL,
        CONSTRAINT experiment_analysis_pkey PRIMARY KEY (tenant_id, experiment_id),
        CONSTRAINT experiment_analysis_experiment_fkey
            FOREIGN KEY (tenant_id, experiment_id) REFERENCES experiment""",
    # Up to when no row may appear any more: as it was promised, and as it holds since all who had not heard are done.
    "experiment_horizon": """
        {tenant_id},
        promised_until timestamptz NOT NULL,
        settled_until timestamptz NOT NULL,
        CONSTRAINT experiment_horizon_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT experiment_horizon_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant""",
}

# Every process that takes traffic looks at experiments of every tenant, so this belongs to none; it holds no content.
HOLDER = """
CREATE TABLE experiment_holder (
    holder uuid NOT NULL,
    CONSTRAINT experiment_holder_pkey PRIMARY KEY (holder),
    CONSTRAINT experiment_holder_tenant_fkey FOREIGN KEY (holder) REFERENCES tenant
)
"""

INDEXES = (
    "INDEX ON experiment (tenant_id, created_at)",
    "UNIQUE INDEX experiment_agent ON experiment (tenant_id, agent) WHERE status IN ('planned', 'running')",
    "INDEX ON exposure (tenant_id, experiment_id, exposed_at)",
    "INDEX ON outcome (tenant_id, experiment_id, exposure_id)",
)

POLICY = """
CREATE POLICY tenant ON {table}
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""

# The rows of a log stay for ever as they were.
CHANGED = {
    "experiment": "optimization_id, agent, status, window_length, grace, document",
    "experiment_analysis": "digest, document",
    "experiment_horizon": "promised_until, settled_until",
}

ADDRESS = (
    "DROP TRIGGER address ON event",
    """
CREATE TRIGGER address AFTER INSERT ON event FOR EACH ROW
    WHEN (NEW.type IN (
        'optimization.completed', 'optimization.failed', 'optimization.cancelled', 'optimization.paused',
        'experiment.result', 'experiment.alert'))
    EXECUTE FUNCTION address_event()
""",
)


def upgrade() -> None:
    for statement in TYPES:
        op.execute(statement)
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns.format(tenant_id=TENANT_ID)})")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(POLICY.format(table=table))
        op.execute(f"GRANT SELECT, INSERT ON {table} TO dspy_opt_app")
    op.execute(HOLDER)
    op.execute("GRANT SELECT, INSERT ON experiment_holder TO dspy_opt_app")
    for index in INDEXES:
        op.execute(f"CREATE {index}")
    for table, changed in CHANGED.items():
        op.execute(f"GRANT UPDATE ({changed}) ON {table} TO dspy_opt_app")
    for statement in ADDRESS:
        op.execute(statement)
