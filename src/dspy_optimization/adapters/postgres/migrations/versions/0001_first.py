"""The first schema: one optimization from its request to its proof.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dspy_opt_app') THEN
        BEGIN
            CREATE ROLE dspy_opt_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- roles belong to the whole server: another database was migrated at the same moment
        END;
    END IF;
    -- A superuser may take any role; everybody else has to be a member.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        GRANT dspy_opt_app TO CURRENT_USER;
    END IF;
END
$$
"""

TYPES = (
    "CREATE TYPE target_type AS ENUM ('agent', 'workflow', 'component')",
    "CREATE TYPE optimization_status AS ENUM ('queued', 'running', 'paused', 'completed', 'failed', 'cancelled')",
    "CREATE TYPE lm_role AS ENUM ('task', 'reflection', 'judge')",
    "CREATE TYPE charge_status AS ENUM ('started', 'settled', 'failed', 'lost')",
)

TENANT_ID = "tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid"

TABLES = {
    "tenant": """
        {tenant_id},
        name text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT tenant_pkey PRIMARY KEY (tenant_id)""",
    "agent_version": """
        {tenant_id},
        version text NOT NULL,
        position bigint GENERATED ALWAYS AS IDENTITY,
        name text NOT NULL,
        parent text,
        document json NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT agent_version_pkey PRIMARY KEY (tenant_id, version),
        CONSTRAINT agent_version_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant,
        CONSTRAINT agent_version_agent_version_fkey FOREIGN KEY (tenant_id, parent) REFERENCES agent_version""",
    "dataset": """
        {tenant_id},
        version text NOT NULL,
        position bigint GENERATED ALWAYS AS IDENTITY,
        name text NOT NULL,
        seed bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT dataset_pkey PRIMARY KEY (tenant_id, version),
        CONSTRAINT dataset_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant""",
    "example": """
        {tenant_id},
        dataset_version text NOT NULL,
        position integer NOT NULL,
        split text NOT NULL,
        example_id text NOT NULL,
        cluster text,
        document json NOT NULL,
        CONSTRAINT example_pkey PRIMARY KEY (tenant_id, dataset_version, position),
        CONSTRAINT example_dataset_fkey FOREIGN KEY (tenant_id, dataset_version) REFERENCES dataset""",
    "optimization_request": """
        {tenant_id},
        optimization_id uuid NOT NULL,
        target_type target_type NOT NULL,
        target_id text NOT NULL,
        target_version text NOT NULL,
        dataset_version text NOT NULL,
        objectives jsonb NOT NULL,
        algorithms text[] NOT NULL,
        constraints jsonb NOT NULL,
        document json NOT NULL,
        status optimization_status NOT NULL,
        progress double precision NOT NULL DEFAULT '0',
        elapsed_seconds double precision NOT NULL DEFAULT '0',
        error text,
        wish text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT optimization_request_pkey PRIMARY KEY (tenant_id, optimization_id),
        CONSTRAINT optimization_request_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant,
        CONSTRAINT optimization_request_agent_version_fkey
            FOREIGN KEY (tenant_id, target_version) REFERENCES agent_version,
        CONSTRAINT optimization_request_dataset_fkey FOREIGN KEY (tenant_id, dataset_version) REFERENCES dataset""",
    "optimization_result": """
        {tenant_id},
        result_id uuid NOT NULL DEFAULT gen_random_uuid(),
        optimization_id uuid NOT NULL,
        algorithm_used text,
        baseline_performance jsonb NOT NULL,
        optimized_performance jsonb NOT NULL,
        improvement_percentage double precision,
        statistical_significance double precision,
        optimization_details jsonb NOT NULL,
        document json NOT NULL,
        completed_at timestamptz NOT NULL,
        CONSTRAINT optimization_result_pkey PRIMARY KEY (tenant_id, result_id),
        CONSTRAINT optimization_result_tenant_id_optimization_id_key UNIQUE (tenant_id, optimization_id),
        CONSTRAINT optimization_result_optimization_request_fkey
            FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request""",
    "trial": """
        {tenant_id},
        trial_id bigint GENERATED ALWAYS AS IDENTITY,
        optimization_id uuid NOT NULL,
        algorithm text NOT NULL,
        candidate text NOT NULL,
        split text NOT NULL,
        examples text NOT NULL,
        score double precision NOT NULL,
        document json NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT trial_pkey PRIMARY KEY (tenant_id, trial_id),
        CONSTRAINT trial_content_key
            UNIQUE (tenant_id, optimization_id, algorithm, candidate, split, examples),
        CONSTRAINT trial_optimization_request_fkey
            FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request""",
    "event": """
        {tenant_id},
        event_id bigint GENERATED ALWAYS AS IDENTITY,
        optimization_id uuid NOT NULL,
        type text NOT NULL,
        at timestamptz NOT NULL,
        key text,
        data json NOT NULL,
        CONSTRAINT event_pkey PRIMARY KEY (tenant_id, event_id),
        CONSTRAINT event_optimization_request_fkey
            FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request""",
    "lm_answer": """
        {tenant_id},
        key text NOT NULL,
        document json NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT lm_answer_pkey PRIMARY KEY (tenant_id, key),
        CONSTRAINT lm_answer_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant""",
    "lm_charge": """
        {tenant_id},
        charge_id uuid NOT NULL,
        optimization_id uuid NOT NULL,
        key text NOT NULL,
        role lm_role NOT NULL,
        label text NOT NULL,
        model text NOT NULL,
        status charge_status NOT NULL,
        reserved_usd double precision NOT NULL,
        cost_usd double precision NOT NULL,
        prompt_tokens bigint NOT NULL,
        completion_tokens bigint NOT NULL,
        started_at timestamptz NOT NULL,
        settled_at timestamptz,
        CONSTRAINT lm_charge_pkey PRIMARY KEY (tenant_id, charge_id),
        CONSTRAINT lm_charge_optimization_request_fkey
            FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request""",
    "test_split_use": """
        {tenant_id},
        dataset_version text NOT NULL,
        optimization_id uuid NOT NULL,
        use integer NOT NULL,
        opened_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT test_split_use_pkey PRIMARY KEY (tenant_id, dataset_version, optimization_id),
        CONSTRAINT test_split_use_tenant_id_dataset_version_use_key UNIQUE (tenant_id, dataset_version, use),
        CONSTRAINT test_split_use_dataset_fkey FOREIGN KEY (tenant_id, dataset_version) REFERENCES dataset,
        CONSTRAINT test_split_use_optimization_request_fkey
            FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request""",
}

