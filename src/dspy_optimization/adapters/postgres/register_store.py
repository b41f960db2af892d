"""Which agents and datasets are kept, as lists show them: without configurations and without examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import agent_version, dataset, example
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import Split
from dspy_optimization.tenancy import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEntry:
    """One version of an agent."""

    position: int
    """Grows in the order versions were added."""
    name: str
    version: Fingerprint
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """One dataset."""

    position: int
    """Grows in the order datasets were added."""
    name: str
    version: DatasetVersion
    seed: int
    created_at: datetime
    sizes: Mapping[Split, int]
    """Split → how many examples it has; every split."""


class PostgresRegister:
    """What one tenant keeps. Thread-safe; only reads."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def agents(self, *, after: str = "", limit: int | None = None) -> Sequence[AgentEntry]:
        """Return the newest version of each agent, by name, of those behind a name."""
        table = agent_version
        return self._agents(
            sa.select(table.c.position, table.c.name, table.c.version, table.c.created_at)
            .ext(distinct_on(table.c.name))
            .where(table.c.name > after)
            .order_by(table.c.name, table.c.position.desc())
            .limit(limit)
        )

    def versions(self, name: str, *, before: int | None = None, limit: int | None = None) -> Sequence[AgentEntry]:
        """Return versions of an agent, the newest first, of those added before a position; none is no error."""
        table = agent_version
        query = (
            sa.select(table.c.position, table.c.name, table.c.version, table.c.created_at)
            .where(table.c.name == name)
            .order_by(table.c.position.desc())
            .limit(limit)
        )
        return self._agents(query if before is None else query.where(table.c.position < before))

    def agent(self, version: Fingerprint) -> AgentEntry | None:
        """Return one version; None when it is not kept."""
        table = agent_version
        found = self._agents(
            sa.select(table.c.position, table.c.name, table.c.version, table.c.created_at).where(
                table.c.version == version
            )
        )
        return found[0] if found else None

    def datasets(self, *, before: int | None = None, limit: int | None = None) -> Sequence[DatasetEntry]:
        """Return datasets, the newest first, of those added before a position."""
        query = sa.select(dataset).order_by(dataset.c.position.desc()).limit(limit)
        return self._datasets(query if before is None else query.where(dataset.c.position < before))

    def dataset(self, version: DatasetVersion) -> DatasetEntry | None:
        """Return one dataset; None when it is not kept."""
        found = self._datasets(sa.select(dataset).where(dataset.c.version == version))
        return found[0] if found else None

    def _agents(self, query: "sa.Select[tuple[int, str, str]]") -> Sequence[AgentEntry]:
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).mappings().all()
        return [
            AgentEntry(
                position=row["position"],
                name=row["name"],
                version=Fingerprint(row["version"]),
                created_at=row["created_at"],
            )
            for row in rows
        ]

    def _datasets(self, query: "sa.Select[tuple[int, str, str]]") -> Sequence[DatasetEntry]:
        counted = sa.select(example.c.dataset_version, example.c.split, sa.func.count().label("n")).group_by(
            example.c.dataset_version, example.c.split
        )
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query).mappings().all()
            some = counted.where(example.c.dataset_version.in_([row["version"] for row in rows]))
            sizes: dict[str, dict[Split, int]] = {}
            for one in connection.execute(some).mappings():
                sizes.setdefault(one["dataset_version"], {})[Split(one["split"])] = one["n"]
        return [
            DatasetEntry(
                position=row["position"],
                name=row["name"],
                version=DatasetVersion(row["version"]),
                seed=row["seed"],
                created_at=row["created_at"],
                sizes=dict.fromkeys(Split, 0) | sizes.get(row["version"], {}),
            )
            for row in rows
        ]
