"""How Alembic runs here: on the connection that `Database.open` hands it, in one transaction."""

from alembic import context

from dspy_optimization.adapters.postgres.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, version_table="schema_version"
)
with context.begin_transaction():
    context.run_migrations()
