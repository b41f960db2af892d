"""What lists show of a trial stands in columns; secrets of webhooks may be encrypted where they lie.

Revision ID: 0006
Revises: 0004
"""

from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

# Read from the document once, when it is written: a curve of thousands of trials then opens none of them.
TRIAL = """
ALTER TABLE trial
    ADD COLUMN iteration integer NOT NULL
        GENERATED ALWAYS AS (((document -> 'noun') ->> 'iteration')::integer) STORED,
    ADD COLUMN paid_calls integer NOT NULL
        GENERATED ALWAYS AS (((document -> 'noun') ->> 'paid_calls')::integer) STORED,
    ADD COLUMN origin text NOT NULL
        GENERATED ALWAYS AS (((document -> 'noun') -> 'candidate') ->> 'origin') STORED,
    ADD COLUMN parents json NOT NULL
        GENERATED ALWAYS AS (((document -> 'noun') -> 'candidate') -> 'parents') STORED
"""


def upgrade() -> None:
    op.execute(TRIAL)
    # What was kept in clear before there was a key is encrypted once there is one.
    op.execute("GRANT UPDATE (secret) ON webhook TO dspy_opt_app")
