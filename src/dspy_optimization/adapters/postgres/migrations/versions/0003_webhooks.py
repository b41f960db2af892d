"""Webhooks, and their outbox: which event has still to be told to whom.

The outbox is filled by a trigger in the transaction that writes the event. So nothing is told of a change that was
undone, no event is forgotten when a process dies, and no place that writes events has to think of it. (The design
named DBOS for this; its queue would need a second writer at each of those places to promise the same.)

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WEBHOOK = """
CREATE TABLE webhook (
    tenant_id uuid NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::uuid,
    webhook_id uuid NOT NULL DEFAULT gen_random_uuid(),
    url text NOT NULL,
    secret text NOT NULL,
    events text[] NOT NULL,
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    CONSTRAINT webhook_pkey PRIMARY KEY (tenant_id, webhook_id),
    CONSTRAINT webhook_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant
)
"""

POLICY = """
CREATE POLICY tenant ON webhook
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
"""

# Every worker delivers for every tenant, so this belongs to none; it holds no content, which stays with the tenant.
DELIVERY = """
CREATE TABLE webhook_delivery (
    delivery_id uuid NOT NULL DEFAULT gen_random_uuid(),
    holder uuid NOT NULL,
    webhook_id uuid NOT NULL,
    event_id bigint NOT NULL,
    state delivery_state NOT NULL DEFAULT 'waiting',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz,
    last_error text,
    last_status integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    CONSTRAINT webhook_delivery_pkey PRIMARY KEY (delivery_id),
    CONSTRAINT webhook_delivery_holder_webhook_id_event_id_key UNIQUE (holder, webhook_id, event_id),
    CONSTRAINT webhook_delivery_webhook_fkey
        FOREIGN KEY (holder, webhook_id) REFERENCES webhook (tenant_id, webhook_id) ON DELETE CASCADE,
    CONSTRAINT webhook_delivery_event_fkey FOREIGN KEY (holder, event_id) REFERENCES event (tenant_id, event_id)
)
"""

# Runs as whoever writes the event: row-level security shows it that tenant's webhooks and no others. The lock lets a
# webhook that is being removed go first, and then passes it over; without it the event itself would be refused.
ADDRESS = (
    """
CREATE FUNCTION address_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_delivery (holder, webhook_id, event_id)
        SELECT tenant_id, webhook_id, NEW.event_id FROM webhook
        WHERE tenant_id = NEW.tenant_id AND disabled_at IS NULL AND NEW.type = ANY (events)
        FOR KEY SHARE;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER address AFTER INSERT ON event FOR EACH ROW
    WHEN (NEW.type IN (
        'optimization.completed', 'optimization.failed', 'optimization.cancelled', 'optimization.paused'))
    EXECUTE FUNCTION address_event()
""",
)


def upgrade() -> None:
    op.execute("CREATE TYPE delivery_state AS ENUM ('waiting', 'delivered', 'dead')")
    op.execute(WEBHOOK)
    op.execute("ALTER TABLE webhook ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE webhook FORCE ROW LEVEL SECURITY")
    op.execute(POLICY)
    # The one thing of a tenant that can be removed: its secret goes with it, and so do its deliveries.
    op.execute("GRANT SELECT, INSERT, UPDATE (disabled_at), DELETE ON webhook TO dspy_opt_app")
    op.execute(DELIVERY)
    op.execute("CREATE INDEX webhook_delivery_due ON webhook_delivery (next_attempt_at) WHERE state = 'waiting'")
    op.execute("CREATE INDEX ON webhook_delivery (holder, webhook_id, created_at)")
    changed = "state, attempts, next_attempt_at, claimed_until, last_error, last_status, delivered_at"
    op.execute(f"GRANT SELECT, INSERT, UPDATE ({changed}) ON webhook_delivery TO dspy_opt_app")
    for statement in ADDRESS:
        op.execute(statement)
