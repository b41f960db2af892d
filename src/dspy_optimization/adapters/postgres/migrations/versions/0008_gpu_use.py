"""What optimizations took of GPUs, each on its row and all together.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Belongs to no tenant and holds no content: sums of all of them, which stay when an optimization is forgotten.
USE = """
CREATE TABLE gpu_use (
    device text NOT NULL,
    seconds double precision NOT NULL DEFAULT 0,
    out_of_memory bigint NOT NULL DEFAULT 0,
    CONSTRAINT gpu_use_pkey PRIMARY KEY (device)
)
"""


def upgrade() -> None:
    op.execute("ALTER TABLE optimization_request ADD COLUMN gpu_seconds double precision NOT NULL DEFAULT 0")
    op.execute("GRANT UPDATE (gpu_seconds) ON optimization_request TO dspy_opt_app")
    op.execute(USE)
    op.execute("GRANT SELECT, INSERT, UPDATE (seconds, out_of_memory) ON gpu_use TO dspy_opt_app")
