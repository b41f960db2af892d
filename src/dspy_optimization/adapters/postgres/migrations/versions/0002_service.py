"""What a service needs: workers and their leases, keys, idempotent requests, and events that announce themselves.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Workers serve every tenant, and a key is looked up before anybody knows whose it is: these two belong to no tenant.
SHARED = {
    "worker_lease": """
        worker_id text NOT NULL,
        host text NOT NULL,
        process_id integer NOT NULL,
        lanes text[] NOT NULL,
        version text NOT NULL,
        started_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        taken_away boolean NOT NULL DEFAULT false,
        CONSTRAINT worker_lease_pkey PRIMARY KEY (worker_id)""",
    "api_key": """
        key_id text NOT NULL,
        holder uuid NOT NULL,
        role text NOT NULL,
        name text NOT NULL,
        digest bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        revoked_at timestamptz,
        CONSTRAINT api_key_pkey PRIMARY KEY (key_id)""",
}
RIGHTS = {
    "worker_lease": "SELECT, INSERT, UPDATE, DELETE",
    "api_key": "SELECT, INSERT, UPDATE (revoked_at)",
}

IDEMPOTENCY = """
CREATE TABLE idempotent_request (
    tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid,
    key text NOT NULL,
    digest text NOT NULL,
    optimization_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotent_request_pkey PRIMARY KEY (tenant_id, key),
    CONSTRAINT idempotent_request_optimization_request_fkey
        FOREIGN KEY (tenant_id, optimization_id) REFERENCES optimization_request
)
"""

POLICY = """
CREATE POLICY tenant ON {table}
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""

# Only ids: a payload is limited to 8,000 bytes and is seen by everybody who listens.
ANNOUNCE = (
    """
CREATE FUNCTION announce_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('dspy_opt_event', NEW.tenant_id || ' ' || NEW.optimization_id || ' ' || NEW.event_id);
    RETURN NULL;
END
$$
""",
    "CREATE TRIGGER announce AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION announce_event()",
)

# Runs with the rights of the schema's owner, whose sessions a worker's are. It can end nothing but workers' sessions.
CUT_OFF = (
    """
CREATE FUNCTION cut_off_worker(worker text) RETURNS integer LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog AS $$
    SELECT count(pg_terminate_backend(pid))::integer FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND application_name = left('dspy-opt ' || worker, 63)
$$
""",
    "REVOKE ALL ON FUNCTION cut_off_worker(text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION cut_off_worker(text) TO dspy_opt_app",
)


def upgrade() -> None:
    for table, columns in SHARED.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT {RIGHTS[table]} ON {table} TO dspy_opt_app")
    op.execute(IDEMPOTENCY)
    op.execute("ALTER TABLE idempotent_request ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE idempotent_request FORCE ROW LEVEL SECURITY")
    op.execute(POLICY.format(table="idempotent_request"))
    op.execute("GRANT SELECT, INSERT ON idempotent_request TO dspy_opt_app")
    # A tenant can be added, under its own setting; none can be changed or removed by the application.
    op.execute("GRANT INSERT ON tenant TO dspy_opt_app")
    op.execute("ALTER TABLE optimization_request ADD COLUMN job text")
    op.execute("GRANT UPDATE (job) ON optimization_request TO dspy_opt_app")
    # So that lists and status pages need not read whole trials to know which were measured on all of val.
    op.execute(
        "ALTER TABLE trial ADD COLUMN n_results integer NOT NULL"
        " GENERATED ALWAYS AS (json_array_length(document -> 'noun' -> 'results')) STORED"
    )
    op.execute("CREATE INDEX ON trial (tenant_id, optimization_id, split)")
    for statement in (*ANNOUNCE, *CUT_OFF):
        op.execute(statement)