INDEXES = (
    "agent_version (tenant_id, name)",
    "dataset (tenant_id, name)",
    "optimization_request (tenant_id, target_type)",
    "optimization_request (tenant_id, target_id)",
    "optimization_request (tenant_id, status)",
    "optimization_request (tenant_id, created_at)",
    "optimization_result (tenant_id, algorithm_used)",
    "optimization_result (tenant_id, improvement_percentage)",
    "optimization_result (tenant_id, completed_at)",
    "event (tenant_id, optimization_id, event_id)",
    "lm_charge (tenant_id, optimization_id, status)",
)

# A policy's condition in a sub-select is worked out once a statement; without it, once a row.
POLICY = """
CREATE POLICY tenant ON {table}
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""

# What is written once stays as it was written; only where an optimization stands and how a call ended may change.
CHANGED = {
    "optimization_request": "status, progress, elapsed_seconds, error, wish, updated_at",
    "lm_charge": "status, cost_usd, prompt_tokens, completion_tokens, settled_at",
}


def upgrade() -> None:
    op.execute(ROLE)
    for statement in TYPES:
        op.execute(statement)
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns.format(tenant_id=TENANT_ID)})")
    for index in INDEXES:
        op.execute(f"CREATE INDEX ON {index}")
    op.execute("CREATE UNIQUE INDEX event_key ON event (tenant_id, optimization_id, key) WHERE key IS NOT NULL")
    op.execute("INSERT INTO tenant (tenant_id, name) VALUES ('00000000-0000-7000-8000-000000000001', 'local')")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(POLICY.format(table=table))
        op.execute(f"GRANT SELECT ON {table} TO dspy_opt_app")
        if table != "tenant":
            op.execute(f"GRANT INSERT ON {table} TO dspy_opt_app")
    for table, columns in CHANGED.items():
        op.execute(f"GRANT UPDATE ({columns}) ON {table} TO dspy_opt_app")
