"""Agent versions of one tenant."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import agent_version as table
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_from_json, agent_to_json
from dspy_optimization.errors import NotFoundError
from dspy_optimization.tenancy import TenantId

_SHOWN = 5


class PostgresAgents:
    """The `AgentStore` of one tenant. Thread-safe. A stored agent is as untrusted as a file: `allowed` binds it."""

    def __init__(self, database: Database, tenant: TenantId, allowed: AllowList) -> None:
        self._database = database
        self._tenant = tenant
        self._allowed = allowed

    def add(self, config: AgentConfig, parent: Fingerprint | None = None) -> Fingerprint:
        """Keep a version under the agent's name; the same content again changes nothing.

        Raises `NotFoundError` when the parent is not kept.
        """
        row = {"version": config.version, "name": config.name, "parent": parent, "document": agent_to_json(config)}
        with self._database.transaction(self._tenant) as connection:
            if parent is not None:
                _document(connection, parent)
            connection.execute(insert(table).values(row).on_conflict_do_nothing())
        return config.version

    def get(self, version: Fingerprint) -> AgentConfig:
        """Return it. Raises `NotFoundError`, naming the newest versions."""
        with self._database.transaction(self._tenant) as connection:
            document = _document(connection, version)
        return agent_from_json(document, allowed=self._allowed, where=f"stored agent {version}")

    def versions(self, name: str | None = None) -> Sequence[tuple[str, Fingerprint]]:
        """Return (name, version), newest first."""
        query = sa.select(table.c.name, table.c.version).order_by(table.c.position.desc())
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query if name is None else query.where(table.c.name == name)).all()
        return [(row.name, Fingerprint(row.version)) for row in rows]


def _document(connection: sa.Connection, version: Fingerprint) -> object:
    row = connection.execute(sa.select(table.c.document).where(table.c.version == version)).one_or_none()
    if row is None:
        newest = sa.select(table.c.name, table.c.version).order_by(table.c.position.desc()).limit(_SHOWN)
        known = ", ".join(f"{one.name} {one.version}" for one in connection.execute(newest)) or "none yet"
        raise NotFoundError(f"wanted: agent version {version}; found: no such version; possible, newest first: {known}")
    return row.document
