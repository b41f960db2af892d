"""Datasets of one tenant."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.adapters.postgres.tables import dataset as table
from dspy_optimization.adapters.postgres.tables import example
from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.errors import NotFoundError
from dspy_optimization.tenancy import TenantId

_SHOWN = 5


class PostgresDatasets:
    """The `DatasetStore` of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def add(self, dataset: Dataset) -> DatasetVersion:
        """Keep it; the same content again changes nothing."""
        row = {"version": dataset.version, "name": dataset.name, "seed": dataset.seed}
        added = insert(table).values(row).on_conflict_do_nothing().returning(table.c.version)
        members = [(split, one) for split in Split for one in dataset.splits.get(split, ())]
        rows = [
            {
                "dataset_version": dataset.version,
                "position": position,
                "split": split.value,
                "example_id": one.id,
                "cluster": one.cluster,
                "document": write(one),
            }
            for position, (split, one) in enumerate(members)
        ]
        with self._database.transaction(self._tenant) as connection:
            if connection.execute(added).first() is not None and rows:
                connection.execute(sa.insert(example), rows)
        return dataset.version

    def get(self, version: DatasetVersion) -> Dataset:
        """Return it. Raises `NotFoundError`, naming the newest versions."""
        members = (
            sa.select(example.c.split, example.c.document)
            .where(example.c.dataset_version == version)
            .order_by(example.c.position)
        )
        with self._database.transaction(self._tenant) as connection:
            row = connection.execute(sa.select(table).where(table.c.version == version)).one_or_none()
            if row is None:
                newest = sa.select(table.c.name, table.c.version).order_by(table.c.position.desc()).limit(_SHOWN)
                known = ", ".join(f"{one.name} {one.version}" for one in connection.execute(newest)) or "none yet"
                raise NotFoundError(
                    f"wanted: dataset version {version}; found: no such version; possible, newest first: {known}"
                )
            found = connection.execute(members).all()
        splits: dict[Split, list[Example]] = {split: [] for split in Split}
        for member in found:
            splits[Split(member.split)].append(read(Example, member.document))
        return Dataset(
            name=row.name,
            version=DatasetVersion(row.version),
            splits={split: tuple(examples) for split, examples in splits.items()},
            seed=row.seed,
        )

    def versions(self, name: str | None = None) -> Sequence[tuple[str, DatasetVersion]]:
        """Return (name, version), newest first."""
        query = sa.select(table.c.name, table.c.version).order_by(table.c.position.desc())
        with self._database.transaction(self._tenant) as connection:
            rows = connection.execute(query if name is None else query.where(table.c.name == name)).all()
        return [(row.name, DatasetVersion(row.version)) for row in rows]
